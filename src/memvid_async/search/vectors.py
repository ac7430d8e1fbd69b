"""Exact cosine similarity over the vectors of the index, on numpy (the extra ``vector``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import InvalidValueError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK = 4096


def check_vector(data: bytes, what: str = "embedding") -> int:
    """The dimension of an embedding.

    :raises InvalidValueError: when it is empty, no float32, not finite, or has no length.
    """
    import numpy as np  # noqa: PLC0415 - the extra is needed only where vectors are

    if not data or len(data) % 4:
        raise InvalidValueError(f"{what} must be float32 values, not {len(data)} bytes")
    length = float(np.linalg.norm(np.frombuffer(data, "<f4").astype(np.float64)))
    if not 0 < length < float("inf"):
        raise InvalidValueError(f"{what} must be finite and not all zeros")
    return len(data) // 4


class ExactVectors:
    """Vectors by id, searched one and all.

    A first pass in float32 finds whatever may be among the best; those are scored again in float64,
    row by row, so that a score does not depend on which other rows there are.
    """

    def __init__(self, dimension: int) -> None:
        import numpy as np  # noqa: PLC0415 - the extra is needed only where vectors are

        self._np = np
        self.dimension = dimension
        self._count = 0
        self._ids = np.empty(0, np.int64)
        self._rows = np.empty((0, dimension), np.float32)
        # The error of a float32 dot product of unit vectors stays below this.
        self._margin = (dimension + 8) * 2.0**-23

    def extend(self, items: Iterable[tuple[int, bytes]]) -> None:
        """Add vectors whose ids are above all that are there, in ascending order."""
        np = self._np
        ids, blobs = [], []
        for frame_id, data in items:
            ids.append(frame_id)
            blobs.append(data)
        if not ids:
            return
        rows = np.frombuffer(b"".join(blobs), "<f4").reshape(len(ids), self.dimension)
        need = self._count + len(ids)
        if need > len(self._ids):
            room = max(need, len(self._ids) * 3 // 2, 64)
            self._ids = np.resize(self._ids, room)
            grown = np.empty((room, self.dimension), np.float32)
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        self._ids[self._count : need] = ids
        self._rows[self._count : need] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._count = need

    def last_id(self) -> int:
        """The highest id, 0 when there is none."""
        return int(self._ids[self._count - 1]) if self._count else 0

    def search(
        self, query: bytes, top_k: int, allowed: NDArray[np.int64] | None = None
    ) -> dict[int, float]:
        """The cosine of the ``top_k`` nearest rows and of all that tie with the last of them.

        ``allowed``: ids in ascending order, when only these count.
        """
        np = self._np
        ids, rows = self._ids[: self._count], self._rows[: self._count]
        if allowed is not None:
            kept = np.isin(ids, allowed, assume_unique=True)
            ids, rows = ids[kept], rows[kept]
        if not len(ids):
            return {}
        vector = np.frombuffer(query, "<f4").astype(np.float64)
        vector /= np.linalg.norm(vector)
        rough = rows @ vector.astype(np.float32)
        if top_k < len(ids):
            last = np.partition(rough, len(ids) - top_k)[len(ids) - top_k]
            near = np.flatnonzero(rough >= last - 2 * self._margin - 1e-6)
        else:
            near = np.arange(len(ids))
        scores: dict[int, float] = {}
        for at in range(0, len(near), _CHUNK):
            part = near[at : at + _CHUNK]
            exact = rows[part].astype(np.float64)
            cosines = (exact * vector).sum(axis=1) / np.sqrt((exact * exact).sum(axis=1))
            scores.update(zip(ids[part].tolist(), cosines.tolist(), strict=True))
        return scores
