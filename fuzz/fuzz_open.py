"""The fuzzer: `python -m fuzz.fuzz_open fuzz/corpus`, followed by libFuzzer's options.

A finding is written to a file; once it is mended, that file joins the corpus, and the tests replay
it for ever.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["memvid_async"]):
    from fuzz.mutate import mutated
    from fuzz.structure import contradicting
    from fuzz.target import check


def _mutate(data: bytes, most: int, seed: int) -> bytes:
    if seed % 2:
        with suppress(Exception):
            return contradicting(data, seed)[:most]
    return mutated(data, atheris.Mutate, seed, most)


def main() -> None:
    """Fuzz until stopped, or as long as the options say."""
    bounds = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=16384"]
    given = {option.partition("=")[0] for option in sys.argv[1:]}
    arguments = [bound for bound in bounds if bound.partition("=")[0] not in given]
    atheris.Setup([*sys.argv, *arguments], check, custom_mutator=_mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
