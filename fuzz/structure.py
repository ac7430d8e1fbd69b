"""Files whose checksums are right and whose contents contradict each other.

The mutations know what a payload means: a number is replaced by another one of the same file (a
sequence, an index, an offset), bytes by others of their length, and the events below are made by
hand, because chance hardly meets them.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import cbor2

from memvid_async.events.content import content_digest
from memvid_async.format.header import LOG_START
from memvid_async.format.segment import HEAD_SIZE, SegmentKind

from .mutate import Parts, in_sequence, join, split

_EVENTS, _TOC, _PROJECTION = SegmentKind.EVENTS, SegmentKind.TOC, SegmentKind.PROJECTION
_STARTED, _ENDED, _DELETED, _STORED = 1, 2, 3, 4
_BOUNDS = [0, 1, 2, 255, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1, -1, -(2**63)]
_OTHER: list[Any] = [None, True, 1.5, float("inf"), "", "x", b"", [], [[]], {}, {"a": 1}]
_NESTED = b"\x81" * 30 + b"\x00"
_LOOPING_TAG = b"\xd9\xe6\x81\x82\x00\x01"


def contradicting(data: bytes, seed: int) -> bytes:
    """Return the file with a few values replaced by other values of the same file."""
    chance = random.Random(seed)  # noqa: S311 - it must be repeatable, not secret
    start, parts = split(data)
    numbers, strings = _vocabulary(parts)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(parts))
        kind, sequence, payload = parts[at]
        value = _changed(cbor2.loads(payload), chance, numbers, strings)
        parts[at] = (kind, sequence, cbor2.dumps(value))
    if chance.random() < 0.3:
        parts = [part for part in parts if part[0] in (_EVENTS, SegmentKind.STUBS)]
    return join(start, in_sequence(parts))


def _vocabulary(parts: Parts) -> tuple[list[int], list[bytes]]:
    """Return the numbers that mean something in a file, and its byte strings."""
    numbers, strings, offset = [*_BOUNDS], list[bytes](), LOG_START
    for _, sequence, payload in parts:
        numbers += (sequence, offset)
        offset += HEAD_SIZE + len(payload)
        strings += [item for item in _leaves(cbor2.loads(payload)) if isinstance(item, bytes)]
    return numbers, strings


def _leaves(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        else:
            yield item


def _changed(value: Any, chance: random.Random, numbers: list[int], strings: list[bytes]) -> Any:
    """Return the value with one thing in it replaced, repeated, dropped or moved."""
    if isinstance(value, list) and value and chance.random() < 0.93:
        items, at = list(value), chance.randrange(len(value))
        how = chance.random()
        if how < 0.8:
            items[at] = _changed(items[at], chance, numbers, strings)
        elif how < 0.86:
            del items[at]
        elif how < 0.93:
            items.insert(at, items[chance.randrange(len(items))])
        else:
            items[at], items[at - 1] = items[at - 1], items[at]
        return items
    if chance.random() < 0.15:
        return chance.choice(_OTHER)
    if isinstance(value, int) and not isinstance(value, bool):
        near = [value - 1, value + 1, value * 2]
        return chance.choice((*near, *numbers))
    if isinstance(value, bytes):
        alike = [other for other in strings if len(other) == len(value) and other != value]
        if len(value) % 8 == 0 and value and chance.random() < 0.5:
            place = chance.randrange(0, len(value), 8)
            packed = (chance.choice(numbers) % 2**64).to_bytes(8, "little")
            return value[:place] + packed + value[place + 8 :]
        if alike and chance.random() < 0.6:
            return chance.choice(alike)
        inner = _inner(value, chance, numbers, strings)
        return inner if inner is not None else value[: chance.randrange(len(value) + 1)]
    if isinstance(value, str):
        return chance.choice((value.encode(), value * 2, value[:-1], "\ud7ff\x00", 7, [value]))
    return chance.choice((*_OTHER, *numbers))


def _inner(
    value: bytes, chance: random.Random, numbers: list[int], strings: list[bytes]
) -> bytes | None:
    """Change the CBOR item that bytes hold; None where they hold none."""
    try:
        decoded = cbor2.loads(value)
        if cbor2.dumps(decoded) != value or len(value) < 3:
            return None
        changed: bytes = cbor2.dumps(_changed(decoded, chance, numbers, strings))
    except Exception:  # noqa: BLE001 - it need not be CBOR at all
        return None
    return chance.choice((changed, _NESTED, _LOOPING_TAG, b"\xc2\x41\x01", value[:-1]))


# Made by hand.

Row = list[Any]


def events(*rows: Row, time: int = 5, session: int = 0) -> bytes:
    """Encode the payload of one command's events."""
    return cbor2.dumps([time, session, *(rows[0] if len(rows) == 1 else rows)])


