"""What the caller's own callables give, checked: an embedder's vectors, a model's reply."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from itertools import islice
from typing import Any

import anyio

from ..config import StoreConfig
from ..errors import InvalidValueError
from ..events.frames import Generated

# anyio imports this when it is first used: 30 ms of the loop, in the middle of a first ask.
with suppress(ImportError):
    import_module("anyio._backends._asyncio")


async def embed(config: StoreConfig, texts: list[str]) -> list[Any]:
    """The embeddings that the caller's embedder gives of these texts.

    :raises InvalidValueError: when it gives another number of them.
    """
    assert config.embedder is not None
    given = config.embedder(texts)
    given = await given if inspect.isawaitable(given) else given
    if not isinstance(given, Iterable):
        raise InvalidValueError(f"embedder gave {type(given).__name__}, not a list of embeddings")
    vectors = list(islice(given, len(texts) + 1))
    if len(vectors) != len(texts):
        raise InvalidValueError(f"embedder gave {len(vectors)} embeddings for {len(texts)} texts")
    return vectors


async def collect_reply(given: Any, chunks: list[Generated]) -> None:
    """Take a reply as it comes: what ``generate`` gave, or its chunks until one fails.

    :raises InvalidValueError: when it gives anything but str or :class:`Generated`.
    """
    if inspect.isawaitable(given):
        given = await given
    if isinstance(given, AsyncIterable):
        async with _closing(given):
            async for chunk in given:
                chunks.append(_generated(chunk))  # noqa: PERF401 - an error leaves those before it
    else:
        chunks.append(_generated(given))


@asynccontextmanager
async def _closing(given: AsyncIterable[Any]) -> AsyncIterator[None]:
    """Close a generator that was left in the middle, now and not when it is collected."""
    try:
        yield
    finally:
        if isinstance(given, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await given.aclose()


def _generated(given: Any) -> Generated:
    if isinstance(given, str):
        return Generated(given)
    if isinstance(given, Generated) and isinstance(given.text, str):
        return given
    raise InvalidValueError(f"generate gave {type(given).__name__}, not str or Generated")


def total_tokens(chunks: list[Generated], name: str) -> int | None:
    """The sum of the tokens that the chunks count; None where none does."""
    counts = [getattr(chunk, name) for chunk in chunks if getattr(chunk, name) is not None]
    return sum(counts) if counts else None
