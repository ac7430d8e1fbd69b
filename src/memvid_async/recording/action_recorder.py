"""The ``record_…`` methods, which a store and a session's recorder have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ..core.commands import SessionChoice
from ..errors import InvalidValueError
from ..events.calls import CallFacts
from ..events.details import ActionKind
from ..events.event import Action
from ..events.prompts import Reply
from .action_draft import ActionDraft
from .command_intake import CommandIntake
from .prepare_values import prepare_count, prepare_name, prepare_reply

AnyAction = TypeVar("AnyAction", Action, Action | None)


class ActionRecorder(ABC, Generic[AnyAction]):
    """The ``record_…`` methods. Each returns when its action is durable (see :class:`Durability`).

    All take ``task`` (the agent's task; by default the asyncio task's name), ``error`` (how the
    action failed: a text or an exception), ``metadata`` (a CBOR map) and ``key``: the same call
    with the same key again records nothing, and returns the first one's action; another call with
    that key is refused. A key is a session's own. Asks, finds, tool calls and steps also take
    ``parent`` (the sequence of the start of what they were part of) and ``started`` (that of their
    own start; see :meth:`SessionRecorder.record_start`). A response, a result and an error may be
    anything: they came after an effect, so they are never refused. What is not a str or bytes, or
    is too long, is converted or cut; ``Action.conversion`` says so. All raise

    - :class:`InvalidValueError`, :class:`LimitExceededError`: nothing was recorded;
    - :class:`SessionEndedError`: this session's own recorder was called, and the session has ended;
    - :class:`StoreClosedError`, :class:`StoreFailedError`, :class:`StoreLockedError`,
      :class:`StoreReadOnlyError`: the action was not acked.

    A cancelled call may or may not have recorded its action, never half of it.
    """

    def __init__(self, intake: CommandIntake) -> None:
        self._intake = intake

    @abstractmethod
    def _choice(self) -> SessionChoice:
        """Return the session to record into."""

    @abstractmethod
    def _answer(self, action: Any) -> AnyAction:
        """Return what a call returns for the action that was recorded; None where none was."""

    def _record(
        self,
        kind: ActionKind,
        *,
        task: str | None,
        error: object,
        metadata: Mapping[str, Any] | None,
        key: str | None,
        duration_ms: float,
        detail: tuple[Any, ...] = (),
        input: Any = None,  # noqa: A002 - as the draft's field is named
        output: object = None,
        frames: Iterable[int] = (),
        messages: Sequence[Any] = (),
        reply: Reply | None = None,
        conversion: int = 0,
        call: CallFacts | None = None,
    ) -> Awaitable[Any]:
        # The draft is made as a tuple is: in a quarter of the time.
        # fmt: off
        fields = (
            kind, detail, input, output, frames, duration_ms, task, error, metadata, messages,
            None, reply, conversion, call, key, None, None,
        )
        # fmt: on
        draft: ActionDraft = tuple.__new__(ActionDraft, fields)
        return self._intake.record(self._choice(), draft)

    async def record_ask(
        self,
        query: str | bytes,
        *,
        provider: str | None = None,
        model: str | None = None,
        response: object = None,
        duration_ms: float = 0,
        retrieved_frames: Iterable[int] = (),
        messages: Sequence[Any] = (),
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        cost_usd: float | None = None,
        task: str | None = None,
        error: object = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        parent: int | None = None,
        started: int | None = None,
    ) -> AnyAction:
        """Record a question to a model and its answer.

        ``provider`` and ``model``: their names, where there are any. ``duration_ms``: milliseconds.
        ``retrieved_frames``: the ids of the frames given to the model. ``messages``: the prompt as
        it went to the model, one item per message; what an earlier ask of the session
        already holds is not stored again. The tokens and the cost are what the model counted;
        ``cached_tokens`` are a part of ``input_tokens``. What is not a number from 0 is left out.
        """
        limits = self._intake.limits
        reply, conversion = None, 0
        if not (input_tokens is output_tokens is cached_tokens is cost_usd is None):
            counts = (input_tokens, output_tokens, cached_tokens, cost_usd)
            reply, conversion = prepare_reply(response, *counts)
        return self._answer(
            await self._record(
                ActionKind.ASK,
                detail=(
                    None if provider is None else prepare_name(provider, "provider", limits),
                    None if model is None else prepare_name(model, "model", limits),
                ),
                input=_needed(query, "query"),
                output=response,
                frames=retrieved_frames,
                duration_ms=duration_ms,
                task=task,
                error=error,
                metadata=metadata,
                key=key,
                call=_call(parent, started),
                messages=messages,
                reply=reply,
                conversion=conversion,
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
        error: object = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        parent: int | None = None,
        started: int | None = None,
    ) -> AnyAction:
        """Record a search: its mode, how many results it reported and the frames it named."""
        return self._answer(
            await self._record(
                ActionKind.FIND,
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
                key=key,
                call=_call(parent, started),
            )
        )

    async def record_put(
        self,
        frame_id: int,
        data: str | bytes,
        *,
        duration_ms: float = 0,
        task: str | None = None,
        error: object = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> AnyAction:
        """Record that somebody put a frame; it creates none in this store."""
        return self._answer(
            await self._record(
                ActionKind.PUT,
                input=_needed(data, "data"),
                frames=(frame_id,),
                duration_ms=duration_ms,
                task=task,
                error=error,
                metadata=metadata,
                key=key,
            )
        )

    async def record_put_many(
        self,
        frame_ids: Iterable[int],
        *,
        duration_ms: float = 0,
        task: str | None = None,
        error: object = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> AnyAction:
        """Record that somebody put several frames at once."""
        return self._answer(
            await self._record(
                ActionKind.PUT_MANY,
                frames=frame_ids,
                duration_ms=duration_ms,
                task=task,
                error=error,
                metadata=metadata,
                key=key,
            )
        )

    async def record_update(
        self,
        frame_id: int,
        data: str | bytes,
        *,
        duration_ms: float = 0,
        task: str | None = None,
        error: object = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> AnyAction:
        """Record that somebody replaced a frame's content."""
        return self._answer(
            await self._record(
                ActionKind.UPDATE,
                input=_needed(data, "data"),
                frames=(frame_id,),
                duration_ms=duration_ms,
                task=task,
                error=error,
                metadata=metadata,
                key=key,
            )
        )

    async def record_delete(
        self,
        frame_id: int,
        *,
        duration_ms: float = 0,
        task: str | None = None,
        error: object = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> AnyAction:
        """Record that somebody deleted a frame."""
        return self._answer(
            await self._record(
                ActionKind.DELETE,
                frames=(frame_id,),
                duration_ms=duration_ms,
                task=task,
                error=error,
                metadata=metadata,
                key=key,
            )
        )

    async def record_tool_call(
        self,
        name: str,
        *,
        arguments: Any,
        result: object = None,
        duration_ms: float = 0,
        task: str | None = None,
        error: object = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        parent: int | None = None,
        started: int | None = None,
    ) -> AnyAction:
        """Record a tool call. ``arguments`` is any CBOR value, kept and hashed in its
        deterministic encoding; ``result`` is anything, None where there was none."""
        return self._answer(
            await self._record(
                ActionKind.TOOL_CALL,
                detail=(prepare_name(name, "name", self._intake.limits),),
                input=arguments,
                output=result,
                duration_ms=duration_ms,
                task=task,
                error=error,
                metadata=metadata,
                key=key,
                call=_call(parent, started),
            )
        )

    async def record_step(
        self,
        name: str,
        *,
        input: Any = None,  # noqa: A002 - as the action's field is named
        output: object = None,
        duration_ms: float = 0,
        task: str | None = None,
        error: object = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        parent: int | None = None,
        started: int | None = None,
    ) -> AnyAction:
        """Record a part of the agent's work that is over. ``input`` is any CBOR value, None where
        there was none; ``output`` is anything. What runs in a block has ``step()``."""
        return self._answer(
            await self._record(
                ActionKind.STEP,
                detail=(prepare_name(name, "name", self._intake.limits),),
                input=input,
                output=output,
                duration_ms=duration_ms,
                task=task,
                error=error,
                metadata=metadata,
                key=key,
                call=_call(parent, started),
            )
        )


def _call(parent: int | None, started: int | None) -> CallFacts | None:
    """Return what an action has of a call that somebody else made; None where it has nothing."""
    if parent is None and started is None:
        return None
    return CallFacts(
        None if started is None else prepare_count(started, "started"),
        parent=None if parent is None else prepare_count(parent, "parent"),
    )


def _needed(value: object, what: str) -> object:
    if value is None:
        raise InvalidValueError(f"{what} must be str or bytes, not None")
    return value
