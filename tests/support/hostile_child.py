"""Hostile files by the thousand: ``python -m tests.support.hostile_child GROUP EVERY``.

The processor time and the time of each, and the memory of the process, are bounded. What comes out
of a file is an answer that was once recorded, or an error of the library's own.
"""

from __future__ import annotations

import itertools
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import cbor2

from fuzz.mutate import in_sequence, join, split
from memvid_async import MemvidAsyncError
from memvid_async.core.session_map import unpack_session
from memvid_async.file.journal import Journal
from memvid_async.file.recover import recover_into
from memvid_async.format.header import LOG_START, Slot
from memvid_async.format.segment import MAX_PAYLOAD, SegmentKind, scan, seal
from memvid_async.format.stubs import MOST_EVENTS, encode_stubs
from memvid_async.format.tables import Table, encode_page, encode_positions
from memvid_async.storage import RamStorage
from tests.support.asking import questions, verified
from tests.support.hostile import BOMBS
from tests.support.naive import ask, command, fixed_config, start
from tests.support.plans import small_tables
from tests.support.reference import Reference, check, opened, reference, with_slot

# What one file may take: room above what the process has at its start, and seconds.
MEMORY = 256 * 1024 * 1024
CPU_SECONDS = 3.0
SECONDS = 30.0

