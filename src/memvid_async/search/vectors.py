"""Exact cosine similarity over the vectors of a search index, by numpy (the extra ``vector``)."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from operator import mul
from typing import TYPE_CHECKING

from ..errors import InvalidValueError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK = 4096


def check_vector(data: bytes) -> int:
    """Return the dimension of an embedding. Works without numpy, because a fold must.

    :raises InvalidValueError: when it is empty, not float32, not finite or all zeros.
    """
    if not data or len(data) % 4:
        raise InvalidValueError(f"an embedding must be float32 values, not {len(data)} bytes")
    values = array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    length = sum(map(mul, values, values))
    if not 0 < length < math.inf:
        raise InvalidValueError("an embedding must be finite and not all zeros")
    return len(values)


class ExactVectors:
    """Unit vectors by id; a search looks at every one.

    A first pass in float32 finds all that may be among the best. Those are scored again in float64,
    one by one, so that a score does not depend on the other vectors.
    """

    def __init__(self, dimension: int) -> None:
        try:
            import numpy as np  # noqa: PLC0415 - the extra is needed only where vectors are
        except ModuleNotFoundError as error:
            message = "a semantic find needs numpy: install memvid-async[vector]"
            raise ModuleNotFoundError(message, name="numpy") from error

        self._np = np
        self.dimension = dimension
        self._places: dict[int, int] = {}
        self._ids = np.empty(0, np.int64)
        self._rows = np.empty((0, dimension), np.float32)
        # Twice the largest error of a float32 dot product of unit vectors.
        self._margin = (dimension + 8) * 2.0**-22 + 1e-6

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, frame_id: int) -> bool:
        return frame_id in self._places

    def ids(self) -> Iterable[int]:
        """Return the ids of all vectors."""
        return self._places.keys()

    def rows(self, frame_ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the ids and unit vectors of these frames; those without a vector are left out."""
        among = self._placed(frame_ids)
        return self._ids[among], self._rows[among]

    def put(self, items: Sequence[tuple[int, bytes]]) -> None:
        """Add vectors by id; a vector replaces one of the same id."""
        self._reserve(len(self._places) + len(items))
        for at in range(0, len(items), _CHUNK):
            part = items[at : at + _CHUNK]
            exact = self._np.frombuffer(b"".join(data for _, data in part), "<f4").astype("f8")
            exact = exact.reshape(len(part), -1)
            lengths = self._np.sqrt((exact * exact).sum(axis=1, keepdims=True))
            # Nobody put a vector without a direction; a file may hold one. It is like no other.
            sound = self._np.isfinite(lengths) & (lengths > 0)
            exact = self._np.where(sound, exact, 0) / self._np.where(sound, lengths, 1)
            for frame_id, _ in part:
                self._places.setdefault(frame_id, len(self._places))
            places = [self._places[frame_id] for frame_id, _ in part]
            self._ids[places] = [frame_id for frame_id, _ in part]
            self._rows[places] = exact

    def remove(self, frame_id: int) -> None:
        """Remove a vector, if it is there; the last one moves to its place."""
        place = self._places.pop(frame_id, None)
        last = len(self._places)
        if place is not None and place != last:
            moved = int(self._ids[last])
            self._ids[place], self._rows[place] = moved, self._rows[last]
            self._places[moved] = place

    def search(self, query: bytes, top_k: int, allowed: Sequence[int] | None) -> dict[int, float]:
        """Return the cosines of the ``top_k`` nearest vectors, by id.

        Those that tie with the last of them are added, and some that come close. ``allowed``: the
        ids that count; None for all.
        """
        np = self._np
        count = len(self._places)
        among = None if allowed is None else self._placed(allowed)
        rows = self._rows[:count] if among is None else self._rows[among]
        vector = self.unit(query)
        rough = rows @ vector.astype(np.float32)
        near = np.arange(len(rows))
        if top_k < len(rows):
            last = np.partition(rough, len(rows) - top_k)[len(rows) - top_k]
            near = np.flatnonzero(rough >= last - self._margin)
        return self._exact(vector, near if among is None else among[near])

    def cosines(self, query: bytes, frame_ids: Iterable[int]) -> dict[int, float]:
        """Return the cosines of these frames, by id; frames without a vector are left out."""
        return self._exact(self.unit(query), self._placed(frame_ids))

    def _placed(self, frame_ids: Iterable[int]) -> NDArray[np.intp]:
        places = self._places
        return self._np.array([places[one] for one in frame_ids if one in places], self._np.intp)

    def _reserve(self, count: int) -> None:
        if count > len(self._ids):
            room = max(count, len(self._ids) * 3 // 2, 64)
            used = len(self._places)
            ids = self._np.empty(room, self._np.int64)
            rows = self._np.empty((room, self._rows.shape[1]), self._np.float32)
            ids[:used], rows[:used] = self._ids[:used], self._rows[:used]
            self._ids, self._rows = ids, rows

    def unit(self, query: bytes) -> NDArray[np.float64]:
        """Return the query scaled to length 1, in float64."""
        vector = self._np.frombuffer(query, "<f4").astype(self._np.float64)
        vector /= self._np.sqrt((vector * vector).sum())
        return vector

    def _exact(self, vector: NDArray[np.float64], places: NDArray[np.intp]) -> dict[int, float]:
        scores: dict[int, float] = {}
        for at in range(0, len(places), _CHUNK):
            part = places[at : at + _CHUNK]
            cosines = (self._rows[part].astype(self._np.float64) * vector).sum(axis=1)
            scores.update(zip(self._ids[part].tolist(), cosines.tolist(), strict=True))
        return scores
