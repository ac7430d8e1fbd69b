"""Which session is in force: that of the innermost block that the caller is in, if it is open.

A context (:mod:`contextvars`) knows the blocks that were entered in it, and in the context from
which it was copied. It may outlive them: a task may go on after the block in which it was started,
and a generator's block may be entered in one context and left in another. So leaving marks the
block itself, which every context sees. Whether the block's session is still open is decided where
the newest state is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token, copy_context

from attrs import define, field

from ..core.commands import SessionChoice
from ..errors import InvalidValueError


class Block:
    """An ``async with`` block of a session. ``session``: its number in the ``store``; 0 where
    nothing is recorded. ``is_replaying``: whether its agent is being told what was recorded."""

    __slots__ = ("is_left", "is_replaying", "session", "store")

    def __init__(
        self, store: SessionBlocks, session: int, is_replaying: Callable[[], bool]
    ) -> None:
        self.store = store
        self.session = session
        self.is_left = False
        self.is_replaying = is_replaying

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make it the only block that the caller is in, for a call through its session's handle."""
        before = _ENTERED.get()
        _ENTERED.set((self,))
        try:
            yield
        finally:
            _ENTERED.set(before)

    def leave(self) -> None:
        """Take it out of force in every context; may be called from any context."""
        if not self.is_left:
            self.is_left = True
            self.store.open_count -= 1
        _ENTERED.set(_still_entered())


# The blocks that a context is in, innermost last. One variable serves all stores, because a
# variable made for each store would never be freed (see ContextVar in Python's documentation).
_ENTERED: ContextVar[tuple[Block, ...]] = ContextVar("memvid_async_blocks", default=())


@define(eq=False)
class Enclosing:
    """A call or a step, and the time in which it runs: calls that are made in its block are inside
    of it.

    ``store``: the blocks of its store. ``session``: its session's number. ``first``: the sequence
    of its first start; None where that is not recorded. ``is_call``: whether it is a call, which
    runs. ``is_left``: whether it was left in another context than the one that entered it, which
    goes on to have it.
    """

    store: SessionBlocks
    session: int
    first: int | None
    is_call: bool = field(default=False, kw_only=True)
    is_left: bool = field(default=False, init=False)
    _before: Token[tuple[Enclosing, ...]] = field(init=False)
    # What the context has while nothing else is entered or left in it.
    _inside: tuple[Enclosing, ...] = field(init=False)

    # A generator would take three times as long.

    def __enter__(self) -> None:
        around = ENCLOSING.get()
        if around:
            around = tuple([one for one in around if not one.is_left])
        self._inside = (*around, self)
        self._before = ENCLOSING.set(self._inside)

    def __exit__(self, *_: object) -> None:
        now = ENCLOSING.get()
        try:
            ENCLOSING.reset(self._before)
        except ValueError:
            # A generator's block, finished in another context than the one that began it.
            self.is_left = True
        else:
            if now is self._inside:
                return
        # What was entered since may be left later: what was there before is not what is left now.
        ENCLOSING.set(tuple([one for one in now if one is not self]))


# The calls and steps that a context is in, innermost last.
ENCLOSING: ContextVar[tuple[Enclosing, ...]] = ContextVar("memvid_async_calls", default=())


def _still_entered() -> tuple[Block, ...]:
    """Return the context's blocks without those that were left, in this context or another."""
    return tuple(block for block in _ENTERED.get() if not block.is_left)


class SessionBlocks:
    """The blocks of one store's sessions. Contexts refer to this object and not to the store.

    ``open_count``: how many were entered and not left.
    """

    __slots__ = ("open_count",)

    def __init__(self) -> None:
        self.open_count = 0
        # The opener's context, and those copied from it, are not empty from now on.
        _ENTERED.set(_ENTERED.get())

    def enter(self, session: int, is_replaying: Callable[[], bool] = lambda: False) -> Block:
        """Enter a new block of a session, for the caller's context and those copied from it."""
        block = Block(self, session, is_replaying)
        self.open_count += 1
        # Blocks that were left in other contexts are dropped: a long task must not collect them.
        _ENTERED.set((*_still_entered(), block))
        return block

    @property
    def are_lost(self) -> bool:
        """Whether the caller's context is empty while there are blocks: it comes from a thread that
        was started without one, as those of executors are."""
        return self.open_count > 0 and not copy_context()

    @property
    def entered(self) -> tuple[int, ...]:
        """The numbers of the sessions whose blocks the caller is in, innermost first."""
        blocks = _ENTERED.get()
        if not blocks:
            return ()
        mine = (b for b in reversed(blocks) if b.store is self and not b.is_left)
        return tuple([b.session for b in mine if b.session])

    def check_not_replaying(self, instead: str) -> None:
        """Return if the caller may do something with the store itself.

        ``instead``: what it can do where it may not.

        :raises InvalidValueError: when it is an agent that is being told what was recorded: the
            store would do again what it did then, or find something else.
        """
        if _ENTERED.get() and self._is_replaying:
            raise InvalidValueError(
                f"inside of a session that answers from its recording, {instead}: the store itself "
                "would do it once more, or find something else"
            )

    @property
    def _is_replaying(self) -> bool:
        """Whether the caller is an agent that is being told what was recorded, and no call of its
        that runs."""
        # Asked for every put of a collection: a generator would take three times as long.
        for block in reversed(_ENTERED.get()):
            if block.store is self and not block.is_left:
                break
        else:
            return False
        if not block.is_replaying():
            return False
        running = (one for one in ENCLOSING.get() if one.is_call and not one.is_left)
        return not any(one.store is self and one.session == block.session for one in running)

    def parent(self, choice: SessionChoice) -> int | None:
        """Return the start of the innermost call or step that the caller is in; None where it is in
        none of the session that is chosen first."""
        enclosing = ENCLOSING.get()
        if not enclosing:
            return None
        session = choice if isinstance(choice, int) else next(iter(choice), None)
        mine = (one for one in reversed(enclosing) if one.store is self and one.session == session)
        return next((one.first for one in mine if one.first is not None and not one.is_left), None)
