"""Approximate nearest vectors by a graph (HNSW), for memories too large for an exact search.

The graph is usearch's, which is maintained and has wheels for all our platforms. hnswlib is not
maintained and has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec

from .vectors import ExactVectors

# The graph is asked for this many times the wanted number, and for at least _LEAST; the exact
# scores choose among them.
_SPARE = 4
_LEAST = 128
# Vectors added by one call: usearch holds the interpreter's lock during it.
_CHUNK = 32


def is_installed() -> bool:
    """Whether usearch (the extra ``ann``) is installed."""
    return find_spec("usearch") is not None


class ApproximateVectors:
    """Unit vectors by id, as :class:`~.vectors.ExactVectors`, but a search may miss a near one.

    The scores of those it returns are exact.
    """

    def __init__(self, exact: ExactVectors) -> None:
        from usearch.index import Index  # noqa: PLC0415 - the extra is needed only where it is used

        self._exact = exact
        self._graph = Index(ndim=exact.dimension, metric="cos", dtype="i8")
        self._add(list(exact.ids()))

    def __len__(self) -> int:
        return len(self._exact)

    def put(self, items: Sequence[tuple[int, bytes]]) -> None:
        """Add vectors by id; a vector replaces one of the same id."""
        for frame_id, _ in items:
            self._drop(frame_id)
        self._exact.put(items)
        self._add([frame_id for frame_id, _ in items])

    def remove(self, frame_id: int) -> None:
        """Remove a vector, if it is there."""
        self._drop(frame_id)
        self._exact.remove(frame_id)

    def search(self, query: bytes, top_k: int, allowed: Sequence[int] | None) -> dict[int, float]:
        """Return the cosines of at least ``top_k`` near vectors, by id.

        The search is exact where only the ids in ``allowed`` count.
        """
        if allowed is not None:
            return self._exact.search(query, top_k, allowed)
        wanted = min(len(self._exact), max(_LEAST, _SPARE * top_k))
        matches = self._graph.search(self._exact.unit(query).astype("f4"), wanted, threads=1)
        return self._exact.cosines(query, matches.keys.tolist())

    def cosines(self, query: bytes, frame_ids: Iterable[int]) -> dict[int, float]:
        """Return the cosines of these frames, by id; frames without a vector are left out."""
        return self._exact.cosines(query, frame_ids)

    def _add(self, frame_ids: list[int]) -> None:
        # One thread and one order, so that the same vectors make the same graph.
        for at in range(0, len(frame_ids), _CHUNK):
            ids, rows = self._exact.rows(frame_ids[at : at + _CHUNK])
            self._graph.add(ids, rows, threads=1)

    def _drop(self, frame_id: int) -> None:
        if frame_id in self._exact:
            self._graph.remove(frame_id)
