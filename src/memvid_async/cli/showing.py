"""`sessions`, `show` and `tail`: what was recorded, as a list, a session, or a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any
from uuid import UUID

import click

from .. import Action, ActionRecorded, Event, Session, SessionSummary, Store, open_store
from ..view import documents, event_documents
from ..view.tree import TreeNode, tree_of
from . import render
from .arguments import (
    Selected,
    TakesSession,
    action_options,
    file_argument,
    find_session,
    json_option,
    run,
    session_option,
    where_option,
)
from .exits import FINE


@click.command()
@file_argument
@click.option("--tree", is_flag=True, help="List forks below the sessions they were forked from.")
@click.option(
    "--failed", is_flag=True, help="Only those with an error of their own, or a call that failed."
)
@click.option("--open", "is_open", is_flag=True, help="Only those that have not ended.")
@click.option("--in-flight", is_flag=True, help="Only those with a call that has not ended.")
@click.option("--name", help="Only those with this name.")
@where_option
@click.option("--limit", type=click.IntRange(min=0), help="Only the newest, at most this many.")
@json_option
def sessions(file: str, as_json: bool, **wanted: Any) -> int:
    """List the sessions of FILE, oldest first, open ones included."""
    return run(_sessions, file, wanted, as_json)


def _fitting(wanted: Mapping[str, Any]) -> list[Callable[[SessionSummary], bool]]:
    """Return what a session must be that is to be listed."""
    tests: dict[str, Callable[[SessionSummary], bool]] = {
        "failed": lambda one: bool(one.failed_count) or one.error is not None,
        "is_open": lambda one: one.ended_ns is None,
        "in_flight": lambda one: one.in_flight_count > 0,
    }
    return [test for name, test in tests.items() if wanted[name]]


async def _sessions(file: str, wanted: Mapping[str, Any], as_json: bool) -> int:
    tests = _fitting(wanted)
    async with open_store(file, read_only=True) as store:
        summaries = await store.list_sessions(
            include_open=True,
            newest_first=True,
            name=wanted["name"],
            metadata=wanted["where"] or None,
            limit=None if tests else wanted["limit"],
        )
    summaries = [one for one in summaries if all(fits(one) for fits in tests)]
    if wanted["limit"] is not None:
        summaries = summaries[: wanted["limit"]]
    summaries.reverse()
    tree = wanted["tree"]
    nodes = tree_of(summaries) if tree else [TreeNode(0, s.session_id, s) for s in summaries]
    if as_json:
        rows = [documents.tree_document(node, with_depth=tree) for node in nodes]
        click.echo(documents.dump_told(rows, indent=2))
    elif nodes:
        render.print_sessions(render.output_console(), nodes)
    else:
        click.echo("no sessions")
    return FINE


@click.command(cls=TakesSession)
@file_argument
@click.argument("session", required=False)
@click.option(
    "--full", is_flag=True, help="Show whole inputs, outputs and messages, not their beginnings."
)
@action_options
@click.option(
    "-n", "--lines", "count", type=click.IntRange(min=0), help="Only the last, at most this many."
)
@click.option("--no-pager", is_flag=True, help="Print at once, also on a terminal.")
@json_option
def show(
    file: str,
    session: str | None,
    full: bool,
    count: int | None,
    no_pager: bool,
    as_json: bool,
    **wanted: Any,
) -> int:
    """Show the actions of one SESSION of FILE, by default of the newest, a row for each.

    SESSION is an id, the beginning of an id, a name, or -1 for the newest, -2 for the one before.
    It must fit exactly one session.
    """
    return run(_show, file, session, (full, count, no_pager), Selected(**wanted), as_json)


async def _show(
    file: str,
    name: str | None,
    how: tuple[bool, int | None, bool],
    wanted: Selected,
    as_json: bool,
) -> int:
    full, count, no_pager = how
    async with open_store(file, read_only=True) as store:
        session = await store.get_session(await find_session(store, name))
        actions = [action for action in session.actions if wanted.fits(action)]
        if count is not None:
            actions = actions[len(actions) - min(count, len(actions)) :]
        if as_json:
            shown = [await documents.read_action(store, one, full=full) for one in actions]
            begun = [
                await documents.read_started(store, one, full=full) for one in session.in_flight
            ]
            document = documents.session_document(session, shown, begun)
            click.echo(documents.dump_told(document, indent=2))
        else:
            console = render.output_console()
            with render.paged(console, wanted=not no_pager):
                await _print_session(store, session, actions, console, full=full)
    return FINE


async def _print_session(
    store: Store, session: Session, actions: list[Action], console: Any, *, full: bool
) -> None:
    render.print_session_head(console, session)
    if full:
        async for document in documents.read_actions(store, actions):
            render.print_action(console.print, document)
    elif actions:
        console.print()
        render.print_rows(
            console, [await documents.read_action(store, one, full=False) for one in actions]
        )
    if not full:
        render.print_in_flight(console, session)
    console.print()
    render.print_totals(console, session, len(actions))


@click.command()
@file_argument
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many of the newest events to print first.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is recorded from now on.")
@session_option
@action_options
@json_option
def tail(
    file: str, count: int, follow: bool, session: str | None, as_json: bool, **wanted: Any
) -> int:
    """Print the newest events of FILE, one per line; with --json as JSON lines.

    With a filter or a session, only actions are printed.
    """
    return run(_tail, file, (count, follow), session, Selected(**wanted), as_json)


async def _tail(
    file: str, how: tuple[int, bool], session: str | None, wanted: Selected, as_json: bool
) -> int:
    count, follow = how
    console = render.output_console()
    async with open_store(file, read_only=True) as store:
        events = _events(store, session, wanted, count, follow=follow)
        async with aclosing(events):
            async for event in events:
                document = await event_documents.read_event(store, event)
                if as_json:
                    click.echo(documents.dump_told(document))
                else:
                    render.print_event(console, document)
    return FINE


async def _events(
    store: Store, session: str | None, wanted: Selected, count: int, *, follow: bool
) -> AsyncGenerator[Event, None]:
    """Yield the newest events that fit, and where that is asked for those to come."""
    session_id = None if session is None else await find_session(store, session)
    newest = store.last_sequence
    if wanted.is_any and session_id is None:
        after = max(0, newest - count)
    else:
        after = newest
        for action in reversed(await _newest(store, session_id, wanted, count)):
            yield Event(action.sequence, action.time_ns, action.session_id, ActionRecorded(action))
    if after == newest and not follow:
        return
    async with store.subscribe(after=after) as events:
        async for event in events:
            if _fits(event, session_id, wanted):
                yield event
            if event.sequence >= newest and not follow:
                return


async def _newest(
    store: Store, session_id: UUID | None, wanted: Selected, count: int
) -> list[Action]:
    """Return the newest actions that fit, newest first."""
    found = store.actions(
        session_id,
        kind=wanted.kind,
        name=wanted.tool,
        task=wanted.task,
        failed=True if wanted.failed else None,
        newest_first=True,
        limit=count,
    )
    async with aclosing(found):
        return [action async for action in found]


def _fits(event: Event, session_id: UUID | None, wanted: Selected) -> bool:
    if session_id is None and wanted.is_any:
        return True
    action = getattr(event.payload, "action", None)
    is_there = session_id is None or event.session_id == session_id
    return is_there and action is not None and wanted.fits(action)