def started(number: int, *fork: Any, **given: Any) -> bytes:
    """Encode the start of a session, or of a fork."""
    own = [_STARTED, number.to_bytes(16, "big"), "s", given.get("ambient", False), 0, None, None]
    return events([*own, list(fork)] if fork else own, session=given.get("session", number))


def fork_point(parent: int, sequence: int, **given: Any) -> Row:
    """Return the fields of a fork point that names any parent."""
    parent_id = parent.to_bytes(16, "big") if parent >= 0 else b""
    return [
        parent,
        parent_id,
        sequence,
        given.get("actions", 0),
        given.get("checkpoints", 0),
        given.get("branch", 0),
        given.get("last", 0),
        given.get("count", 0),
        given.get("memory", bytes(32)),
        given.get("in_flight", b""),
    ]


def ask(index: int, query: Any, output: Any, *more: Any) -> Row:
    """Return the row of an ask."""
    return [13, index, query, output, 1, None, None, "p", "m", None, None, *more]


def tool(index: int, *more: Any) -> Row:
    """Return the row of a call of a tool; ``more``: from its error on."""
    return [16, index, "x", "y", 1, None, None, "tool", *more]


def start(kind: int, parent: int | None, lane: list[Any], *more: Any) -> Row:
    """Return the row of the start of a call of a tool or of a step (16, 17)."""
    return [30, kind, None, parent, lane, 0, None, "tool", *more]


