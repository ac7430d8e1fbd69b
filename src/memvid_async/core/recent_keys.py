"""The keys that changed last, so that a condition can be decided against the newest state.

A caller looks at a key in a view, and its command says what it saw and when. Whatever changed since
is here, as long as the view is not older than :attr:`RecentKeys.floor`. So deciding needs no map
of all keys, reads nothing, and costs the same in a store of any size; and where the command has to
be decided again, on a log to which somebody else appended first, it is decided the same way.
"""

from __future__ import annotations

from typing import NamedTuple

from ..events.decided import AnyEvent
from ..events.keyed import CollectionChanged, KeyDeleted, KeyPut, KeyRenewed, PrefixDeleted

# At most this many keys are held in each of two halves, with this many characters, and this many
# deletions of prefixes. Then the older half goes, and the floor rises.
MOST_KEYS, MOST_CHARS, MOST_PREFIXES = 8192, 2**20, 64


class KeyFacts(NamedTuple):
    """What deciding needs of a key. ``version``: 0 when it is not there."""

    version: int = 0
    is_list: bool = False
    expires_ns: int | None = None

    def at(self, now: int) -> KeyFacts:
        """Return the facts at a time: a value that has expired is not there."""
        return NO_KEY if self.expires_ns is not None and self.expires_ns <= now else self


NO_KEY = KeyFacts()
_new = tuple.__new__


class _Half:
    """The keys that changed after the event ``floor``: per collection and key, when and to what."""

    __slots__ = ("chars", "facts", "floor", "prefixes")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.facts: dict[tuple[int, str], tuple[int, KeyFacts]] = {}
        self.prefixes: list[tuple[int, str, int]] = []
        self.chars = 0

    @property
    def is_full(self) -> bool:
        return (
            len(self.facts) >= MOST_KEYS
            or self.chars >= MOST_CHARS
            or len(self.prefixes) >= MOST_PREFIXES
        )


class RecentKeys:
    """The keys that changed after the event :attr:`floor`. Only the thread that folds uses it."""

    def __init__(self, floor: int = 0) -> None:
        self._older = _Half(floor)
        self._newer = _Half(floor)

    @property
    def floor(self) -> int:
        """The sequence of the event after which no change of a key is missing."""
        return self._older.floor

    def note(self, event: AnyEvent) -> None:
        """Note an event that changed a collection."""
        payload = event.payload
        assert isinstance(payload, CollectionChanged)
        number, sequence = payload.collection, event.sequence
        if self._newer.is_full:
            self._older, self._newer = self._newer, _Half(sequence - 1)
        half = self._newer
        for change in payload.changes:
            # Most changes are puts.
            if type(change) is KeyPut:
                facts = _new(KeyFacts, (sequence, False, change.expires_ns))
                half.facts[number, change.key] = (sequence, facts)
                half.chars += len(change.key)
                continue
            if isinstance(change, PrefixDeleted):
                half.prefixes.append((number, change.prefix, sequence))
                half.chars += len(change.prefix)
                # A put after it, by the same event, counts.
                for key in [k for k in half.facts if _begins(k, number, change.prefix)]:
                    half.facts[key] = (sequence, NO_KEY)
                continue
            facts = NO_KEY
            if isinstance(change, KeyRenewed):
                facts = KeyFacts(change.version, is_list=False, expires_ns=change.expires_ns)
            elif not isinstance(change, KeyDeleted):
                facts = KeyFacts(sequence, is_list=True)
            half.facts[number, change.key] = (sequence, facts)
            half.chars += len(change.key)

    def get(self, collection: int, key: str) -> KeyFacts | None:
        """Return what a key is by now; None when it has not changed after the floor."""
        found: tuple[int, KeyFacts] | None = None
        for half in (self._older, self._newer):
            found = half.facts.get((collection, key), found)
            for number, prefix, sequence in half.prefixes:
                deleted = number == collection and key.startswith(prefix)
                if deleted and (found is None or found[0] < sequence):
                    found = (sequence, NO_KEY)
        return None if found is None else found[1]


def _begins(place: tuple[int, str], collection: int, prefix: str) -> bool:
    return place[0] == collection and place[1].startswith(prefix)
