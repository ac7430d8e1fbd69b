"""How an object for synchronous code offers the methods of an asyncio one."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from functools import wraps
from types import MethodType, TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from ..errors import StoreClosedError, WrongLoopError
from .portal import Portal

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="SyncHandle[Any]")
HandleT = TypeVar("HandleT")


class SyncHandle(Generic[HandleT]):
    """An asyncio object, for synchronous code: its methods run on its event loop.

    ``portal``: the way to that loop. ``handle``: the object.
    """

    def __init__(self, portal: Portal, handle: HandleT) -> None:
        self._portal = portal
        self._handle = handle

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self._handle!r}>"

    def _call(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return self._portal.run(lambda: getattr(self._handle, name)(*args, **named))


class SyncBlock(SyncHandle[HandleT]):
    """One whose ``async with`` block is a ``with`` block here."""

    def __enter__(self) -> Self:
        self._portal.run(self._block.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._portal.run(lambda: self._block.__aexit__(exc_type, exc, traceback))

    @property
    def _block(self) -> AbstractAsyncContextManager[Any]:
        assert isinstance(self._handle, AbstractAsyncContextManager)
        return self._handle


class _SyncMethod(Generic[P, R]):
    """A method that has the same name on both sides. On the class it is a plain function."""

    def __init__(self, method: Callable[..., Any], finish: Callable[[Portal, Any], R]) -> None:
        self._method = method
        self._finish = finish
        self.__doc__ = method.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        finish = self._finish

        @wraps(self._method)
        def call(handle: SyncHandle[Any], *args: Any, **named: Any) -> R:
            return finish(handle._portal, handle._call(name, args, named))  # noqa: SLF001 - the base

        self._function = call

    @overload
    def __get__(self, handle: None, owner: type) -> Callable[Concatenate[Any, P], R]: ...
    @overload
    def __get__(self, handle: object, owner: type | None = None) -> Callable[P, R]: ...
    def __get__(self, handle: object | None, owner: type | None = None) -> Callable[..., Any]:
        return self._function if handle is None else MethodType(self._function, handle)


def awaited(method: Callable[Concatenate[Any, P], Awaitable[R]]) -> _SyncMethod[P, R]:
    """Offer a coroutine method: it returns when that has ended."""
    return _SyncMethod(method, _as_it_is)


def called(method: Callable[Concatenate[Any, P], R]) -> _SyncMethod[P, R]:
    """Offer a method that returns at once; it runs on the loop too."""
    return _SyncMethod(method, _as_it_is)


def iterated(
    method: Callable[Concatenate[Any, P], AsyncIterator[R]],
) -> _SyncMethod[P, Iterator[R]]:
    """Offer a method that returns an async iterator: it returns an iterator."""
    return _SyncMethod(method, iterate)


def handled(method: Callable[Concatenate[Any, P], Any], kind: type[S]) -> _SyncMethod[P, S]:
    """Offer a method that returns an asyncio object: it returns the synchronous ``kind`` of it."""
    return _SyncMethod(method, kind)


def iterate(portal: Portal, items: AsyncIterable[R]) -> Iterator[R]:
    """Yield what an async iterator yields; a generator is closed on the loop when this one is."""
    iterator = aiter(items)
    try:
        while True:
            try:
                item = portal.run(iterator.__anext__)
            except StopAsyncIteration:
                return
            yield item
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            # Python closes a generator that was left, perhaps as it exits, or in a forked child.
            with suppress(StoreClosedError, WrongLoopError):
                portal.run(close)


def _as_it_is(_: Portal, result: Any) -> Any:
    return result
