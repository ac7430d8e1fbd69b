"""The part of a store that starts, ends, lists, reads, forks and deletes sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from attrs import evolve

from ..config import RecordingConfig, StoreConfig
from ..core.commands import DeleteSession, EndSession, ResumeSession, StartSession
from ..engine.engine import Engine
from ..engine.reading import read_session
from ..errors import InvalidValueError
from ..events.event import Session, SessionSummary
from ..events.values import LARGE
from ..memory.past import fork_point
from ..recording.intake import Intake
from ..recording.prepare import (
    prepare_count,
    prepare_metadata,
    prepare_session_id,
    prepare_text,
    rough_size,
)
from ..recording.recorder import SessionRecorder


class Sessions:
    """The sessions of a store: its ambient one, and any number of the caller's own."""

    def __init__(self, engine: Engine, intake: Intake, config: StoreConfig) -> None:
        self._engine = engine
        self._intake = intake
        self._config = config

    # The ambient session.

    @property
    def active_session_id(self) -> UUID | None:
        """The id of the ambient session, None while there is none; as last folded."""
        state = self._engine.view.state
        if state.ambient is None:
            return None
        return state.sessions[state.ambient].info.session_id

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

    async def start_session_if_none(self) -> None:
        """Start the ambient session where there is none (``auto_record``)."""
        command = self._start_command(None, None, None, ambient=True)
        await self._intake.submit(evolve(command, if_none=True))

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
        view = await self._engine.fresh_view()
        sessions = sorted(view.state.sessions.items())
        return [s.summary() for _, s in sessions if include_open or s.ended_ns is not None]

    async def get_session(self, session_id: UUID) -> Session:
        """A session, whole; of an open one, what is recorded so far.

        :raises SessionNotFoundError: when there is none with this id.
        :raises CorruptFileError: when it cannot be read.
        """
        return await self._engine.read(read_session, prepare_session_id(session_id))

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
        view = await self._engine.fresh_view()
        parent, point = await self._engine.reads.run(
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
