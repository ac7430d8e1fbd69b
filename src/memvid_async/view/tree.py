"""The tree that forks make: sessions in its order, and where one leaves its parent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from attrs import frozen

from .. import ForkPoint, Session, SessionSummary
from .text import count_of


@frozen
class TreeNode:
    """A session in the tree of forks."""

    depth: int
    """How many parents it has in the tree; 0 for a root."""
    session_id: UUID
    """The session's id."""
    summary: SessionSummary | None
    """The session as listed; None for a parent that was deleted."""


def tree_of(summaries: Sequence[SessionSummary]) -> list[TreeNode]:
    """Return the sessions in the order of the tree: each before its forks, which are one deeper."""
    known = {summary.session_id for summary in summaries}
    forks: defaultdict[UUID, list[TreeNode]] = defaultdict(list)
    roots: dict[UUID, TreeNode] = {}
    for summary in summaries:
        if summary.fork is None:
            roots[summary.session_id] = TreeNode(0, summary.session_id, summary)
            continue
        parent = summary.fork.parent_id
        forks[parent].append(TreeNode(0, summary.session_id, summary))
        if parent not in known:
            roots.setdefault(parent, TreeNode(0, parent, None))
    # Without recursion, because a chain of forks may be longer than Python's stack. A file that
    # somebody made up may hold a circle of forks: those that no root leads to come last, as roots.
    others = [TreeNode(0, summary.session_id, summary) for summary in summaries]
    ordered, waiting = [], [*reversed(others), *reversed(roots.values())]
    placed: set[UUID] = set()
    while waiting:
        node = waiting.pop()
        if node.session_id in placed:
            continue
        ordered.append(node)
        if node.summary is not None:
            placed.add(node.session_id)
        waiting += [
            TreeNode(node.depth + 1, child.session_id, child.summary)
            for child in reversed(forks[node.session_id])
        ]
    return ordered


def describe_fork(session: Session, fork: ForkPoint) -> str:
    """Say where a fork leaves its parent."""
    first = session.actions[0].index if session.actions else fork.action_count
    are = "is" if first == 1 else "are"
    gone = f", of which {first} {are} gone with a deleted session" if first else ""
    return f"from session {fork.parent_id} after {count_of(fork.action_count, 'action')}{gone}"
