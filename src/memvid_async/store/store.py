"""Opening a store, and what a caller does with it. Wires the parts; holds no logic of its own."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

import anyio
from attrs import evolve, frozen

from ..config import RecordingConfig, StoreConfig
from ..core.commands import DeleteSession, EndSession, ResumeSession, SessionChoice, StartSession
from ..engine.follower import Follower
from ..engine.subscription import Subscription
from ..engine.tail import Tail
from ..engine.worker import Job, Worker, check_process, fork_count
from ..engine.writer import Writer
from ..errors import (
    InvalidValueError,
    MemvidAsyncError,
    SessionNotFoundError,
    StoreClosedError,
    StoreFailedError,
)
from ..events.event import Action, Event, Session, SessionSummary
from ..events.values import LARGE
from ..file.compact import CompactReport
from ..file.journal import Journal
from ..file.log_file import TornTail
from ..file.reader import Reader, View
from ..file.verify import Verifier, VerifyReport
from ..memory.folded import Lineage, lineage_of
from ..memory.frame_store import FrameStore
from ..memory.past import fork_point, sequence_at, session_moment
from ..memory.recall import Recall
from ..recording.intake import Intake
from ..recording.prepare import (
    prepare_count,
    prepare_metadata,
    prepare_session_id,
    prepare_text,
    rough_size,
)
from ..recording.recorder import ActionRecorder, SessionRecorder
from ..replay.replays import Replays
from ..storage import FileStorage
from .contents import ContentReader
from .views import StoreView

T = TypeVar("T")


@frozen
class StoreStatistics:
    """A store at a moment. Sizes are in bytes.

    ``frame_count``: in the memory that all share. ``pending_commands`` / ``pending_bytes``: what
    waits for the writer. ``tail_events`` / ``tail_bytes``: the newest events, held in memory for
    subscribers. ``bytes_dropped``: the torn tail that opening found. ``generation``: how often the
    file was compacted.
    """

    path: Path
    file_bytes: int
    last_sequence: int
    session_count: int
    open_session_count: int
    content_count: int
    frame_count: int
    bytes_dropped: int
    generation: int
    pending_commands: int
    pending_bytes: int
    tail_events: int
    tail_bytes: int
    subscriber_count: int


class Store(FrameStore, ContentReader, Replays, ActionRecorder[Action | None]):
    """An open file of recorded sessions. Made by :func:`open_store`.

    Its ``record_…`` methods record into the session whose block the calling task is in, else into
    the file's ambient session, else nowhere: they then return None.
    """

    def __init__(
        self,
        path: Path,
        journal: Journal,
        config: StoreConfig,
        io: Worker,
        *,
        read_only: bool,
    ) -> None:
        self._path = path
        self._journal = journal
        self._config = config
        reads = self._reads = Worker("memvid_async reads")
        releasing = self._releasing = list[Job[None]]()

        def release() -> None:
            """Let the file go, behind the reads that are under way."""
            releasing.append(reads.start(journal.release))
            reads.stop()

        self._tail = Tail(journal.view.state.last_sequence, config.limits.tail_bytes, release)
        self._writer = self._follower = None
        if read_only:
            self._follower = Follower(journal, self._tail, io, self._reads, config.poll_interval)
        else:
            self._writer = Writer(journal, self._tail, io, self._reads, config)
        self._forks = fork_count()
        self._closed = False
        super().__init__(Intake(self._writer, self._reads, config.limits))
        self._recall = Recall(self._intake, journal, config.limits)

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

        The ambient session, and sessions whose block was not left, stay open in the file.

        :raises StoreFailedError: when events that were acked as buffered could not be written.
        """
        if fork_count() != self._forks:
            # A forked child has neither the task nor the threads; the file is the parent's.
            self._closed = True
            return
        with anyio.CancelScope(shield=True):
            was_closed, self._closed = self._closed, True
            try:
                if not was_closed:
                    await self._recall.finish(self._writer)
                if self._writer is not None:
                    await self._writer.aclose()
                if self._follower is not None:
                    await self._follower.aclose()
            finally:
                for job in self._releasing:
                    # Of a loop that has ended, nobody can wait for anything.
                    if job.loop is asyncio.get_running_loop():
                        await job.wait()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(
                f"unclosed store {self._path}", ResourceWarning, stacklevel=1, source=self
            )

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def read_only(self) -> bool:
        """Whether it was opened with ``read_only=True``."""
        return self._follower is not None

    @property
    def torn_tail(self) -> TornTail:
        """The torn tail that was found, if one was: how many bytes, and where."""
        return self._journal.torn_tail

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event as folded; 0 in an empty store."""
        return self._view.state.last_sequence

    @property
    def _view(self) -> View:
        engine = self._writer or self._follower
        assert engine is not None
        return engine.view

    # The ambient session.

    @property
    def active_session_id(self) -> UUID | None:
        """The id of the file's ambient session, None while there is none; as last folded."""
        state = self._view.state
        if state.ambient is None:
            return None
        return state.sessions[state.ambient].info.session_id

    @property
    def is_recording(self) -> bool:
        """Whether the file has an ambient session; as last folded."""
        return self._view.state.ambient is not None

    async def start_session(
        self, name: str | None = None, config: RecordingConfig | None = None
    ) -> UUID:
        """Start the file's ambient session: it outlives the process, and is resumed by opening.

        :raises SessionActiveError: when one is active already.
        """
        command = self._start_command(name, config, None, ambient=True)
        await self._intake.submit(command)
        return command.session_id

    def _start_command(
        self,
        name: str | None,
        config: RecordingConfig | None,
        metadata: Mapping[str, Any] | None,
        *,
        ambient: bool,
    ) -> StartSession:
        limits = self._config.limits
        if name is not None:
            prepare_text(name, "name", "name_chars", limits.name_chars)
        if config is None:
            config = self._config.recording
        elif not isinstance(config, RecordingConfig):
            raise InvalidValueError("config must be a RecordingConfig")
        return StartSession(
            self._config.new_id(), name, config, prepare_metadata(metadata, limits), ambient=ambient
        )

    async def end_session(self) -> Session:
        """End the ambient session and return it, whole.

        :raises NoActiveSessionError: when there is none.
        """
        ended = await self._intake.submit(EndSession(None))
        return await self.get_session(ended.info.session_id)

    async def create_checkpoint(self) -> int:
        """Mark a checkpoint in the session in force; its id, counted from 0 in the session.

        :raises NoActiveSessionError: when no session is in force.
        """
        return await self._intake.checkpoint(self._choice())

    async def start_session_if_none(self) -> None:
        """Start the ambient session where there is none (``auto_record``)."""
        command = self._start_command(None, None, None, ambient=True)
        await self._intake.submit(evolve(command, if_none=True))

    def _choice(self) -> SessionChoice:
        return self._intake.blocks.entered

    # Sessions of the caller's own.

    def session(
        self,
        name: str | None = None,
        config: RecordingConfig | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SessionRecorder:
        """A new session for an ``async with`` block; any number may be open at once.

        ``config`` None takes ``StoreConfig.recording``. ``metadata``: a CBOR map.
        """
        if rough_size(metadata) < LARGE:
            command = self._start_command(name, config, metadata, ambient=False)
            return SessionRecorder(self._intake, command)
        command = self._start_command(name, config, None, ambient=False)
        return SessionRecorder(self._intake, command, metadata)

    def resume_session(self, session_id: UUID) -> SessionRecorder:
        """Go on with a session that a crash left open, in an ``async with`` block.

        Entering raises :class:`SessionNotFoundError` or :class:`SessionEndedError`.
        """
        return SessionRecorder(self._intake, ResumeSession(prepare_session_id(session_id)))

    async def list_sessions(self, *, include_open: bool = False) -> list[SessionSummary]:
        """The ended sessions, oldest first; the open ones too with ``include_open``."""
        view = await self._fresh_view()
        sessions = sorted(view.state.sessions.items())
        return [s.summary() for _, s in sessions if include_open or s.ended_ns is not None]

    async def get_session(self, session_id: UUID) -> Session:
        """A session, whole; of an open one, what is recorded so far.

        :raises SessionNotFoundError: when there is none with this id.
        :raises CorruptFileError: when it cannot be read.
        """
        return await self._read(Reader.session, prepare_session_id(session_id))

    async def fork(
        self,
        session_id: UUID,
        *,
        checkpoint_id: int | None = None,
        action_index: int | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> UUID:
        """Start a session that shares a session's past, up to and with a checkpoint or an action
        (neither: all of it so far); its id, to be continued with :meth:`resume_session`.

        The parent stays as it is, and nothing is copied. In the fork the memory is what it was
        then, and what it puts, updates or deletes nobody outside it sees. It records as its parent
        did; ``name`` and ``metadata`` are its own.

        :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
        :raises InvalidValueError: when there is no such action, or both are given.
        """
        if checkpoint_id is not None and action_index is not None:
            raise InvalidValueError("say where to fork: checkpoint_id or action_index, not both")
        for value, what in ((checkpoint_id, "checkpoint_id"), (action_index, "action_index")):
            if value is not None:
                prepare_count(value, what)
        view = await self._fresh_view()
        parent, point = await self._reads.run(
            fork_point, view, prepare_session_id(session_id), checkpoint_id, action_index
        )
        command = self._start_command(name, parent.info.config, metadata, ambient=False)
        await self._intake.submit(evolve(command, fork=point))
        return command.session_id

    async def delete_session(self, session_id: UUID) -> None:
        """Delete a session: hidden at once; its bytes stay in the file until it is compacted.

        :raises SessionNotFoundError: when there is none with this id.
        """
        await self._intake.submit(DeleteSession(prepare_session_id(session_id)))

    # Reading.

    async def _fresh_view(self) -> View:
        """What is readable now; buffered events are written first, so that own writes are seen."""
        self._check_open()
        if self._writer is not None:
            if self._writer.dirty:
                await self.sync()
            # Others may have staged something since.
            return self._writer.written_view
        if self._follower is not None:
            await self._follower.catch_up()
        return self._view

    async def _read(self, call: Callable[..., T], *args: Any) -> T:
        view = await self._fresh_view()
        return await self._reads.run(call, view.reader, view, *args)

    def _check_open(self) -> None:
        check_process(self._forks)
        if self._writer is not None and not self._closed:
            self._writer.check()
        if self._follower is not None and self._follower.failure is not None:
            raise self._follower.failure
        if self._closed or self._tail.closed:
            raise StoreClosedError("the store is closed")

    # The memory.

    @property
    def _records(self) -> bool:
        if self._writer is None:
            return False
        return self._view.state.in_force(self._intake.blocks.entered) is not None

    def _written_view(self) -> View:
        return self._view if self._writer is None else self._writer.written_view

    async def _memory_view(self) -> tuple[View, Lineage]:
        if self._writer is not None:
            self._writer.watch()
        view = await self._fresh_view()
        session = view.state.in_force(self._intake.blocks.entered)
        return view, lineage_of(view.state, session.info.number if session is not None else 0)

    async def at(
        self,
        *,
        sequence: int | None = None,
        time_ns: int | None = None,
        session_id: UUID | None = None,
        checkpoint_id: int | None = None,
    ) -> StoreView:
        """The store as it was after an event, at a time, at a session's checkpoint or at its end.

        ``sequence``: the last event that counts. ``time_ns``: nanoseconds since the Unix epoch.
        ``session_id`` alone: the session's last event.

        :raises InvalidValueError: unless it says just one moment.
        :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
        """
        if [sequence, time_ns, session_id].count(None) != 2 or (
            checkpoint_id is not None and session_id is None
        ):
            raise InvalidValueError(
                "say one moment: sequence, time_ns, or session_id (with a checkpoint_id or not)"
            )
        view, number = await self._fresh_view(), 0
        if checkpoint_id is not None:
            prepare_count(checkpoint_id, "a checkpoint id")
        if session_id is not None:
            number, moment = await self._reads.run(
                session_moment, view, prepare_session_id(session_id), checkpoint_id
            )
        elif time_ns is not None:
            moment = await self._reads.run(sequence_at, view, prepare_count(time_ns, "time_ns"))
        else:
            moment = prepare_count(sequence, "sequence")
            if moment > view.state.last_sequence:
                raise InvalidValueError(
                    f"the log ends at {view.state.last_sequence}, before sequence {moment}"
                )
        lineage = lineage_of(view.state, number, moment)
        return StoreView(
            moment, lineage, self._recall, self._config, self._fresh_view, self._reads.run
        )

    # The stream.

    def subscribe(self, after: int = 0, *, session_id: UUID | None = None) -> Subscription:
        """Events with a sequence above ``after``, from the file and then live, in order.

        ``session_id``: of this session only.

        :raises SessionNotFoundError: when there is no such session.
        """
        self._check_open()
        if type(after) is not int or after < 0:
            raise InvalidValueError(f"after must be a sequence, an int from 0, not {after!r}")
        number = None
        if session_id is not None:
            session = self._view.state.find(prepare_session_id(session_id))
            if session is None:
                raise SessionNotFoundError(session_id)
            number = session.info.number
        if self._writer is not None:
            self._writer.watch()
        return Subscription(
            self._tail,
            self._read_events,
            lambda: self._view.state,
            self._failure,
            after=after,
            session=number,
        )

    async def _read_events(self, after: int, number: int | None) -> tuple[list[Event], int]:
        view, limit = self._view, self._config.limits.read_bytes
        # What is folded may be ahead of what is durable; no reader passes that over.
        durable = self._tail.last_sequence
        if number is not None:
            events, reached = await self._reads.run(
                view.reader.session_events, view, number, after, limit
            )
            return events, min(reached, durable)
        events = await self._reads.run(view.reader.events_after, view, after, limit)
        return events, events[-1].sequence

    def _failure(self) -> MemvidAsyncError | None:
        engine = self._writer or self._follower
        return engine.failure if engine is not None else None

    # The whole.

    async def sync(self) -> None:
        """Return once everything recorded before this call is durable.

        :raises StoreFailedError: when it cannot be made so.
        """
        await self._intake.submit(None, 0)

    async def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Read the whole file again and check it: checksums, chain, sequences, folds, contents.

        ``progress`` is called on the loop with the bytes done and the bytes there are.
        """
        _progress(progress)
        view = await self._fresh_view()
        verifier = Verifier(view.reader.storage, view)
        while not verifier.finished:
            try:
                await self._reads.run(verifier.step)
            except StoreFailedError:
                if view.reader is self._view.reader:
                    raise
                # A compaction replaced the file meanwhile: the new one is checked, from its start.
                view = self._written_view()
                verifier = Verifier(view.reader.storage, view)
            if progress is not None:
                progress(verifier.done_bytes, verifier.total_bytes)
        return verifier.report()

    async def compact(self, progress: Callable[[int, int], None] | None = None) -> CompactReport:
        """Write the file anew without what was deleted, and put it in the place of the old one.

        Deleted sessions, and content that no other event refers to, are gone from the bytes; their
        events are delivered as :class:`Erased`, so sequences stay gapless. Everything else is
        unchanged. Other processes that have the file open move to the new one; they wait for it as
        for any writer. Killed, it leaves the old file, and at most ``NAME.compact`` beside it,
        which the next opening removes. ``progress`` is called on the loop with the bytes done and
        the bytes there are. A cancelled call may or may not have compacted.

        :raises CorruptFileError: when the file is damaged; it stays as it is.
        """
        _progress(progress)
        loop = asyncio.get_running_loop()

        def tell(done: int, total: int) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, done, total)

        report: CompactReport = await self._intake.run_alone(lambda: self._journal.compact(tell))
        return report

    def statistics(self) -> StoreStatistics:
        """Counts and sizes as of now."""
        self._check_open()
        view, tail, writer = self._view, self._tail, self._writer
        sessions = view.state.sessions
        return StoreStatistics(
            path=self._path,
            file_bytes=view.end,
            last_sequence=view.state.last_sequence,
            session_count=len(sessions),
            open_session_count=sum(s.ended_ns is None for s in sessions.values()),
            content_count=self._journal.content_count,
            frame_count=view.state.memory.frame_count,
            bytes_dropped=self._journal.torn_tail.bytes_dropped,
            generation=view.state.generation,
            pending_commands=writer.waiting if writer is not None else 0,
            pending_bytes=writer.queued_bytes if writer is not None else 0,
            tail_events=len(tail),
            tail_bytes=tail.tail_bytes,
            subscriber_count=tail.readers,
        )


def _progress(value: object) -> None:
    if value is not None and not callable(value):
        raise InvalidValueError("progress must be callable, or None")


class OpenStore:
    """What :func:`open_store` returns: await it, or use it in an ``async with`` block."""

    def __init__(self, path: Path, config: StoreConfig, *, read_only: bool) -> None:
        self._path = path
        self._config = config
        self._read_only = read_only
        self._journal: Journal | None = None
        self._store: Store | None = None

    def __await__(self) -> Generator[Any, None, Store]:
        return self._open().__await__()

    async def __aenter__(self) -> Store:
        self._store = await self._open()
        return self._store

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._store is not None:
            await self._store.aclose()

    def _open_journal(self) -> Journal:
        storage = FileStorage.open(self._path, read_only=self._read_only)
        self._journal = Journal.open(storage, self._config, read_only=self._read_only)
        return self._journal

    def _abandon(self) -> None:
        if self._journal is not None:
            self._journal.release()

    async def _open(self) -> Store:
        io = Worker("memvid_async file")
        opening = io.start(self._open_journal)
        try:
            journal = await opening.wait()
        except asyncio.CancelledError:
            # The thread goes on: what it opened is closed behind it.
            io.start(self._abandon)
            io.stop()
            raise
        except BaseException:
            io.stop()
            raise
        store = Store(self._path, journal, self._config, io, read_only=self._read_only)
        recording = self._config.recording
        if recording.auto_record and not self._read_only and not store.is_recording:
            try:
                await store.start_session_if_none()
            except BaseException:
                await store.aclose()
                raise
        return store


def open_store(
    path: str | os.PathLike[str],
    *,
    config: StoreConfig | None = None,
    read_only: bool = False,
) -> OpenStore:
    """Open a file, in an ``async with`` block or by awaiting the call and ``aclose()``.

    For writing, a file that is not there is created, and a torn tail is cut (see
    :attr:`Store.torn_tail`). ``read_only`` follows a file that others may be writing.

    Opening raises

    - :class:`NotAStoreError`, :class:`StoreNotFoundError`, :class:`UnsupportedVersionError`: it
      is no file of ours, or not yet;
    - :class:`CorruptFileError`: what was known to be durable is damaged;
    - :class:`StoreReadOnlyError`, :class:`StoreLockedError`, :class:`StoreFailedError`.
    """
    try:
        where = Path(os.fspath(path))
        os.fsencode(where)
    except (TypeError, UnicodeEncodeError):
        raise InvalidValueError(f"path must be a str or a path, not {path!r:.80}") from None
    if "\0" in str(where):
        raise InvalidValueError("path holds a NUL character")
    if not isinstance(read_only, bool):
        raise InvalidValueError(f"read_only must be a bool, not {read_only!r:.80}")
    if config is not None and not isinstance(config, StoreConfig):
        raise InvalidValueError("config must be a StoreConfig")
    return OpenStore(where.absolute(), config or StoreConfig(), read_only=read_only)
