"""Calling the user's embedder, and checking its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from ..errors import InvalidValueError
from ..recording.callables import call, check_fits


async def embed(
    embedder: Callable[[list[str]], Any] | None,
    texts: list[str],
    name: str = "StoreConfig.embedder",
) -> list[Any]:
    """Return the embeddings of these texts, one each, as the user's embedder returns them.

    :raises TypeError: when the embedder does not take one argument.
    :raises InvalidValueError: when it returns another number of them.
    """
    assert embedder is not None
    check_fits(embedder, f"{name} is called with a list of texts", (texts,))
    returned = await call(embedder, (texts,))
    if not isinstance(returned, Iterable):
        raise InvalidValueError(
            f"the embedder returned {type(returned).__name__}, not a list of embeddings"
        )
    vectors = list(islice(returned, len(texts) + 1))
    if len(vectors) != len(texts):
        raise InvalidValueError(
            f"the embedder returned {len(vectors)} embeddings for {len(texts)} texts"
        )
    return vectors
