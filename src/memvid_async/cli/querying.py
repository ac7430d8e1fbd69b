"""The commands that look through the actions of all sessions: `usage` and `grep`."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Any, Literal, get_args
from uuid import UUID

import click
from rich.table import Table
from rich.text import Text

from .. import Action, Store, UsageRow, open_store
from ..view import documents
from ..view.text import format_cost, format_count, shorten
from . import render
from .arguments import file_argument, find_session, json_option, run
from .exits import BAD, FINE

By = Literal["session", "model", "tool", "day"]
_LINE_CHARS = 320


@click.command()
@file_argument
@click.option(
    "--by",
    type=click.Choice(get_args(By)),
    default="model",
    show_default=True,
    help="What a row is of.",
)
@json_option
def usage(file: str, by: By, as_json: bool) -> int:
    """Sum the tokens, cost, failures and time of the asks and tool calls in FILE."""
    return run(_usage, file, by, as_json)


async def _usage(file: str, by: By, as_json: bool) -> int:
    async with open_store(file, read_only=True) as store:
        rows = await store.usage(by=by)
    document = documents.usage_document(by, rows)
    if as_json:
        click.echo(documents.dump(document, indent=2))
    elif rows:
        render.output_console().print(_usage_table(by, rows, document["total"]))
    else:
        click.echo("no asks and no tool calls")
    return FINE


def _usage_table(by: By, rows: list[UsageRow], total: documents.Document) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=len(rows) > 1)
    table.add_column(by, "total", overflow="fold", min_width=12)
    for name in ("ask_count", "tool_call_count", "failed_count"):
        title = name.removesuffix("_count").replace("_", " ") + ("" if "failed" in name else "s")
        table.add_column(title, format_count(total[name]), justify="right", no_wrap=True)
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        title = name.replace("_tokens", " tokens")
        table.add_column(title, format_count(total[name]), justify="right", no_wrap=True)
    table.add_column("cost", format_cost(total["cost_usd"]), justify="right", no_wrap=True)
    for row in rows:
        name = shorten(row.name or "(no name)", 80)
        if row.session_id is not None:
            name = f"{str(row.session_id)[:8]}  {name}"
        counts = (row.ask_count, row.tool_call_count, row.failed_count)
        tokens = (row.input_tokens, row.output_tokens, row.cached_tokens)
        numbers = [format_count(number) for number in (*counts, *tokens)]
        table.add_row(*map(Text, (name, *numbers, format_cost(row.cost_usd))))
    return table


@click.command()
@file_argument
@click.argument("pattern")
@click.option("--session", help="Only in this session: an id, the beginning of one, or a name.")
@click.option("-i", "--ignore-case", is_flag=True, help="Find letters in any case.")
@click.option("-F", "--fixed", is_flag=True, help="Find PATTERN as it stands.")
@json_option
def grep(
    file: str, pattern: str, session: str | None, ignore_case: bool, fixed: bool, as_json: bool
) -> int:
    """Find a regular expression in what `show --full` prints of the actions in FILE.

    The exit status is 1 if nothing was found.
    """
    flags = re.IGNORECASE if ignore_case else re.NOFLAG
    try:
        wanted = re.compile(re.escape(pattern) if fixed else pattern, flags)
    except re.error as error:
        raise click.BadParameter(f"PATTERN is not a regular expression: {error}") from None
    return run(_grep, file, wanted, session, as_json)


async def _grep(file: str, wanted: re.Pattern[str], session: str | None, as_json: bool) -> int:
    found: list[documents.Document] = []
    async with open_store(file, read_only=True) as store:
        within = None if session is None else await find_session(store, session)
        summaries = await store.list_sessions(include_open=True)
        names: dict[UUID | None, str | None] = {s.session_id: s.name for s in summaries}
        console = render.output_console()
        count = 0
        async with aclosing(store.actions(within)) as actions:
            async for action in actions:
                lines = await _matching(store, action, wanted)
                if not lines:
                    continue
                count += 1
                document = documents.match_document(action, names.get(action.session_id), lines)
                if as_json:
                    found.append(document)
                else:
                    _print_match(console, document)
    if as_json:
        click.echo(documents.dump(found, indent=2))
    return FINE if count else BAD


async def _matching(store: Store, action: Action, wanted: re.Pattern[str]) -> list[str]:
    document = await documents.read_action(store, action, full=True)
    lines = render.action_lines(document)
    return [line.strip() for line in lines if wanted.search(line)]


def _print_match(console: Any, match: documents.Document) -> None:
    head = f"{str(match['session_id'])[:8]}  {match['index']:5}  "
    for line in match["lines"]:
        text = Text(head)
        text.append(match["kind"], style=render.STYLES.get(match["kind"], "bold"))
        text.append(f"  {shorten(line, _LINE_CHARS)}")
        console.print(text)
