"""What the command line makes of recorded values: text that is safe to print, and plain JSON."""

from uuid import UUID

import pytest

from memvid_async import (
    CollectionChanged,
    Erased,
    Event,
    KeyDeleted,
    KeyPut,
    KeyUsed,
    ListChanged,
    SessionChanged,
    Unknown,
)
from memvid_async.view import documents, event_documents, text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("naïve — 日本語 🎉", "naïve — 日本語 🎉"),
        ("a\nb\tc", "a\nb\tc"),
        ("\x1b[0m", "\\x1b[0m"),
        ("\r", "\\r"),
        ("\x9b", "\\x9b"),
        ("\u202e\u2066\ufeff\u200b", "\\u202e\\u2066\\ufeff\\u200b"),
        ("\u2028\ud800", "\\u2028\\ud800"),
        # What joins letters and emoji is read with them; in ASCII it only hides.
        ("می\u200cشود", "می\u200cشود"),
        ("क्\u200dष 👩\u200d👧", "क्\u200dष 👩\u200d👧"),
        ("pass\u200dword", "pass\\u200dword"),
    ],
)
def test_printable(value, shown):
    assert text.printable(value) == shown
    assert "\n" not in text.printable(value, one_line=True)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.shorten("a  b\n" * 100, 10), "a b a b a…"),
        (text.format_size(1023), "1023 B"),
        (text.format_size(1536), "1.5 KiB"),
        (text.format_size(5 * 2**40), "5120.0 GiB"),
        (text.format_duration(1_500_000), "1.5 ms"),
        (text.format_duration(90 * 10**9), "90.0 s"),
        (text.format_duration(125 * 10**9), "2 min 5 s"),
        (text.format_duration(7325 * 10**9), "2 h 2 min"),
        (text.format_time(1_700_000_000_123_456_789), "2023-11-14 22:13:20.123"),
        (text.format_time(2**63 - 1), "2262-04-11 23:47:16.854"),
        (text.format_time(10**30), f"{10**30} ns"),
    ],
)
def test_formats(shown, expected):
    assert shown == expected


def test_any_recorded_value_becomes_json():
    value = {"f": float("nan"), "t": (1, None, True), "k": {b"\x00": {2: "x"}}, "o": object}
    assert documents.plain(value) == {
        "f": "nan",
        "t": [1, None, True],
        "k": {"$pairs": [[{"$base64": "AA=="}, {"$pairs": [[2, "x"]]}]]},
        "o": str(object),
    }


@pytest.mark.parametrize(
    ("payload", "name", "document"),
    [
        (Erased(), "erased", {}),
        (
            Unknown(99, (b"x", float("inf"))),
            "unknown",
            {"kind": 99, "fields": [{"$base64": "eA=="}, "inf"]},
        ),
        (
            SessionChanged({"name": "trip", "metadata": {"raw": b"x"}}),
            "session_changed",
            {"changes": {"name": "trip", "metadata": {"raw": {"$base64": "eA=="}}}},
        ),
        (
            KeyUsed(b"\1", b"\2", 5),
            "key_used",
            {"key_hash": "01", "content_hash": "02", "answer": 5},
        ),
        (
            CollectionChanged(
                3,
                (
                    KeyPut("k", b"\xa1\x61a\x01"),
                    KeyPut("no value", b"\xff"),
                    ListChanged("l", items=(b"\1",)),
                    KeyDeleted("d"),
                ),
            ),
            "collection_changed",
            {
                "collection": 3,
                "changes": [
                    {"type": "key_put", "key": "k", "value": {"a": 1}, "expires_ns": None},
                    {"type": "key_put", "key": "no value", "value": None, "expires_ns": None},
                    {
                        "type": "list_changed",
                        "key": "l",
                        "first": 0,
                        "count": None,
                        "item_count": 1,
                    },
                    {"type": "key_deleted", "key": "d"},
                ],
            },
        ),
    ],
)
async def test_events_without_an_action(payload, name, document):
    event = Event(7, 8, UUID(int=1), payload)
    assert await event_documents.read_event(None, event) == {
        "sequence": 7,
        "time_ns": 8,
        "session_id": str(UUID(int=1)),
        "type": name,
        "payload": document,
    }
