"""What a journal does about an error of a batch, before that is raised."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import MemvidAsyncError, StoreFailedError

# Made beforehand: without memory there is none for it either.
_NO_MEMORY = StoreFailedError("stopped half-way: there was not enough memory")


class OnError:
    """A block whose error is first told to ``tell``, and then raised.

    A class, because it surrounds every batch: a generator takes three times as long.
    """

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[BaseException], None]) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self._tell(error)


def half_way(error: BaseException) -> MemvidAsyncError:
    """Return why a journal refuses everything from now on, after an error in the middle."""
    if isinstance(error, MemoryError):
        return _NO_MEMORY
    if isinstance(error, MemvidAsyncError):
        return error
    return StoreFailedError(f"stopped half-way: {error!r}")
