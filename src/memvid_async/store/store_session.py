"""The handle of a session, with the store's memory as the session sees it."""

# ruff: noqa: SLF001 - its methods look into the handle

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ..core.commands import ResumeSession, StartSession
from ..engine.engine import Engine
from ..errors import InvalidValueError, SessionEndedError
from ..memory.frame_store import FrameStore
from ..recording.command_intake import CommandIntake
from ..recording.session_recorder import SessionRecorder
from ..replay.recorded_answers import Read
from ..replay.resumed import ResumedSession, ResumeOptions

P = ParamSpec("P")
R = TypeVar("R")


class _OfMemory(Generic[P, R]):
    """A method of the memory, recorded in the session whose handle offers it."""

    def __init__(self, method: Callable[Concatenate[FrameStore, P], Awaitable[R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(
        self, handle: None, owner: type
    ) -> Callable[Concatenate[FrameStore, P], Awaitable[R]]: ...
    @overload
    def __get__(
        self, handle: StoreSession, owner: type | None = None
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, handle: StoreSession | None, owner: type | None = None) -> Any:
        if handle is None:
            return self._method

        async def call(*args: P.args, **named: P.kwargs) -> R:
            return await handle._in_session(lambda: self._method(handle._memory, *args, **named))

        return call


class StoreSession(SessionRecorder):
    """The handle of one open session: ``async with store.session(…) as session``.

    Inside the block, ``store.record_…()`` records into this session, too: in the same task and in
    tasks that it starts. Leaving the block ends the session, cancelled or not; leaving it by an
    exception keeps the error in ``Session.error``. The block may be left in another task than the
    one that entered it.

    Its memory is the store's, or the fork's own. What is done with it through the handle is
    recorded in this session, whichever is in force.
    """

    def __init__(
        self,
        engine: Engine,
        memory: FrameStore,
        intake: CommandIntake,
        command: StartSession | ResumeSession,
        large_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(intake, command, large_metadata)
        self._engine = engine
        self._memory = memory

    async def _in_session(self, call: Callable[[], Awaitable[R]]) -> R:
        """Make a call of the memory in this session.

        :raises SessionEndedError: when the session has ended.
        """
        block = self._entered_block()
        session = self._engine.view.state.sessions.open.get(block.session)
        if block.is_left or session is None or session.is_full:
            raise SessionEndedError(self.session_id)
        with block.alone():
            return await call()

    put = _OfMemory(FrameStore.put)
    put_many = _OfMemory(FrameStore.put_many)
    update = _OfMemory(FrameStore.update)
    delete = _OfMemory(FrameStore.delete)
    find = _OfMemory(FrameStore.find)
    ask = _OfMemory(FrameStore.ask)


class ResumedStoreSession(ResumedSession, StoreSession):
    """The handle of a session whose agent runs again from its start."""

    def __init__(
        self,
        engine: Engine,
        memory: FrameStore,
        intake: CommandIntake,
        command: ResumeSession,
        read: Read,
        options: ResumeOptions,
    ) -> None:
        StoreSession.__init__(self, engine, memory, intake, command)
        self.prepare(read, options)

    async def _in_session(self, call: Callable[[], Awaitable[R]]) -> R:
        """Make a call of the memory in this session.

        :raises InvalidValueError: while calls are answered from the recording, which has none for
            it: it would be made twice.
        """
        if self.answers is not None and not self.answers.is_live:
            raise InvalidValueError(
                "the memory cannot be used while a session is answered from its recording; make it "
                "a call: session.call_tool(name, arguments, run)"
            )
        return await super()._in_session(call)
