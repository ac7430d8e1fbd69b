"""Calling the user's tools with arguments by name, and their results as they are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidValueError
from ..recording.callables import call, check_fits

Tool = Callable[..., Any]


def check_tool(run: Tool, name: str, arguments: Any) -> None:
    """Refuse a tool that cannot be called with its arguments, before anything is done.

    :raises InvalidValueError: when it cannot be called.
    :raises TypeError: when the arguments are not a dict, or the tool does not take them.
    """
    if not callable(run):
        raise InvalidValueError(f"run must be callable, not {type(run).__name__}")
    if not isinstance(arguments, Mapping):
        raise TypeError(
            f"tool {name!r:.80} is called with a dict of arguments, run(**arguments), "
            f"not {type(arguments).__name__}"
        )
    check_fits(run, f"tool {name!r:.80} does not take these arguments", named=arguments)


async def call_tool(run: Tool, arguments: Mapping[str, Any]) -> Any:
    """Call a tool and return its result, which must be one that can be recorded.

    :raises InvalidValueError: when it cannot be recorded.
    """
    result = await call(run, named=arguments)
    pack_result(result)
    return result


def pack_result(result: Any) -> tuple[str | bytes | None, bool]:
    """Return a tool's result as it can be recorded, and whether it had to become JSON.

    :raises InvalidValueError: when it is not str, bytes, None, or a value that JSON can hold.
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
    """Undo :func:`pack_result`.

    :raises InvalidValueError: when it is not JSON, although the recording says so.
    """
    if not as_json or data is None:
        return data
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(
            f"the recorded result is not the JSON it should be: {error}"
        ) from None
