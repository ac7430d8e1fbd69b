"""A fork point as a list, for the row of a session's start and the row of a session."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from .frames import ForkPoint


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
    ]


def read_fork_row(value: Any) -> ForkPoint | None:
    """Return the fork point in a list; None for None.

    :raises TypeError, ValueError: when the value is anything else.
    """
    if value is None:
        return None
    if not isinstance(value, list):
        raise TypeError("a fork point is not a list")
    parent, parent_id, sequence, actions, checkpoints, branch, last, count, digest = value[:9]
    for number in (parent, sequence, actions, checkpoints, branch, last, count):
        if type(number) is not int or not 0 <= number < 2**63:
            raise TypeError("a fork point has a bad count")
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
    )
