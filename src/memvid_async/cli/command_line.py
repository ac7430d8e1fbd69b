"""The command line's group, and its commands that only read; each is thin over the public API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from .. import VerifyReport, __version__, open_store
from ..view import documents, findings
from ..view.text import count_of, printable
from . import (
    asking,
    changing,
    deleting,
    exporting,
    forking,
    importing,
    moving,
    putting,
    querying,
    render,
    replaying,
    rewriting,
    serving,
    showing,
)
from .addresses import shown_place
from .arguments import file_argument, json_option, run
from .exits import BAD, FINE, guarded


class CommandLine(click.Group):
    """A group whose commands return an exit status, and never end in a traceback."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command and end with its exit status."""
        command: Callable[[], Any] = partial(super().invoke, ctx)
        ctx.exit(guarded(command))

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their whole first sentence."""
        rows = [
            (name, command.get_short_help_str(limit=1_000))
            for name, command in self.commands.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="memvid-async %(version)s")
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
        document = findings.info_document(store, store.statistics(), sessions)
    if as_json:
        click.echo(documents.dump_told(document, indent=2))
    else:
        render.print_info(render.output_console(), document)
    return FINE


@click.command()
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
        click.echo(documents.dump_told(findings.verify_document(result, torn), indent=2))
    else:
        _print_verified(file, result, torn)
    return FINE if result.ok else BAD


def _print_verified(file: str, result: VerifyReport, torn: int) -> None:
    click.echo(
        f"{shown_place(file)}: {'fine' if result.ok else 'DAMAGED'}: "
        f"{count_of(result.event_count, 'event')}, {count_of(result.session_count, 'session')}, "
        f"{count_of(result.content_count, 'content')} in {count_of(result.byte_count, 'byte')}"
    )
    if torn:
        click.echo(
            f"  torn tail: {count_of(torn, 'byte')}, which the next opening for writing cuts"
        )
    for problem in result.problems:
        click.echo(f"  at byte {problem.offset}: {printable(problem.message, one_line=True)}")


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
    querying.why,
    replaying.replay,
    replaying.diff,
    forking.fork,
    replaying.audit,
    exporting.export,
    changing.rename,
    changing.annotate,
    changing.end,
    changing.delete,
    deleting.prune,
    moving.copy,
    moving.stores,
    rewriting.compact,
    rewriting.recover_command,
)
for command in (showing.sessions, showing.show, verify, showing.tail, *_MORE):
    cli.add_command(command)
