"""What errors of other libraries hold besides plain values: pydantic's, and those of the clients of
HTTP services. Nothing is imported for it: a library that made an error is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

# pydantic: an error is made of a title and lines, by a method of its class.

_MAKER = "from_exception_data"
_LINE = ("type", "loc", "input", "ctx")


def validation_arguments(error: BaseException) -> tuple[Any, ...] | None:
    """Return the title and the lines of a pydantic error; None for another one."""
    lines: Any = getattr(error, "errors", None)
    if not (hasattr(type(error), _MAKER) and callable(lines)):
        return None
    with suppress(Exception):
        return (error.title, [_plain_line(line) for line in lines()])  # type: ignore[attr-defined]
    return None


def _plain_line(line: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: line[name] for name in _LINE if name in line}
    plain["loc"] = list(plain.get("loc", ()))
    plain["ctx"] = {
        name: str(value) if isinstance(value, BaseException) else value
        for name, value in plain.get("ctx", {}).items()
    }
    if "url" not in line:
        # A type of error of the user's own, which has the text itself.
        plain["msg"] = line["msg"]
    return plain


def validation_error(type_: type[BaseException], given: Iterable[Any]) -> BaseException | None:
    """Return the pydantic error that has this title and these lines; None for another type.

    It raises whatever pydantic raises where it does not know such lines.
    """
    make = getattr(type_, _MAKER, None)
    if make is None:
        return None
    title, lines = given
    made: BaseException = make(title, [_line(one) for one in lines])
    return made


def _line(plain: Mapping[str, Any]) -> dict[str, Any]:
    line = {**plain, "loc": tuple(plain["loc"])}
    text = line.pop("msg", None)
    if text is not None:
        custom = sys.modules["pydantic_core"].PydanticCustomError
        line["type"] = custom(line["type"], text, line.pop("ctx", None) or None)
    elif not line["ctx"]:
        del line["ctx"]
    return line


# HTTP: the request and the response of an error of httpx, and of what is built on it.

_LIBRARIES = ("httpx", "httpx2")
_READ_HEADERS = ("content-type", "retry-after", "x-ratelimit-", "ratelimit", "anthropic-ratelimit-")
_RESPONSE, _REQUEST = "http response of", "http request of"


def http_part(value: Any, most_bytes: int) -> Mapping[str, Any] | None:
    """Return a request or a response as plain values, without what may be secret: of the address
    the query and the user, and most headers. None for anything else."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    if library not in _LIBRARIES:
        return None
    with suppress(Exception):
        if kind.__name__ == "Request":
            return {_REQUEST: library, **_request(value)}
        if kind.__name__ == "Response":
            part = {_RESPONSE: library, "status_code": value.status_code}
            headers = {n: v for n, v in value.headers.items() if _may_be_read(n)}
            part |= {"headers": headers, "content": b""}
            with suppress(Exception):  # its body need not have been read
                part["content"] = value.content[: most_bytes // 2]
            with suppress(Exception):  # it need not have a request
                part["request"] = _request(value.request)
            return part
    return None


def _may_be_read(name: str) -> bool:
    return name.lower().startswith(_READ_HEADERS) or name.lower().endswith("request-id")


def _request(request: Any) -> dict[str, Any]:
    url = request.url.copy_with(query=None, username="", password="")
    return {"method": request.method, "url": str(url)}


def http_object(value: Any) -> Any:
    """Return the request or the response that :func:`http_part` made plain; anything else, also
    where its library is not loaded, as it is."""
    if not isinstance(value, Mapping):
        return value
    library: Any = sys.modules.get(str(value.get(_RESPONSE) or value.get(_REQUEST)))
    if library is None or library.__name__ not in _LIBRARIES:
        return value
    with suppress(Exception):
        if _REQUEST in value:
            return library.Request(value["method"], value["url"])
        asked = value.get("request")
        return library.Response(
            value["status_code"],
            headers=dict(value["headers"]),
            content=value["content"],
            request=None if asked is None else library.Request(asked["method"], asked["url"]),
        )
    return value
