"""The command line: `python -m benchmarks --help`."""

import argparse
import datetime as dt
import os
import sys
import tempfile
import time
from pathlib import Path

from attrs import evolve

from . import (
    buffered,
    calling,
    durable,
    frames,
    harness,
    histories,
    keyed,
    locking,
    machine,
    memory,
    opening,
    original,
    reading,
    replaying,
    report,
    size,
    transport,
)

BENCHMARKS = {
    "durable": durable.run,
    "buffered": buffered.run,
    "histories": histories.run,
    "locking": locking.run,
    "size": size.run,
    "memory": memory.run,
    "opening": opening.run,
    "reading": reading.run,
    "frames": frames.run,
    "collections": keyed.run,
    "replay": replaying.run,
    "calls": calling.run,
    "transport": transport.run,
    "original": original.run,
}
# What takes so long that it gets fewer rounds.
LONG, LONG_ROUNDS = ("opening", "reading", "frames", "collections", "replay", "original"), 5
REPORT = Path(__file__).with_name("report.md")


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for; write the report, or print it after a partial or a quick run."""
    options = _parse(arguments)
    scale = harness.QUICK if options.quick else harness.FULL
    results, load = {}, os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="memvid-bench-") as name:
        directory = Path(name)
        if machine.file_system(directory).startswith("tmpfs"):
            print(
                "warning: this is a tmpfs, where a sync costs nothing; use --directory",
                file=sys.stderr,
            )
        for benchmark in options.only or BENCHMARKS:
            start = time.perf_counter()
            most = LONG_ROUNDS if benchmark in LONG else scale.rounds
            own = evolve(scale, rounds=min(scale.rounds, most))
            results[benchmark] = BENCHMARKS[benchmark](directory, own)
            print(f"{benchmark}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        today = dt.datetime.now(dt.UTC).date().isoformat()
        rounds = f"{scale.rounds} rounds ({LONG_ROUNDS} of {', '.join(LONG)})"
        text = report.render(results, machine.describe(directory, load), today, rounds)
    output = options.output
    if output is None and not options.quick and not options.only:
        output = REPORT
    if output is None:
        print(text)
    else:
        output.write_text(text, encoding="utf-8")
        print(f"wrote {output}", file=sys.stderr)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one round over a fiftieth of the actions"
    )
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, help="measure these and print the result"
    )
    parser.add_argument(
        "--directory", type=Path, help="where the files are made (a temporary folder)"
    )
    parser.add_argument("--output", type=Path, help="where the report goes (benchmarks/report.md)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
