"""`rename`, `annotate`, `end` and `delete`: the commands that change a session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import click

from .. import Store, open_store
from ..view import documents
from ..view.text import shorten
from .addresses import require_store
from .arguments import (
    TakesSession,
    as_typed,
    file_argument,
    find_session,
    json_option,
    read_pairs,
    run,
)
from .exits import FINE, AnswerError

Change = Callable[[Store, UUID], Awaitable[Any]]
session_argument = click.argument("session")


@click.command(cls=TakesSession)
@file_argument
@session_argument
@click.argument("name")
@json_option
def rename(file: str, session: str, name: str, as_json: bool) -> int:
    """Give a SESSION of FILE another NAME; an empty one takes its name away."""

    async def change(store: Store, session_id: UUID) -> None:
        await store.rename_session(session_id, as_typed(name) or None)

    return run(_change, file, session, change, "renamed", as_json)


@click.command(cls=TakesSession)
@file_argument
@session_argument
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...", callback=read_pairs)
@json_option
def annotate(file: str, session: str, pairs: dict[str, Any], as_json: bool) -> int:
    """Add to the metadata of a SESSION of FILE; a VALUE is JSON, or else text.

    What it has of the same key is replaced.
    """

    async def change(store: Store, session_id: UUID) -> None:
        await store.annotate_session(session_id, pairs)

    return run(_change, file, session, change, "annotated", as_json)


@click.command(cls=TakesSession)
@file_argument
@session_argument
@json_option
def end(file: str, session: str, as_json: bool) -> int:
    """End a SESSION of FILE that was left open, as by a crash."""

    async def change(store: Store, session_id: UUID) -> None:
        if (await store.get_session(session_id)).ended_ns is not None:
            raise AnswerError(f"session {session_id} has ended already")
        if store.active_session_id == session_id:
            await store.end_session()
        else:
            async with store.resume_session(session_id):
                pass

    return run(_change, file, session, change, "ended", as_json)


async def _change(file: str, wanted: str, change: Change, did: str, as_json: bool) -> int:
    await require_store(file)
    async with open_store(file) as store:
        session_id = await find_session(store, wanted)
        await change(store, session_id)
        summary = await store.get_summary(session_id)
    if as_json:
        click.echo(documents.dump_told(documents.summary_document(summary), indent=2))
    else:
        click.echo(f"{session_id}  {shorten(summary.name or '(no name)', 80)}: {did}")
    return FINE


@click.command(cls=TakesSession)
@file_argument
@click.argument("sessions", nargs=-1, required=True)
@json_option
def delete(file: str, sessions: tuple[str, ...], as_json: bool) -> int:
    """Delete SESSIONS of FILE. They are hidden at once; `compact` erases their bytes."""
    return run(_delete, file, sessions, as_json)


async def _delete(file: str, wanted: tuple[str, ...], as_json: bool) -> int:
    await require_store(file)
    async with open_store(file) as store:
        # All are found before one is deleted: -2 means the same then, and a mistake deletes none.
        ids = list(dict.fromkeys([await find_session(store, one) for one in wanted]))
        for session_id in ids:
            await store.delete_session(session_id)
            if not as_json:
                click.echo(f"{session_id}: deleted")
    if as_json:
        click.echo(documents.dump({"deleted": [str(session_id) for session_id in ids]}, indent=2))
    return FINE
