"""What must be found after a crash: told by a naive store, and by the bytes that were written.

The oracle has a parser of its own for the log, so that no mistake of the one under test is shared.
"""

from __future__ import annotations

import enum
import zlib
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cbor2
from attrs import frozen

from memvid_async import CorruptFileError, NotAStoreError, UnsupportedVersionError
from memvid_async.events.content import content_digest
from memvid_async.file.journal import Journal
from tests.support.asking import answers, verified
from tests.support.naive import Naive, Op, _large_strings

HEADER_BYTES, LOG_START = 36, 1536
SLOTS = (512, 1024)
SEGMENT_KINDS = {1: "events", 2: "positions", 3: "page", 4: "toc", 5: "stubs"}
EVENTS, STUBS = 1, 5


class BrokenPromiseError(AssertionError):
    """A promise was broken."""


def demand(truth: object, message: str, *values: Any) -> None:
    if not truth:
        raise BrokenPromiseError(message.format(*values))


class Compacted(enum.Enum):
    """A step of a history that is not a command: the file was compacted."""

    COMPACT = enum.auto()


COMPACT = Compacted.COMPACT


class CompactingNaive(Naive):
    """The naive store, which can also forget what was deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.generation = 0

    def compact(self) -> None:
        self.generation += 1
        kept: set[bytes] = set()
        for session in self.sessions.values():
            for action in session["actions"]:
                kept.update(
                    content[1] for content in (action["input"], action["output"]) if content
                )
            for messages in session["asked"]:
                kept.update(content_digest(data) for m in messages for data in _large_strings(m))
        self.contents &= kept
        for at, (time, number, what) in enumerate(self.log):
            deleted = number and number not in self.sessions and what[0] != "deleted"
            deleted |= what[0] == "keys" and not self.keys.is_left(at + 1)
            if deleted or (what[0] == "content" and what[1] not in kept):
                self.log[at] = (time, 0, ("erased",))

    def _checkpoint(self, number: int, task: str | None) -> Any:
        answer = super()._checkpoint(number, task)
        made = self.sessions[number]["checkpoints"]
        made[-1] = (*made[-1][:3], (*made[-1][3][:3], self.generation))
        return answer


class History:
    """The steps that became durable or were to, in order: commands that became events, and
    compactions; and what a store must answer after each."""

    def __init__(self) -> None:
        self.naive = CompactingNaive()
        self.steps: list[tuple[Op | Compacted, int]] = []
        self.known: list[dict[Any, Any]] = [self.naive.answers()]
        # By generation and number of events, how many steps that is.
        self.places: dict[tuple[int, int], int] = {(0, 0): 0}
        self.seen: dict[Any, Any] = {}
        self._branches: dict[Any, History] = {}

    def __len__(self) -> int:
        return len(self.steps)

    def apply(self, op: Op | Compacted, time: int) -> Any:
        """Do it in the naive store; its answer."""
        naive = self.naive
        before = naive.generation, len(naive.log)
        answer = naive.compact() if op is COMPACT else naive.apply(op, time)
        if (naive.generation, len(naive.log)) != before:
            self.steps.append((op, time))
            self.known.append(naive.answers())
            self.places[naive.generation, len(naive.log)] = len(self.steps)
        return answer

    def cut(self, count: int) -> History:
        """The first ``count`` steps, as a history that can go on in another way."""
        other = History()
        for op, time in self.steps[:count]:
            if op is COMPACT:
                other.naive.compact()
            else:
                other.naive.apply(op, time)
        other.steps, other.known = self.steps[:count], self.known[: count + 1]
        other.places = {key: place for key, place in self.places.items() if place <= count}
        return other

    def branch(self, count: int, key: Any, go_on: Callable[[History], None]) -> History:
        """The first ``count`` steps and what ``go_on`` adds; the same one for the same key."""
        found = self._branches.get((count, key))
        if found is None:
            found = self._branches[count, key] = self.cut(count)
            go_on(found)
        return found


@lru_cache(maxsize=16)
def parse_log(data: bytes) -> tuple[list[int], list[int]]:
    """Where the log may end: at its start or after a segment; and how many events are before."""
    ends, sequences = [LOG_START], []
    salt = zlib.crc32(data[: HEADER_BYTES - 4])
    previous, at, more = salt, LOG_START, 0
    while at + 20 <= len(data):
        end = at + 20 + int.from_bytes(data[at + 4 : at + 8], "little")
        crc = int.from_bytes(data[at : at + 4], "little")
        chained = int.from_bytes(data[at + 8 : at + 12], "little") == previous
        if end > len(data) or not chained or zlib.crc32(data[at + 4 : end], salt) != crc:
            break
        ends.append(end)
        sequences.append(int.from_bytes(data[at + 12 : at + 19], "little"))
        previous, at = crc, end
    if sequences:
        more = event_count(data[ends[-2] + 19], data[ends[-2] + 20 : ends[-1]])
        sequences.append(sequences[-1] + more)
    return ends, [sequence - 1 for sequence in sequences or [1]]


def event_count(kind: int, payload: bytes) -> int:
    """How many events a segment holds."""
    if kind not in (EVENTS, STUBS):
        return 0
    fields = cbor2.loads(payload)
    if kind == STUBS:
        return sum(fields[1::2])
    return 1 if isinstance(fields[2], int) else len(fields) - 2


def newest_slot(data: bytes) -> tuple[int, int]:
    """The end that is known to be durable, and the offset of the TOC that opening has to start
    from; zeros for none."""
    salt = zlib.crc32(data[: HEADER_BYTES - 4])
    found = [(0, 0)]
    for at in SLOTS if len(data) >= LOG_START else ():
        end, toc = (int.from_bytes(data[at + i : at + i + 8], "little") for i in (0, 8))
        crc = int.from_bytes(data[at + 24 : at + 28], "little")
        if end and zlib.crc32(data[at : at + 24], salt) == crc:
            found.append((end, toc))
    return max(found)


REFUSALS = (NotAStoreError, CorruptFileError, UnsupportedVersionError)


@frozen
class Truth:
    """What is true of a file at a moment: how processes see it, where its log may end and how many
    steps lie before (-1: no whole number), how many were acked, the history that led there, and
    which end and which TOC its durable slots name."""

    view: bytes
    ends: list[int]
    counts: list[int]
    acked: int
    history: History
    slot: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, view: bytes, acked: int, history: History, durable: bytes = b"") -> Truth:
        generation = int.from_bytes(view[12:16], "little")
        ends, events = parse_log(view)
        counts = [history.places.get((generation, count), -1) for count in events]
        return cls(view, ends, counts, acked, history, newest_slot(durable))

    def may_be_refused(self, data: bytes) -> bool:
        """The one exemption: garbage in the first sector of a file whose creation was never
        acked, and never synced either, may be refused, as it may be anybody's file. Nothing that
        was acked can be lost by it."""
        return not self.acked and len(self.view) <= LOG_START and not self.is_new(data)

    def is_new(self, data: bytes) -> bool:
        """Whether a writer MUST take the file for a creation that was killed."""
        prefix = len(data) < LOG_START and data == self.view[: len(data)]
        return len(data) <= LOG_START and (prefix or not any(data))

    def end_in(self, data: bytes) -> tuple[int, int]:
        """Where recovery has to end in a file that a cut left, and how many steps lie before:
        nothing whole may be dropped, nothing else may be taken."""
        ends, view = self.ends, self.view
        if data[:HEADER_BYTES] != view[:HEADER_BYTES]:
            return LOG_START, 0
        low, high = 0, len(ends) - 1
        if data[LOG_START : ends[high]] == view[LOG_START : ends[high]]:
            return ends[high], self.counts[high]
        high = min(high, bisect_right(ends, len(data)))
        while low + 1 < high:
            middle = (low + high) // 2
            start, end = ends[low], ends[middle]
            if data[start:end] == view[start:end]:
                low = middle
            else:
                high = middle
        return ends[low], self.counts[low]


def expect_open(truth: Truth, before: bytes, journal: Journal, after: bytes) -> tuple[int, int]:
    """Promises 1 to 4 of a file that was opened for writing; its end, and how many steps."""
    end, count = truth.end_in(before)
    found = journal.view.end
    demand(found == end, "recovered up to byte {}, not {} (steps: {})", found, end, count)
    demand(count >= truth.acked, "{} steps of {} acked are there", count, truth.acked)
    named, proven = newest_slot(after), truth.slot
    demand(named >= proven and named[1] >= proven[1], "what proves what was durable is lost")
    demand(newest_slot(before)[0] <= end, "an end is named that was never durable")
    demand(after[LOG_START:end] == truth.view[LOG_START:end], "the log has other bytes")
    demand(not any(after[end:]), "a torn tail is still there after the log")
    dropped = len(before[end:].rstrip(b"\0")) if len(before) > LOG_START else 0
    torn = journal.torn_tail
    demand(torn.bytes_dropped == dropped, "dropped {}, told {}", dropped, torn)
    demand(not dropped or torn.offset == end, "cut at {}, told {}", end, torn)
    return end, count


class Values:
    """Checks every answer by value. Files with the same log and the same starting point are looked
    at in full once; the folded state is compared every time."""

    def __init__(self) -> None:
        self._known: dict[int, Any] = {}

    def expect(self, truth: Truth, count: int, journal: Journal, after: bytes) -> None:
        view = journal.view
        log = after[LOG_START : view.end]
        key = hash((after[:HEADER_BYTES], newest_slot(after), log))
        known = self._known.get(key)
        if known is None:
            expect_answers(truth.history, count, journal)
            self._known[key] = (view.state, journal.content_count)
        else:
            demand(view.state == known[0], "another state after {} steps", count)
            demand(journal.content_count == known[1], "another number of contents")


def expect_answers(history: History, count: int, journal: Journal) -> None:
    """What the journal answers is what the naive store answers, and the file verifies."""
    expected, found = history.known[count], answers(journal)
    if found != expected:
        wrong = [key for key in expected if found.get(key) != expected[key]]
        raise BrokenPromiseError(
            f"other answers after {count} steps: {wrong or set(found) - set(expected)}"
        )
    report = verified(journal)
    demand(report.ok, "the file does not verify: {}", report.problems)
    demand(report.event_count == len(expected["events",]), "verify counts other events")
