"""The events that change the memory: as events, or read for a fold that takes in very many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from ..errors import CorruptFileError
from ..events.content import Content
from ..events.event import Event
from ..events.frames import FRAME_EVENTS
from ..format.frame_rows import (
    CONTENT_PLACE,
    FRAME_KINDS,
    is_text_put,
    read_frame_row,
    stored_content,
)
from ..format.rows import split_payload, whole_row
from ..format.segment import Segment, SegmentKind


class TextPut(NamedTuple):
    """The event that put a frame of text and nothing else, as most are: an event and its payload
    take longer to make than all else that is done to them."""

    sequence: int
    time_ns: int
    frame_id: int
    branch: int
    text: str


AnyChange = TypeVar("AnyChange", bound=Event | TextPut)


def in_range(
    segments: Iterable[Segment],
    read: Callable[[Segment], Iterator[AnyChange]],
    after: int,
    limit: int,
    until: int,
) -> Iterator[tuple[AnyChange, int]]:
    """What ``read`` finds in the segments above ``after`` and up to ``until``, each with the offset
    of its segment: of about ``limit`` bytes of segments, at least one."""
    start, found = 0, False
    for segment in segments:
        start = start or segment.offset
        for change in read(segment):
            if after < change.sequence <= until:
                found = True
                yield change, segment.offset
        if found and segment.end - start >= limit:
            return


def frame_events(events: Iterable[Event]) -> Iterator[Event]:
    """Those of the events that change the memory."""
    return (event for event in events if isinstance(event.payload, FRAME_EVENTS))


def frame_changes(segment: Segment, content: Callable[[int], Content]) -> Iterator[Event | TextPut]:
    """The events of a segment that change the memory, the plain ones as :class:`TextPut`.

    ``content`` returns large content by the sequence of its event.

    :raises CorruptFileError: when the segment is not what its kind says.
    """
    if segment.kind == SegmentKind.STUBS:
        return
    first = segment.sequence
    try:
        time_ns, _, rows = split_payload(segment.payload)

        def held(sequence: int) -> Content:
            # A frame's body beside the action that put it, or an event of its own.
            beside = rows[sequence - first] if first <= sequence < first + len(rows) else None
            found = stored_content(whole_row(beside), sequence) if beside is not None else None
            return found or content(sequence)

        for sequence, packed in enumerate(rows, first):
            # Decoded one by one: Python's collector looks at all that are there at once.
            row = whole_row(packed)
            if is_text_put(row):
                yield TextPut(sequence, time_ns, row[1], row[2], row[CONTENT_PLACE])
            elif row[0] in FRAME_KINDS:
                yield Event(sequence, time_ns, None, read_frame_row(row, held))
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise CorruptFileError(segment.offset, str(error)) from None
