"""The store: holds its parts and wires them, with no logic of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from attrs import evolve, frozen

from ..config import StoreConfig
from ..core.reports import CompactReport, TornTail, VerifyReport
from ..engine.engine import Engine
from ..engine.event_log import EventLog
from ..engine.subscription import Subscription
from ..engine.worker import Worker
from ..engine.writer import Writer
from ..errors import InvalidValueError, SessionNotFoundError
from ..events.printing import amount
from ..memory.checking_saved import check_saved
from ..memory.collection import Collection
from ..memory.folded import lineage_of
from ..memory.frame_store import FrameStore
from ..memory.key_recall import KeyRecall
from ..memory.key_vectors import KeySearch
from ..memory.past import sequence_at, session_moment
from ..memory.recall import Recall
from ..recording.command_intake import CommandIntake
from ..recording.prepare_values import (
    prepare_count,
    prepare_progress,
    prepare_session_id,
    prepare_time,
)
from ..recording.session_lock import SessionLocks
from ..recording.store_recorder import StoreRecorder
from ..replay.replays import Replays
from .contents import Contents
from .folding import fold_projections
from .parts import PartMethod
from .pruning import Pruning
from .queries import Queries
from .sessions import Sessions
from .views import StoreView


@frozen
class StoreStatistics:
    """Counts and sizes of a store at one moment."""

    path: Path
    """The file."""
    file_bytes: int
    """The length of the log, in bytes."""
    last_sequence: int
    """The sequence of the newest event."""
    session_count: int
    """Sessions that are not deleted."""
    open_session_count: int
    """Those of them that have not ended."""
    content_count: int
    """Distinct contents of 1 KiB or more."""
    frame_count: int
    """Frames in the memory that all sessions share."""
    bytes_dropped: int
    """The length of the torn tail that was found last, in bytes."""
    generation: int
    """How often the file was compacted."""
    pending_commands: int
    """Commands that wait for the writer."""
    pending_bytes: int
    """Their size, in bytes."""
    tail_events: int
    """Newest events, kept in memory for subscribers."""
    tail_bytes: int
    """Their size, in bytes."""
    subscriber_count: int
    """Open subscriptions."""


class Store:
    """An open store of recorded sessions. Made by :func:`open_store`.

    Its ``record_…`` methods record into the session in force: the open session whose block the
    calling task is in, otherwise the file's ambient session. Without any they record nothing and
    return None.
    """

    def __init__(
        self, path: Path, log: EventLog, reads: Worker, config: StoreConfig, *, read_only: bool
    ) -> None:
        self._path = path
        self._engine = engine = Engine(log, reads, config, read_only=read_only)
        self._intake = intake = CommandIntake(
            engine.writer, reads, config.limits, engine.home, SessionLocks(path)
        )
        self._recall = recall = Recall(engine, intake, config.limits)
        self._keys = keys = KeyRecall(engine, intake, config.limits)

        def rewritten() -> None:
            recall.leave()
            keys.leave()

        engine.tail.on_rewritten = rewritten
        self._frames = FrameStore(engine, intake, recall, config)
        self._recorder = StoreRecorder(intake)
        self._sessions = Sessions(engine, self._frames, intake, config)
        self._contents = Contents(engine)
        self._queries = Queries(engine)
        self._pruning = Pruning(engine, intake, self._sessions, keys, config)
        made = self._sessions.fork, self._sessions.start_for_resume
        self._replays = Replays(engine, self._frames, intake, *made, config.limits)

    # Opening and closing.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write what is queued, end the subscriptions and release the file. Safe to call twice.

        The ambient session, and sessions whose block was not left, stay open in the file. It may be
        called on another event loop, and after the store's own loop has ended.

        :raises StoreFailedError: when events that a buffered store has acked could not be written.
        """
        try:
            await self._engine.aclose(self._finish)
        finally:
            self._intake.locks.close()

    async def _finish(self, writer: Writer | None) -> None:
        try:
            await self._recall.finish(writer)
        finally:
            await self._keys.finish(writer)

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None and not engine.closed:
            warnings.warn(
                f"unclosed store {self._path}", ResourceWarning, stacklevel=1, source=self
            )

    def __repr__(self) -> str:
        engine = self._engine
        if engine.closed:
            return f"<Store {str(self._path)!r}: closed>"
        state = engine.view.state
        still_open = len(state.sessions.open)
        how = "read-only, " if self.read_only else ""
        how += "" if engine.failure is None else "failed, "
        return (
            f"<Store {str(self._path)!r}: {how}{amount(state.last_sequence, 'event')}, "
            f"{amount(len(state.sessions), 'session')} ({still_open:,} open), "
            f"{amount(state.memory.frame_count, 'frame')}>"
        )

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self._path

    @property
    def read_only(self) -> bool:
        """Whether it was opened with ``read_only=True``."""
        return self._engine.writer is None

    @property
    def torn_tail(self) -> TornTail:
        """The torn tail that was found last: how many bytes were dropped, and where it began."""
        return self._engine.log.torn_tail

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event, as last folded; 0 in an empty store."""
        return self._engine.view.state.last_sequence

    # Sessions.

    @property
    def active_session_id(self) -> UUID | None:
        """The id of the file's ambient session, as last folded; None while there is none."""
        return self._sessions.active_session_id

    @property
    def is_recording(self) -> bool:
        """Whether the file has an ambient session, as last folded."""
        return self._sessions.active_session_id is not None

    start_session = PartMethod("_sessions", Sessions.start_session)
    start_session_if_none = PartMethod("_sessions", Sessions.start_session_if_none)
    end_session = PartMethod("_sessions", Sessions.end_session)
    session = PartMethod("_sessions", Sessions.session)
    resume_session = PartMethod("_sessions", Sessions.resume_session)
    list_sessions = PartMethod("_sessions", Sessions.list_sessions)
    get_session = PartMethod("_sessions", Sessions.get_session)
    get_summary = PartMethod("_sessions", Sessions.get_summary)
    actions = PartMethod("_queries", Queries.actions)
    usage = PartMethod("_queries", Queries.usage)
    fork = PartMethod("_sessions", Sessions.fork)
    annotate_session = PartMethod("_sessions", Sessions.annotate_session)
    rename_session = PartMethod("_sessions", Sessions.rename_session)
    delete_session = PartMethod("_sessions", Sessions.delete_session)

    # Recording.

    record_ask = PartMethod("_recorder", StoreRecorder.record_ask)
    record_find = PartMethod("_recorder", StoreRecorder.record_find)
    record_put = PartMethod("_recorder", StoreRecorder.record_put)
    record_put_many = PartMethod("_recorder", StoreRecorder.record_put_many)
    record_update = PartMethod("_recorder", StoreRecorder.record_update)
    record_delete = PartMethod("_recorder", StoreRecorder.record_delete)
    record_tool_call = PartMethod("_recorder", StoreRecorder.record_tool_call)
    record_step = PartMethod("_recorder", StoreRecorder.record_step)
    create_checkpoint = PartMethod("_recorder", StoreRecorder.create_checkpoint)

    # The memory.

    put = PartMethod("_frames", FrameStore.put)
    put_many = PartMethod("_frames", FrameStore.put_many)
    update = PartMethod("_frames", FrameStore.update)
    delete = PartMethod("_frames", FrameStore.delete)
    set_embedding_model = PartMethod("_frames", FrameStore.set_embedding_model)
    get = PartMethod("_frames", FrameStore.get)
    frames = PartMethod("_frames", FrameStore.frames)
    find = PartMethod("_frames", FrameStore.find)
    context = PartMethod("_frames", FrameStore.context)
    ask = PartMethod("_frames", FrameStore.ask)

    async def at(
        self,
        *,
        sequence: int | None = None,
        time_ns: int | None = None,
        session_id: UUID | str | None = None,
        checkpoint_id: int | None = None,
    ) -> StoreView:
        """Return a view of the store as it was at one moment.

        ``sequence``: the moment after this event. ``time_ns``: the moment after the last event
        whose time is not later, in nanoseconds since the Unix epoch. ``session_id``: the session's
        end, or with ``checkpoint_id`` its checkpoint.

        :raises InvalidValueError: unless the arguments say exactly one moment.
        :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
        """
        moments = [one for one in (sequence, time_ns, session_id) if one is not None]
        if len(moments) != 1 or (checkpoint_id is not None and session_id is None):
            raise InvalidValueError(
                "say one moment: sequence, time_ns, or session_id (with a checkpoint_id or not)"
            )
        view, number = await self._engine.fresh_view(), 0
        if checkpoint_id is not None:
            prepare_count(checkpoint_id, "a checkpoint id")
        if session_id is not None:
            number, moment = await self._engine.reads.run(
                session_moment, view, prepare_session_id(session_id), checkpoint_id
            )
        elif time_ns is not None:
            moment = await self._engine.reads.run(
                sequence_at, view, prepare_time(time_ns, "time_ns")
            )
        else:
            moment = prepare_count(sequence, "sequence")
            if moment > view.state.last_sequence:
                raise InvalidValueError(
                    f"the log ends at {view.state.last_sequence}, before sequence {moment}"
                )
        lineage = lineage_of(view.state, number, moment)
        return StoreView(
            moment, lineage, self._recall, self._keys, self._frames.config, self._engine
        )

    # Keyed values.

    def collection(self, name: str, *, search: KeySearch | None = None) -> Collection:
        """Return the collection with this name: keyed values and lists, in the same file.

        It is there from its first change on. Two names are two collections, whatever they are.
        ``search``: how what is put through it is embedded, and found by ``find``.

        :raises InvalidValueError, LimitExceededError: when it is not a name.
        """
        engine, keys, config = self._engine, self._keys, self._frames.config
        return Collection(name, engine, self._intake, keys, config, search)

    prune = PartMethod("_pruning", Pruning.prune)

    # What actions hold, and what is done with recordings.

    read_content = PartMethod("_contents", Contents.read_content)
    stream_content = PartMethod("_contents", Contents.stream_content)
    read_arguments = PartMethod("_contents", Contents.read_arguments)
    read_messages = PartMethod("_contents", Contents.read_messages)
    read_new_messages = PartMethod("_contents", Contents.read_new_messages)
    read_context = PartMethod("_contents", Contents.read_context)
    why = PartMethod("_contents", Contents.why)
    read_chunks = PartMethod("_contents", Contents.read_chunks)
    compare = PartMethod("_replays", Replays.compare)
    serve = PartMethod("_replays", Replays.serve)
    replay = PartMethod("_replays", Replays.replay)
    audit = PartMethod("_replays", Replays.audit)

    # The stream.

    def subscribe(self, after: int = 0, *, session_id: UUID | str | None = None) -> Subscription:
        """Subscribe to events with a sequence above ``after``: from the file, then live, in order.

        ``session_id``: only events of this session.

        :raises SessionNotFoundError: when there is no such session.
        """
        self._engine.check_open()
        if type(after) is not int or after < 0:
            raise InvalidValueError(f"after must be a sequence, an int from 0, not {after!r}")
        number = None
        if session_id is not None:
            wanted = prepare_session_id(session_id)
            session = self._engine.view.state.find(wanted)
            if session is None:
                raise SessionNotFoundError(wanted)
            number = session.info.number
        return self._engine.subscribe(after, number)

    # The whole.

    sync = PartMethod("_engine", Engine.sync)
    refresh = PartMethod("_engine", Engine.refresh)

    async def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Read the whole file again and check it: checksums, chain, sequences, folds, contents, and
        that the search index and the keys that it has as saved are those of its events.

        ``progress`` is called on the loop with the bytes done and the bytes in all.
        """
        prepare_progress(progress)
        engine = self._engine
        await engine.fresh_view()
        report = await engine.log.verify(lambda: engine.written_view, progress)
        if not report.ok:
            # Events that are damaged say nothing about what was folded from them.
            return report
        worker = Worker("memvid_async verifying")
        try:
            problems = await worker.run(lambda: tuple(check_saved(engine.written_view)))
        finally:
            worker.stop()
        return evolve(report, ok=not problems, problems=problems)

    async def compact(self, progress: Callable[[int, int], None] | None = None) -> CompactReport:
        """Write a new file without what was deleted, and replace the old one by it.

        The bytes of deleted sessions, and of content that no other event refers to, are gone. Their
        events are delivered as :class:`Erased`, so sequences have no gaps. Nothing else changes.
        What is deleted while this runs goes with the next compaction: others record meanwhile, and
        wait only for the end of it. Other processes that have the file open move to the new one.
        The new file has the old one's owner, group, mode, ACL and extended attributes. If the
        process is killed, the old file is there, and at most ``NAME.ID.compact`` beside it (ID: the
        file's id), which the next opening for writing removes. ``progress`` is called on the loop
        with the bytes done and the bytes in all. A cancelled call may or may not have compacted.

        After these errors the file is as it was, and the store goes on:

        - :class:`CorruptFileError` when the file is damaged;
        - :class:`NotCompactedError` when the new one cannot be written or put in its place: no
          space, no permission, attributes that it cannot have, hard links, a mount point.
        """
        prepare_progress(progress)
        loop = self._engine.home.loop

        def tell(done: int, total: int) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, done, total)

        return await self._engine.log.compact(self._intake.run_alone, tell, fold_projections)

    def statistics(self) -> StoreStatistics:
        """Return counts and sizes as of now."""
        engine, log = self._engine, self._engine.log
        engine.check_open()
        state, tail, writer = engine.view.state, engine.tail, engine.writer
        return StoreStatistics(
            path=self._path,
            file_bytes=log.byte_count,
            last_sequence=state.last_sequence,
            session_count=len(state.sessions),
            open_session_count=len(state.sessions.open),
            content_count=log.content_count,
            frame_count=state.memory.frame_count,
            bytes_dropped=log.torn_tail.bytes_dropped,
            generation=state.generation,
            pending_commands=writer.waiting if writer is not None else 0,
            pending_bytes=writer.queued_bytes if writer is not None else 0,
            tail_events=len(tail),
            tail_bytes=tail.tail_bytes,
            subscriber_count=tail.readers,
        )
