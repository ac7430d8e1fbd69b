"""HTTP messages as they are recorded: a response as bytes, and nothing that is secret.

Pure. A recorded response is a message of HTTP/1.1 (https://www.rfc-editor.org/rfc/rfc9112),
whatever the connection spoke. Its body is in the chunked coding (section 7.1), one chunk for each
part that came; so it says where the parts end, and whether it is whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from attrs import frozen

# What clients of model APIs look at. Everything else of a response's head is left out: cookies,
# and names of accounts.
_KEPT_HEADERS = re.compile(
    r"content-(type|encoding)|retry-after(-ms)?|x-should-retry|location|"
    r"(x-)?request-id|(x-|anthropic-)ratelimit-.*|openai-(model|processing-ms|version)",
    re.IGNORECASE,
)
_SECRET_NAMES = re.compile(
    r"auth|cookie|key|token|secret|signature|\bsig\b|passw|credential|session|\bcode\b",
    re.IGNORECASE,
)
# A secret with a common name is not secret, and would be found everywhere.
_LEAST_SECRET = 6
_PLACEHOLDER = "REMOVED"
_NOT_IN_HEADERS = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


@frozen
class ResponseHead:
    """The head of a response."""

    status: int
    headers: list[tuple[str, str]]

    @property
    def content_type(self) -> str:
        """The header of that name; empty where there is none."""
        named = (value for name, value in self.headers if name.lower() == "content-type")
        return next(named, "")


def write_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a response as bytes, with the headers that are recorded."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}".rstrip()]
    lines.append("transfer-encoding: chunked")
    lines += [
        f"{name}: {_NOT_IN_HEADERS.sub('', value)}"
        for name, value in headers
        if _KEPT_HEADERS.fullmatch(name)
    ]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1", "replace")


def read_head(data: bytes) -> ResponseHead:
    """Undo :func:`write_head`.

    :raises ValueError: when it is not such a head.
    """
    first, *lines = data.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 ([1-9]\d\d)( .*)?", first)
    if match is None or lines[-2:] != ["", ""]:
        raise ValueError(f"not the head of a recorded response: {first[:80]!r}")
    pairs = [line.partition(": ") for line in lines[1:-2]]
    return ResponseHead(int(match[1]), [(name, value) for name, _, value in pairs])


def write_chunk(part: bytes) -> bytes:
    """Return a part of a body as a chunk; the end of the body for an empty one."""
    return b"%x\r\n%b\r\n" % (len(part), part)


_NEXT_CHUNK = re.compile(rb"\r\n(?=[0-9a-f]+\r\n)")


class MessageReader:
    """Reads a recorded response, which may come in pieces of one chunk or more.

    ``head`` is None until it has come. ``is_whole``: whether the end of the body has come. A chunk
    that has another length than it says, because a scrubber took something out of it, ends where
    the next one begins.
    """

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.is_whole = False
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the parts of the body that are whole now.

        :raises ValueError: when it is not a recorded response.
        """
        self._rest += data
        if self.head is None:
            head, between, rest = self._rest.partition(b"\r\n\r\n")
            if not between:
                return []
            self.head, self._rest = read_head(head + between), rest
        parts: list[bytes] = []
        rest, at = self._rest, 0
        while not self.is_whole:
            start = rest.find(b"\r\n", at) + 2
            if start < 2:
                break
            length = int(rest[at : start - 2], 16)
            end = start + length
            if rest[end : end + 2] != b"\r\n":
                found = _NEXT_CHUNK.search(rest, start)
                if found is None:
                    break
                end = found.start()
            if length:
                parts.append(rest[start:end])
            self.is_whole = not length
            at = end + 2
        self._rest = rest[at:]
        return parts


class Secrets:
    """The secrets of a request, which are masked wherever they come up again.

    Those are the values of headers and query parameters with a telling name, and passwords in the
    address. A mask has the length of what it hides.
    """

    def __init__(self, url: str, headers: Iterable[tuple[str, str]]) -> None:
        found = set[str]()
        for name, value in headers:
            if _SECRET_NAMES.search(name):
                # Of "Bearer abc" and "a=b; c=d" also the parts.
                found |= {value, *value.split(), *re.split(r"[=;,\s]+", value)}
        parts = urlsplit(url)
        for name, value in parse_qsl(parts.query):
            if _SECRET_NAMES.search(name):
                found |= {value, quote(value, safe="")}
        found |= {unquote(one) for one in (parts.password or "", parts.username or "")}
        secrets = {one.encode() for one in found if len(one) >= _LEAST_SECRET}
        self._longest_first = sorted(secrets, key=lambda one: (-len(one), one))

    def mask(self, data: bytes) -> bytes:
        """Return the bytes with a mask in place of each secret."""
        for secret in self._longest_first:
            if secret in data:
                data = data.replace(secret, b"*" * len(secret))
        return data


def public_url(url: str) -> str:
    """Return an address without user, password and fragment, and without secret parameters."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    query = [
        (name, _PLACEHOLDER if _SECRET_NAMES.search(name) else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(query), ""))


def recordable(messages: Sequence[Any], most_chars: int) -> list[Any]:
    """Return messages with a note in place of each text of more than ``most_chars`` characters.

    Such texts are images and files. The note has their BLAKE2b-128, so others are told apart.
    """
    kept: list[Any] = []
    # What is still to be copied, and the list or dict that gets it.
    waiting: list[tuple[Any, Any, Any]] = [(kept, None, one) for one in messages]
    for into, key, value in waiting:
        made: Any = value
        if isinstance(value, str) and len(value) > most_chars:
            digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16)
            made = f"({len(value)} characters left out, {digest.hexdigest()})"
        elif isinstance(value, Mapping):
            made = {}
            waiting.extend((made, name, item) for name, item in value.items())
        elif isinstance(value, list):
            made = []
            waiting.extend((made, None, item) for item in value)
        if key is None:
            into.append(made)
        else:
            into[key] = made
    return kept
