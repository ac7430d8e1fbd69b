"""Tools as decorated functions: calling one records the call, where a session is in force.

What the caller passed is recorded by the names of the function's parameters. A decorated function
is awaited, whether it was async or not.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from functools import wraps
from types import BuiltinMethodType, MethodDescriptorType, MethodType
from typing import Any, ParamSpec, Protocol, TypeVar, overload
from weakref import ref

from attrs import frozen

from ..errors import InvalidValueError
from ..events.values import MAX_DEPTH
from .callables import call

P = ParamSpec("P")
R = TypeVar("R")


class ToolDecorator(Protocol):
    """Makes a function a tool."""

    @overload
    def __call__(
        self, function: Callable[P, Awaitable[R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...


@frozen
class _Options:
    """How a tool is called. ``name``: None for the function's own."""

    name: str | None = None
    effect: bool = True
    timeout: float | None = None
    thread: bool = True


class ToolMethods(ABC):
    """What a session offers for tools, whether it records or answers."""

    @abstractmethod
    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        run: Callable[..., Any],
        *,
        effect: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - its firing is recorded
    ) -> Any:
        """Make a call of a tool."""

    @property
    @abstractmethod
    def _takes_calls(self) -> bool:
        """Whether the session's block was entered and not left."""

    def _enter_calls(self) -> None:
        """Let :func:`tool` find this session, in the caller's context and those copied from it."""
        entered = [one for one in _ENTERED.get() if _is_open(one())]
        _ENTERED.set((*entered, ref(self)))

    @overload
    def tool(
        self, function: Callable[P, Awaitable[R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def tool(self, function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        effect: bool = True,
        timeout: float | None = None,
        thread: bool = True,
    ) -> ToolDecorator: ...
    def tool(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        effect: bool = True,
        timeout: float | None = None,
        thread: bool = True,
    ) -> Any:
        """Make a function a tool whose calls are made by :meth:`call_tool`: ``@session.tool``.

        ``name``: by default the function's. ``effect``, ``timeout``: as for :meth:`call_tool`.
        ``thread``: whether a function that is not async runs in a thread. The result is awaited.

        :raises InvalidValueError: when it is not a function, or one without known parameters.
        """
        return _decorated(function, lambda: self, _Options(name, effect, timeout, thread))


# The sessions that a context is in, innermost last.
_ENTERED: ContextVar[tuple[ref[ToolMethods], ...]] = ContextVar("memvid_async_tools", default=())


def _is_open(session: ToolMethods | None) -> bool:
    return session is not None and session._takes_calls  # noqa: SLF001 - of this module


def _in_force() -> ToolMethods | None:
    """Return the innermost session that the caller is in; None where it is in none."""
    for one in reversed(_ENTERED.get()):
        session = one()
        if _is_open(session):
            return session
    return None


@overload
def tool(function: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def tool(function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def tool(
    *,
    name: str | None = None,
    effect: bool = True,
    timeout: float | None = None,
    thread: bool = True,
) -> ToolDecorator: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    effect: bool = True,
    timeout: float | None = None,
    thread: bool = True,
) -> Any:
    """Make a function a tool: ``@memvid_async.tool``.

    A call is made by :meth:`SessionRecorder.call_tool` of the innermost session whose block the
    caller is in, of any store, or by that of a served session; outside of one it just runs. Its
    parameters are those of :meth:`SessionRecorder.tool`.

    :raises InvalidValueError: when it is not a function, or one without known parameters.
    """
    return _decorated(function, _in_force, _Options(name, effect, timeout, thread))


def _decorated(
    function: Callable[..., Any] | None, session: Callable[[], ToolMethods | None], how: _Options
) -> Any:
    if function is None:
        return lambda given: _decorated(given, session, how)
    if isinstance(function, (classmethod, staticmethod)):
        # It stays what it is, so that a call passes the class, or no object.
        return type(function)(_decorated(function.__func__, session, how))
    if not callable(function):
        raise InvalidValueError(f"a tool must be a function, not {type(function).__name__}")
    found = how.name or str(getattr(function, "__name__", type(function).__name__))
    signature = _signature_of(function, found)
    scope = _scope_of(function)

    @wraps(function)
    async def recorded(*args: Any, **named: Any) -> Any:
        bound = signature.bind(*args, **named)
        arguments = _by_name(bound, takes_object=_takes_object(bound, scope))

        async def run(**_: Any) -> Any:
            if how.thread:
                return await call(function, args, named)
            result = function(*args, **named)
            return await result if inspect.isawaitable(result) else result

        asked = session()
        if asked is None:
            return await run()
        return await asked.call_tool(found, arguments, run, effect=how.effect, timeout=how.timeout)

    return recorded


def _signature_of(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise InvalidValueError(
            f"the parameters of the tool {name!r} are not known, as of much that is written in C: "
            "wrap it in a function that has them"
        ) from None


def _scope_of(function: Callable[..., Any]) -> tuple[str, str, str] | None:
    """Return the module and the class where a function was defined, and its name there.

    None for what takes no object: it was defined in no class, or has its object already. A method
    that is written in C takes a value, which is an argument.
    """
    if isinstance(function, (MethodType, BuiltinMethodType, MethodDescriptorType)):
        return None
    scope, _, name = getattr(function, "__qualname__", "").rpartition(".")
    if not scope or scope.endswith("<locals>"):
        return None
    return getattr(function, "__module__", ""), scope, name


def _takes_object(bound: inspect.BoundArguments, scope: tuple[str, str, str] | None) -> bool:
    """Whether the first that was passed is the object, or the class, whose method was called."""
    if scope is None or not bound.arguments:
        return False
    module, within, name = scope
    first = next(iter(bound.arguments.values()))
    for kind in inspect.getmro(first if isinstance(first, type) else type(first)):
        if (kind.__module__, kind.__qualname__) == (module, within):
            return not isinstance(vars(kind).get(name), staticmethod)
    return False


def _by_name(bound: inspect.BoundArguments, *, takes_object: bool) -> dict[str, Any]:
    """Return what was passed by the names of the parameters, without the object of a method."""
    parameters = bound.signature.parameters
    found: dict[str, Any] = {}
    for place, (name, value) in enumerate(bound.arguments.items()):
        kind = parameters[name].kind
        if place == 0 and takes_object:
            continue
        if kind is inspect.Parameter.VAR_KEYWORD and not value.keys() & found.keys():
            found.update((key, _listed(item)) for key, item in value.items())
        else:
            found[name] = _listed(value)
    return found


def _listed(value: Any, depth: int = 0) -> Any:
    """Return a value with lists for tuples, which a recording does not tell from lists.

    What is nested too deep to be recorded stays as it is: a check refuses it later.
    """
    if depth <= MAX_DEPTH:
        if type(value) in (tuple, list):
            return [_listed(item, depth + 1) for item in value]
        if type(value) is dict:
            return {key: _listed(item, depth + 1) for key, item in value.items()}
    return value
