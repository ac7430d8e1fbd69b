"""Where the parts of large segments are, for segments that were read before."""

from __future__ import annotations

from bisect import bisect_right

from ..format.places import Places
from ..format.segment import Segment

# The places of at most this many parts are kept; each takes 16 bytes.
_MOST_PARTS = 2**20
# A smaller segment is as quickly read whole as in part.
_SMALL_BYTES = 4096


class KnownPlaces:
    """The places in the large segments of one file. Several threads may use it at once."""

    def __init__(self) -> None:
        # The places by the sequence of a segment's first event, and these sequences, sorted. Both
        # are replaced, never changed.
        self._places: dict[int, Places] = {}
        self._order: list[int] = []
        self._parts = 0

    def find(self, sequence: int) -> Places | None:
        """Return the places in the segment with this event; None when they are not known."""
        order = self._order
        at = bisect_right(order, sequence) - 1
        places = self._places.get(order[at]) if at >= 0 else None
        return places if places is not None and places.holds(sequence) else None

    def note(self, segment: Segment) -> Places | None:
        """Keep and return the places in a segment that was read; None where it has few parts.

        :raises ValueError: when it is not an events segment.
        """
        places = Places.of(segment) if len(segment.payload) > _SMALL_BYTES else None
        if places is not None:
            kept, self._parts = dict(self._places), self._parts + len(places)
            if self._parts > _MOST_PARTS:
                kept, self._parts = {}, len(places)
            kept[places.sequence] = places
            self._places, self._order = kept, sorted(kept)
        return places
