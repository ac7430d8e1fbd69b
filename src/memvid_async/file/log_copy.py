"""Writing a log again: segments are copied unchanged, and stubs replace events that are gone."""

from __future__ import annotations

from ..events.event import Event
from ..format.rows import DecodedRows
from ..format.segment import Segment, SegmentKind
from ..format.stubs import MOST_EVENTS, MOST_RUNS, encode_stubs
from .log_file import LogFile

# What is copied becomes durable about once in this many bytes.
STEP_BYTES = 1024 * 1024


class LogCopy:
    """A log that is written to ``target``, in order and without a gap."""

    def __init__(self, target: LogFile) -> None:
        self.target = target
        self._stubs: list[tuple[int, int]] = []
        self._stub_count = 0

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event, including stubs that are not written yet."""
        return self.target.state.last_sequence + self._stub_count

    @property
    def last_time_ns(self) -> int:
        """The time of the last event, in nanoseconds since 1970."""
        return self._stubs[-1][0] if self._stubs else self.target.state.last_time_ns

    def add_stubs(self, time_ns: int, count: int) -> None:
        """Append stubs for ``count`` events that are gone."""
        while count:
            step = min(count, MOST_EVENTS - self._stub_count)
            count -= step
            self._stub_count += step
            if self._stubs and self._stubs[-1][0] == time_ns:
                step += self._stubs.pop()[1]
            self._stubs.append((time_ns, step))
            if self._stub_count >= MOST_EVENTS or len(self._stubs) >= MOST_RUNS:
                self.flush_stubs()

    def flush_stubs(self) -> None:
        """Write the stubs that are not written yet."""
        if self._stubs:
            payload = encode_stubs(self._stubs)
            self._stubs, self._stub_count = [], 0
            self._append(SegmentKind.STUBS, payload)

    def append(self, payload: bytes | bytearray, parts: DecodedRows | None = None) -> None:
        """Append a segment of events with this payload.

        ``parts``: what :func:`.rows.decode_rows` returned for it, where the caller has that.
        """
        self.flush_stubs()
        self._append(SegmentKind.EVENTS, payload, parts)

    def _append(
        self, kind: SegmentKind, payload: bytes | bytearray, parts: DecodedRows | None = None
    ) -> None:
        target = self.target
        sequence = target.state.last_sequence + 1
        segment = Segment(kind, sequence, bytes(payload), 0, 0, 0, 0)
        events: list[Event] = target.decode(segment, parts=parts) or []
        target.append(kind, payload, events)
        if target.staged_bytes >= STEP_BYTES:
            target.write_out()

    def finish(self) -> None:
        """Write the rest and a TOC, and make everything durable."""
        self.flush_stubs()
        self.target.tidy(with_toc=True)
