"""Calls that were in flight when their process died: who decides what becomes of them, and how."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Literal

from attrs import frozen

from ..errors import InvalidValueError
from ..events.details import ActionKind


class _Decision(Enum):
    RUN = "run"

    def __repr__(self) -> str:
        return "memvid_async.RUN"


RUN = _Decision.RUN
"""The call is tried again, with the same key."""


@frozen
class Result:
    """The call had returned this: it is recorded as its end, and answers the call from now on."""

    value: Any
    """What it had returned."""


@frozen
class Failed:
    """The call had failed so: it is recorded as its end, and is raised from now on."""

    error: Exception
    """What it had raised."""


@frozen
class UncertainCall:
    """A call that began, and of which nobody said how it ended.

    A callable that is passed as ``uncertain`` returns :data:`RUN`, a :class:`Result` or a
    :class:`Failed` for each.
    """

    key: str
    """The same on every try: for a service that refuses to do a thing twice."""
    kind: ActionKind
    """A tool call or an ask."""
    name: str | None
    """The tool, or the model."""
    arguments: Any
    """The tool's arguments, or the question."""
    task: str | None
    """Which task of the agent made it."""
    started_ns: int
    """When it began, in nanoseconds since the Unix epoch."""
    tries: int
    """How often it began."""
    chunks: tuple[str | bytes, ...]
    """What had come of its reply, as far as that was recorded."""


Decision = Literal[_Decision.RUN] | Result | Failed
Policy = Literal["raise", "run"] | Callable[[UncertainCall], Decision | Awaitable[Decision]]


def check_policy(value: Any) -> Policy:
    """Return who decides.

    :raises InvalidValueError: when it is neither "raise", "run" nor callable.
    """
    if (isinstance(value, str) and value in ("raise", "run")) or callable(value):
        return value  # type: ignore[no-any-return]
    raise InvalidValueError(f"uncertain must be 'raise', 'run' or a callable, not {value!r:.80}")


async def decide(policy: Callable[[UncertainCall], Any], call: UncertainCall) -> Decision:
    """Ask a callable what becomes of a call.

    :raises InvalidValueError: when it returns something else.
    """
    decision = policy(call)
    if inspect.isawaitable(decision):
        decision = await decision
    if decision is RUN or isinstance(decision, (Result, Failed)):
        return decision
    raise InvalidValueError(
        f"uncertain returns RUN, Result(value) or Failed(error), not {decision!r:.80}"
    )
