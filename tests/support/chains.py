"""Files with very long chains, and with forks that nobody could have made, quickly."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from memvid_async import ActionKind, RecordingConfig
from memvid_async.core import commands
from memvid_async.events.event import Event, SessionEnded, SessionStarted
from memvid_async.events.frames import ForkPoint
from memvid_async.file.journal import Journal
from memvid_async.file.log_file import LogFile
from memvid_async.format.codec import encode_events
from memvid_async.format.header import Header
from memvid_async.format.segment import SegmentKind
from memvid_async.storage.disk import FileStorage
from tests.support.naive import ask, fixed_config

MARKED_EVERY = 100


def put(session: int, text: str) -> commands.ChangeMemory:
    """Put a frame of text, in a session."""
    return commands.ChangeMemory(
        session, ActionKind.PUT, "english", (text,), 0, {}, 0, None, {}
    )  # fmt: skip


def fork_chain(path: Path, count: int) -> list[UUID]:
    """A session and ``count`` forks, each of the one before; the ids.

    Each asks something and puts a frame; every hundredth marks a checkpoint.
    """
    journal = Journal.open(FileStorage.open(path), fixed_config())
    journal.begin()
    ids: list[UUID] = []
    point: ForkPoint | None = None
    for i in range(count + 1):
        ids.append(UUID(int=i + 1))
        started = commands.StartSession(ids[-1], f"session {i}", RecordingConfig(), fork=point)
        number = journal.stage(started)
        journal.stage(ask(number, f"question {i}", f"answer {i}").command())
        if i % MARKED_EVERY == 0:
            journal.stage(commands.CreateCheckpoint(number))
        _, action = journal.stage(put(number, f"frame {i} word{i % 50}"))
        journal.stage(commands.EndSession(number))
        state = journal.view.state
        session = state.sessions[number]
        branch = number if number in state.memory.branches else 0
        point = ForkPoint(
            number,
            ids[-1],
            action.sequence,
            session.action_count,
            session.checkpoint_count,
            branch,
            state.memory.last_frame,
            *state.memory.summary(branch),
        )
    journal.flush()
    journal.close()
    journal.release()
    return ids


def forks_as_claimed(path: Path, parents: Iterable[tuple[int, int]]) -> list[UUID]:
    """Sessions that claim to be forks; the ids.

    Each comes with its parent's number, and the place in the list of the session whose id it claims
    its parent to have. The sessions' numbers are 1, 3, 5 …
    """
    storage = FileStorage.open(path)
    file = LogFile.create(storage, Header(UUID(int=7)))
    parents = list(parents)
    ids = [UUID(int=i + 1) for i in range(len(parents))]
    for i, (parent, place) in enumerate(parents):
        number = 2 * i + 1
        fork = ForkPoint(parent, ids[place], number, 3, 1, parent, 0, 0, bytes(32))
        started = SessionStarted(f"session {i}", False, RecordingConfig(), {}, fork)
        for sequence, payload in ((number, started), (number + 1, SessionEnded())):
            events = [Event(sequence, sequence, ids[i], payload, number)]
            file.append(SegmentKind.EVENTS, encode_events(events), events)
    file.write_out()
    storage.close()
    return ids
