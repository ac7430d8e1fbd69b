"""What :meth:`Collection.apply` takes: changes of keys, and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from ..events.printing import brief


@frozen
class Put:
    """Of :meth:`Collection.apply`: let a key hold a value."""

    key: str
    """The key."""
    data: Any = field(repr=brief)
    """The value."""
    metadata: Mapping[str, Any] | None = field(default=None, repr=brief)
    """What it can be found by, besides its key."""
    ttl: float | None = None
    """After this many seconds it is hidden; None for never."""


@frozen
class Delete:
    """Of :meth:`Collection.apply`: delete a key, if it is there."""

    key: str
    """The key."""


@frozen
class DeletePrefix:
    """Of :meth:`Collection.apply`: delete every key that begins so."""

    prefix: str
    """How they begin."""


@frozen
class Check:
    """Of :meth:`Collection.apply`: change nothing unless a key has this version before."""

    key: str
    """The key."""
    version: int
    """The version that it must have; 0: it must not be there."""


Step = Put | Delete | DeletePrefix | Check
