"""What a child does to itself: dies at the nth storage call, or half-way through a write.

It stands before :class:`FileStorage`, so that successors and reopened files are under it too.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from memvid_async.storage import FileStorage

# Calls that change the file, its name or its lock; a kill between two others is no other state.
CALLS = (
    "open",
    "write",
    "sync",
    "sync_directory",
    "truncate",
    "lock",
    "unlock",
    "create_beside",
    "open_beside",
    "install",
    "remove",
    "reopen",
    "close",
)


def die() -> None:
    """What ``kill -9`` does, at this very instruction."""
    os.kill(os.getpid(), signal.SIGKILL)


class Fuse:
    """Counts storage calls once ``armed``; ``burn`` is called before number ``at`` (from 1).

    ``share``: how much of a write, the nth call, is written before; None for nothing of any call.
    """

    def __init__(
        self,
        at: int,
        share: float | None = None,
        *,
        armed: bool = True,
        only: str | None = None,
        never: str | None = None,
        burn: Callable[[], None] = die,
    ) -> None:
        self.at = at
        self.share = share
        self.armed = armed
        self.only = only
        self.never = never
        self.burn = burn
        self.calls = 0
        self.log: list[str] = []

    def install(self, patch: Callable[[type, str, Any], None] = setattr) -> Fuse:
        """Put it before every call of every file storage in this process."""
        for name in CALLS:
            call = getattr(FileStorage, name)
            if name == "open":
                patch(FileStorage, name, classmethod(self._before_open(call.__func__)))
            else:
                patch(FileStorage, name, self._before(name, call))
        return self

    def arm_at(self, owner: type, name: str) -> Fuse:
        """Start counting where ``owner.name`` is called."""
        call = getattr(owner, name)

        @functools.wraps(call)
        def arming(*args: Any, **kwargs: Any) -> Any:
            self.armed = True
            return call(*args, **kwargs)

        setattr(owner, name, arming)
        return self

    def _due(self, name: str) -> bool:
        if not self.armed or name == self.never or self.only not in (None, name):
            return False
        self.calls += 1
        self.log.append(name)
        return self.calls == self.at

    def _before(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(storage: FileStorage, *args: Any) -> Any:
            if self._due(name):
                if name == "write" and self.share is not None:
                    offset, data = args
                    os.pwrite(storage._descriptor, data[: int(len(data) * self.share)], offset)
                self.burn()
            return call(storage, *args)

        return counted

    def _before_open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(cls: type, *args: Any, **kwargs: Any) -> Any:
            if self._due("open"):
                self.burn()
            return call(cls, *args, **kwargs)

        return counted
