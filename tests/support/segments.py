"""The segments of a file's bytes."""

from __future__ import annotations

from memvid_async.format.header import LOG_START, decode_header
from memvid_async.format.segment import Segment, SegmentKind, scan
from memvid_async.storage import RamStorage


def segments_of(data: bytes, kind: SegmentKind | None = None) -> list[Segment]:
    """Return the segments up to the torn tail; only those of a kind where one is named."""
    salt = decode_header(data[:LOG_START]).salt
    found = scan(RamStorage(data).read, LOG_START, len(data), salt, salt)
    return [segment for segment in found if kind is None or segment.kind == kind]
