"""Fork points and calls in flight, for the row of a session's start and the row of a session."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Any
from uuid import UUID

from .frames import ForkPoint

# A call in flight: the sequence of its first start, and the time of that.
_CALL_ROW = Struct("<Qq")


def pack_calls(calls: Iterable[tuple[int, int]]) -> bytes:
    """Return calls in flight as packed rows, in order."""
    return b"".join(_CALL_ROW.pack(*call) for call in sorted(calls))


def unpack_calls(packed: Any) -> tuple[tuple[int, int], ...]:
    """Undo :func:`pack_calls`.

    :raises TypeError: when the value is not packed rows.
    """
    if not isinstance(packed, bytes) or len(packed) % _CALL_ROW.size:
        raise TypeError("calls in flight have a wrong type or length")
    return tuple((first, time_ns) for first, time_ns in _CALL_ROW.iter_unpack(packed))


def fork_row(fork: ForkPoint | None) -> list[Any] | None:
    """Return a fork point as a list, in the order of its fields."""
    if fork is None:
        return None
    return [
        fork.parent,
        fork.parent_id.bytes,
        fork.sequence,
        fork.action_count,
        fork.checkpoint_count,
        fork.branch,
        fork.last_frame,
        fork.frame_count,
        fork.memory_hash,
        pack_calls(fork.in_flight),
    ]


# A saved table holds the index of an action in four bytes. A fork point, as the row of an open
# session, may use half of that range; the rest is left for appending.
MOST_ACTIONS = 2**31


def read_fork_row(value: Any) -> ForkPoint | None:
    """Return the fork point in a list; None for None.

    :raises TypeError, ValueError: when the value is anything else.
    """
    if value is None:
        return None
    if not isinstance(value, list):
        raise TypeError("a fork point is not a list")
    parent, parent_id, sequence, actions, checkpoints, branch, last, count, digest, calls = value[
        :10
    ]
    for number in (parent, sequence, actions, checkpoints, branch, last, count):
        if type(number) is not int or not 0 <= number < 2**63:
            raise TypeError("a fork point has a bad count")
    if max(actions, checkpoints) >= MOST_ACTIONS:
        raise TypeError("a fork shares more actions than a session has")
    for data, length in ((parent_id, 16), (digest, 32)):
        if not isinstance(data, bytes) or len(data) != length:
            raise TypeError("a fork point has a bad id or digest")
    return ForkPoint(
        parent,
        UUID(bytes=parent_id),
        sequence,
        actions,
        checkpoints,
        branch,
        last,
        count,
        digest,
        unpack_calls(calls),
    )
