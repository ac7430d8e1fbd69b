"""How a value in CBOR begins, as JSON: also where only its first bytes are at hand."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator

from .values import CONTROLS, MAX_DEPTH, PREVIEW_CHARS, count_items, read_head

_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_SIMPLE = {20: "false", 21: "true", 22: "null"}
# Longer integers become hexadecimal: Python does not write very long ones in decimal.
_DECIMAL_BITS = 4096


def value_preview(begin: bytes) -> str:
    """Return the first 512 characters of a value as JSON, as far as its first bytes tell them.

    Bytes, and maps with keys other than text, are written as the command line writes them. The text
    ends where the bytes end, or stop being a value.
    """
    pieces: list[str] = []
    count = 0
    try:
        for piece in _ValueBegin(begin).value(0):
            pieces.append(piece)
            count += len(piece)
            if count >= PREVIEW_CHARS:
                break
    except IndexError:
        # What was read until there is shown.
        pass
    return "".join(pieces)[:PREVIEW_CHARS].translate(CONTROLS)


class _ValueBegin:
    """Reads CBOR (RFC 8949) that may end anywhere; its methods raise IndexError there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value(self, depth: int) -> Iterator[str]:
        """Yield the next value as JSON, piece by piece."""
        if depth > MAX_DEPTH:
            raise IndexError("nested too deep")
        first = self._data[self._at]
        major, argument = self._head()
        if major < 2:
            yield str(argument if major == 0 else -1 - argument)
        elif major == 2:
            yield from self._bytes(argument)
        elif major == 3:
            yield from self._text(argument)
        elif major == 4:
            yield from self._array(argument, depth + 1)
        elif major == 5:
            yield from self._map(argument, depth + 1)
        elif major == 6:
            yield self._wide_integer(argument)
        else:
            yield self._simple(first & 31)

    def _head(self) -> tuple[int, int]:
        major, argument, self._at = read_head(self._data, self._at)
        if self._at > len(self._data):
            raise IndexError("the bytes end here")
        return major, argument

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def _text(self, count: int) -> Iterator[str]:
        raw = self._take(count)
        # A character that is cut at the end is left out.
        yield json.dumps(raw.decode("utf-8", "ignore"), ensure_ascii=False)[:-1]
        self._check_whole(raw, count)
        yield '"'

    def _bytes(self, count: int) -> Iterator[str]:
        raw = self._take(count)
        whole = len(raw) == count
        # Three bytes are four characters: those of bytes that are not there are left out.
        shown = raw if whole else raw[: len(raw) // 3 * 3]
        yield f'{{"$base64": "{base64.b64encode(shown).decode()}'
        self._check_whole(raw, count)
        yield '"}'

    def _array(self, count: int, depth: int) -> Iterator[str]:
        yield "["
        for place in range(count):
            yield ", " if place else ""
            yield from self.value(depth)
        yield "]"

    def _map(self, count: int, depth: int) -> Iterator[str]:
        is_plain = self._has_text_keys(count)
        begin, end = ("{", "}") if is_plain else ('{"$pairs": [', "]}")
        yield begin
        for place in range(count):
            yield (", " if place else "") + ("" if is_plain else "[")
            yield from self.value(depth)
            yield ": " if is_plain else ", "
            yield from self.value(depth)
            yield "" if is_plain else "]"
        yield end

    def _has_text_keys(self, count: int) -> bool:
        """Whether all keys of the map that begins here are text, as far as they are at hand."""
        at = self._at
        try:
            for _ in range(count):
                if self._data[at] >> 5 != 3:
                    return False
                for _ in "key", "value":
                    _, at = count_items(self._data, len(self._data), at)
        except IndexError:
            pass
        return True

    def _wide_integer(self, tag: int) -> str:
        major, count = self._head()
        raw = self._take(count)
        self._check_whole(raw, count)
        if tag not in (2, 3) or major != 2:
            raise IndexError("no integer")
        number = int.from_bytes(raw, "big")
        number = number if tag == 2 else -1 - number
        return str(number) if number.bit_length() <= _DECIMAL_BITS else f'"{number:#x}"'

    def _simple(self, argument: int) -> str:
        if argument in _SIMPLE:
            return _SIMPLE[argument]
        if argument not in _FLOATS:
            raise IndexError("no value")
        form = _FLOATS[argument]
        size = struct.calcsize(form)
        # ``read_head`` has taken its bytes for a length.
        (number,) = struct.unpack(form, self._data[self._at - size : self._at])
        return json.dumps(number) if math.isfinite(number) else f'"{number}"'

    @staticmethod
    def _check_whole(raw: bytes, count: int) -> None:
        if len(raw) < count:
            raise IndexError("the bytes end here")
