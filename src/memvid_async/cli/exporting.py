"""`export`: a session as JSON lines for other tools, or as a page for people."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import click

from .. import (
    ActionRecorded,
    ContentStored,
    Erased,
    Event,
    FrameDeleted,
    FrameErased,
    FramesPut,
    FrameUpdated,
    MemvidAsyncError,
    NotAStoreError,
    Session,
    SessionEnded,
    Store,
    open_store,
)
from ..view import documents, event_documents
from ..view.compare_page import comparison_page
from ..view.session_page import load_session, session_page
from .arguments import TakesSession, file_argument, find_session, run
from .exits import FINE
from .given import Given


@click.command(cls=TakesSession)
@file_argument
@click.argument("session", required=False)
@click.argument("other", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "jsonl"]),
    default="html",
    show_default=True,
    help="A page for a browser, or a JSON line for each event.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    help="The file to write, replaced if it exists; by default the standard output.",
)
def export(file: str, session: str | None, other: str | None, form: str, output: str) -> int:
    """Write a SESSION of FILE as one page, or as JSON lines; with OTHER, a page that compares both.

    The page needs no network and no other file.
    """
    if other is not None and form != "html":
        raise click.UsageError("two sessions are compared with --format html only")
    return run(_export, file, session, other, form, output)


async def _export(file: str, wanted: str | None, other: str | None, form: str, output: str) -> int:
    async with open_store(file, read_only=True) as store:
        session = await store.get_session(await find_session(store, wanted))
        if form == "jsonl":
            parts = json_lines(store, session)
        elif other is None:
            parts = session_page(store, partial(load_session, store, session.session_id))
        else:
            with_id = await find_session(store, other)
            parts = comparison_page(store, partial(store.compare, session.session_id, with_id))
        if output != "-" and await _is_store(output):
            raise click.UsageError(f"{output} is a store, and is not replaced; name another file")
        with ExitStack() as stack:
            target: IO[str] = sys.stdout
            if output != "-":
                target = stack.enter_context(click.open_file(output, "w", encoding="utf-8"))
            async with aclosing(parts):
                async for part in parts:
                    target.write(part)
    return FINE


async def _is_store(path: str) -> bool:
    """Whether a file is there that this library wrote, whatever its state."""
    try:
        async with open_store(Path(path).resolve(), read_only=True):  # noqa: ASYNC240
            return True
    except NotAStoreError:
        return False
    except MemvidAsyncError:
        return True


_FRAME_EVENTS = (FramesPut, FrameUpdated, FrameDeleted, FrameErased)


async def json_lines(store: Store, session: Session) -> AsyncGenerator[str]:
    """Yield a line for each event of the session and of the past that it shares, with all content,
    each once.

    The frames that an action changed come before that action.
    """
    given = Given(store, session.actions)
    members, first = await _members(store, session)
    last = session.actions[-1].sequence if session.actions else 0
    # What a command did to frames comes directly before its action.
    change: Event | None = None
    async with store.subscribe(after=first - 1) as events:
        async for event in events:
            if isinstance(event.payload, _FRAME_EVENTS):
                change = event
            elif not isinstance(event.payload, ContentStored):
                if event.session_id and event.sequence <= members.get(event.session_id, 0):
                    for one in [*_changed(event.payload, change), event]:
                        messages = await given.messages(one.sequence)
                        document = await event_documents.read_event(
                            store, one, full=True, messages=messages
                        )
                        yield documents.dump_told(given.line_of(document)) + "\n"
                if not isinstance(event.payload, Erased):
                    change = None
            if event.session_id == session.session_id and (
                isinstance(event.payload, SessionEnded)
                # An open session has no end, so its last action ends the lines.
                or (session.ended_ns is None and event.sequence >= last)
            ):
                break


async def _members(store: Store, session: Session) -> tuple[dict[UUID, int], int]:
    """Return the session and those whose past it shares, and the sequence where the first begins.

    Each session comes with the last sequence of it that counts.
    """
    until = 2**63
    members = {session.session_id: until}
    forks = {s.session_id: s.fork for s in await store.list_sessions(include_open=True)}
    fork = session.fork
    async with store.subscribe(session_id=session.session_id) as events:
        first = (await anext(events)).sequence
    # Each parent began before its fork. A file may say otherwise, and name parents in a circle.
    while fork is not None and fork.parent < first:
        first, until = fork.parent, min(until, fork.sequence)
        members[fork.parent_id] = until
        fork = forks.get(fork.parent_id)
    return members, first


def _changed(payload: object, change: Event | None) -> list[Event]:
    """Return the event of the frames that an action changed, if it came before the action."""
    if change is None or not isinstance(payload, ActionRecorded):
        return []
    changed: Any = change.payload
    ids = changed.frame_ids if isinstance(changed, FramesPut) else [changed.frame_id]
    return [change] if payload.action.affected_frames == tuple(ids) else []
