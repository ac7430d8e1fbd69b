"""The command line's group, and its commands that only read; each is thin over the public API."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import click

from .. import VerifyReport, open_store
from ..view import documents
from ..view.text import count_of, printable
from ..view.tree import TreeNode, tree_of
from . import (
    asking,
    deleting,
    exporting,
    forking,
    importing,
    putting,
    querying,
    render,
    replaying,
    rewriting,
    serving,
)
from .arguments import file_argument, find_session, json_option, run
from .exits import BAD, FINE, guarded


class CommandLine(click.Group):
    """A group whose commands return an exit status, and never end in a traceback."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command and end with its exit status."""
        command: Callable[[], Any] = partial(super().invoke, ctx)
        ctx.exit(guarded(command))


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Record what agents do in one crash-safe file, and look at it.

    The exit status is 0 if all is fine, 1 if the file or the answer is bad, 2 for wrong usage.
    """


@cli.command()
@click.option("--file", "path", type=click.Path(), help="Keep the recorded file at this new path.")
def demo(path: str | None) -> int:
    """See it work: record, kill the recorder, open again, compare."""
    from .demo import run_demo

    return run_demo(path, click.echo)


@cli.command()
@file_argument
@json_option
def info(file: str, as_json: bool) -> int:
    """Print what FILE holds: its size, events, sessions and contents."""
    return run(_info, file, as_json)


async def _info(file: str, as_json: bool) -> int:
    async with open_store(file, read_only=True) as store:
        sessions = await store.list_sessions(include_open=True)
        document = documents.info_document(store, store.statistics(), sessions)
    if as_json:
        click.echo(documents.dump(document, indent=2))
    else:
        render.output_console().print(render.info_grid(document))
    return FINE


@cli.command()
@file_argument
@click.option("--tree", is_flag=True, help="List forks below the sessions they were forked from.")
@click.option(
    "--failed", is_flag=True, help="Only those with an error of their own, or a call that failed."
)
@json_option
def sessions(file: str, tree: bool, failed: bool, as_json: bool) -> int:
    """List the sessions of FILE, oldest first, open ones included."""
    return run(_sessions, file, tree, failed, as_json)


async def _sessions(file: str, tree: bool, failed: bool, as_json: bool) -> int:
    async with open_store(file, read_only=True) as store:
        summaries = await store.list_sessions(include_open=True)
    if failed:
        summaries = [s for s in summaries if s.failed_count or s.error is not None]
    nodes = tree_of(summaries) if tree else [TreeNode(0, s.session_id, s) for s in summaries]
    if as_json:
        rows = [documents.tree_document(node, with_depth=tree) for node in nodes]
        click.echo(documents.dump(rows, indent=2))
    elif nodes:
        render.output_console().print(render.sessions_table(nodes))
    else:
        click.echo("no sessions")
    return FINE


@cli.command()
@file_argument
@click.argument("session", required=False)
@click.option(
    "--full", is_flag=True, help="Show whole inputs, outputs and messages, not their beginnings."
)
@json_option
def show(file: str, session: str | None, full: bool, as_json: bool) -> int:
    """Show the actions of one SESSION of FILE, by default of the newest.

    SESSION is an id, the beginning of an id, or a name. It must fit exactly one session.
    """
    return run(_show, file, session, full, as_json)


async def _show(file: str, wanted: str | None, full: bool, as_json: bool) -> int:
    async with open_store(file, read_only=True) as store:
        session = await store.get_session(await find_session(store, wanted))
        actions = (
            await documents.read_action(store, action, full=full) for action in session.actions
        )
        async with aclosing(actions):
            if as_json:
                document = documents.session_document(session, [action async for action in actions])
                click.echo(documents.dump(document, indent=2))
            else:
                console = render.output_console()
                render.print_session_head(console, session)
                async for action in actions:
                    render.print_action(console, action)
    return FINE


@cli.command()
@file_argument
@json_option
def verify(file: str, as_json: bool) -> int:
    """Read all of FILE and check every byte that can be checked."""
    return run(_verify, file, as_json)


async def _verify(file: str, as_json: bool) -> int:
    async with open_store(file, read_only=True) as store:
        with render.progress_bar() as progress:
            task = progress.add_task("verifying", total=None)
            result = await store.verify(
                progress=lambda done, total: progress.update(task, completed=done, total=total)
            )
        torn = store.torn_tail.bytes_dropped
    if as_json:
        click.echo(documents.dump(documents.verify_document(result, torn), indent=2))
    else:
        _print_verified(file, result, torn)
    return FINE if result.ok else BAD


def _print_verified(file: str, result: VerifyReport, torn: int) -> None:
    click.echo(
        f"{printable(file, one_line=True)}: {'fine' if result.ok else 'DAMAGED'}: "
        f"{count_of(result.event_count, 'event')}, {count_of(result.session_count, 'session')}, "
        f"{count_of(result.content_count, 'content')} in {count_of(result.byte_count, 'byte')}"
    )
    if torn:
        click.echo(
            f"  torn tail: {count_of(torn, 'byte')}, which the next opening for writing cuts"
        )
    for problem in result.problems:
        click.echo(f"  at byte {problem.offset}: {printable(problem.message, one_line=True)}")


@cli.command()
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
@json_option
def tail(file: str, count: int, follow: bool, as_json: bool) -> int:
    """Print the newest events of FILE, one per line; with --json as JSON lines."""
    return run(_tail, file, count, follow, as_json)


async def _tail(file: str, count: int, follow: bool, as_json: bool) -> int:
    console = render.output_console()
    async with open_store(file, read_only=True) as store:
        newest = store.last_sequence
        after = max(0, newest - count)
        if after == newest and not follow:
            return FINE
        async with store.subscribe(after=after) as events:
            async for event in events:
                document = await documents.read_event(store, event)
                if as_json:
                    click.echo(documents.dump(document))
                else:
                    render.print_event(console, document)
                if event.sequence >= newest and not follow:
                    break
    return FINE


_MORE = (
    importing.import_chat,
    serving.mcp,
    serving.view,
    putting.put,
    asking.find,
    asking.ask,
    asking.frames,
    asking.get,
    querying.usage,
    querying.grep,
    replaying.replay,
    replaying.diff,
    forking.fork,
    replaying.audit,
    exporting.export,
)
for command in _MORE:
    cli.add_command(command)
cli.add_command(deleting.prune)
cli.add_command(rewriting.compact)
cli.add_command(rewriting.recover_command)
