"""Recording: the ``record_…`` methods that a store and a session recorder share, and the handle for
one open session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from ..core.commands import ResumeSession, SessionChoice, StartSession
from ..errors import InvalidValueError, NoActiveSessionError
from ..events.event import Action, ActionKind
from .draft import ActionDraft, new_draft
from .in_force import Block
from .intake import Intake
from .prepare import prepare_count, prepare_name
from .unrecorded import warn_unrecorded

AnyAction = TypeVar("AnyAction", Action, Action | None)


class ActionRecorder(ABC, Generic[AnyAction]):
    """The ``record_…`` methods. Each is durable when it returns (see :class:`Durability`).

    All take ``task`` (which task of the agent did it; the asyncio task's name where not given),
    ``error`` (how it failed) and ``metadata`` (a CBOR map). All raise

    - :class:`InvalidValueError`, :class:`LimitExceededError`: nothing was recorded;
    - :class:`SessionEndedError`: the session takes no further actions;
    - :class:`StoreClosedError`, :class:`StoreFailedError`, :class:`StoreLockedError`,
      :class:`StoreReadOnlyError`: it was not acked.

    A cancelled call may or may not have recorded its action, never half of it.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    @abstractmethod
    def _choice(self) -> SessionChoice:
        """The session to record into."""

    @abstractmethod
    def _answer(self, action: Any) -> AnyAction:
        """What a call returns for the action that was recorded, None where none was."""

    async def record_ask(
        self,
        query: str | bytes,
        *,
        provider: str,
        model: str,
        response: str | bytes | None,
        duration_ms: float,
        retrieved_frames: Iterable[int] = (),
        messages: Sequence[Any] = (),
        task: str | None = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AnyAction:
        """Record a question to a model and its answer.

        ``duration_ms``: milliseconds. ``retrieved_frames``: the ids of the frames given to the
        model. ``messages``: the prompt as it went to the model, one item a message; a prefix that
        an earlier ask of the session already holds is not stored again.
        """
        limits = self._intake.limits
        return self._answer(
            await self._intake.record(
                self._choice(),
                new_draft(
                    ActionDraft,
                    kind=ActionKind.ASK,
                    detail=(
                        prepare_name(provider, "provider", limits),
                        prepare_name(model, "model", limits),
                    ),
                    input=_needed(query, "query"),
                    output=response,
                    frames=retrieved_frames,
                    duration_ms=duration_ms,
                    task=task,
                    error=error,
                    metadata=metadata,
                    messages=messages,
                ),
            )
        )

    async def record_find(
        self,
        query: str | bytes,
        *,
        mode: str,
        result_count: int,
        result_frames: Iterable[int],
        duration_ms: float = 0,
        task: str | None = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AnyAction:
        """Record a search: its mode, how many results it reported and the frames it named."""
        return self._answer(
            await self._intake.record(
                self._choice(),
                new_draft(
                    ActionDraft,
                    kind=ActionKind.FIND,
                    detail=(
                        prepare_name(mode, "mode", self._intake.limits),
                        prepare_count(result_count, "result_count"),
                    ),
                    input=_needed(query, "query"),
                    frames=result_frames,
                    duration_ms=duration_ms,
                    task=task,
                    error=error,
                    metadata=metadata,
                ),
            )
        )

    async def record_put(
        self,
        frame_id: int,
        data: str | bytes,
        *,
        duration_ms: float = 0,
        task: str | None = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AnyAction:
        """Record that somebody put a frame; it creates none in this store."""
        return self._answer(
            await self._intake.record(
                self._choice(),
                new_draft(
                    ActionDraft,
                    kind=ActionKind.PUT,
                    input=_needed(data, "data"),
                    frames=(frame_id,),
                    duration_ms=duration_ms,
                    task=task,
                    error=error,
                    metadata=metadata,
                ),
            )
        )

    async def record_put_many(
        self,
        frame_ids: Iterable[int],
        *,
        duration_ms: float = 0,
        task: str | None = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AnyAction:
        """Record that somebody put several frames at once."""
        return self._answer(
            await self._intake.record(
                self._choice(),
                new_draft(
                    ActionDraft,
                    kind=ActionKind.PUT_MANY,
                    frames=frame_ids,
                    duration_ms=duration_ms,
                    task=task,
                    error=error,
                    metadata=metadata,
                ),
            )
        )

    async def record_update(
        self,
        frame_id: int,
        data: str | bytes,
        *,
        duration_ms: float = 0,
        task: str | None = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AnyAction:
        """Record that somebody replaced a frame's content."""
        return self._answer(
            await self._intake.record(
                self._choice(),
                new_draft(
                    ActionDraft,
                    kind=ActionKind.UPDATE,
                    input=_needed(data, "data"),
                    frames=(frame_id,),
                    duration_ms=duration_ms,
                    task=task,
                    error=error,
                    metadata=metadata,
                ),
            )
        )

    async def record_delete(
        self,
        frame_id: int,
        *,
        duration_ms: float = 0,
        task: str | None = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AnyAction:
        """Record that somebody deleted a frame."""
        return self._answer(
            await self._intake.record(
                self._choice(),
                new_draft(
                    ActionDraft,
                    kind=ActionKind.DELETE,
                    frames=(frame_id,),
                    duration_ms=duration_ms,
                    task=task,
                    error=error,
                    metadata=metadata,
                ),
            )
        )

    async def record_tool_call(
        self,
        name: str,
        *,
        arguments: Any,
        result: str | bytes | None = None,
        duration_ms: float = 0,
        task: str | None = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AnyAction:
        """Record a tool call. ``arguments`` is any CBOR value, kept and hashed in its
        deterministic encoding; ``result`` is None where there was none."""
        return self._answer(
            await self._intake.record(
                self._choice(),
                new_draft(
                    ActionDraft,
                    kind=ActionKind.TOOL_CALL,
                    detail=(prepare_name(name, "name", self._intake.limits),),
                    input=arguments,
                    output=result,
                    duration_ms=duration_ms,
                    task=task,
                    error=error,
                    metadata=metadata,
                ),
            )
        )


def _needed(value: object, what: str) -> object:
    if value is None:
        raise InvalidValueError(f"{what} must be str or bytes, not None")
    return value


class AmbientRecorder(ActionRecorder[Action | None]):
    """The ``record_…`` methods of a store: into the session in force. Where there is none they
    return None, with an :class:`UnrecordedWarning`."""

    def _choice(self) -> SessionChoice:
        return self._intake.blocks.entered

    def _answer(self, action: Action | None) -> Action | None:
        if action is None:
            warn_unrecorded()
        return action

    async def create_checkpoint(self) -> int:
        """Mark a checkpoint in the session in force; its id, counted from 0 in the session.

        :raises NoActiveSessionError: when no session is in force.
        """
        return await self._intake.checkpoint(self._choice())


class SessionRecorder(ActionRecorder[Action]):
    """The handle for one open session: ``async with store.session(…) as recorder``.

    Inside the block, ``store.record_…()`` of the same task (and of tasks it starts) goes to this
    session. Leaving it ends the session, cancelled or not; leaving it by an exception keeps the
    error in ``Session.error``.
    """

    def __init__(
        self,
        intake: Intake,
        command: StartSession | ResumeSession,
        large_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(intake)
        self._command = command
        self._large_metadata = large_metadata
        self._block: Block | None = None

    def __repr__(self) -> str:
        if self._block is None:
            state = "to be entered by async with"
        else:
            state = "left" if self._block.is_left else "entered"
        return f"<SessionRecorder of {self.session_id}: {state}>"

    @property
    def session_id(self) -> UUID:
        """The session's id."""
        return self._command.session_id

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise InvalidValueError("a session recorder is entered once; make another")
        number = await self._intake.open_session(self._command, self._large_metadata)
        self._block = self._intake.blocks.enter(number)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block = self._entered_block()
        block.leave()
        await self._intake.leave_session(block.session, exc)

    def _entered_block(self) -> Block:
        if self._block is None:
            raise NoActiveSessionError("the session is not open; use it in an async with block")
        return self._block

    def _choice(self) -> int:
        return self._entered_block().session

    def _answer(self, action: Action) -> Action:
        return action

    async def create_checkpoint(self) -> int:
        """Mark a checkpoint in this session; its id, counted from 0 within the session.

        :raises SessionEndedError: when the session takes no further actions.
        """
        return await self._intake.checkpoint(self._choice())
