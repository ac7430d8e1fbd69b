"""The options of `replay` that change its searches, and how their results are printed."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import Action, ReplayStep, Rerun, WhatIf
from ..view.text import shorten
from .arguments import frame_filter_options, together, used_filters

NOW = "now"


class _Moment(click.ParamType[int | str]):
    name = "SEQUENCE|now"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value == NOW:
            return NOW
        if not str(value).isdecimal():
            self.fail(f"{value!r} is neither a sequence nor {NOW!r}", param, ctx)
        return int(value)


what_if_options = together(
    click.option(
        "-k", "--top-k", type=click.IntRange(min=1), help="What if a search returned this many?"
    ),
    click.option(
        "--mode",
        type=click.Choice(["lexical", "semantic", "hybrid"]),
        help="What if a search were by words, by the recorded embedding, or by both?",
    ),
    click.option(
        "--as-of",
        type=_Moment(),
        metavar="SEQUENCE|now",
        help="What if the memory were as after this event, or as it is now?",
    ),
    click.option("--no-filters", is_flag=True, help="What if all frames were searched?"),
    frame_filter_options,
)


def what_if(
    top_k: int | None,
    mode: Any,
    as_of: Any,
    no_filters: bool,
    **options: Any,
) -> WhatIf | None:
    """Return the changes that the options ask for; None when none of them is used."""
    filters = used_filters(options)
    if filters and no_filters:
        raise click.UsageError("--no-filters cannot be used with a filter")
    wanted = WhatIf(
        top_k=top_k, mode=mode, as_of=as_of, filters=filters if filters or no_filters else None
    )
    return None if wanted == WhatIf() else wanted


def rerun_rows(action: Action, rerun: Rerun) -> list[dict[str, Any]]:
    """Return a row for each frame that either search found: best first as found now, then the lost.

    Places count from 0; a place or a score is None where that search did not find the frame.
    """
    retrieval = action.retrieval
    scores = () if retrieval is None else retrieval.scores
    before = {
        frame_id: (place, score)
        for place, (frame_id, score) in enumerate(zip(action.affected_frames, scores, strict=False))
    }
    rows = []
    for place, (frame_id, score) in enumerate(rerun.hits):
        was = before.get(frame_id, (None, None))
        change = "new" if was[0] is None else "same" if was[0] == place else "moved"
        rows.append(_row(frame_id, change, was, (place, score)))
    return rows + [
        _row(frame_id, "lost", before.get(frame_id, (None, score)), (None, None))
        for frame_id, score in rerun.lost
    ]


def _row(frame_id: int, change: str, was: Any, now: Any) -> dict[str, Any]:
    return {
        "frame_id": frame_id,
        "change": change,
        "place_before": was[0],
        "score_before": was[1],
        "place": now[0],
        "score": now[1],
    }


_STYLES = {"new": "green", "lost": "red", "moved": "yellow"}


def print_rerun(console: Console, step: ReplayStep) -> None:
    """Print what a changed search finds, frame by frame."""
    assert step.rerun is not None
    query = "" if step.action.input is None else step.action.input.preview
    line = Text(f"\n{step.index:11}  {step.action.kind}  ")
    console.print(line.append(shorten(query, 80), style="bold"))
    rows = rerun_rows(step.action, step.rerun)
    if not rows:
        console.print(Text(f"{'':13}it found nothing, and finds nothing", style="dim"))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "", "frame", "place", "was", "score", "was"):
        table.add_column(title, justify="left" if not title else "right", no_wrap=True)
    for row in rows:
        places = (_number(row[name], "d") for name in ("place", "place_before"))
        scores = (_number(row[name], ".3g") for name in ("score", "score_before"))
        change = Text(row["change"], style=_STYLES.get(row["change"], "dim"))
        table.add_row(f"{'':12}", change, str(row["frame_id"]), *places, *scores)
    console.print(table)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
