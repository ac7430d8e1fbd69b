"""The report: figures against their goals, the raw measurements, and what bounds the misses."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .harness import Detail, Figure, Result, Verdict

NOTES = Path(__file__).with_name("notes.md")
RATIOS = (
    "A ratio is the median over {rounds} of the ratio within one round;"
    " the contenders take turns, and their order rotates."
)


def render(
    results: Mapping[str, Result], machine: Sequence[tuple[str, str]], date: str, rounds: str
) -> str:
    """Write the report as Markdown; `date`: a day; `rounds`: of how many a figure is the median."""
    figures = [figure for result in results.values() for figure in result.figures]
    missed = sum(figure.verdict is Verdict.MISS for figure in figures)
    judged = sum(figure.verdict is not Verdict.NONE for figure in figures)
    parts = [
        "# Benchmark report",
        f"Measured on {date} by `python -m benchmarks`.",
        f"{judged - missed} of {judged} figures reach what they must.",
        "\n".join(table(("machine", ""), machine)),
        "## Against the goals",
        RATIOS.format(rounds=rounds),
        "\n".join(
            table(
                ("case", "against", "measured", "least, most", "must reach", "aim", "verdict"),
                map(_line, figures),
            )
        ),
    ]
    for result in results.values():
        for detail in result.details:
            parts += _section(detail)
    if NOTES.exists():
        parts.append(NOTES.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    rule = ["---"] * len(columns)
    return ["| " + " | ".join(row) + " |" for row in (columns, rule, *rows)]


def _section(detail: Detail) -> list[str]:
    parts = [f"## {detail.title}", "\n".join(table(detail.columns, detail.rows))]
    return [*parts, detail.note] if detail.note else parts


def _line(figure: Figure) -> list[str]:
    bound = "at least" if figure.at_least else "at most"
    must = "—" if figure.must is None else f"{bound} {quantity(figure.must, figure.unit)}"
    aim = "—" if figure.aim is None else quantity(figure.aim, figure.unit)
    measured = quantity(figure.value, figure.unit)
    least, most = min(figure.values), max(figure.values)
    spread = "—" if len(figure.values) == 1 else f"{_number(least)}, {_number(most)}"
    return [figure.case, figure.against, measured, spread, must, aim, str(figure.verdict)]


def quantity(value: float, unit: str) -> str:
    """The value to three digits, with its unit."""
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
