"""The demo: agents put and ask, their process is killed, and everything that was acked is there.

It needs only the package and the standard library.
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

import anyio
from attrs import define, field

from .. import Action, FrameNotFoundError, Store, StoreNotFoundError, open_store
from ..view.text import format_duration, format_size, format_time, shorten
from .addresses import is_address, require_store, shown_place
from .demo_agent import AGENT_COUNT, TAG, TOP_K

KILL_AFTER = 500
"""The recording process is killed after this many acked asks."""

MAX_SECONDS = 60
"""How long recording may take at most; a slower machine gets a message instead of silence."""

_SHOWN_ANSWERS = 4
_SHOWN_ACTIONS = 4
_ASKED_AGAIN = 5
_WIDTH = 96

Say = Callable[[str], Any]
Ack = dict[str, Any]


@define
class Findings:
    """What the file holds of what was acked."""

    frames: int = 0
    """Acked frames that are there, equal by value."""
    asks: int = 0
    """Acked asks that are there, equal by value."""
    wrong: list[str] = field(factory=list)
    """A sentence for each that is missing or different."""
    beyond: int = 0
    """Frames and asks that are there though their ack never arrived."""

    @property
    def found(self) -> int:
        """How many of the acked frames and asks are there, equal by value."""
        return self.frames + self.asks


def main(arguments: Sequence[str]) -> int:
    """Run the demo as ``demo [--file PATH]``, and return the exit status of :func:`run_demo`."""
    parser = argparse.ArgumentParser(
        prog="memvid-async demo", description="Record, kill the recorder, open again, compare."
    )
    parser.add_argument("--file", metavar="PATH", help="keep the recorded file here")
    return run_demo(parser.parse_args(arguments).file)


def run_demo(path: str | None, say: Say = print, *, kill_after: int = KILL_AFTER) -> int:
    """Run the demo in a new file at ``path``, or in a temporary file.

    :returns: the exit status: 0 if everything acked was found, 1 if not, 2 if it cannot run.
    """
    if importlib.util.find_spec("pydoc_data") is None:
        say("The demo answers from pydoc_data.topics, which this Python does not have.")
        return 2
    if path is not None and (os.path.lexists(path) or anyio.run(_is_store, path)):
        say(
            f"{shown_place(path)} exists already. The demo wants a file of its own: name a new one."
        )
        return 2
    if path is not None and not (is_address(path) or Path(path).absolute().parent.is_dir()):
        say(f"There is no directory to make {shown_place(path)} in.")
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
        say(f"The file is kept. Look into it:  memvid-async sessions {shown_place(path)}")
    return status


async def _is_store(path: str) -> bool:
    with contextlib.suppress(StoreNotFoundError):
        await require_store(path)
        return True
    return False


# --- recording, and the crash ------------------------------------------------------------------


def _record_and_kill(file: str, say: Say, kill_after: int) -> list[Ack] | None:
    """Let a child process work until enough asks are acked, and kill it; return all its acks."""
    say("1. PUT AND ASK")
    say(f"   A child process opens {shown_place(file)} and puts the text of pydoc into its")
    say(f"   memory, passage by passage. Then {AGENT_COUNT} agent tasks ask it about Python:")
    say("   store.ask() searches it, passes the frames to a model (here: a function that picks a")
    say("   sentence) and records both. The agent then puts the answer in as a note.")
    say("   When the store acks a put or an ask, it is on the disk, and the child says so through")
    say("   a pipe. The parent counts what it reads from the pipe.")
    say("")
    started = time.perf_counter()
    with _child(file) as child:
        acks = list(_read_acks(child, say, kill_after))
        status = child.wait()
    seconds = time.perf_counter() - started
    asks = sum(ack["kind"] == "ask" for ack in acks)
    if asks < kill_after:
        say(f"   The child stopped by itself, with status {status}, after {len(acks)} acks.")
        return None
    say(
        f"   … and so on: {len(acks) - asks} frames and {asks} asks acked in {seconds:.1f} s, "
        "the start of Python included."
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
    """Yield every whole ack that the child sends, and kill it when there are enough."""
    pipe: IO[bytes] | None = child.stdout
    assert pipe is not None
    asks = 0
    for line in pipe:
        if not line.endswith(b"\n"):
            break
        ack: Ack = json.loads(line)
        yield ack
        if ack["kind"] != "ask":
            continue
        asks += 1
        if asks <= _SHOWN_ANSWERS:
            say(f"   Q  {shorten(ack['question'], _WIDTH)}")
            say(f"   A  {shorten(ack['answer'], _WIDTH)}")
            say("")
        if asks == kill_after:
            child.kill()


# --- opening again -----------------------------------------------------------------------------


async def _open_again(file: str, acks: list[Ack], say: Say) -> int:
    say("3. OPEN AGAIN")
    say(f"   async with open_store({shown_place(file)!r}) as store:")
    started = time.perf_counter()
    async with open_store(file) as store:
        opened = format_duration(int(1e9 * (time.perf_counter() - started)))
        say(
            f"   Open in {opened}: {format_size(store.statistics().file_bytes)}, "
            f"{store.last_sequence} events; {store.torn_tail.bytes_dropped} bytes of torn tail cut."
        )
        findings = await _compare(store, acks)
        report = await store.verify()
        say("")
        say(f"   acked before the crash         {len(acks):6}")
        say(f"   frames found, equal by value   {findings.frames:6}")
        say(f"   asks found, equal by value     {findings.asks:6}")
        say(f"   missing or different           {len(findings.wrong):6}")
        say(f"   recorded, ack still on its way {findings.beyond:6}")
        say(f"   the whole file verified        {'fine' if report.ok else 'DAMAGED':>6}")
        for problem in (*findings.wrong, *map(str, report.problems))[:10]:
            say(f"   ! {shorten(problem, _WIDTH)}")
        say("")
        again = await _ask_again(store, [ack for ack in acks if ack["kind"] == "ask"], say)
        await _list_sessions(store, say)
        await _show_session(store, next(a["session"] for a in acks if a["kind"] == "ask"), say)
    good = findings.found == len(acks) and report.ok and again
    say(
        "Everything that was acked is there." if good else "NOT everything that was acked is there."
    )
    return 0 if good else 1


async def _compare(store: Store, acks: list[Ack]) -> Findings:
    """Look up every ack in the file and compare the values."""
    actions: dict[tuple[str, int], Action] = {}
    for summary in await store.list_sessions(include_open=True):
        session = await store.get_session(summary.session_id)
        asked = (action for action in session.actions if action.kind == "ask")
        actions.update({(str(session.session_id), action.index): action for action in asked})
    findings = Findings()
    for ack in acks:
        if ack["kind"] == "frame":
            where = f"frame {ack['frame']}"
            held: Any = await _held_text(store, ack["frame"])
            acked: Any = ack["text"]
        else:
            where = f"action {ack['index']} of session {ack['session']}"
            held = await _held_ask(store, actions.get((ack["session"], ack["index"])))
            acked = (ack["question"], ack["answer"], ack["frames"])
        if held is None:
            findings.wrong.append(f"{where} is missing")
        elif held != acked:
            findings.wrong.append(f"{where} is not what was recorded")
        elif ack["kind"] == "frame":
            findings.frames += 1
        else:
            findings.asks += 1
    findings.beyond = store.statistics().frame_count + len(actions) - len(acks)
    return findings


async def _held_text(store: Store, frame_id: int) -> str | None:
    try:
        frame = await store.get(frame_id)
    except FrameNotFoundError:
        return None
    return (await store.read_content(frame.content)).decode()


async def _held_ask(store: Store, action: Action | None) -> tuple[str, str, list[int]] | None:
    if action is None or action.input is None or action.output is None:
        return None
    question = (await store.read_content(action.input)).decode()
    answer = (await store.read_content(action.output)).decode()
    return question, answer, list(action.affected_frames)


async def _ask_again(store: Store, asks: list[Ack], say: Say) -> bool:
    """Whether the memory, as it was at some of the asks, returns the same frames as then."""
    say("4. BACK IN TIME")
    say("   Every ask records the moment of its search. await store.at() opens the memory of that")
    say("   moment, whatever was put since.")
    say("")
    same = 0
    some = asks[:: max(1, len(asks) // _ASKED_AGAIN)][:_ASKED_AGAIN]
    for ack in some:
        session = await store.get_session(ack["session"])
        retrieval = session.actions[ack["index"]].retrieval
        assert retrieval is not None
        view = await store.at(sequence=retrieval.as_of)
        found = await view.find(ack["question"], top_k=TOP_K, tags=[TAG])
        is_same = [hit.frame_id for hit in found.hits] == ack["frames"]
        same += is_same
        say(
            f"   event {retrieval.as_of:6}  {shorten(ack['question'], 60):60}  "
            f"{'the same frames' if is_same else 'OTHER FRAMES'}"
        )
    say("")
    return same == len(some)


async def _list_sessions(store: Store, say: Say) -> None:
    say("5. THE SESSIONS")
    say("   The agents' sessions are still open, as their process died; store.resume_session()")
    say("   continues one.")
    say("")
    say(f"   {'id':8}  {'name':8}  {'started (UTC)':23}  {'actions':>7}  {'lasted':>9}")
    for summary in await store.list_sessions(include_open=True):
        say(
            f"   {str(summary.session_id)[:8]}  {shorten(summary.name or '', 8):8}  "
            f"{format_time(summary.created_ns):23}  {summary.action_count:7}  "
            f"{format_duration(summary.duration_ns):>9}"
        )
    say("")


async def _show_session(store: Store, session_id: str, say: Say) -> None:
    session = await store.get_session(session_id)
    say(f"6. ONE OF THEM: {shorten(session.name or '', 40)}, its first {_SHOWN_ACTIONS} actions")
    say("")
    for action in session.actions[:_SHOWN_ACTIONS]:
        text = action.input.preview if action.input is not None else ""
        say(f"   {action.index:3}  {action.kind.value:4}  {shorten(text, _WIDTH - 16)}")
        if action.retrieval is not None and action.output is not None:
            frames = ", ".join(map(str, action.affected_frames))
            say(f"              from frames {frames}, as of event {action.retrieval.as_of}")
            say(f"              -> {shorten(action.output.preview, _WIDTH - 32)}")
    say("")
