"""Which session is in force: that of the innermost block that the caller is in, if it is open.

A context (:mod:`contextvars`) knows the blocks that were entered in it and in those it was copied
from. It may outlive them: a task goes on after the block in which it was started, and a generator's
block can be entered in one context and left in another. So leaving marks the block itself, which
every context sees, and whether its session is still open is looked up where the newest state is.
"""

from __future__ import annotations

from contextvars import ContextVar


class Block:
    """An ``async with`` block of a session. ``session``: its number in the store."""

    __slots__ = ("_store", "is_left", "session")

    def __init__(self, store: SessionBlocks, session: int) -> None:
        self.session = session
        self._store = store
        self.is_left = False

    def is_open_in(self, store: SessionBlocks) -> bool:
        """Whether it is a block of this store, and has not been left."""
        return self._store is store and not self.is_left

    def leave(self) -> None:
        """Put it out of force, in every context and whichever context this is."""
        self.is_left = True
        _ENTERED.set(_still_entered())


# The blocks that a context is in, innermost last. One variable for the blocks of all stores: one
# that is made per object is never freed (see ContextVar in Python's documentation).
_ENTERED: ContextVar[tuple[Block, ...]] = ContextVar("memvid_async_blocks", default=())


def _still_entered() -> tuple[Block, ...]:
    """The context's blocks without those that were left, here or elsewhere."""
    return tuple(block for block in _ENTERED.get() if not block.is_left)


class SessionBlocks:
    """The blocks of one store's sessions. A context holds on to this, and not to the store."""

    __slots__ = ()

    def enter(self, session: int) -> Block:
        """A new block of a session, for the caller's context and those that are copied from it."""
        block = Block(self, session)
        # What was left in other contexts goes: a task that lives on must not gather it.
        _ENTERED.set((*_still_entered(), block))
        return block

    @property
    def entered(self) -> tuple[int, ...]:
        """The sessions whose blocks the caller is in, by number, the innermost first."""
        blocks = _ENTERED.get()
        if not blocks:
            return ()
        return tuple(block.session for block in reversed(blocks) if block.is_open_in(self))
