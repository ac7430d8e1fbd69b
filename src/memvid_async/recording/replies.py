"""Reading a model's reply as it comes: whole or in chunks, until it ends or fails."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from attrs import evolve

from ..errors import InvalidValueError, ReplayStopped
from ..events.conversion import Conversion
from ..events.prompts import COUNTS, Generated, Prompt, Reply, as_text, kept_count
from ..events.values import LARGE, encoded
from .callables import call, called_in_thread, check_fits
from .converting import convert_output, cut_text
from .prepare_values import rough_size

_Piece = str | bytes | Generated
_Replied = _Piece | AsyncIterable[_Piece] | Iterator[_Piece]

Model = Callable[[Prompt], _Replied | Awaitable[_Replied]]
"""A model: it returns its reply or an iterator over the reply's chunks, async or not, directly or
awaited. An iterator that is not async advances in a thread."""

Reading = Callable[[bytes], Generated]
"""Says what a reply means that came as the bytes of a network's format, whole or in part. It is for
models that yield such bytes: they are recorded as the output's raw form, and what they mean as the
output. It raises nothing."""

MOST_CHUNKS = 64 * 1024
"""At most this many chunks of a reply are kept apart; later ones are joined to the last."""

# What half of a surrogate pair becomes.
_HALF = "\ufffd".encode()


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

    It takes whatever a model returns, which has been paid for by then. What is neither str nor
    bytes is converted (:mod:`.converting`), and what is beyond ``most_bytes`` bytes as UTF-8 is cut
    off; ``conversion`` says so. All chunks become what the first is, str or bytes.

    ``reading``: says what the chunks mean, where they are bytes of a network's format. Then
    ``raw`` is what came, ``reply.chunks`` are its parts, and everything else is what it means.
    """

    def __init__(self, most_bytes: int, reading: Reading | None = None) -> None:
        self._room = self._most_bytes = most_bytes
        self._reading = reading
        # What the bytes mean, and how many of them that was read from.
        self._meant: tuple[Generated, int] | None = None
        # The first half of a surrogate pair, of which the other half may come with the next chunk.
        self._half = ""
        self._is_whole = False
        self._is_nothing = False
        self._texts: list[Any] = []
        self._lengths: list[int] = []
        # When the model was asked for the chunk that comes next; None where nobody asks one.
        self._since: float | None = None
        self._waits: list[int] = []
        self._counts: dict[str, Any] = dict.fromkeys(COUNTS)
        self.conversion = 0

    async def read(self, generate: Model, prompt: Prompt) -> Generated:
        """Call a model with a prompt, and return its whole reply: a text of "" for None."""
        async for _ in self.chunks(generate, prompt):
            pass
        return Generated(self.text, **self.counts)

    async def chunks(self, generate: Model, prompt: Prompt) -> AsyncGenerator[str | bytes]:
        """Call a model with a prompt, and yield its reply as it comes, as it is kept."""
        self._since = perf_counter()
        reply: Any = await call(generate, (prompt,))
        if issubclass(type(reply), Iterator):
            reply = _in_threads(reply)
        if issubclass(type(reply), AsyncIterable):
            try:
                async with _closing(reply):
                    async for chunk in reply:
                        known = len(self._texts)
                        await self.add(chunk)
                        for text in self._texts[known:]:
                            yield text
                        self._since = perf_counter()
            finally:
                self._add_half()
            # Chunks that are JSON do not make a whole that is.
            self.conversion &= ~Conversion.OUTPUT_JSON
        else:
            await self.add(reply)
            self._add_half()
            self._is_nothing = not self._texts
            for text in self._texts:
                yield text
        self._is_whole = True

    async def try_to_read(self, generate: Model, prompt: Prompt) -> BaseException | None:
        """Do what :meth:`read` does, but return what it raises, also a cancellation.

        So the caller can record how far the reply came before it raises the error again.
        """
        try:
            await self.read(generate, prompt)
        except ReplayStopped:
            raise
        except BaseException as error:  # noqa: BLE001 - raised by the caller
            return error
        return None

    async def add(self, returned: Any) -> None:
        """Add a chunk."""
        chunk = returned if issubclass(type(returned), Generated) else Generated(returned)
        self._count(chunk)
        value: Any = chunk.text
        if type(value) is str:
            value = self._half + value
            self._half = value[-1:] if "\ud800" <= value[-1:] <= "\udbff" else ""
            value = value.removesuffix(self._half)
        else:
            self._add_half()
        as_bytes = isinstance(self._texts[0], bytes) if self._texts else None
        if rough_size(value) < LARGE:
            found = _measured(value, self._room, as_bytes)
        else:
            found = await to_thread.run_sync(_measured, value, self._room, as_bytes)
        text, size, conversion = found
        # Nothing comes after a text that was cut.
        self._room = 0 if conversion & Conversion.OUTPUT_CUT else self._room - size
        self.conversion |= conversion
        if text is not None:
            self._keep(text)

    def _count(self, chunk: Generated) -> None:
        """Add what a chunk counts."""
        for name in COUNTS:
            counted = getattr(chunk, name)
            if counted is not None:
                known = self._counts[name]
                kept = kept_count(name, counted)
                if kept is not None and known is not None:
                    kept = kept_count(name, known + kept)
                if kept is None:
                    self.conversion |= Conversion.COUNT
                else:
                    self._counts[name] = kept

    def _add_half(self) -> None:
        """Add the half of a pair to which no other half came."""
        if self._half:
            self._half = ""
            self.conversion |= Conversion.OUTPUT
            mark = _HALF if isinstance(self._texts[0], bytes) else _HALF.decode()
            if self._room >= len(_HALF):
                self._texts.append(mark)
                self._lengths[-1] += len(mark)

    def _keep(self, text: str | bytes) -> None:
        if len(self._lengths) < MOST_CHUNKS:
            self._lengths.append(len(text))
            self._texts.append(text)
            if self._since is not None:
                self._waits.append(round((perf_counter() - self._since) * 1000))
        elif text:
            self._lengths[-1] += len(text)
            self._texts.append(text)

    @property
    def text(self) -> str | bytes:
        """The reply so far, in one piece."""
        return self._came if self._reading is None else self._meaning(self._reading).text

    @property
    def raw(self) -> bytes | None:
        """What came, where ``reading`` says what it means; None where nothing came."""
        came = self._came
        return came if self._reading is not None and isinstance(came, bytes) else None

    @property
    def _came(self) -> str | bytes:
        empty = b"" if self._texts and isinstance(self._texts[0], bytes) else ""
        return empty.join(self._texts)

    def _meaning(self, reading: Reading) -> Generated:
        """Return what the bytes mean that came so far, as it can be recorded."""
        came = len(self._texts)
        if self._meant is None or self._meant[1] != came:
            meant = reading(self.raw or b"")
            text, conversion = convert_output(meant.text, self._most_bytes)
            self.conversion |= conversion
            counts = {name: kept_count(name, getattr(meant, name)) for name in COUNTS}
            self._meant = evolve(meant, text=text or "", **counts), came
        return self._meant[0]

    @property
    def output(self) -> str | bytes | None:
        """The text as it is recorded; None where it failed before anything came, or was None."""
        return self.text if self._lengths or (self._is_whole and not self._is_nothing) else None

    @property
    def counts(self) -> dict[str, Any]:
        """The sums of the chunks' counts, by the names of :class:`Generated`."""
        if self._reading is None:
            return dict(self._counts)
        meant = self._meaning(self._reading)
        return {name: getattr(meant, name) for name in COUNTS}

    @property
    def reply(self) -> Reply:
        """How it came, as it is recorded with the text."""
        waits = tuple(self._waits) if len(self._lengths) > 1 else ()
        return Reply(tuple(self._lengths), **self.counts, waits_ms=waits)

    @property
    def outcome(self) -> dict[str, Any]:
        """What an action records of it, by the names of its draft."""
        return {"output": self.output, "reply": self.reply, "conversion": self.conversion}


