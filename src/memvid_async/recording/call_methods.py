"""The calls of a session, as its agent makes them: on one that records and on one that answers."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar, overload
from uuid import UUID, uuid4

from ..events.prompts import Generated
from .call_recorder import in_any_case
from .made_calls import Step
from .model_calls import call_model, made_ask, stream_model
from .prepare_values import prepare_seconds
from .replies import Model, Reading
from .session_calls import SessionCalls
from .tool_decorator import ToolMethods

T = TypeVar("T")


class CallMethods(ToolMethods, ABC):
    """The calls of a session: tools, models, steps, and what the agent reads."""

    @property
    @abstractmethod
    def _made(self) -> SessionCalls:
        """What makes the calls; it raises where the block is not entered, or was left."""

    @overload
    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        run: Callable[..., Coroutine[Any, Any, T]],
        *,
        effect: bool = ...,
        timeout: float | None = ...,  # noqa: ASYNC109
        task: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> T: ...
    @overload
    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        run: Callable[..., T],
        *,
        effect: bool = ...,
        timeout: float | None = ...,  # noqa: ASYNC109
        task: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> T: ...
    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        run: Callable[..., Any],
        *,
        effect: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - its firing is recorded
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``run(**arguments)``, record it, and return what it returns.

        That it begins is durable before it runs, so what was in flight when a process died is
        known; with ``effect=False`` (it only reads) one event at its end is enough. What it raises
        is recorded, and so is a cancellation. ``run`` may be async or not; if it is not, it runs in
        a thread. An iterator that it returns is not read, and recorded as its ``repr``: return a
        list. ``timeout``: seconds after which it fails with a :class:`TimeoutError`. In a
        session that answers from a recording, nothing runs.

        :raises TypeError: when ``run`` does not take these arguments, or they are not a dict.
        :raises InvalidValueError, LimitExceededError: when they cannot be recorded; nothing ran.
        """
        return await self._made.call_tool(
            name, arguments, run, effect=effect, timeout=timeout, task=task, metadata=metadata
        )

    async def call_model(
        self,
        asked: str | bytes | Sequence[Any],
        generate: Model,
        *,
        provider: str | None = None,
        model: str | None = None,
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Generated:
        """Ask a model a text or messages, record it as an ask, and return its whole reply.

        ``generate`` is called with a :class:`Prompt`, as that of :meth:`Store.ask` is.

        :raises TypeError: when ``generate`` does not take one argument.
        :raises InvalidValueError, LimitExceededError: when the messages cannot be recorded; nothing
            ran.
        """
        calls = self._made
        made, prompt = await made_ask(
            calls, asked, provider=provider, model=model, task=task, metadata=metadata
        )
        return await call_model(calls, made, prompt, generate)

    async def stream_model(
        self,
        asked: str | bytes | Sequence[Any],
        generate: Model,
        *,
        provider: str | None = None,
        model: str | None = None,
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        reading: Reading | None = None,
    ) -> AsyncGenerator[str | bytes]:
        """Ask a model as :meth:`call_model` does, and yield its reply chunk by chunk, as it comes.

        ``reading``: of a model whose chunks are bytes of a network's format, what says what they
        mean. That is recorded as the reply, and the bytes as ``Action.raw``.

        Close it (``contextlib.aclosing``) where the loop over it may end early.
        """
        calls = self._made
        made, prompt = await made_ask(
            calls,
            asked,
            provider=provider,
            model=model,
            task=task,
            metadata=metadata,
            reading=reading,
        )
        chunks = stream_model(calls, made, prompt, generate)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def step(
        self,
        name: str,
        *,
        input: Any = None,  # noqa: A002 - as the action's field is named
    ) -> AbstractAsyncContextManager[Step]:
        """A part of the agent's work: ``async with session.step("plan") as step``.

        What is recorded in it has it as ``parent``. Set ``step.output`` to what came of it. The
        block is left before its end is durable; what is recorded next comes after it.
        """
        return self._made.step(name, input)

    @overload
    async def once(
        self, name: str, make: Callable[[], Coroutine[Any, Any, T]], *, task: str | None = ...
    ) -> T: ...
    @overload
    async def once(self, name: str, make: Callable[[], T], *, task: str | None = ...) -> T: ...
    async def once(self, name: str, make: Callable[[], Any], *, task: str | None = None) -> Any:
        """Return what ``make()`` returned when it was recorded first.

        It is for what the agent reads and another run would read otherwise: the time, a uuid, a
        random choice, a file. The value is one that JSON can hold.
        """
        return await self._made.once(name, make, task=task)

    # What most agents read.

    async def now(self) -> int:
        """Return the time in nanoseconds since the Unix epoch, as it was recorded first."""
        return await self.once("now", _soon(time.time_ns))

    async def uuid(self) -> UUID:
        """Return a random UUID (version 4), as it was recorded first."""
        return UUID(await self.once("uuid", _soon(lambda: str(uuid4()))))

    async def random(self) -> float:
        """Return a random number from 0 to below 1, as it was recorded first."""
        return await self.once("random", _soon(random.random))

    async def sleep(self, seconds: float) -> None:
        """Sleep; where the recording says that it was done, that takes no time.

        :raises InvalidValueError: when ``seconds`` is not a finite number.
        """
        # The event loop takes anything, and breaks for all of its tasks later.
        seconds = prepare_seconds(seconds, "seconds")

        async def rest() -> float:
            await asyncio.sleep(seconds)
            return seconds

        await self.once("sleep", rest)

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[None]:
        """Cancel what is inside after this many seconds, and raise :class:`TimeoutError` then.

        Whether and when it fired is recorded, so an agent that runs again is cancelled among the
        same calls, which takes no time. Where that is not recorded yet, the seconds begin again.

        :raises InvalidValueError: when ``seconds`` is not a finite number.
        """
        seconds = prepare_seconds(seconds, "seconds")
        # In the lane of its task, so that the lane of what waits is known by this one.
        await self.once("timeout", _soon(lambda: seconds))
        left, scope = asyncio.Event(), asyncio.timeout(None)

        async def fires() -> bool:
            try:
                async with asyncio.timeout(seconds):
                    await left.wait()
            except TimeoutError:
                return True
            return False

        async def watch() -> bool:
            has_fired = await self.once("timeout", fires)
            if has_fired:
                with suppress(RuntimeError):  # the block was left meanwhile
                    scope.reschedule(asyncio.get_running_loop().time())
            return has_fired

        watching = asyncio.create_task(watch())
        error: Exception | None = None
        try:
            async with scope:
                yield
        except Exception as raised:  # noqa: BLE001 - raised again below
            error = raised
        except BaseException:
            watching.cancel()
            with suppress(BaseException):
                await in_any_case(watching)
            raise
        left.set()
        has_fired = await watching
        if error is not None and not scope.expired():
            raise error
        if has_fired:
            raise TimeoutError


def _soon(read: Callable[[], T]) -> Callable[[], Coroutine[Any, Any, T]]:
    """Return what calls a quick function on the loop, and not in a thread."""

    async def make() -> T:
        return read()

    return make
