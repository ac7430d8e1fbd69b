"""The part of a store that starts, ends, lists, reads, forks and deletes sessions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from attrs import evolve

from ..config import RecordingConfig, StoreConfig
from ..core.commands import ChangeSession, DeleteSession, EndSession, ResumeSession, StartSession
from ..engine.engine import Engine
from ..engine.reading import list_sessions, read_session, summary_of
from ..errors import InvalidValueError
from ..events.content import EMPTY
from ..events.event import Session, SessionSummary
from ..events.values import LARGE
from ..memory.frame_store import FrameStore
from ..memory.past import fork_point
from ..memory.store_session import StoreSession
from ..recording.command_intake import CommandIntake
from ..recording.prepare_values import (
    prepare_count,
    prepare_flag,
    prepare_listing,
    prepare_metadata,
    prepare_name,
    prepare_seconds,
    prepare_session_id,
    rough_size,
)
from ..replay.match import Match, check_match, check_pace
from ..replay.recorded_errors import ErrorTypes, check_types
from ..replay.resumed import ResumedSession, ResumeOptions
from ..replay.uncertain import Policy, check_policy


class Sessions:
    """The sessions of a store: the ambient session, and any number of the caller's own."""

    def __init__(
        self, engine: Engine, memory: FrameStore, intake: CommandIntake, config: StoreConfig
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._intake = intake
        self._config = config

    # The ambient session.

    @property
    def active_session_id(self) -> UUID | None:
        """The id of the ambient session, as last folded; None while there is none."""
        state = self._engine.view.state
        if state.ambient is None:
            return None
        return state.sessions[state.ambient].info.session_id

    async def start_session(
        self, name: str | None = None, config: RecordingConfig | None = None
    ) -> UUID:
        """Start the file's ambient session and return its id. It outlives the process.

        :raises SessionActiveError: when there is an ambient session already.
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
            name = prepare_name(name, "name", limits)
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

    async def start_session_if_none(self) -> None:
        """Start the ambient session where there is none (``auto_record``)."""
        command = self._start_command(None, None, None, ambient=True)
        await self._intake.submit(evolve(command, if_none=True))

    async def start_for_resume(self) -> UUID:
        """Start a session outside of a block, and return its id."""
        command = self._start_command(None, None, None, ambient=False)
        await self._intake.submit(command)
        return command.session_id

    # Sessions of the caller's own.

    def session(
        self,
        name: str | None = None,
        config: RecordingConfig | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> StoreSession:
        """Return a new session for an ``async with`` block. Any number may be open at once.

        ``config``: None for ``StoreConfig.recording``. ``metadata``: a CBOR map.
        """
        if rough_size(metadata) < LARGE:
            command = self._start_command(name, config, metadata, ambient=False)
            return StoreSession(self._engine, self._memory, self._intake, command)
        command = self._start_command(name, config, None, ambient=False)
        return StoreSession(self._engine, self._memory, self._intake, command, metadata)

    def resume_session(
        self,
        session_id: UUID | str,
        *,
        replay: bool = False,
        uncertain: Policy = "raise",
        errors: ErrorTypes = EMPTY,
        match: Match | Collection[str] | None = None,
        stall: float = 10.0,
        pace: float | None = None,
    ) -> StoreSession:
        """Continue a session that a crash left open, in an ``async with`` block.

        With ``replay`` the agent runs again from its start: calls that had finished are answered
        from the recording, then it goes on live, in the same session. `docs/resuming.md` has the
        rules. ``uncertain`` says what becomes of calls that were in flight: ``"raise"`` refuses,
        ``"run"`` tries them again, and a callable (async or not) is called with each
        :class:`UncertainCall` and returns :data:`RUN`, a :class:`Result` or a :class:`Failed`.
        ``errors``: exception types by the names that the recording has for them, for those that no
        loaded module has. ``match``: what of a call is compared, as ``match(kind, field, value)``
        returns it, or the names of the fields. ``stall``: how many seconds longer than then the
        agent may take to make the next recorded call, while others wait for it. ``pace``: as for
        :meth:`serve`.

        Entering raises :class:`SessionNotFoundError`, :class:`SessionEndedError`, with ``replay``
        :class:`UncertainCallError`, and :class:`SessionActiveError` where the session's agent runs
        already, here or in another process: where it makes calls. With ``record_…`` alone, any
        number of processes may record into one session, without ``replay``.
        """
        command = ResumeSession(prepare_session_id(session_id))
        policy, types = check_policy(uncertain), check_types(errors)
        if not prepare_flag(replay, "replay"):
            return StoreSession(self._engine, self._memory, self._intake, command)
        stall = prepare_seconds(stall, "stall")
        options = ResumeOptions(policy, stall, types, check_match(match), check_pace(pace))
        return ResumedSession(self._engine, self._memory, self._intake, command, options)

    async def list_sessions(
        self,
        *,
        include_open: bool = False,
        newest_first: bool = False,
        after: UUID | str | None = None,
        limit: int | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[SessionSummary]:
        """List the ended sessions, in the order in which they began; with ``include_open`` the
        open ones too.

        ``newest_first``: in the opposite order. ``after``: only those that come after this session
        in that order. ``limit``: at most this many. To list a page at a time, pass the last session
        of a page as ``after`` for the next one. ``name``: only those with this name. ``metadata``:
        only those whose own has all of these keys with these values.

        :raises SessionNotFoundError: when there is no session ``after``.
        """
        options = prepare_listing(
            include_open=include_open,
            newest_first=newest_first,
            after=after,
            limit=limit,
            name=name,
            metadata=metadata,
        )
        return await self._engine.read(lambda view: list_sessions(view.state, **options))

    async def get_summary(self, session_id: UUID | str) -> SessionSummary:
        """Return a session as :meth:`list_sessions` lists it; an open one too. Its actions are not
        read.

        :raises SessionNotFoundError: when there is none with this id.
        """
        return await self._engine.read(summary_of, prepare_session_id(session_id))

    async def get_session(self, session_id: UUID | str) -> Session:
        """Return a session, whole; an open one as far as it is recorded.

        :raises SessionNotFoundError: when there is none with this id.
        :raises CorruptFileError: when it cannot be read.
        """
        return await self._engine.read(read_session, prepare_session_id(session_id))

    async def fork(
        self,
        session_id: UUID | str,
        *,
        checkpoint_id: int | None = None,
        action_index: int | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> UUID:
        """Start a session that shares another's past, and return its id for :meth:`resume_session`.

        It shares the past up to a checkpoint or an action, which is included, or all of it so far.
        The parent does not change, and nothing is copied. The fork's memory is as it was at that
        point, and nobody else sees what the fork puts, updates or deletes. It has its parent's
        ``RecordingConfig``, and its own ``name`` and ``metadata``.

        :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
        :raises InvalidValueError: when there is no such action, or both are passed.
        """
        if checkpoint_id is not None and action_index is not None:
            raise InvalidValueError("say where to fork: checkpoint_id or action_index, not both")
        for value, what in ((checkpoint_id, "checkpoint_id"), (action_index, "action_index")):
            if value is not None:
                prepare_count(value, what)
        view = await self._engine.fresh_view()
        parent, point = await self._engine.reads.run(
            fork_point, view, prepare_session_id(session_id), checkpoint_id, action_index
        )
        command = self._start_command(name, parent.info.config, metadata, ambient=False)
        await self._intake.submit(evolve(command, fork=point))
        return command.session_id

    async def annotate_session(self, session_id: UUID | str, metadata: Mapping[str, Any]) -> None:
        """Add to a session's metadata, whether it has ended or not; what it has of the same key is
        replaced.

        :raises InvalidValueError: when it cannot be recorded.
        :raises LimitExceededError: when it is too long, alone or with what there is.
        :raises SessionNotFoundError: when there is no session with this id.
        """
        await self._intake.annotate(prepare_session_id(session_id), metadata)

    async def rename_session(self, session_id: UUID | str, name: str | None) -> None:
        """Give a session another name, whether it has ended or not; None takes its name away.

        :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
        :raises SessionNotFoundError: when there is no session with this id.
        """
        limits, found = self._config.limits, prepare_session_id(session_id)
        if name is not None:
            name = prepare_name(name, "name", limits)
        await self._intake.submit(ChangeSession(found, {"name": name}, limits.value_bytes))

    async def delete_session(self, session_id: UUID | str) -> None:
        """Delete a session. It is hidden at once; its bytes stay in the file until ``compact``.

        :raises SessionNotFoundError: when there is none with this id.
        """
        await self._intake.submit(DeleteSession(prepare_session_id(session_id)))
