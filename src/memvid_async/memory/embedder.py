"""Calling the user's embedder, and checking its answer."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from ..config import StoreConfig
from ..errors import InvalidValueError
from ..recording.callables import call, check_fits


async def embed(config: StoreConfig, texts: list[str]) -> list[Any]:
    """Return the embeddings of these texts, one each, as ``StoreConfig.embedder`` returns them.

    :raises TypeError: when the embedder does not take one argument.
    :raises InvalidValueError: when it returns another number of them.
    """
    embedder = config.embedder
    assert embedder is not None
    check_fits(embedder, "StoreConfig.embedder is called with a list of texts", (texts,))
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
