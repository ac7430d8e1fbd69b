"""Finding the values of a collection by meaning: what is embedded of a value, and the nearest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from ..config import Limits
from ..errors import InvalidValueError
from ..events.keyed import Value
from ..events.printing import brief
from ..search import KeptKey
from ..search.vectors import ExactVectors
from .embedder import embed
from .prepare_frames import prepare_embedding

Texts = Callable[[Any, Mapping[str, Any]], Iterable[str]]
"""Called with the data and the metadata of a value, it returns its texts that are embedded."""

# The vectors that one collection keeps in memory, in bytes; more are read for each search.
_MOST_BYTES = 256 * 1024 * 1024


def _names(value: Any) -> tuple[str, ...] | Texts:
    if callable(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise InvalidValueError(f"fields must be a list of names, not {value!r:.80}")
    names = tuple(value)
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidValueError(f"fields must be names, not {value!r:.80}")
    return names


@frozen
class KeySearch:
    """How a collection is searched by meaning: ``store.collection(name, search=KeySearch(…))``.

    What is put through that collection is embedded when it is put, and found by ``find``. Values
    that were put without, or with another model, are not found.
    """

    embed: Callable[[list[str]], Any]
    """Called with a list of texts, it returns their embeddings in the same order; async or not."""
    model: str
    """The name of its model. A search compares embeddings of this model only."""
    fields: tuple[str, ...] | Texts = field(default=(), converter=_names)
    """Which fields of the data are embedded, each on its own: ``a.b`` is the field ``b`` inside
    ``a``. None of them: the data as a whole. Or what is called with the data and the metadata, and
    returns the texts."""


@frozen
class FoundValue:
    """A value that was found by meaning."""

    value: Value = field(repr=brief)
    """The value."""
    score: float
    """The cosine of the angle between what was asked and the nearest text in the value: at most
    1."""


async def embedded(
    search: KeySearch, values: Sequence[tuple[Any, Mapping[str, Any] | None]], limits: Limits
) -> list[tuple[bytes, ...]]:
    """Return the embeddings of each of these values, float32, little-endian. ``values``: the data
    and the metadata of each.

    :raises InvalidValueError, LimitExceededError: when the embedder returns something else.
    """
    texts = [_texts(search, data, metadata or {}) for data, metadata in values]
    asked = [text for some in texts for text in some]
    made = iter(await embeddings_of(search, asked, limits) if asked else ())
    return [tuple(next(made) for _ in some) for some in texts]


async def embeddings_of(search: KeySearch, texts: list[str], limits: Limits) -> list[bytes]:
    """Return the embeddings of texts, float32, little-endian; raises as :func:`embedded` does."""
    made = await embed(search.embed, texts, "KeySearch.embed")
    vectors = [prepare_embedding(one, limits) for one in made]
    if None in vectors:
        raise InvalidValueError("KeySearch.embed returned None for a text")
    return vectors  # type: ignore[return-value]


def _texts(search: KeySearch, data: Any, metadata: Mapping[str, Any]) -> list[str]:
    """Return the texts of a value that are embedded; others as JSON."""
    if not search.fields:
        return [_text(data)]
    if callable(search.fields):
        return list(search.fields(data, metadata))
    found = [_inside(data, name.split(".")) for name in search.fields]
    return [_text(one) for one in found if one not in (None, "")]


def _inside(data: Any, path: Sequence[str]) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=repr)


class KeyVectors:
    """The embeddings of one collection by one model, as far as they were looked at."""

    def __init__(self, dimension: int) -> None:
        self._vectors = ExactVectors(dimension)
        self._places: dict[str, tuple[int, int]] = {}
        self._ids: dict[str, list[int]] = {}
        self._next = 0

    @property
    def dimension(self) -> int:
        """How many numbers each has."""
        return self._vectors.dimension

    @property
    def is_full(self) -> bool:
        """Whether it holds all that it may; the next search needs a new one."""
        return len(self._vectors) * self._vectors.dimension * 4 > _MOST_BYTES

    def nearest(
        self,
        query: bytes,
        limit: int,
        kept: Sequence[KeptKey],
        read: Callable[[KeptKey], Iterable[bytes]],
    ) -> list[tuple[KeptKey, float]]:
        """Return up to ``limit`` of these keys, those with the nearest embedding first; ``read``
        returns the embeddings of one. Those of another dimension do not count."""
        owners: dict[int, KeptKey] = {}
        new: list[tuple[int, bytes]] = []
        most = 1
        for one in kept:
            if self._places.get(one.key) != (one.version, one.place):
                new += self._replace(one, read(one))
            ids = self._ids[one.key]
            owners.update(dict.fromkeys(ids, one))
            most = max(most, len(ids))
        self._vectors.put(new)
        if not limit or not owners:
            return []
        cosines = self._vectors.search(query, limit * most, list(owners))
        best: dict[str, tuple[KeptKey, float]] = {}
        for number, cosine in cosines.items():
            one = owners[number]
            if one.key not in best or best[one.key][1] < cosine:
                best[one.key] = (one, cosine)
        return sorted(best.values(), key=lambda found: (-found[1], found[0].key))[:limit]

    def _replace(self, one: KeptKey, embeddings: Iterable[bytes]) -> list[tuple[int, bytes]]:
        for number in self._ids.pop(one.key, ()):
            self._vectors.remove(number)
        size = 4 * self._vectors.dimension
        new = list(enumerate((e for e in embeddings if len(e) == size), self._next))
        self._next += len(new)
        self._ids[one.key] = [number for number, _ in new]
        self._places[one.key] = (one.version, one.place)
        return new
