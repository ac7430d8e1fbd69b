"""`fork`: the command that starts a session from another's past."""

from __future__ import annotations

import click

from .. import open_store
from ..view import documents
from .addresses import require_store
from .arguments import TakesSession, file_argument, find_session, json_option, run
from .exits import FINE


@click.command(cls=TakesSession)
@file_argument
@click.argument("session")
@click.option(
    "--checkpoint",
    "checkpoint_id",
    metavar="ID",
    type=click.IntRange(min=0),
    help="Share the past up to this checkpoint.",
)
@click.option(
    "--action",
    "action_index",
    metavar="INDEX",
    type=click.IntRange(min=0),
    help="Share the past up to this action, and this action.",
)
@click.option("--name", help="The name of the fork.")
@json_option
def fork(
    file: str,
    session: str,
    checkpoint_id: int | None,
    action_index: int | None,
    name: str | None,
    as_json: bool,
) -> int:
    """Start a session in FILE that shares the past of SESSION, and print its id.

    By default it shares all that is recorded so far. The fork stays open, so that a program can
    continue it.
    """
    if checkpoint_id is not None and action_index is not None:
        raise click.UsageError("--checkpoint and --action name two places; use only one")
    return run(_fork, file, session, checkpoint_id, action_index, name, as_json)


async def _fork(
    file: str,
    wanted: str,
    checkpoint_id: int | None,
    action_index: int | None,
    name: str | None,
    as_json: bool,
) -> int:
    await require_store(file)
    async with open_store(file) as store:
        parent = await find_session(store, wanted)
        forked = await store.fork(
            parent, checkpoint_id=checkpoint_id, action_index=action_index, name=name
        )
        made = await store.get_summary(forked)
    document = documents.summary_document(made)
    click.echo(documents.dump_told(document, indent=2) if as_json else forked)
    return FINE
