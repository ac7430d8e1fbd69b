"""Transcripts of chats, read as the importers read them."""

from __future__ import annotations

import json
from typing import Any

from memvid_async.interop.transcripts import open_transcripts, parse_runs


def same(left: Any, right: Any) -> bool:
    """Equal as JSON: 1, 1.0 and True are three values."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def runs_of(value: Any, name: str = "chat.json") -> list[Any]:
    """Return the runs that a file with this JSON, or with these bytes, holds."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return [run for part in open_transcripts(name, data) for run in parse_runs(part)]
