"""The events that change the memory: as events, or read for a fold that takes in very many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from .reader import View


class TextPut(NamedTuple):
    """The event that put a frame of text and nothing else, as most are: an event and its payload
    take longer to make than all else that is done to them."""

    sequence: int
    time_ns: int
    frame_id: int
    branch: int
    text: str


AnyChange = TypeVar("AnyChange", bound=Event | TextPut)


def memory_events(view: View, after: int, limit: int, until: int) -> Iterator[tuple[Event, int]]:
    """The events above ``after``, up to ``until``, that change the memory, in order, each with the
    offset of its segment: of about ``limit`` bytes of segments, at least one.

    :raises CorruptFileError: when what the memory's positions name is not there.
    """
    return _in_range(view, after, limit, until, 0, _events)


def memory_changes(
    view: View, after: int, limit: int, until: int, above: int = 0
) -> Iterator[tuple[Event | TextPut, int]]:
    """:func:`memory_events`, the plain ones as :class:`TextPut`. ``above``: a byte that all of
    their segments begin at or behind, if one is known.

    :raises CorruptFileError: when what the memory's positions name is not there.
    """
    return _in_range(view, after, limit, until, above, _changes)


def _in_range(
    view: View,
    after: int,
    limit: int,
    until: int,
    above: int,
    read: Callable[[View, Segment], Iterator[AnyChange]],
) -> Iterator[tuple[AnyChange, int]]:
    start, found = 0, False
    for segment in view.reader.memory_segments(view, after, until, above):
        start = start or segment.offset
        for change in read(view, segment):
            if after < change.sequence <= until:
                found = True
                yield change, segment.offset
        if found and segment.end - start >= limit:
            return


def _events(view: View, segment: Segment) -> Iterator[Event]:
    for event in view.reader.decode(segment, view.state, view.end):
        if isinstance(event.payload, FRAME_EVENTS):
            yield event


def _changes(view: View, segment: Segment) -> Iterator[Event | TextPut]:
    if segment.kind == SegmentKind.STUBS:
        return
    first = segment.sequence
    try:
        time_ns, _, rows = split_payload(segment.payload)

        def content(sequence: int) -> Content:
            # A frame's body beside the action that put it, or an event of its own.
            beside = rows[sequence - first] if first <= sequence < first + len(rows) else None
            found = stored_content(whole_row(beside), sequence) if beside is not None else None
            return found or view.reader.content(sequence, view.end)

        for sequence, packed in enumerate(rows, first):
            # Decoded one by one: Python's collector looks at all that are there at once.
            row = whole_row(packed)
            if is_text_put(row):
                yield TextPut(sequence, time_ns, row[1], row[2], row[CONTENT_PLACE])
            elif row[0] in FRAME_KINDS:
                yield Event(sequence, time_ns, None, read_frame_row(row, content))
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise CorruptFileError(segment.offset, str(error)) from None
