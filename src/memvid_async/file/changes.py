"""The events that a projection folds, decoded for it: those of the memory, or of collections."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

from ..errors import CorruptFileError
from ..events.content import Content
from ..events.event import Event
from ..format.codec import read_stored
from ..format.frame_rows import held_data, read_frame_row, stored_content
from ..format.keyed_rows import read_keyed_row
from ..format.kinds import FRAME_KINDS, STORED
from ..format.rows import decode_rows
from ..format.segment import Segment, SegmentKind


def in_range(
    segments: Iterable[Segment],
    kinds: Container[int],
    content: Callable[[int], Content],
    after: int,
    until: int,
) -> Iterator[tuple[Event, int]]:
    """Iterate over events of these kinds above ``after``, up to ``until``.

    Each comes with the offset of its segment. ``content`` returns large content by the sequence of
    its event.

    :raises CorruptFileError: when a segment is not as its kind requires.
    """
    for segment in segments:
        for event in _events(segment, kinds, content):
            if after < event.sequence <= until:
                yield event, segment.offset


def _events(
    segment: Segment, kinds: Container[int], content: Callable[[int], Content]
) -> Iterator[Event]:
    if segment.kind == SegmentKind.STUBS:
        return
    first = segment.sequence
    try:
        time_ns, _, rows = decode_rows(segment.payload)

        def held(sequence: int) -> Content:
            if not first <= sequence < first + len(rows):
                return content(sequence)
            return _beside(rows[sequence - first], sequence)

        for sequence, row in enumerate(rows, first):
            if row[0] in kinds:
                read = read_frame_row(row, held) if row[0] in FRAME_KINDS else read_keyed_row(row)
                yield Event(sequence, time_ns, None, read)
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise CorruptFileError(segment.offset, str(error)) from None


def _beside(row: list[Any], sequence: int) -> Content:
    """Return the content that a row of the same segment holds, with its data.

    Reading each of very many contents later would read the segment again for each.

    :raises ValueError, TypeError, IndexError: when the row holds no content.
    """
    if row[0] == STORED:
        return Content(row[2], read_stored(row, sequence))
    data = held_data(row)
    if data is None:
        raise ValueError(f"event {sequence} does not hold content")
    return Content(data, stored_content(data, sequence))