OFFSETS = (0, 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


class TooMuchError(BaseException):
    """A file took more than it may; not an Exception, so that nothing takes it for its own."""


def provoke(data: bytes) -> None:
    """Do with the file whatever anybody would; only errors of ours come out."""
    for read_only in (True, False):
        with suppress(MemvidAsyncError):
            journal = opened(data, read_only=read_only)
            for answer in questions(journal, 4096).values():
                with suppress(MemvidAsyncError):
                    answer()
            verified(journal)
            if not read_only:
                journal.commit([start(50), *map(command, (ask(1, "q", None, "m"), ask((), "q")))])
                journal.compact(lambda *_: None)
    with suppress(MemvidAsyncError):
        recover_into(RamStorage(data), RamStorage(), lambda *_: None)


def open_it(sound: Reference, data: bytes, at: int) -> None:
    """Open a file that differs from ``sound`` at one byte: it is as it once was, or refused."""
    try:
        journal = opened(data)
    except MemvidAsyncError:
        return
    state, last = journal.view.state.last_sequence, sound.expected[-1]["last",][0]
    if at < sound.toc_end:
        assert state == last, "damage below a TOC changed what opening says"
    else:
        segment = next(s for s in sound.segments if s.offset <= at < s.end)
        assert state == sound.expected[sound.known(segment.offset)]["last",][0]
        assert journal.torn_tail.offset == segment.offset


def bits() -> Iterator[Callable[[], None]]:
    """Every bit."""
    for name in ("small", "rich"):
        sound = reference(name)
        for at in range(len(sound.data)):
            for bit in range(8):
                data = bytearray(sound.data)
                data[at] ^= 1 << bit
                yield lambda data=data, at=at, sound=sound: open_it(sound, bytes(data), at)


def truncations() -> Iterator[Callable[[], None]]:
    """Every truncation, through everything; and followed by zeros up to the old length."""
    for name, step in (("small", 1), ("rich", 11)):
        data = reference(name).data
        for size in range(0, len(data), step):
            yield lambda data=data[:size]: provoke(data)
            if size % 5 == 0:
                yield lambda data=data, size=size: provoke(data[:size].ljust(len(data), b"\0"))


def moved() -> Iterator[Callable[[], None]]:
    """Segments left out, doubled, swapped, or another file's; with checksums made right, and with
    sequences made right, too."""
    for name in ("small", "rich"):
        sound = reference(name)
        begin, parts = split(sound.data)
        other = split(reference("rich" if name == "small" else "small").data)[1]
        for i in range(len(parts)):
            orders = [
                [*parts[:i], *parts[i + 1 :]],
                [*parts[:i], parts[i], *parts[i:]],
                [*parts[:i], *parts[i : i + 2][::-1], *parts[i + 2 :]],
                [*parts[:i], other[i % len(other)], *parts[i:]],
                [*parts[:i], *other, *parts[i:]],
            ]
            for order in (*orders, *map(in_sequence, orders)):
                data = join(begin, order)
                yield lambda data=data: provoke(data)
            for at in (sound.segments[i].offset, sound.segments[i].end):
                theirs = foreign_log()
                yield lambda data=sound.data[:at] + theirs + sound.data[at:]: provoke(data)
                over = sound.data[:at] + theirs + sound.data[at + len(theirs) :]
                yield lambda data=over, sound=sound: _checked(data, sound)


@cache
def foreign_log() -> bytes:
    """Segments of another file."""
    config = fixed_config()
    config.id_factory()
    journal = Journal.open(RamStorage(), config)
    journal.commit([command(start(1)), command(ask(1, "from another file"))])
    return bytes(journal.view.reader.storage.read(LOG_START, journal.view.end - LOG_START))


def _checked(data: bytes, sound: Reference) -> None:
    check(data, sound)
    with suppress(MemvidAsyncError):
        recover_into(RamStorage(data), RamStorage(), lambda *_: None)


class Saved:
    """A sound file that ends with its TOC, and files that end with something else instead."""

    def __init__(self) -> None:
        storage = RamStorage(reference("rich").data)
        journal = Journal.open(storage, fixed_config())
        journal._file.tidy(with_toc=True)
        # A session in the TOC itself, as if it alone had changed since.
        journal._file.catalog.open.note(next(iter(journal.view.state.sessions.open)))
        journal._file.tidy(with_toc=True)
        self.data, self.salt = bytes(storage.data), reference("rich").salt
        self.toc = list(scan(storage.read, LOG_START, len(self.data), self.salt, self.salt))[-1]
        assert self.toc.kind == SegmentKind.TOC

    def ending(self, *segments: tuple[SegmentKind, bytes]) -> bytes:
        """The file with these segments instead of its TOC; the slot names the last one."""
        data, previous, offset = self.data[: self.toc.offset], self.toc.previous, 0
        for kind, payload in segments:
            offset = len(data)
            head, previous = seal(kind, self.toc.sequence, payload, previous, self.salt)
            data += head + payload
        slot = Slot(len(data), offset, self.toc.sequence - 1)
        return bytes(with_slot(data, slot, self.salt))

    def places(self) -> list[int]:
        """Offsets that are wrong for something: itself, the end, after it, any, another's."""
        end, at = len(self.data), self.toc.offset
        return [*OFFSETS, LOG_START, at, at + 1, end - 1, end, end + 1, end + 2**20]


def tables() -> Iterator[Callable[[], None]]:
    """A TOC, a page and a chunk of positions whose offsets lead past the end, forward, nowhere, to
    something else, or to themselves."""
    saved = Saved()
    fields = cbor2.loads(saved.toc.payload)
    toc_pages, (*open_pages, opened_rows), ended_rows = dict(fields[8]), fields[5], fields[6]
    at = saved.toc.offset
    assert opened_rows
    assert toc_pages.keys() >= {Table.SESSIONS, Table.CONTENTS, Table.MARKS}, toc_pages

    def end_with(*segments: tuple[SegmentKind, bytes]) -> Callable[[], None]:
        data = saved.ending(*segments)
        return lambda: provoke(data)

    for place in saved.places():
        for table in Table:
            rows = EMPTY_ROWS.get(table, b"")
            for last, before in (
                (place, ()),
                (at, ((SegmentKind.PAGE, encode_page(table, place, rows)),)),
            ):
                toc = naming(fields, table, last)
                yield end_with(*before, (SegmentKind.TOC, cbor2.dumps(toc)))
        for i, (row, _, *rest) in enumerate(opened_rows):
            number = unpack_session(row).info.number
            chunk = (SegmentKind.POSITIONS, encode_positions(number, place, [place, place]))
            for last, before in ((place, ()), (at, (chunk,))):
                changed = [*opened_rows[:i], [row, last, *rest], *opened_rows[i + 1 :]]
                toc = cbor2.dumps([*fields[:5], [*open_pages, changed], *fields[6:]])
                yield end_with(*before, (SegmentKind.TOC, toc))
        numbers, _, rows = ended_rows
        for i, number in enumerate(struct.unpack(f"<{len(rows)}Q", numbers)):
            chunk = (SegmentKind.POSITIONS, encode_positions(number, place, [place, place]))
            for last, before in ((place, ()), (at, (chunk,))):
                chunks = list(struct.unpack(f"<{len(rows)}Q", ended_rows[1]))
                chunks[i] = last % 2**64
                changed = [numbers, struct.pack(f"<{len(rows)}Q", *chunks), rows]
                toc = cbor2.dumps([*fields[:6], changed, *fields[7:]])
                yield end_with(*before, (SegmentKind.TOC, toc))
        row, chunk, _, held = opened_rows[0]
        changed = [[row, chunk, [place, place], held], *opened_rows[1:]]
        toc = cbor2.dumps([*fields[:5], [*open_pages, changed], *fields[6:]])
        yield end_with((SegmentKind.TOC, toc))
        marks = struct.pack("<QQ", 1, place % 2**64) * 3
        toc = cbor2.dumps([*fields[:10], marks, *fields[11:]])
        yield end_with((SegmentKind.TOC, toc))


EMPTY_ROWS = {Table.SESSIONS: [b"", b"", []], Table.OPEN: [b"", []]}


def naming(fields: list[Any], table: Table, place: int) -> list[Any]:
    """The fields of a TOC that says that the last page of a table is at a place."""
    if table == Table.OPEN:
        _, *others = fields[5]
        return [*fields[:5], [struct.pack("<Q", place % 2**64), *others], *fields[6:]]
    return [*fields[:8], [*({**dict(fields[8]), int(table): place}).items()], *fields[9:]]


def lengths() -> Iterator[Callable[[], None]]:
    """Segments whose length is none, too much, or more than there is; slots with any offset."""
    for name in ("small", "rich"):
        sound = reference(name)
        for segment in sound.segments:
            for length in (0, 1, len(segment.payload) - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2**31):
                head = struct.pack("<I", length % 2**32)
                at = segment.offset + 4
                data = sound.data[:at] + head + sound.data[at + 4 :]
                yield lambda data=data, sound=sound: _checked(data, sound)
                yield lambda data=data: provoke(data)
            for kind in (0, *SegmentKind, 6, 255):
                empty, _ = seal(kind, segment.sequence, b"", segment.previous, sound.salt)
                data = with_slot(sound.data[: segment.offset] + empty, Slot(0), sound.salt)
                yield lambda data=bytes(data): provoke(data)
        for place in OFFSETS:
            for sequence in OFFSETS:
                for slot in (Slot(len(sound.data), place, sequence), Slot(place, sequence)):
                    if slot.end < 2**64:
                        data = bytes(with_slot(sound.data, slot, sound.salt))
                        yield lambda data=data, sound=sound: _checked(data, sound)


def bombs() -> Iterator[Callable[[], None]]:
    """Small bytes that say they are much, whole or inside of others, under right checksums."""
    sound = reference("small")
    start_, first = sound.data[: sound.segments[-1].offset], sound.segments[-1]

    def end_with(kind: int, payload: bytes) -> Callable[[], None]:
        head, _ = seal(kind, first.sequence, payload, first.previous, sound.salt)
        data = start_ + head + payload
        named = Slot(len(data), first.offset, first.sequence - 1)
        slot = named if kind == SegmentKind.TOC else Slot(0)
        data = bytes(with_slot(data, slot, sound.salt))
        return lambda: provoke(data)

    huge = [bytes([major << 5 | 27]) + struct.pack(">Q", 2**63) for major in range(2, 7)]
    for bomb in (*BOMBS, *huge):
        inner = bomb[: 2**20]
        row = [0, "q", "r", 0, None, None, "o", "m", None]
        payloads = {
            SegmentKind.EVENTS: [
                bomb,
                b"\x84\x05\x01\x01" + bomb,
                b"\x83\x05\x01" + bomb,
                cbor2.dumps([5, 1, 13, *row, inner]),
                cbor2.dumps([5, 1, 13, *row, None, [-1, 0, bytes(16), inner]]),
                cbor2.dumps([5, first.sequence, 1, bytes(16), None, False, 0, None, inner]),
            ],
            SegmentKind.POSITIONS: [bomb, b"\x82\x01" + bomb],
            SegmentKind.PAGE: [bomb, b"\x83\x00\x00" + bomb],
            SegmentKind.TOC: [bomb, b"\x8d" + b"\x01" * 6 + bomb],
            SegmentKind.STUBS: [bomb, b"\x82\x05" + bomb],
        }
        yield from (end_with(kind, one) for kind, found in payloads.items() for one in found)
    for counts in ([MOST_EVENTS], [MOST_EVENTS + 1], [2**20], [2**40], [2**63], [1] * 2**16):
        yield end_with(SegmentKind.STUBS, encode_stubs([(9, count) for count in counts]))
    yield end_with(SegmentKind.STUBS, encode_stubs([(2**62, 1), (2**63, 1), (2**64 - 1, 1)]))


def stubs() -> Iterator[Callable[[], None]]:
    """Thousands of segments of a few bytes that each stand for as many events as one may."""
    sound = reference("small")
    data, previous, sequence = sound.data[:LOG_START], sound.salt, 1
    payload = encode_stubs([(9, MOST_EVENTS)])
    for _ in range(2000):
        head, previous = seal(SegmentKind.STUBS, sequence, payload, previous, sound.salt)
        data += head + payload
        sequence += MOST_EVENTS

    def fold() -> None:
        journal = opened(data, read_only=False)
        assert journal.view.state.last_sequence == sequence - 1
        assert verified(journal).ok
        assert len(journal.view.events_after(5, 2**20)) <= 2 * MOST_EVENTS
        journal.compact(lambda *_: None)
        assert journal.view.state.last_sequence == sequence - 1

    yield fold

    def recover() -> None:
        report = recover_into(RamStorage(data), RamStorage(), lambda *_: None)
        assert report.last_sequence == sequence - 1

    yield recover


GROUPS = {
    group.__name__: group for group in (bits, truncations, moved, tables, lengths, bombs, stubs)
}


def _too_much(number: int, _frame: object) -> None:
    raise TooMuchError(signal.Signals(number).name)


def main(group: str, every: str) -> None:
    """Run every nth case of a group within bounds, and print how many they were."""
    signal.signal(signal.SIGPROF, _too_much)
    signal.signal(signal.SIGALRM, _too_much)
    with small_tables(toc=2700):
        reference("small"), reference("rich")
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        count = 0
        for case in itertools.islice(GROUPS[group](), 0, None, int(every)):
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            case()
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            count += 1
    print(count)


if __name__ == "__main__":
    main(*sys.argv[1:])
