"""Where a store may be used: on the event loop that opened it, in the process that opened it."""

from __future__ import annotations

import asyncio
import os
from threading import get_ident
from typing import NoReturn

from ..errors import WrongLoopError

# How many forks led to this process. Comparing process ids instead would need a system call for
# each command.
_forks = 0


def _note_fork() -> None:
    global _forks  # noqa: PLW0603 - it is the process's own
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio event loop that runs in this thread; None when none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Stays:
    """Belongs to an open store, and so to its process."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied, and with it whatever holds this.

        :raises WrongLoopError: always.
        """
        raise WrongLoopError(
            "an open store cannot be pickled or copied to another process; open the file there"
        )


class Home(Stays):
    """The event loop, and the process, in which a store was opened.

    :raises WrongLoopError: when no asyncio event loop runs; another library's may.
    """

    __slots__ = ("_forks", "_is_running", "_thread", "loop")

    def __init__(self) -> None:
        loop = running_loop()
        if loop is None:
            raise WrongLoopError("a store needs an asyncio event loop, and none runs here")
        self.loop = loop
        self.check_task()
        self._forks = _forks
        # The thread in which the loop ran at the last check.
        self._thread = get_ident()
        self._is_running = loop.is_running

    @property
    def is_here(self) -> bool:
        """Whether the caller runs on the loop."""
        return running_loop() is self.loop

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a forked child of the one with the loop."""
        return _forks != self._forks

    def check_process(self) -> None:
        """Return if this is the process with the loop.

        :raises WrongLoopError: in a forked child.
        """
        if _forks != self._forks:
            raise WrongLoopError("the store was opened before a fork; open the file again")

    def check_task(self) -> None:
        """Return if an asyncio task of the loop makes the call.

        :raises WrongLoopError: when another library runs it, whose loop is a guest of this one:
            that library cannot wait for what asyncio delivers.
        """
        if asyncio.current_task(self.loop) is None:
            raise WrongLoopError(
                "another library's event loop runs this call, such as trio's in guest mode; await "
                "it in an asyncio task"
            )

    @property
    def has_ended(self) -> bool:
        """Whether the loop was closed, as ``asyncio.run()`` does at its end."""
        return self.loop.is_closed()

    def check(self) -> None:
        """Return if the caller runs on the loop. This is fast, as it is called for every command.

        :raises WrongLoopError: when the caller runs anywhere else.
        """
        # Only one loop can run in a thread. So this test is enough; asking for the running loop
        # takes three times as long.
        if get_ident() == self._thread and self._is_running() and _forks == self._forks:
            return
        self.check_process()
        if running_loop() is self.loop:
            self._thread = get_ident()
            return
        where = "has ended" if self.has_ended else "is another one than the caller's"
        raise WrongLoopError(
            f"the event loop that opened the store {where}; use the store on the loop that opened "
            f"it, from other threads through SyncStore.of(store), or open the file again"
        )
