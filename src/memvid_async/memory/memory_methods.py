"""The memory through a session's handle: each call of it is one of the session's calls.

So it is recorded with who made it, and where the session answers from a recording, it is answered:
what was put is not put again, and a search finds what it found.
"""

# ruff: noqa: SLF001 - a method looks into the handle that offers it

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence, Sized
from contextlib import suppress
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from attrs import frozen

from ..errors import InvalidValueError, LimitExceededError, MemvidAsyncError, ReplayStopped
from ..events.details import ActionKind
from ..events.event import Action
from ..events.frames import FindResult
from ..events.message_digests import messages_digest
from ..events.values import LARGE
from ..recording.call_methods import CallMethods
from ..recording.made_calls import MadeCall, OpenCall
from ..recording.model_calls import counts_of, whole_answer
from ..recording.prepare_values import (
    prepare_content,
    prepare_messages,
    prepare_name,
    rough_size,
)
from ..recording.recorded_in import MemoryCall
from ..recording.scrubbing import limits_for, scrubbed
from ..recording.session_calls import SessionCalls
from .answer import Answer
from .frame_store import FrameStore
from .keywords import UNCHANGED
from .past import PastFields, find_result_of, past_fields, retrieved
from .prepare_frames import prepare_filters

P = ParamSpec("P")
R = TypeVar("R")

Given = Mapping[str, Any]
"""The arguments of a call by name, with the defaults of those that were not passed."""


async def _record_failure(calls: SessionCalls, opened: OpenCall, error: BaseException) -> None:
    try:
        await calls.end(opened, error)
    except (InvalidValueError, LimitExceededError):
        # What was wrong may be what cannot be recorded.
        made = opened.made
        made.input, made.messages, made.metadata = None, (), None
        await calls.end(opened, error)


# What is compared of each call, and how it is answered.


@frozen
class _How:
    """``make`` returns the call of arguments; ``answer`` what a recorded action returned."""

    make: Callable[[Given, SessionCalls], MadeCall]
    answer: Callable[[MemoryMethods, Action], Awaitable[Any]]


def _change(kind: ActionKind, *, frames: tuple[int, ...] = (), **facts: Any) -> MadeCall:
    """Return a call whose effect and end are one event. A stream is not compared: it is gone once
    it is read."""
    data = facts.get("data")
    if data is not None and not isinstance(data, (str, bytes)):
        del facts["data"]
        data = None
    return MadeCall(kind, (), data, None, facts, frames=frames, effect=False)


def _put(given: Given, _: SessionCalls) -> MadeCall:
    return _change(ActionKind.PUT, data=given["content"])


def _put_many(given: Given, _: SessionCalls) -> MadeCall:
    items = given["items"]
    facts: dict[str, Any] = {"count": len(items)} if isinstance(items, Sized) else {}
    return _change(ActionKind.PUT_MANY, **facts)


def _update(given: Given, _: SessionCalls) -> MadeCall:
    frame_id, content = given["frame_id"], given["content"]
    frames = _recordable(frame_id)
    if content is UNCHANGED:
        return _change(ActionKind.UPDATE, frames=frames, frame_id=frame_id, data=None)
    return _change(ActionKind.UPDATE, frames=frames, frame_id=frame_id, data=content)


def _delete(given: Given, _: SessionCalls) -> MadeCall:
    frame_id = given["frame_id"]
    return _change(ActionKind.DELETE, frames=_recordable(frame_id), frame_id=frame_id)


def _recordable(frame_id: Any) -> tuple[int, ...]:
    return (frame_id,) if type(frame_id) is int and 0 <= frame_id < 2**63 else ()


def _search(kind: ActionKind, query: Any, given: Given, calls: SessionCalls) -> MadeCall:
    """Return a call that searches."""
    limits = limits_for(kind, calls.intake.limits)
    facts = {name: given[name] for name in ("mode", "top_k", "syntax")}
    filters = given["filters"]
    if kind is ActionKind.ASK:
        filters = {**filters, "metadata": given["frame_metadata"]}
    # A wrong one is refused by the search.
    with suppress(MemvidAsyncError):
        facts["filters"] = dict(prepare_filters(filters, limits)[1])
    made = MadeCall(kind, (), None, None, facts, given["task"])
    if isinstance(query, str):
        made.input = scrubbed(limits, "query", query)
        made.prepared = prepare_content(query, "query", limits)
    return made


def _find(given: Given, calls: SessionCalls) -> MadeCall:
    query, mode = given["query"], given["mode"]
    made = _search(ActionKind.FIND, "" if query is None else query, given, calls)
    made.detail = (mode if isinstance(mode, str) else "", 0)
    made.effect = False
    return made