def made_by_hand() -> dict[str, list[bytes]]:
    """Payloads of events by the name of what is wrong with them, for one file each.

    Every field has the type that it must have, unless the name says otherwise: what is wrong is
    what the fields say together, and nothing is refused before that is read.
    """
    big = "x" * (1 << 20)
    digest = content_digest(big)
    stored = events([_STORED, digest, big])
    whole = bytes(32)
    tagged = [cbor2.dumps(cbor2.CBORTag(59002, [1, True]))] * 1000
    deleted = events([_DELETED, (1).to_bytes(16, "big")], session=1)
    deep = cbor2.dumps([cbor2.CBORTag(59001, [0, 1])] * 5)
    many = cbor2.dumps([cbor2.CBORTag(59001, [0, 1])] * 1000)
    nested_error: Row = ["m", "E", ["f"], None, None]
    for _ in range(7):
        nested_error = ["m", "E", [], b"\x80", b"\xa0", [nested_error] * 3]
    found: dict[str, list[bytes]] = {
        "a fork of itself": [started(1, *fork_point(1, 0))],
        "forks in a circle": [started(1, *fork_point(2, 1)), started(2, *fork_point(1, 1))],
        "a fork of what is not there": [started(1, *fork_point(77, 5))],
        "a fork of more than there is": [
            started(1),
            started(
                2, *fork_point(1, 1, actions=2**31 - 1, checkpoints=9, last=2**60, count=2**60)
            ),
        ],
        "a fork of a later branch": [started(1), started(2, *fork_point(1, 1, branch=2))],
        "ended twice": [started(1), *[events([_ENDED, None], session=1)] * 2],
        "deleted twice": [started(1), *[deleted] * 2],
        "started twice": [started(1), started(1), started(2, session=1)],
        "an end with an end inside": [
            started(1),
            events([_ENDED, "a"], [_ENDED, "b"], session=1),
            events(ask(0, "q", "a"), [_ENDED, None], ask(1, "q", "a"), session=1),
        ],
        "two ambient sessions": [started(1, ambient=True), started(2, ambient=True)],
        "a content of 3000 times another": [
            stored,
            started(2),
            events(ask(0, [whole, len(big) * 3000, *[1] * 3000], "a"), session=2),
            events([20, 1, 0, None, [[whole, len(big) * 3000, *[1] * 3000]]]),
        ],
        "a content whose parts are itself": [
            started(1),
            events(ask(0, [digest, 5, 2, 2, 2], "a"), session=1),
            events(ask(1, 3, 3), session=1),
        ],
        "messages of a thousand times a content": [
            stored,
            started(2),
            events(
                ask(0, "q", 1, [bytes(16) * 1000, *tagged]),
                session=2,
            ),
            events(ask(1, "q", 1, [b"", [0, 0, 1000]]), session=2),
        ],
        "messages that share their own": [
            started(1),
            events(ask(0, "q", "a", [bytes(16), deep]), session=1),
            events(ask(1, "q", "a", [b"", [1, 0, 2**31 - 1]]), session=1),
            events(ask(2, "q", "a", [b"", [3, 0, 1]]), session=1),
            events(ask(3, "q", "a", [b"", [0, 1, 1], [0, 0, 2]]), session=1),
        ],
        "messages of twice those before, again and again": [
            started(1),
            events(ask(0, "q", "a", [bytes(16), b"\x61m"]), session=1),
            *[
                events(ask(n, "q", "a", [b"", *[[n - 1, 0, 2 ** (n - 1)]] * 2]), session=1)
                for n in range(1, 30)
            ],
        ],
        "a message of a thousand messages of a thousand": [
            started(1),
            events(ask(0, "q", "a" * 1000, [bytes(16), many]), session=1),
            *[events(ask(n, "q", "a", [bytes(16), many]), session=1) for n in range(1, 20)],
        ],
        "strings that are not what they say": [
            started(1),
            events(ask(0, b"\xff\xfe", b"\xff"), session=1),
            events([16, 1, b"\xff", _LOOPING_TAG, 1, None, None, "tool"], session=1),
            events([16, 2, _NESTED, _NESTED, 1, None, None, "tool"], session=1),
            events([16, 3, _LOOPING_TAG, "r", 1.5, None, "\n", "", ""], session=1),
        ],
        "metadata that is nested too deep": [
            started(1),
            events(tool(0, None, b"\xa1\x61a" + _NESTED), session=1),
        ],
        "a find of what was never put": [
            started(1),
            events(
                [
                    *[12, 0, "q", None, 1, [1, 2**60], None, "lexical", 2, None, None, None],
                    ["lexical", 5, 2**50, [1.0, 2.0], [2**50, 0, 1, 2**40], None, b"\0", "m"],
                ],
                session=1,
            ),
        ],
        "a find of a moment to come": [
            started(1),
            events(
                [
                    *[12, 0, "q", None, 1, [1], None, "hybrid", 1, None, None, None],
                    ["hybrid", 2**62, 3, [1e308], [2, 0], b"\xa1\x00\x00", b"\0" * 7, "m"],
                ],
                session=1,
            ),
        ],
        "frames that are there already": [
            events([24, "english", None, 0]),
            *[events([20, 1, 0, None, "one", "two"])] * 2,
            events([20, 2**62, 0, None, "far"]),
            events([22, 1, 0]),
            events([22, 1, 0]),
            events([21, 1, 0, 1, "again"]),
            events([21, 5, 9, 254, None, *[None] * 7]),
        ],
        "embeddings of other lengths": [
            events([24, "english", "m", 2]),
            events([20, 1, 0, None, ["a", None, None, None, None, None, b"\0" * 8, "m"]]),
            events([20, 2, 0, None, ["b", None, None, None, None, None, b"\0" * 12, "n"]]),
            events([20, 3, 0, None, ["c", None, None, None, None, None, b"\xff" * 8, "m"]]),
            events([24, "none", "n", 2**40]),
        ],
        "frames with fields of other types": [
            events([24, "english", None, 0]),
            events([20, 1, 0, None, ["a", "\x00", "\n", "x/y", ["t", "t"], b"\xa1\x00\x00"]]),
            events([20, 2, 0, None, ["b", None, None, None, [], b"\xa1\x61k" + _NESTED]]),
        ],
        "a branch of no session": [
            events([24, "english", None, 0]),
            started(2),
            events([20, 1, 2, None, "of a session that is no fork"]),
            events([20, 2, 99, None, "of none"]),
        ],
        "keyed values of no collection": [
            events([41, 1, [0, "k", b"\x01"]]),
            events([40, "c", None]),
            events([41, 2, [0, "k", b"\x01"], [1, "l"], [2, ""], [3, "m", None, None, 9, 9]]),
            events([40, "c", None]),
            events([41, 2, [0, "e", b"\x01", None, 2**63 - 1, ["m", b"", b"\0\0\xc0\x7f"]]]),
            events([41, 2, [4, "e", 99, 5], [4, "none", 0, -(2**63)], [4, "m", 2, 9]]),
        ],
        "values and lists at one key": [
            events([40, "c", None]),
            events([41, 1, [3, "k", None, None, 0, None, b"\x01"], [0, "k", b"\x02"]]),
            events([41, 1, [3, "k", None, None, 2**62, 2**62, *[b"\x03"] * 3]]),
            events([41, 1, [3, "k", None, None, 0, 2**62]]),
            events([41, 1, [0, "v", _NESTED, b"\x80", -(2**63)], [0, "w", b"", b"\xff"]]),
            events([41, 1, [2, "k"], [3, "k", None, None, 1, None, b"\x04"]]),
            events([41, 1, [0, "", _LOOPING_TAG], [0, "\x00/\uffff", b"\x01\x01"]]),
        ],
        "keys that answer with what is not there": [
            *[events([42, bytes(16), bytes(16), number]) for number in (0, 1, 99, 2**62)],
            events([24, "english", None, 0]),
            events([20, 1, 0, None, "one"], [42, b"k" * 16, bytes(16), 2]),
        ],
        "starts of nothing": [
            started(1),
            events(start(16, 99, [*range(50)], None, 99, 2**40), session=1),
            events(start(17, 2, ["", 2**62]), session=1),
            events([17, 0, None, None, 1, None, None, "step"], session=1),
            events([31, 7], session=1),
            events([32, 2, 0, 2**40, "c", b"\xff"], session=1),
        ],
        "steps inside of themselves": [
            started(1),
            events(start(17, 2, []), session=1),
            events(start(17, 4, []), session=1),
            events(start(17, 3, []), session=1),
            events([17, 0, None, None, 1, None, None, "a", *[None] * 5, 2, 0, 2], session=1),
            events([17, 1, None, None, 1, None, None, "b", *[None] * 5, 3, 0, 4], session=1),
            events([17, 2, None, None, 1, None, None, "c", *[None] * 5, 4, 0, 3], session=1),
        ],
        "steps a thousand deep": [
            started(1),
            *[events(start(17, n - 1 if n > 2 else None, []), session=1) for n in range(2, 1002)],
            *[
                events([17, n, None, None, 1, None, None, "s", *[None] * 5, n + 2, 0], session=1)
                for n in range(1000)
            ],
        ],
        "ends of what ended, and of another session": [
            started(1),
            started(2),
            events(start(16, None, []), session=1),
            *[events(tool(n, *[None] * 5, 3, -(2**40)), session=1) for n in range(3)],
            events(tool(0, *[None] * 5, 3, 0, 3, [1], 2**62), session=2),
            events([32, 3, 9, 0, "late"], session=1),
            events([31, 4], [31, 4], session=2),
        ],
        "resumed with calls that never were": [
            started(1),
            events([7, 2**62, (9).to_bytes(8, "little") * 2 + bytes(16)], session=1),
            events([8, 2**62], session=1),
            events([7, 0, bytes(16) * 1000], session=1),
            events([6, 3, None, b"\xa0"], session=1),
        ],
        "replies that are not what was said": [
            started(1),
            events(ask(0, "q", "abc", None, None, [[1, 2**40, 5], 2**62, 2**62]), session=1),
            events(ask(1, "q", "", None, None, [[3] * 1000, 0, 0, 0, 0, [2**62]]), session=1),
            events(ask(2, "q", None, None, None, [[], None, None]), session=1),
        ],
        "errors in errors": [
            started(1),
            events(tool(0, "e", *[None] * 9, nested_error), session=1),
            events(
                tool(1, "e", *[None] * 9, ["builtins", "exit", ["f"] * 99, b"\x80", None]),
                session=1,
            ),
        ],
        "what was read once and is nothing": [
            started(1),
            events([18, 0, None, None, 0, None, None, "now"], session=1),
            events([18, 1, None, b"\xff", 0, None, None, "uuid"], session=1),
            events([18, 2, None, _NESTED, 0, [1], "t", "random"], session=1),
            events([18, 3, "x", '{"a":', 0, None, None, "sleep", "an error"], session=1),
        ],
        "erased, and changed again": [
            started(1),
            events([0]),
            events([24, "english", None, 0]),
            events([20, 1, 0, None, [None, bytes(32)], "two"]),
            events([23, 1, 0, bytes(32)]),
            events([21, 1, 0, 1, "once more"]),
            events([25, 99, b"", b""]),
            events([26, "m", 2, 99, bytes(32)]),
        ],
    }
    return found