Number = TypeVar("Number", int, float)


def total(counts: Iterable[Number | None]) -> Number | None:
    """Return the sum of the counts that are not None; None when all are."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _measured(
    value: Any,
    room: int,
    as_bytes: bool | None,  # noqa: FBT001 - called in a thread
) -> tuple[str | bytes | None, int, int]:
    """Return a chunk as it is kept, how many bytes it has, and how it was converted.

    ``as_bytes``: whether the reply's other chunks are bytes; None where there are none yet.
    """
    data, conversion = convert_output(value, room)
    if data is None or as_bytes is None or isinstance(data, bytes) == as_bytes:
        pass
    else:
        conversion |= Conversion.OUTPUT
        data = data.encode() if isinstance(data, str) else cut_text(as_text(data), room)
    if data is None or isinstance(data, bytes) or data.isascii():
        return data, len(data or b""), conversion
    return data, sum(map(len, encoded(data))), conversion


_END = object()


async def _in_threads(chunks: Iterator[Any]) -> AsyncGenerator[Any]:
    """Yield what an iterator yields, which advances and is closed in threads."""
    try:
        while (chunk := await to_thread.run_sync(called_in_thread, next, chunks, _END)) is not _END:
            yield chunk
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(close)


@asynccontextmanager
async def _closing(chunks: AsyncIterable[Any]) -> AsyncIterator[None]:
    """Close a generator that was left half-way at once, and not when it is collected."""
    try:
        yield
    finally:
        if isinstance(chunks, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await chunks.aclose()
