"""The events that change the memory, read for a fold that takes in very many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .errors import CorruptFileError
from .events import Event
from .format.framerows import CONTENT_PLACE, FRAME_KINDS, is_text_put
from .format.rows import split_payload, whole_row
from .format.segment import Segment, SegmentKind
from .model.evolve import FRAME_EVENTS
from .reader import View


class TextPut(NamedTuple):
    """The event that put a frame of text and nothing else, as most are: an event and its payload
    take longer to make than all else that is done to them."""

    sequence: int
    time_ns: int
    frame_id: int
    branch: int
    text: str


def memory_changes(
    view: View, after: int, limit: int, until: int, above: int = 0
) -> Iterator[tuple[Event | TextPut, int]]:
    """What :meth:`Reader.memory_events` gives, one after the other.

    :raises CorruptFileError: when what the memory's positions name is not there.
    """
    start, found = 0, False
    for segment in view.reader.memory_segments(view, after, until, above):
        start = start or segment.offset
        for change in _changes(view, segment):
            if after < change.sequence <= until:
                found = True
                yield change, segment.offset
        if found and segment.end - start >= limit:
            return


def _changes(view: View, segment: Segment) -> Iterator[Event | TextPut]:
    if segment.kind == SegmentKind.STUBS:
        return
    try:
        time_ns, _, rows = split_payload(segment.payload)
        for place, packed in enumerate(rows):
            # Decoded one by one: Python's collector looks at all that are there at once.
            row = whole_row(packed)
            if is_text_put(row):
                text = row[CONTENT_PLACE]
                yield TextPut(segment.sequence + place, time_ns, row[1], row[2], text)
            elif row[0] in FRAME_KINDS:
                break
        else:
            return
    except ValueError as error:
        raise CorruptFileError(segment.offset, str(error)) from None
    for event in view.reader.decode(segment, view.state, view.end)[place:]:
        if isinstance(event.payload, FRAME_EVENTS):
            yield event