def file_of(payloads: list[bytes], begin: bytes) -> bytes:
    """Return a file with these segments of events and no others, and this header."""
    return join(begin, in_sequence([(int(_EVENTS), 0, payload) for payload in payloads]))


# Saved search indexes.

SQL = (
    "DELETE FROM {} WHERE rowid = (SELECT min(rowid) FROM {})",
    "DELETE FROM {}",
    "UPDATE {} SET rowid = rowid + 1000",
    "INSERT INTO {} SELECT * FROM {} WHERE 0",
    "DROP TABLE {}",
)


def indexes(data: bytes, change: Callable[[sqlite3.Connection], object]) -> bytes:
    """Return the file with every whole saved index changed through SQL."""
    start, parts = split(data)
    for at, (kind, sequence, payload) in enumerate(parts):
        if kind != _PROJECTION:
            continue
        fields = cbor2.loads(payload)
        count, numbers, pages = fields[3], fields[5], fields[6]
        if len(numbers) // 4 != count or not fields[4]:
            continue
        database = sqlite3.connect(":memory:")
        database.deserialize(pages)
        try:
            change(database)
            database.commit()
            image = database.serialize()
        except sqlite3.Error:
            continue
        finally:
            database.close()
        made = [i.to_bytes(4, "little") for i in range(len(image) // 4096)]
        fields[3], fields[5], fields[6] = len(made), b"".join(made), image
        parts[at] = (kind, sequence, cbor2.dumps(fields))
    return join(start, parts)


def index_changes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Iterate over files whose saved index has rows missing, added or renumbered."""
    names = []

    def look(database: sqlite3.Connection) -> None:
        rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names.extend(name for (name,) in rows)

    indexes(data, look)
    for name in dict.fromkeys(names):
        for sql in SQL:
            text = sql.replace("{}", f'"{name}"')
            yield text, indexes(data, lambda database, text=text: database.execute(text))
