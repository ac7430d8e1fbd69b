"""What was seen of keys, and as of which event: a command need not look at them again.

What changed since is in :class:`RecentKeys`, as long as that goes back as far.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.recent_keys import KeyFacts

# The keys that were used last are held, at most this many.
_MOST = 1024


class SeenKeys:
    """The facts of keys, by collection and key, each with the event as of which it was seen."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[KeyFacts, int]] = {}

    def note(self, collection: str, facts: Mapping[str, KeyFacts], as_of: int) -> None:
        """Note what was seen of keys."""
        for key, one in facts.items():
            self._seen.pop((collection, key), None)
            self._seen[collection, key] = (one, as_of)
        while len(self._seen) > _MOST:
            del self._seen[next(iter(self._seen))]

    def of(self, collection: str, keys: Iterable[str]) -> tuple[dict[str, KeyFacts], int]:
        """Return what is known of these keys, and as of which event; -1 where nothing is known."""
        known: dict[str, KeyFacts] = {}
        since = []
        for key in keys:
            found = self._seen.pop((collection, key), None)
            if found is not None:
                # The key that was used last is last.
                self._seen[collection, key] = found
                known[key] = found[0]
                since.append(found[1])
        return known, min(since, default=-1)
