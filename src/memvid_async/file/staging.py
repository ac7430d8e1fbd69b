"""Plain actions, staged one after another: most of what is recorded.

:func:`stage_actions` does what :meth:`.journal.Journal.stage_any` does with each, in one pass from
its command to bytes: `core.decide`, `core.evolve`, `format.rows`, `format.segment` and `.catalog`
say the same in parts. It leaves every other command to that method. `inner_loop.pyx` is the same in
C. A test holds all three to one slow reference, byte for byte.
"""

# ruff: noqa: SLF001 - it is a part of the journal and of its file

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from struct import Struct
from typing import Any, Protocol
from zlib import crc32

from cbor2 import dumps

from ..config import DEFAULT_RECORDING
from ..core.commands import Command, LargeContent, RecordAction
from ..core.map_draft import MapDraft
from ..core.session_state import SessionState
from ..core.state import State
from ..events.decided import AnyEvent, DecidedAction, DecidedEvent
from ..events.event import action_of
from ..events.values import EARLIEST, LATEST, checked_time
from ..format.action_rows import action_row
from ..format.call_rows import NUMBERS
from ..format.codec import check_size
from ..format.places import MAX_EVENT_ITEMS
from ..format.rows import encode_row
from ..format.segment import HEAD_SIZE, SegmentKind
from . import catalog as tables
from .log_file import LogFile

# After the checksum: the payload's length, the checksum before, and the kind and the sequence.
_pack_rest, _pack_checksum = Struct("<IIQ").pack, Struct("<I").pack
_EVENTS = int(SegmentKind.EVENTS) << 56
_new = tuple.__new__


class Staging(Protocol):
    """What is used of a journal; see :class:`.journal.Journal`."""

    keeps_events: bool
    _clock: Callable[[], int]
    _file: LogFile
    _staged: list[AnyEvent]
    _sizes: list[int]

    def stage_any(self, command: Command, /) -> Any: ...  # noqa: D102
    def refused(self, error: BaseException, /) -> Exception: ...  # noqa: D102


def stage_run(journal: Staging, commands: Sequence[Command]) -> list[Any]:
    """Return for each command what :meth:`.journal.Journal.stage` returns."""
    outcomes: list[Any] = []
    while (at := len(outcomes)) < len(commands):
        command = commands[at]
        # The starts and the ends of calls come singly; preparing a run of each would cost 3%.
        if type(command) is RecordAction and not (command.extras and command.extras.call):
            stage_actions(journal, commands, outcomes)
        if len(outcomes) == at:
            outcomes.append(journal.stage_any(command))
    return outcomes


def stage_actions(  # noqa: C901, PLR0912, PLR0915 - in one function, as each call costs 2 to 4%
    journal: Staging, commands: Sequence[Command], outcomes: list[Any]
) -> None:
    """Stage commands from the one after the last outcome on, as long as they are plain actions: of
    an open session without a configuration of its own, with neither large content nor messages of
    a prompt, not the end of a call, and with nothing due to be saved before them.

    What they change of their file is in local variables until the last of them.
    """
    file = journal._file
    state, catalog, clock, keeps = file.state, file.catalog, journal._clock, journal.keeps_events
    sequence, time, sessions = state.last_sequence, state.last_time_ns, state.sessions
    end, checksum, salt, buffer = file._end, file._checksum, file._salt, file._buffer
    positions, full, most_places = catalog.positions, catalog._full, tables.CHUNK - 1
    changed, due_at = catalog.open.changed, catalog._toc_end + catalog._toc_interval
    mark_at = catalog.mark_offsets[-1] + tables.MARK_BYTES if catalog.mark_offsets else 0
    opened, offset = sessions.open, file._checksum_at
    put = opened.put if type(opened) is MapDraft else None
    for command in islice(commands, len(outcomes), None):
        if type(command) is not RecordAction or end >= due_at or full:
            break
        choice, kind, fields, extras = command
        try:
            session = opened.get(choice) if type(choice) is int else state.in_force(choice)
            if session is None or LargeContent in (type(fields[0]), type(fields[1])):
                break
            if extras is not None and (extras.call is not None or extras.messages is not None):
                break
            info, _, ended, actions, checkpoints, unmarked, held, error, in_flight, sums = session
            number = info.number
            place = positions.get(number)
            if place is None or info.config is not DEFAULT_RECORDING:
                break
            now = clock()
            if type(now) is not int or not EARLIEST <= now <= LATEST:
                checked_time(now)
            values = (info.session_id, actions, sequence + 1, now, kind, fields, extras)
            decided = _new(DecidedAction, values)
            payload: bytes | bytearray
            if extras is None:
                payload = dumps((now, number, NUMBERS[kind], actions, *fields))
                sums = sums.adding(kind, None, None)
            else:
                payload = encode_row(now, number, action_row(decided))
                sums = sums.adding(kind, extras.error, extras.reply)
            if len(payload) > MAX_EVENT_ITEMS:
                check_size(payload, [action_row(decided)])
        except BaseException as refusal:  # noqa: BLE001 - raised again where it is not a refusal
            outcomes.append(journal.refused(refusal))
            continue
        sequence, time, offset = sequence + 1, now, end
        rest = _pack_rest(len(payload), checksum, _EVENTS | sequence)
        checksum = crc32(payload, crc32(rest, salt))
        buffer.append(_pack_checksum(checksum) + rest)
        buffer.append(payload)
        end += HEAD_SIZE + len(payload)
        # fmt: off
        acted = _new(SessionState, (
            info, now, ended, actions + 1, checkpoints, unmarked + 1, held, error, in_flight, sums
        ))
        # fmt: on
        if put is not None:
            put(number, acted)
        else:
            sessions = sessions.set_open(number, acted)
        if offset >= mark_at:
            catalog._mark(sequence, offset)
            mark_at = offset + tables.MARK_BYTES
        if len(place[1]) < most_places:
            place[1].append(offset)
        else:
            catalog._add(number, offset)
        if number not in changed:
            catalog.open.note(number)
        if keeps:
            event = (sequence, now, info.session_id, decided, number)
            journal._staged.append(_new(DecidedEvent, event))
            journal._sizes.append(end - offset)
        outcomes.append(action_of(decided))
    if sequence != state.last_sequence:
        file.state = State(sequence, time, sessions, *state[3:])
        file._end, file._checksum, file._checksum_at = end, checksum, offset
        if not file._in_run:
            file._shown = file.state
