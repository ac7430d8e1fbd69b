"""Calling the user's callables: models, tools, embedders.

Such a callable may be async or not. An async one runs on the loop. Any other runs in a thread, so
that it cannot delay the loop. At most as many run at the same time as anyio's default limiter has
tokens (40 unless somebody changed it).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from anyio import to_thread

from ..events.content import EMPTY

# anyio would import this at its first use: 30 ms of the loop, in the middle of a first ask.
with suppress(ImportError):
    import_module("anyio._backends._asyncio")


def check_fits(
    function: Callable[..., Any],
    what: str,
    arguments: Sequence[Any] = (),
    named: Mapping[str, Any] = EMPTY,
) -> None:
    """Refuse a callable that does not take these arguments, before anything is done.

    ``what``: the call as the error names it. The signature is that of the callable itself, not of
    one that it wraps, because a decorator may pass other arguments on. A callable without a known
    signature (some are written in C) is not checked.

    :raises TypeError: when the arguments do not fit.
    """
    if not named and _takes_by_place(function, len(arguments)):
        return
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        raise TypeError(f"{what}: {error}") from None


def takes_by_name(function: Callable[..., Any], named: Mapping[str, Any]) -> bool:
    """Whether a callable is known to take these arguments by their names. Where it is not,
    :func:`check_fits` says it; that looks longer."""
    if type(function) is not FunctionType:
        return False
    code = function.__code__
    simple = not (code.co_posonlyargcount or code.co_kwonlyargcount)
    if simple and tuple(named) == code.co_varnames[: code.co_argcount]:
        return True
    takes, needs = _shape_of(function)
    return needs <= named.keys() <= takes


def _takes_by_place(function: Any, count: int) -> bool:
    """Whether a callable is known to take this many arguments: a plain function or a method that
    has parameters of the simplest kind alone, and no defaults."""
    if type(function) is MethodType:
        function, count = function.__func__, count + 1
    if type(function) is not FunctionType or function.__defaults__:
        return False
    code = function.__code__
    is_simple = not (code.co_kwonlyargcount or code.co_flags & _VARIABLE)
    return is_simple and code.co_argcount == count


_VARIABLE = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS

# Of a function that was called by name: the names that it takes, and those that it needs.
_SHAPES = WeakKeyDictionary[FunctionType, tuple[frozenset[str], frozenset[str]]]()


def _shape_of(function: FunctionType) -> tuple[frozenset[str], frozenset[str]]:
    """Return which names a plain function takes and which it needs; looking at a signature takes
    twenty times as long."""
    shape = _SHAPES.get(function)
    if shape is None:
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
        by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        needed = frozenset(p.name for p in parameters if p.default is p.empty)
        needed -= {p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        shape = _SHAPES[function] = frozenset(p.name for p in by_name), needed
    return shape


_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call makes a coroutine or an async generator, and so belongs on the loop."""
    # Most are plain functions or methods, whose flags say it. Those of one that is marked as async
    # do not.
    plain = function.__func__ if type(function) is MethodType else function
    if type(plain) is FunctionType and plain.__code__.co_flags & _ASYNC:
        return True
    while isinstance(function, partial):
        function = function.func
    # For an object that can be called, its method decides.
    method = getattr(type(function), "__call__", None)  # noqa: B004 - to look at, not to call
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
        for one in (function, method)
    )


async def call(
    function: Callable[..., Any],
    arguments: Sequence[Any] = (),
    named: Mapping[str, Any] = EMPTY,
) -> Any:
    """Return the result of a call, awaited where it can be awaited.

    A call in a thread may return a coroutine too (a lambda's, for example), which runs on the loop.
    In a thread the call sees the caller's context variables. When this is cancelled, it ends at
    once; the thread continues, and what it finally returns or raises is dropped.
    """
    if is_async(function):
        result = function(*arguments, **named)
    else:
        result = await _call_in_thread(function, arguments, named)
    return await result if _is_awaitable(result) else result


def _is_awaitable(value: Any) -> bool:
    # By its type alone, because looking at somebody's object may raise anything.
    kind = type(value)
    if kind is CoroutineType:
        return True
    return issubclass(kind, Awaitable) or (kind is GeneratorType and inspect.isawaitable(value))


def called_in_thread(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    """Return the result of a call. A :class:`GeneratorExit` becomes a :class:`RuntimeError`: a task
    that gets one from a thread closes its coroutines, and is gone."""
    try:
        return function(*arguments, **named)
    except GeneratorExit as error:
        raise RuntimeError("what was called raised GeneratorExit") from error


async def _call_in_thread(
    function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]
) -> Any:
    is_abandoned = False

    def run() -> Any:
        result = called_in_thread(function, *arguments, **named)
        if is_abandoned and inspect.iscoroutine(result):
            # Nobody will await it, and Python would warn.
            result.close()
        return result

    try:
        return await to_thread.run_sync(run, abandon_on_cancel=True)
    except BaseException:
        is_abandoned = True
        raise
