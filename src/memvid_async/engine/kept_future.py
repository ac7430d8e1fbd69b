"""A future whose result is never lost to a cancellation."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

T = TypeVar("T")


class KeptFuture(asyncio.Future[T]):
    """A future that cannot be cancelled.

    A task that awaits it, and is cancelled meanwhile, gets its ``CancelledError`` when the future
    is done; then the future has its result. So what was recorded is known, at a fraction of what
    ``asyncio.shield`` costs.
    """

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002 - as Future has it
        """Refuse: the task is told later."""
        return False
