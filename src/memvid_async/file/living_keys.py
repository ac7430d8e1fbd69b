"""What is left of collections when a log is compacted: the last value of each key, and the items
that its list still has."""

from __future__ import annotations

from typing import Any

from ..events.keyed import (
    KeyDeleted,
    KeyPut,
    KeyRenewed,
    ListChanged,
    PrefixDeleted,
)
from ..format.keyed_rows import change_field, read_change
from ..format.kinds import ERASED
from ..format.places import FIRST_CHANGE

# A change: the sequence of its event, and its place there.
_Place = tuple[int, int]
# A run of a list's items: the change that brought them, and the first and the last (excluded).
_Run = tuple[_Place, int, int]


class _Deleted:
    """The prefixes that were deleted in one collection, each with its last deletion."""

    __slots__ = ("_lengths", "_places")

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._lengths: set[int] = set()

    def note(self, prefix: str, place: _Place) -> None:
        self._places[prefix] = place
        self._lengths.add(len(prefix))

    def since(self, key: str, place: _Place) -> bool:
        """Whether a prefix of the key was deleted after the change at ``place``."""
        found = (self._places.get(key[:length], place) for length in self._lengths)
        return any(deleted > place for deleted in found)


class LivingKeys:
    """The keys of all collections; call :meth:`note` with every row that changes one, in order.

    ``now``: values that expire by then are gone.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        # Per collection and key, the change that put its value, or the last one of its list.
        self._last: dict[tuple[int, str], _Place] = {}
        # When that value expires, and the change that renewed it last; None where none has.
        self._expiry: dict[tuple[int, str], tuple[int, _Place | None]] = {}
        self._runs: dict[tuple[int, str], list[_Run]] = {}
        self._deleted: dict[int, _Deleted] = {}

    def note(self, row: list[Any], sequence: int) -> None:
        """Note a row of an event that changed a collection.

        :raises TypeError, IndexError: when it is not such a row.
        """
        number = row[1]
        for at, field in enumerate(row[FIRST_CHANGE:]):
            change, place = read_change(field), (sequence, at)
            if isinstance(change, PrefixDeleted):
                self._deleted.setdefault(number, _Deleted()).note(change.prefix, place)
                continue
            owner = number, change.key
            if isinstance(change, KeyRenewed):
                if owner in self._last and owner not in self._runs:
                    self._expiry[owner] = (change.expires_ns, place)
                continue
            if isinstance(change, ListChanged):
                self._runs[owner] = self._changed(owner, change, place)
            else:
                self._runs.pop(owner, None)
            self._expiry.pop(owner, None)
            if isinstance(change, KeyPut) and change.expires_ns is not None:
                self._expiry[owner] = (change.expires_ns, None)
            if isinstance(change, KeyDeleted):
                self._last.pop(owner, None)
            else:
                self._last[owner] = place

    def _changed(self, owner: tuple[int, str], change: ListChanged, place: _Place) -> list[_Run]:
        """Return the runs of a list after a change of it."""
        kept: list[_Run] = []
        first = change.first
        room = 2**63 if change.count is None else change.count
        for by, start, end in self._runs.get(owner, ()) if self._is_alive(owner) else ():
            skipped = min(first, end - start)
            first -= skipped
            taken = min(room, end - start - skipped)
            room -= taken
            if taken:
                kept.append((by, start + skipped, start + skipped + taken))
        if change.items:
            kept.append((place, 0, len(change.items)))
        return kept

    def _is_alive(self, owner: tuple[int, str]) -> bool:
        last, deleted = self._last.get(owner), self._deleted.get(owner[0])
        if last is None or (deleted is not None and deleted.since(owner[1], last)):
            return False
        expiry = self._expiry.get(owner)
        return expiry is None or expiry[0] > self._now

    def left(self, row: list[Any], sequence: int) -> list[Any]:
        """Return what is left of a row that was noted."""
        left = row[:FIRST_CHANGE]
        for at, field in enumerate(row[FIRST_CHANGE:]):
            kept = self._left(row[1], field, (sequence, at))
            if kept is not None:
                left.append(kept)
        return left if len(left) > FIRST_CHANGE else [ERASED]

    def _left(self, number: int, field: list[Any], place: _Place) -> list[Any] | None:
        change = read_change(field)
        # What a deletion hides is gone too, so that nothing needs it.
        if isinstance(change, (PrefixDeleted, KeyDeleted)):
            return None
        owner = number, change.key
        if not self._is_alive(owner):
            return None
        if isinstance(change, KeyRenewed):
            return field if self._expiry.get(owner, (0, None))[1] == place else None
        is_last = self._last[owner] == place
        if isinstance(change, KeyPut):
            return field if is_last else None
        kept = [(start, end) for by, start, end in self._runs.get(owner, ()) if by == place]
        start, end = kept[0] if kept else (0, 0)
        if not is_last and start == end:
            return None
        if not change.first and end - start == len(change.items):
            return field
        # The items before these that are left are those that it kept.
        count = None if change.first else change.count
        return change_field(ListChanged(change.key, 0, count, change.items[start:end]))