def _ask(given: Given, calls: SessionCalls) -> MadeCall:
    limits = limits_for("ask", calls.intake.limits)
    made = _search(ActionKind.ASK, given["question"], given, calls)
    made.detail = tuple(
        None if given[what] is None else prepare_name(given[what], what, limits)
        for what in ("provider", "model")
    )
    messages = given["messages"]
    if isinstance(messages, Sequence) and not isinstance(messages, (str, bytes)):
        made.messages = asked = [scrubbed(limits, "messages", one) for one in messages]
        with suppress(MemvidAsyncError):
            prepared = prepare_messages(asked, limits, scrubs=False)
            if prepared is not None:
                made.messages_digest = messages_digest(asked, prepared.items)
    made.metadata = given["metadata"]
    said = {"provider": made.detail[0], "model": made.detail[1], "messages": made.messages or None}
    made.facts = {**made.facts, **{name: one for name, one in said.items() if one is not None}}
    return made


async def _frame_id(_: MemoryMethods, action: Action) -> int:
    return action.affected_frames[0]


async def _frame_ids(_: MemoryMethods, action: Action) -> list[int]:
    return list(action.affected_frames)


async def _nothing(_: MemoryMethods, _action: Action) -> None:
    """An update and a delete return nothing."""


async def _found(handle: MemoryMethods, action: Action) -> FindResult:
    known = await handle._fields_of(action)
    return await handle._read_log(find_result_of, action, known)


async def _answer(handle: MemoryMethods, action: Action) -> Answer:
    calls = handle._made
    known = await handle._fields_of(action)
    hits, context = await handle._read_log(retrieved, action, known)
    text = await calls.recorded_output(action)
    counts = counts_of(action.reply)
    return Answer(text or "", hits, context, action, action.duration_ms, **counts)


class _OfMemory(Generic[P, R]):
    """A method of the memory, offered by a session's handle as one of its calls."""

    def __init__(
        self,
        method: Callable[Concatenate[FrameStore, P], Awaitable[R]],
        make: Callable[[Given, SessionCalls], MadeCall],
        answer: Callable[[MemoryMethods, Action], Awaitable[Any]],
    ) -> None:
        self._method = method
        self._how = _How(make, answer)
        self._signature = inspect.signature(method)
        self.__doc__ = method.__doc__

    @overload
    def __get__(
        self, handle: None, owner: type
    ) -> Callable[Concatenate[FrameStore, P], Awaitable[R]]: ...
    @overload
    def __get__(
        self, handle: MemoryMethods, owner: type | None = None
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, handle: MemoryMethods | None, owner: type | None = None) -> Any:
        if handle is None:
            return self._method

        async def call(*args: P.args, **named: P.kwargs) -> R:
            bound = self._signature.bind(None, *args, **named)
            bound.apply_defaults()
            return await handle._make_memory_call(
                self._how,
                bound.arguments,
                lambda memory: self._method(memory, *args, **named),
            )

        return call


class MemoryMethods(CallMethods):
    """The calls of a session, those of the store's memory among them."""

    # The fields of the frames that the recorded searches found, once they were read.
    _known: dict[int, dict[int, PastFields]] | None = None

    @property
    @abstractmethod
    def _memory(self) -> FrameStore:
        """What carries out the calls that are not answered from a recording.

        It raises where the session takes no more of them.
        """

    @abstractmethod
    async def _read_log(self, function: Callable[..., R], *args: Any) -> R:
        """Call ``function(view, *args)`` in the thread that reads."""

    @property
    def _searches(self) -> list[Action]:
        """The recorded actions that searched, where calls are answered from a recording."""
        return []

    async def _make_memory_call(
        self,
        how: _How,
        given: Given,
        call: Callable[[FrameStore], Awaitable[R]],
    ) -> R:
        calls = self._made
        if rough_size(given) < LARGE:
            made = how.make(given, calls)
        else:
            made = await calls.intake.preparing.run(how.make, given, calls)
        opened = await calls.ask(made)
        action = await whole_answer(calls, opened)
        if action is not None:
            assert calls.answers is not None
            with calls.answers.held():
                answered: R = await how.answer(self, action)
            return answered
        recorded_in = MemoryCall(calls, opened)
        memory = self._memory.recorded_by(recorded_in)
        try:
            return await call(memory)
        except ReplayStopped:
            raise
        except BaseException as error:
            # Also what was wrong with an argument: the next run is told so at the same place.
            if not recorded_in.is_recorded:
                await _record_failure(calls, opened, error)
            raise

    async def _fields_of(self, action: Action) -> dict[int, PastFields]:
        """Return the fields of the frames that a recorded search found, as they were then.

        The first time they are read for all searches of the recording.
        """
        if self._known is None or action.sequence not in self._known:
            self._known = await self._read_log(past_fields, [*self._searches, action])
        return self._known[action.sequence]

    put = _OfMemory(FrameStore.put, _put, _frame_id)
    put_many = _OfMemory(FrameStore.put_many, _put_many, _frame_ids)
    update = _OfMemory(FrameStore.update, _update, _nothing)
    delete = _OfMemory(FrameStore.delete, _delete, _nothing)
    find = _OfMemory(FrameStore.find, _find, _found)
    ask = _OfMemory(FrameStore.ask, _ask, _answer)
