"""The commands that look through the actions of all sessions: `usage` and `grep`."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal, get_args
from uuid import UUID

import attrs
import click
from rich.text import Text

from .. import Action, Session, Store, UsageRow, open_store
from ..view import documents, findings
from ..view.text import format_cost, format_count, shorten
from . import render
from .arguments import (
    TakesSession,
    file_argument,
    find_session,
    json_option,
    run,
    session_option,
)
from .columns import print_table
from .exits import BAD, FINE, AnswerError

By = Literal["session", "model", "tool", "day"]
_LINE_CHARS = 320
_FIRST_BATCH, _BATCH = 20, 250


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
    document = findings.usage_document(by, rows)
    if as_json:
        click.echo(documents.dump_told(document, indent=2))
    elif rows:
        _print_usage(by, rows, document["total"])
    else:
        click.echo("no asks and no tool calls")
    return FINE


def _print_usage(by: By, rows: list[UsageRow], total: documents.Document) -> None:
    names = [by, "asks", "tool calls", "failed"]
    names += ["input tokens", "output tokens", "cached tokens", "cost"]
    lines = []
    for row in rows:
        name = shorten(row.name or "(no name)", 80)
        if row.session_id is not None:
            name = f"{str(row.session_id)[:8]}  {name}"
        lines.append(_sums(name, attrs.asdict(row)))
    if len(rows) > 1:
        lines.append(_sums("total", total))
    less = ("cached tokens", "output tokens", "input tokens", "failed", "cost")
    numbers = range(1, len(names))
    print_table(render.output_console(), names, lines, numbers=numbers, folded=0, less=less)


def _sums(name: str, row: documents.Document) -> list[str]:
    counts = ("ask_count", "tool_call_count", "failed_count")
    tokens = ("input_tokens", "output_tokens", "cached_tokens")
    numbers = [format_count(row[one]) for one in (*counts, *tokens)]
    return [name, *numbers, format_cost(row["cost_usd"])]


@click.command()
@file_argument
@click.argument("pattern")
@session_option
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
        async with aclosing(_batches(store, within)) as batches:
            async for actions in batches:
                documents_read = documents.read_actions(store, actions)
                async with aclosing(documents_read):
                    places = iter(actions)
                    async for document in documents_read:
                        action = next(places)
                        lines = _matching(document, wanted)
                        if not lines:
                            continue
                        count += 1
                        match = findings.match_document(action, names.get(action.session_id), lines)
                        if as_json:
                            found.append(match)
                        else:
                            _print_match(console, match)
    if as_json:
        click.echo(documents.dump_told(found, indent=2))
    return FINE if count else BAD


async def _batches(store: Store, session_id: UUID | None) -> AsyncGenerator[list[Action], None]:
    """Yield actions together that were found together: first a few, so that the first match is
    soon printed."""
    batch: list[Action] = []
    size = _FIRST_BATCH
    async with aclosing(store.actions(session_id)) as actions:
        async for action in actions:
            batch.append(action)
            if len(batch) >= size:
                yield batch
                batch, size = [], _BATCH
    if batch:
        yield batch


def _matching(document: documents.Document, wanted: re.Pattern[str]) -> list[str]:
    lines = render.action_lines(document)
    return [line.strip() for line in lines if wanted.search(line)]


def _print_match(console: Any, match: documents.Document) -> None:
    index = render.padded(console, match["index"], 5)
    head = f"{str(match['session_id'])[:8]}  {index}  "
    for line in match["lines"]:
        text = Text(head)
        text.append(match["kind"], style=render.STYLES.get(match["kind"], "bold"))
        text.append(f"  {shorten(line, _LINE_CHARS)}")
        console.print(text)


@click.command(cls=TakesSession)
@file_argument
@click.argument("session")
@click.argument("index", type=click.IntRange(min=0), required=False)
@json_option
def why(file: str, session: str, index: int | None, as_json: bool) -> int:
    """Say why an answer in a SESSION of FILE is what it is, by default its last one.

    For each frame that it was given: its body then, the action that put it, and the later answers
    that were given the same frame. INDEX is the action's.
    """
    return run(_why, file, session, index, as_json)


async def _why(file: str, wanted: str, index: int | None, as_json: bool) -> int:
    async with open_store(file, read_only=True) as store:
        session = await store.get_session(await find_session(store, wanted))
        action = _answer(session, index)
        found = await store.why(action)
        summaries = await store.list_sessions(include_open=True)
        names: dict[UUID | None, str | None] = {s.session_id: s.name for s in summaries}
    if as_json:
        click.echo(documents.dump_told(findings.why_document(found), indent=2))
    else:
        render.print_why(render.output_console(), found, names)
    return FINE


def _answer(session: Session, index: int | None) -> Action:
    """Return the action with an index; by default the last one that was given frames, else the
    last ask."""
    asks = [action for action in session.actions if action.kind == "ask"]
    if index is None:
        found = [action for action in asks if action.affected_frames] or asks
    else:
        found = [action for action in session.actions if action.index == index]
    if not found:
        what = "no answer" if index is None else f"no action {index}"
        raise AnswerError(f"session {session.session_id} has {what}")
    return found[-1]
