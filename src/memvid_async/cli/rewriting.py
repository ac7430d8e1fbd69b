"""`compact` and `recover`: the commands that write a new file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from .. import CompactReport, RecoverReport, open_store, recover
from ..view import documents, findings
from ..view.text import count_of, format_size, printable
from . import render
from .addresses import is_address, require_store, shown_place
from .arguments import (
    file_argument,
    json_option,
    run,
)
from .exits import BAD, FINE, WRONG_USAGE, report

_LISTED = 20


@contextmanager
def bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, and yield what is called with the bytes done and the bytes in all."""
    with render.progress_bar() as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@click.command()
@file_argument
@json_option
def compact(file: str, as_json: bool) -> int:
    """Write FILE again without what was deleted, and replace the old file by the new one.

    Programs that have the file open continue in the new one.
    """
    return run(_compact, file, as_json)


async def _compact(file: str, as_json: bool) -> int:
    await require_store(file)
    async with open_store(file) as store:
        with bar("compacting") as tell:
            result = await store.compact(progress=tell)
    if as_json:
        click.echo(documents.dump_told(findings.report_document(result), indent=2))
    else:
        click.echo(_compacted(file, result))
    return FINE


def _compacted(file: str, result: CompactReport) -> str:
    erased = count_of(result.erased_events, "event")
    return (
        f"{shown_place(file)}: {format_size(result.bytes_before)} before, "
        f"{format_size(result.bytes_after)} after; {erased} erased; "
        f"compacted {count_of(result.generation, 'time')} by now"
    )


@click.command("recover")
@click.argument("damaged", type=click.Path(readable=False))
@click.argument("out", type=click.Path(readable=False))
@json_option
def recover_command(damaged: str, out: str, as_json: bool) -> int:
    """Write everything of DAMAGED that can still be proven good to OUT, a new file.

    DAMAGED, a file or the address of a stream, is not changed. The exit status is 1 if anything was
    lost.
    """
    if is_address(out):
        report("recover writes a new file; `memvid-async copy` brings that to a stream again")
        return WRONG_USAGE
    if os.path.lexists(out):
        report(f"{out} exists already; name a new file")
        return WRONG_USAGE
    return run(_recover, damaged, out, as_json)


async def _recover(damaged: str, out: str, as_json: bool) -> int:
    with bar("recovering") as tell:
        result = await recover(damaged, out, progress=tell)
    if as_json:
        click.echo(documents.dump_told(findings.report_document(result), indent=2))
    else:
        _print_recovered(out, result)
    return FINE if result.complete else BAD


def _print_recovered(out: str, result: RecoverReport) -> None:
    click.echo(
        f"{printable(out, one_line=True)}: {count_of(result.event_count, 'event')} recovered, "
        f"{count_of(result.session_count, 'session')}, "
        f"{count_of(result.content_count, 'content')}; "
        f"{'nothing was lost' if result.complete else 'SOMETHING WAS LOST'}"
    )
    if result.header_lost:
        click.echo("  the header was lost: how often the store was compacted is not known")
    if result.lost_messages:
        click.echo(f"  the stream has lost {count_of(result.lost_messages, 'message')}")
    _print_some(
        [f"{d.length} bytes from byte {d.offset} on are damaged" for d in result.damage]
        + [
            f"event {e.first} is lost"
            if e.first == e.last
            else f"events {e.first} to {e.last} are lost"
            for e in result.lost
        ]
    )
    if result.unexplained_bytes:
        click.echo(f"  the last {result.unexplained_bytes} of them may have held further events")
    if result.lost_contents:
        click.echo(f"  {result.lost_contents} contents are lost that actions refer to")
    marks = {
        "its start is lost": result.rebuilt_sessions,
        "it was open, and is ended now": result.ended_sessions,
    }
    _print_some(
        [
            "; ".join(
                [f"session {session} lost something"]
                + [why for why, sessions in marks.items() if session in sessions]
            )
            for session in result.touched_sessions
        ]
    )


def _print_some(lines: list[str]) -> None:
    for line in lines[:_LISTED]:
        click.echo(f"  {line}")
    if len(lines) > _LISTED:
        click.echo(f"  … and {len(lines) - _LISTED} more; --json has all")
