"""The caller's models and tools: how they are called, and what they may give back."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from ..errors import InvalidValueError
from ..frames import Generated

Model = Callable[..., Any]
Tool = Callable[..., Any]


async def call_model(generate: Model, question: Any, context: Any) -> Generated:
    """Call a model with the question and its context, or with the question alone where it takes
    one argument. It may be async or not, and give a str, bytes, a :class:`Generated` or an async
    iterator of chunks.

    :raises InvalidValueError: when it gives anything else.
    """
    answer = generate(question, context) if _takes(generate, 2) else generate(question)
    if inspect.isawaitable(answer):
        answer = await answer
    if isinstance(answer, AsyncIterator):
        answer = join_chunks([chunk async for chunk in answer])
    if isinstance(answer, Generated):
        return answer
    if isinstance(answer, (str, bytes)):
        return Generated(answer)
    raise InvalidValueError(
        f"a model must give a str, bytes, a Generated or an async iterator of chunks, "
        f"not {type(answer).__name__}"
    )


def join_chunks(chunks: list[Any]) -> str | bytes:
    """The chunks of a stream as one.

    :raises InvalidValueError: when they are neither all str nor all bytes.
    """
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks)
    if all(isinstance(chunk, bytes) for chunk in chunks):
        return b"".join(chunks)
    raise InvalidValueError("the chunks of a stream must be all str or all bytes")


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
