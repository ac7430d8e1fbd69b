"""What is recorded: asks of about 450 bytes, and a growing chat.

The words are those of the standard library's help topics.
"""

import random
from collections.abc import Awaitable
from functools import cache
from pydoc_data.topics import topics

from attrs import frozen

from memvid_async import SessionRecorder, Store


@frozen
class Ask:
    """The arguments of one `record_ask`."""

    query: str
    response: str
    provider: str
    model: str
    duration_ms: int
    retrieved_frames: tuple[int, ...]

    @property
    def size(self) -> int:
        """The bytes of the arguments: text as UTF-8, a number in the fewest that hold it."""
        texts = (self.query, self.response, self.provider, self.model)
        numbers = (self.duration_ms, *self.retrieved_frames)
        return sum(len(text.encode()) for text in texts) + sum(_width(number) for number in numbers)


def record(recorder: Store | SessionRecorder, ask: Ask) -> Awaitable[object]:
    """Record an ask."""
    return recorder.record_ask(
        ask.query,
        provider=ask.provider,
        model=ask.model,
        response=ask.response,
        duration_ms=ask.duration_ms,
        retrieved_frames=ask.retrieved_frames,
    )


def _width(number: int) -> int:
    return max(1, (number.bit_length() + 7) // 8)


@cache
def _words() -> tuple[str, ...]:
    return tuple(word for name in sorted(topics) for word in topics[name].split())


def text(rng: random.Random, size: int) -> str:
    """Running text of `size` characters, starting at a random word."""
    words = _words()
    start = rng.randrange(len(words) - size)
    return " ".join(words[start : start + size])[:size]


def asks(count: int, seed: int = 1) -> list[Ask]:
    """Return `count` different asks of 430 to 470 bytes."""
    rng = random.Random(seed)
    return [
        Ask(
            query=text(rng, 110),
            response=text(rng, rng.randint(295, 335)),
            provider="openai",
            model="gpt-4o-mini",
            duration_ms=rng.randint(200, 4_000),
            retrieved_frames=tuple(rng.randint(1, 60_000) for _ in range(3)),
        )
        for _ in range(count)
    ]


def chat(turns: int, size: int, seed: int = 1) -> list[dict[str, str]]:
    """Return `turns` times a user's and an assistant's message, of `size` characters on average."""
    rng = random.Random(seed)
    return [
        {"role": role, "content": text(rng, rng.randint(size // 2, size + size // 2))}
        for _ in range(turns)
        for role in ("user", "assistant")
    ]


def chat_bytes(messages: list[dict[str, str]]) -> int:
    """The bytes of the distinct messages: roles and text, nothing for keys or framing."""
    distinct = {(message["role"], message["content"]) for message in messages}
    return sum(len(role.encode()) + len(content.encode()) for role, content in distinct)


def documents(count: int, seed: int = 1) -> list[str]:
    """Return `count` different documents of about 300 bytes, each with a word of its own."""
    rng = random.Random(seed)
    return [f"document{number} {text(rng, rng.randint(270, 310))}" for number in range(count)]
