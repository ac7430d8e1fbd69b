"""The demo: agents record, their process is killed, and everything that was acked is still there.

Needs nothing but the package and the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import anyio
from attrs import define, field

from .. import Action, Store, open_store
from .demo_agent import AGENT_COUNT
from .text import format_duration, format_size, format_time, printable, shorten

KILL_AFTER = 1000
"""Acks after which the recording process is killed."""

MAX_SECONDS = 60
"""Longest that recording may take; a machine this slow gets a message instead of silence."""

_SHOWN_ANSWERS = 4
_SHOWN_ACTIONS = 6
_WIDTH = 96

Say = Callable[[str], Any]
Ack = dict[str, Any]


@define
class Findings:
    """What the file held against what had been acked. ``beyond``: actions that it holds besides."""

    found: int = 0
    wrong: list[str] = field(factory=list)
    beyond: int = 0


def main(arguments: Sequence[str]) -> int:
    """Run the demo as ``demo [--file PATH]``; the exit status, 0 if everything acked was found."""
    parser = argparse.ArgumentParser(
        prog="memvid-async demo", description="Record, kill the recorder, open again, compare."
    )
    parser.add_argument("--file", metavar="PATH", help="keep the recorded file here")
    return run_demo(parser.parse_args(arguments).file)


def run_demo(path: str | None, say: Say = print, *, kill_after: int = KILL_AFTER) -> int:
    """Run the demo in a new file at ``path``, or in one that is removed afterwards.

    :returns: the exit status: 0 if everything acked was found, 1 if not, 2 if it cannot be tried.
    """
    if importlib.util.find_spec("pydoc_data") is None:
        say("The demo answers from pydoc_data.topics, which this Python does not have.")
        return 2
    if path is not None and os.path.lexists(path):
        say(f"{printable(path)} exists already. The demo wants a file of its own: name a new one.")
        return 2
    with contextlib.ExitStack() as stack:
        if path is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="memvid-async-"))
            file = str(Path(folder, "demo.mva"))
        else:
            file = path
        acks = _record_and_kill(file, say, kill_after)
        if acks is None:
            return 1
        status = anyio.run(_open_again, file, acks, say)
    if path is None:
        say("The file was temporary. To keep it:  memvid-async demo --file demo.mva")
    else:
        say(f"The file is kept. Look into it:  memvid-async sessions {printable(path)}")
    return status


# --- recording, and the crash ------------------------------------------------------------------


def _record_and_kill(file: str, say: Say, kill_after: int) -> list[Ack] | None:
    """Let a child process record until enough is acked, kill it, and return every ack it sent."""
    say("1. RECORD")
    say(f"   A child process opens {printable(file)} and starts {AGENT_COUNT} agent tasks.")
    say("   Each answers questions about Python from the text of pydoc: it looks for keywords,")
    say("   reads a topic, answers, and awaits the recording of each step in its own session.")
    say("   Whenever the store acks a step, which means that it is on the disk, the child says so")
    say("   through a pipe. What came through the pipe is counted here.")
    say("")
    started = time.perf_counter()
    with _child(file) as child:
        acks = list(_read_acks(child, say, kill_after))
        status = child.wait()
    seconds = time.perf_counter() - started
    if len(acks) < kill_after:
        say(f"   The child stopped by itself, with status {status}, after {len(acks)} acks.")
        return None
    say(
        f"   … and so on: {len(acks)} steps acked in {seconds:.1f} s, the start of Python included."
    )
    say("")
    say("2. CRASH")
    say(f"   SIGKILL to the child, in the middle of its work (its exit status: {status}).")
    say("   Nothing was closed, flushed or saved.")
    say("")
    return acks


@contextlib.contextmanager
def _child(file: str) -> Iterator[subprocess.Popen[bytes]]:
    package_root = str(Path(__file__).resolve().parents[2])
    search_path = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.Popen(  # noqa: S603 - our own module, run by the Python that runs us
        [sys.executable, "-m", f"{__package__}.demo_agent", file],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path)},
        start_new_session=True,
    )
    watchdog = threading.Timer(MAX_SECONDS, child.kill)
    watchdog.start()
    try:
        with child:
            yield child
    finally:
        watchdog.cancel()
        child.kill()


def _read_acks(child: subprocess.Popen[bytes], say: Say, kill_after: int) -> Iterator[Ack]:
    """Every ack that the child sent whole, up to its end; it is killed when enough have come."""
    pipe: IO[bytes] | None = child.stdout
    assert pipe is not None
    answers = 0
    for count, line in enumerate(pipe, 1):
        if not line.endswith(b"\n"):
            break
        ack: Ack = json.loads(line)
        if ack["kind"] == "ask" and answers < _SHOWN_ANSWERS:
            answers += 1
            say(f"   Q  {shorten(ack['input'], _WIDTH)}")
            say(f"   A  {shorten(ack['output'], _WIDTH)}")
            say("")
        yield ack
        if count == kill_after:
            child.kill()


# --- opening again -----------------------------------------------------------------------------


async def _open_again(file: str, acks: list[Ack], say: Say) -> int:
    say("3. OPEN AGAIN")
    say(f"   async with open_store({printable(file)!r}) as store:")
    started = time.perf_counter()
    async with open_store(file) as store:
        opened = format_duration(int(1e9 * (time.perf_counter() - started)))
        say(
            f"   Open in {opened}: {format_size(store.statistics().file_bytes)}, "
            f"{store.last_sequence} events; {store.recovery.bytes_dropped} bytes of torn tail cut."
        )
        findings = await _compare(store, acks)
        report = await store.verify()
        say("")
        say(f"   acked before the crash         {len(acks):6}")
        say(f"   found again, equal by value    {findings.found:6}")
        say(f"   missing or different           {len(findings.wrong):6}")
        say(f"   recorded, ack still on its way {findings.beyond:6}")
        say(f"   the whole file verified        {'fine' if report.ok else 'DAMAGED':>6}")
        for problem in (*findings.wrong, *map(str, report.problems))[:10]:
            say(f"   ! {shorten(problem, _WIDTH)}")
        say("")
        await _list_sessions(store, say)
        await _show_session(store, UUID(acks[0]["session"]), say)
    good = findings.found == len(acks) and report.ok
    say(
        "Everything that was acked is there." if good else "NOT everything that was acked is there."
    )
    return 0 if good else 1


async def _compare(store: Store, acks: list[Ack]) -> Findings:
    """Look every ack up in the file and compare its values with what the file holds."""
    actions: dict[tuple[str, int], Action] = {}
    for summary in await store.list_sessions(include_open=True):
        session = await store.get_session(summary.session_id)
        actions.update({(str(session.session_id), a.index): a for a in session.actions})
    acked = {(ack["session"], ack["index"]) for ack in acks}
    findings = Findings(beyond=len(actions.keys() - acked))
    for ack in acks:
        action = actions.get((ack["session"], ack["index"]))
        where = f"action {ack['index']} of session {ack['session']}"
        if action is None:
            findings.wrong.append(f"{where} is missing")
        elif await _values(store, action) != (ack["kind"], ack["input"], ack["output"]):
            findings.wrong.append(f"{where} is not what was recorded")
        else:
            findings.found += 1
    return findings


async def _values(store: Store, action: Action) -> tuple[str, Any, str | None]:
    if action.kind == "tool_call":
        given = await store.read_arguments(action)
    else:
        given = None if action.input is None else (await store.read_content(action.input)).decode()
    got = None if action.output is None else (await store.read_content(action.output)).decode()
    return action.kind.value, given, got


async def _list_sessions(store: Store, say: Say) -> None:
    say("4. THE SESSIONS")
    say("   They are still open, for their process died; store.resume_session() goes on with them.")
    say("")
    say(f"   {'id':8}  {'name':8}  {'started (UTC)':23}  {'actions':>7}  {'lasted':>9}")
    for summary in await store.list_sessions(include_open=True):
        say(
            f"   {str(summary.session_id)[:8]}  {shorten(summary.name or '', 8):8}  "
            f"{format_time(summary.created_ns):23}  {summary.action_count:7}  "
            f"{format_duration(summary.duration_ns):>9}"
        )
    say("")


async def _show_session(store: Store, session_id: UUID, say: Say) -> None:
    session = await store.get_session(session_id)
    say(f"5. ONE OF THEM: {shorten(session.name or '', 40)}, its first {_SHOWN_ACTIONS} actions")
    say("")
    for action in session.actions[:_SHOWN_ACTIONS]:
        given = await store.read_arguments(action) if action.kind == "tool_call" else None
        question = json.dumps(given) if given is not None else action.input and action.input.preview
        say(f"   {action.index:3}  {action.kind.value:9}  {shorten(question or '', _WIDTH - 16)}")
        if action.output is not None:
            size = format_size(action.output.size)
            say(f"        {'':9}  -> {shorten(action.output.preview, _WIDTH - 32)} ({size})")
    say("")
