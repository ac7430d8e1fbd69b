"""The caller's models and tools: how they are called, and what they may give back."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from ..errors import InvalidValueError
from ..events.frames import Generated

Model = Callable[..., Any]
Tool = Callable[..., Any]


async def call_model(generate: Model, question: Any, context: Any) -> tuple[Generated, list[int]]:
    """Call a model with the question and its context, or with the question alone where it takes
    one argument; its reply, and the length of each chunk in which it came.

    It may be async or not, and give a str, bytes, a :class:`Generated`, or an async iterator of
    them.

    :raises InvalidValueError: when it gives anything else.
    """
    given = generate(question, context) if _takes(generate, 2) else generate(question)
    if inspect.isawaitable(given):
        given = await given
    if not isinstance(given, AsyncIterable):
        reply = _generated(given)
        return reply, [len(reply.text)]
    chunks = [_generated(chunk) async for chunk in given]
    tokens = [_total(getattr(chunk, name) for chunk in chunks) for name in _TOKENS]
    texts = [chunk.text for chunk in chunks]
    return Generated(_join(texts), *tokens), list(map(len, texts))


_TOKENS = ("input_tokens", "output_tokens")


def _generated(given: Any) -> Generated:
    if isinstance(given, (str, bytes)):
        return Generated(given)
    if isinstance(given, Generated) and isinstance(given.text, (str, bytes)):
        return given
    raise InvalidValueError(
        f"a model must give a str, bytes, a Generated or an async iterator of them, "
        f"not {type(given).__name__}"
    )


def _total(counts: Iterable[int | None]) -> int | None:
    told = [count for count in counts if count is not None]
    return sum(told) if told else None


def _join(texts: list[Any]) -> str | bytes:
    if all(isinstance(text, str) for text in texts):
        return "".join(texts)
    if all(isinstance(text, bytes) for text in texts):
        return b"".join(texts)
    raise InvalidValueError("the chunks of a stream must be all str or all bytes")


def cut(text: str | bytes | None, lengths: Sequence[int]) -> list[str | bytes]:
    """A text in chunks of these lengths; whole where they are not of it."""
    if text is None:
        return []
    if not lengths or sum(lengths) != len(text):
        return [text]
    places = accumulate(lengths, initial=0)
    return [text[start:end] for start, end in pairwise(places)]


async def call_tool(run: Tool, arguments: Any) -> Any:
    """Call a tool with its arguments by name, as one value, or with none: whichever it takes."""
    if isinstance(arguments, Mapping) and _takes(run, **arguments):
        answer = run(**arguments)
    else:
        answer = run(arguments) if _takes(run, 1) else run()
    return await answer if inspect.isawaitable(answer) else answer


def _takes(call: Callable[..., Any], count: int = 0, **names: Any) -> bool:
    try:
        inspect.signature(call).bind(*[None] * count, **names)
    except TypeError:
        return False
    except ValueError:
        # A callable of C without a signature: it is called in the plain way.
        return not names
    return True


def pack_result(result: Any) -> tuple[str | bytes | None, bool]:
    """A tool's result as it can be recorded, and whether it had to be written as JSON.

    :raises InvalidValueError: when it is not str, bytes, None, or a value that JSON gives back.
    """
    if result is None or isinstance(result, (str, bytes)):
        return result, False
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
        if json.loads(text) == result:
            return text, True
    except (TypeError, ValueError, RecursionError):
        pass
    raise InvalidValueError(
        f"a tool's result must be str, bytes, None or a JSON value, not {result!r:.80}"
    )


def unpack_result(data: str | bytes | None, *, as_json: bool) -> Any:
    """The inverse of :func:`pack_result`."""
    return json.loads(data) if as_json and data is not None else data
