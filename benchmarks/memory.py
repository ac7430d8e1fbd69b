"""How far a process grows that records a million small actions."""

from pathlib import Path

from . import built
from .harness import Detail, Figure, Result, Scale


def run(directory: Path, scale: Scale) -> Result:
    """Measure a child's growth over one long session, and over many sessions at once."""
    figures, rows = [], []
    for how, file in (
        (", 100 at a time", built.interleaved(directory, scale)),
        (" in turn", built.contiguous(directory, scale)),
        ("", built.single(directory, scale)),
    ):
        count = file.sessions * file.actions
        what = f"{file.sessions:,} session{'s' * (file.sessions > 1)}{how}"
        figures.append(
            Figure(
                case="memory",
                against=what,
                values=[file.growth / 1e6],
                unit="MB",
                must=150,
                aim=50,
                at_least=False,
            )
        )
        size = file.path.stat().st_size / 1e6
        rows.append(
            [
                what,
                f"{count:,}",
                f"{count / file.seconds:,.0f}",
                f"{file.growth / 1e6:.1f}",
                f"{size:.0f}",
            ]
        )
    columns = ("shape", "actions", "actions/s, buffered", "growth, MB", "file, MB")
    note = (
        "The greatest resident size of the child, less its size after 1,000 actions. One run each."
    )
    return Result(
        figures=figures, details=[Detail(title="Memory", columns=columns, rows=rows, note=note)]
    )
