"""Reading a model's reply as it comes: whole or in chunks, until it ends or fails."""

from __future__ import annotations

import asyncio
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from ..errors import InvalidValueError, LimitExceededError
from ..events.prompts import Generated, Prompt, Reply
from ..events.values import LARGE, encoded
from .callables import call, check_fits

_Piece = str | bytes | Generated
_Replied = _Piece | AsyncIterable[_Piece]

Model = Callable[[Prompt], _Replied | Awaitable[_Replied]]
"""A model: it returns its reply or an async iterator over the reply's chunks, directly or awaited.
"""

MOST_CHUNKS = 64 * 1024
"""At most this many chunks of a reply are kept apart; later ones are joined to the last."""

COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cost_usd")
"""What a model may count, by the names that a :class:`Generated` and a :class:`Reply` have."""

_HALF_PAIR = re.compile("[\ud800-\udfff]")


def check_model(generate: Any) -> None:
    """Refuse a model that cannot be called with a prompt.

    :raises InvalidValueError: when it cannot be called.
    :raises TypeError: when it does not take one argument.
    """
    if not callable(generate):
        raise InvalidValueError(f"generate must be callable, not {type(generate).__name__}")
    check_fits(generate, "generate is called with one Prompt, generate(prompt)", (None,))


class GrowingReply:
    """A model's reply so far: whole after :meth:`read` returned, else up to its failure.

    ``most_bytes``: how many bytes the reply may have as UTF-8. Half of a surrogate pair, which
    UTF-8 cannot hold, is replaced by U+FFFD.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._size = 0
        self._is_whole = False
        self._texts: list[Any] = []
        self._lengths: list[int] = []
        self._counts: dict[str, Any] = dict.fromkeys(COUNTS)

    async def read(self, generate: Model, prompt: Prompt) -> Generated:
        """Call a model with a prompt, and return its whole reply.

        :raises InvalidValueError: when it returns anything that a :data:`Model` may not return, or
            chunks of text and of bytes in one reply.
        :raises LimitExceededError: when the reply is longer than ``most_bytes``.
        """
        reply = await call(generate, (prompt,))
        if isinstance(reply, AsyncIterable):
            async with _closing(reply):
                async for chunk in reply:
                    await self._add(chunk)
        else:
            await self._add(reply)
        self._is_whole = True
        return Generated(self.text, **self._counts)

    async def try_to_read(self, generate: Model, prompt: Prompt) -> BaseException | None:
        """Do what :meth:`read` does, but return what it raises, also a cancellation.

        So the caller can record how far the reply came before it raises the error again.
        """
        try:
            await self.read(generate, prompt)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised by the caller
            return error
        return None

    async def _add(self, returned: Any) -> None:
        chunk = _generated(returned)
        text = chunk.text
        if self._texts and isinstance(text, bytes) != isinstance(self._texts[0], bytes):
            raise InvalidValueError("the chunks of a reply must be all str or all bytes")
        if isinstance(text, bytes):
            size = len(text)
        elif len(text) < LARGE:
            text, size = _measure(text)
        else:
            text, size = await to_thread.run_sync(_measure, text)
        if self._size + size > self._most_bytes:
            raise LimitExceededError("content_bytes", self._size + size, self._most_bytes)
        self._size += size
        self._keep(text)
        self._counts = {name: total((self._counts[name], getattr(chunk, name))) for name in COUNTS}

    def _keep(self, text: str | bytes) -> None:
        if len(self._lengths) < MOST_CHUNKS:
            self._lengths.append(len(text))
            self._texts.append(text)
        elif text:
            self._lengths[-1] += len(text)
            self._texts.append(text)

    @property
    def text(self) -> str | bytes:
        """The reply so far, in one piece."""
        empty = b"" if self._texts and isinstance(self._texts[0], bytes) else ""
        return empty.join(self._texts)

    @property
    def output(self) -> str | bytes | None:
        """The text as it is recorded; None where it failed before anything came."""
        return self.text if self._is_whole or self._lengths else None

    @property
    def counts(self) -> dict[str, Any]:
        """The sums of the chunks' counts, by the names of :class:`Generated`."""
        return dict(self._counts)

    @property
    def reply(self) -> Reply:
        """How it came, as it is recorded with the text."""
        return Reply(tuple(self._lengths), **self._counts)


Number = TypeVar("Number", int, float)


def total(counts: Iterable[Number | None]) -> Number | None:
    """Return the sum of the counts that are not None; None when all are."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _generated(returned: Any) -> Generated:
    if isinstance(returned, Generated):
        return returned
    if isinstance(returned, (str, bytes)):
        return Generated(returned)
    raise InvalidValueError(
        "generate must return str, bytes, a Generated, or an async iterator of them, "
        f"not {type(returned).__name__}"
    )


def _measure(text: str) -> tuple[str, int]:
    """Return the text as UTF-8 can hold it, and how many bytes that has."""
    if text.isascii():
        return text, len(text)
    try:
        return text, sum(map(len, encoded(text)))
    except UnicodeEncodeError:
        whole = _HALF_PAIR.sub("\ufffd", text)
        return whole, sum(map(len, encoded(whole)))


@asynccontextmanager
async def _closing(chunks: AsyncIterable[Any]) -> AsyncIterator[None]:
    """Close a generator that was left half-way at once, and not when it is collected."""
    try:
        yield
    finally:
        if isinstance(chunks, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await chunks.aclose()
