"""`prune`: the command that deletes what is old."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

from .. import PruneReport, open_store
from ..view import documents, findings
from ..view.text import count_of, format_size, printable, shorten
from .addresses import require_store, shown_place
from .arguments import FiniteRange, file_argument, json_option, read_pairs, run
from .exits import FINE, AnswerError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _read_age(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if found is None:
        raise click.BadParameter("a number and s, m, h, d or w, as in 30d")
    return int(found[1]) * _SECONDS[found[2]]


@click.command()
@file_argument
@click.option("--older-than", callback=_read_age, metavar="AGE", help="As in 12h, 30d or 8w.")
@click.option("--keep-last", type=click.IntRange(0), help="Keep the newest, at most this many.")
@click.option(
    "--where",
    multiple=True,
    callback=read_pairs,
    metavar="KEY=VALUE",
    help="Only with this metadata.",
)
@click.option("--collection", help="Delete keys of this collection, and no sessions.")
@click.option("--dry-run", is_flag=True, help="Delete nothing; say what would be deleted.")
@click.option(
    "--compact-share", type=FiniteRange(0, 1), help="Compact if this share of events is gone."
)
@json_option
def prune(file: str, as_json: bool, **options: Any) -> int:
    """Delete old sessions of FILE that have ended, or old keys of a collection."""
    if options["older_than"] is None and options["keep_last"] is None and not options["where"]:
        raise click.UsageError("say what to delete: --older-than, --keep-last or --where")
    return run(_prune, file, as_json, options)


async def _prune(file: str, as_json: bool, options: Mapping[str, Any]) -> int:
    await require_store(file)
    given = {**options, "where": options["where"] or None}
    async with open_store(file, read_only=bool(options["dry_run"])) as store:
        report = await store.prune(**given)
    if options["collection"] is not None and not (report.keys or report.kept or given["where"]):
        name = shorten(options["collection"], 80)
        raise AnswerError(f"there are no keys in a collection {name!r}")
    if as_json:
        click.echo(documents.dump_told(findings.report_document(report), indent=2))
    else:
        _print_pruned(file, report, keys=options["collection"] is not None)
    return FINE


def _print_pruned(file: str, report: PruneReport, *, keys: bool) -> None:
    count, noun = (len(report.keys), "key") if keys else (len(report.sessions), "session")
    did = "would be deleted" if report.dry_run else "deleted"
    told = f"{count_of(count, noun)} {did}, {report.kept} left"
    click.echo(f"{shown_place(file)}: {told}")
    for one in report.keys or report.sessions if report.dry_run else ():
        click.echo(f"  {printable(str(one), one_line=True)}")
    if report.compacted is not None:
        before, after = report.compacted.bytes_before, report.compacted.bytes_after
        click.echo(f"  compacted: {format_size(before)} before, {format_size(after)} after")
