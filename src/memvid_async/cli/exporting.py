"""`export`: a session for other tools, or as a page for people."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import IO

import click

from .. import Session, SessionEnded, Store, open_store
from . import documents
from .arguments import file_argument, find_session, run
from .exits import FINE
from .page import comparison_page, session_page


@click.command()
@file_argument
@click.argument("session", required=False)
@click.argument("other", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "jsonl"]),
    default="html",
    show_default=True,
    help="A page for a browser, or every event as a JSON line.",
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

    The page needs nothing else: no network, no other file.
    """
    if other is not None and form != "html":
        raise click.UsageError("two sessions are compared with --format html only")
    return run(_export, file, session, other, form, output)


async def _export(file: str, wanted: str | None, other: str | None, form: str, output: str) -> int:
    async with open_store(file, read_only=True) as store:
        session = await store.get_session(await find_session(store, wanted))
        if form == "jsonl":
            parts = _json_lines(store, session)
        elif other is None:
            parts = session_page(store, session)
        else:
            comparison = await store.compare(session.session_id, await find_session(store, other))
            parts = comparison_page(store, comparison)
        with ExitStack() as stack:
            target: IO[str] = sys.stdout
            if output != "-":
                target = stack.enter_context(click.open_file(output, "w", encoding="utf-8"))
            async with aclosing(parts):
                async for part in parts:
                    target.write(part)
    return FINE


async def _json_lines(store: Store, session: Session) -> AsyncGenerator[str]:
    """Every event of the session, with all content."""
    last = session.actions[-1].sequence if session.actions else 0
    async with store.subscribe(session_id=session.session_id) as events:
        async for event in events:
            yield documents.dump(await documents.read_event(store, event, full=True)) + "\n"
            # An open session has no end to wait for.
            if isinstance(event.payload, SessionEnded):
                break
            if session.ended_ns is None and event.sequence >= last:
                break
