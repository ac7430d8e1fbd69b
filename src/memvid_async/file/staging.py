"""Small commands, staged one after another: actions and the starts of calls, most of what there is.

:func:`stage_small` does with each what :meth:`.journal.Journal.stage_any` does with any command, in
one pass from its command to bytes: `core.decide`, `core.evolve`, `format.rows`, `format.segment`
and `.catalog` say the same in parts. What is not small is left to that method. A test holds both to
one slow reference, byte for byte.
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
from ..core.commands import Command, LargeContent, RecordAction, StartAction
from ..core.map_draft import MapDraft
from ..core.session_state import SessionState
from ..core.state import State
from ..events.calls import CallFacts
from ..events.decided import AnyEvent, DecidedAction, DecidedEvent, DecidedStart, Extras
from ..events.event import action_of
from ..events.values import EARLIEST, LATEST, checked_time
from ..format.action_rows import action_row
from ..format.call_rows import NUMBERS, start_row
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


Find = Callable[[int], SessionState | None]
Clock = Callable[[], int]


class Staging(Protocol):
    """What is used of a journal; see :class:`.journal.Journal`."""

    keeps_events: bool
    _clock: Clock
    _file: LogFile
    _staged: list[AnyEvent]
    _sizes: list[int]

    def stage_any(self, command: Command, /) -> Any: ...  # noqa: D102
    def refused(self, error: BaseException, /) -> Exception: ...  # noqa: D102


# What one command adds: its session's number, its time, the payload of the segment, the session
# after it, the values of its event, and the answer. A plain tuple, as one is made for each command.
Made = tuple[int, int, bytes | bytearray, SessionState, DecidedAction | DecidedStart, Any]


def _action(
    command: RecordAction, find: Find, state: State, sequence: int, clock: Clock
) -> Made | None:
    """Return what an action adds. None where it is left to `stage_any`: it has large content, a
    prompt's messages or an output as it came from the network, or its session is not open or has
    a configuration of its own."""
    choice, kind, fields, extras = command
    session = find(choice) if type(choice) is int else state.in_force(choice)
    if session is None or type(fields[0]) is LargeContent or type(fields[1]) is LargeContent:
        return None
    info, _, ended, actions, checkpoints, unmarked, held, error, in_flight, sums = session
    number = info.number
    if info.config is not DEFAULT_RECORDING:
        return None
    if extras is not None:
        call = extras.call
        if extras.messages is not None or (call is not None and call.raw is not None):
            return None
        if call is not None:
            if call.started is None or call.started not in in_flight:
                return None
            began_ns = in_flight[call.started]
            # It counted when it began.
            in_flight, unmarked = in_flight.without(call.started), unmarked - 1
            call = _new(CallFacts, (call.started, began_ns, *call[2:]))
            extras = _new(Extras, (*extras[:5], call, extras.conversion))
    now = clock()
    if type(now) is not int or not EARLIEST <= now <= LATEST:
        checked_time(now)
    values = _new(DecidedAction, (info.session_id, actions, sequence, now, kind, fields, extras))
    payload: bytes | bytearray
    if extras is None:
        payload = dumps((now, number, NUMBERS[kind], actions, *fields))
        sums = sums.adding(kind, None, None)
    else:
        payload = encode_row(now, number, action_row(values))
        sums = sums.adding(kind, extras.error, extras.reply)
    # fmt: off
    acted = _new(SessionState, (
        info, now, ended, actions + 1, checkpoints, unmarked + 1, held, error, in_flight, sums
    ))
    # fmt: on
    if len(payload) > MAX_EVENT_ITEMS:
        check_size(payload, [action_row(values)])
    return number, now, payload, acted, values, action_of(values)


def _start(
    command: StartAction, find: Find, _state: State, sequence: int, clock: Clock
) -> Made | None:
    """Return what the start of a call adds; None where :func:`_action` would."""
    number, first = command.session, command.first
    session = find(number)
    if session is None or session.info.config is not DEFAULT_RECORDING:
        return None
    info, _, ended, actions, checkpoints, unmarked, held, error, in_flight, sums = session
    if type(command.input) is LargeContent or not (first is None or first in in_flight):
        return None
    now = checked_time(clock())
    values = _new(DecidedStart, (sequence, now, info.session_id, *command[1:]))
    payload = encode_row(now, number, start_row(values))
    if len(payload) > MAX_EVENT_ITEMS:
        check_size(payload, [start_row(values)])
    if first is None:
        in_flight, unmarked = in_flight.set(sequence, now), unmarked + 1
    # fmt: off
    begun = _new(SessionState, (
        info, now, ended, actions, checkpoints, unmarked, held, error, in_flight, sums
    ))
    # fmt: on
    return number, now, payload, begun, values, first or sequence


_MAKERS: dict[type, Callable[[Any, Find, State, int, Clock], Made | None]] = {
    RecordAction: _action,
    StartAction: _start,
}


def stage_run(journal: Staging, commands: Sequence[Command]) -> list[Any]:
    """Return for each command what :meth:`.journal.Journal.stage` returns."""
    outcomes: list[Any] = []
    while (at := len(outcomes)) < len(commands):
        stage_small(journal, commands, outcomes)
        if len(outcomes) == at:
            outcomes.append(journal.stage_any(commands[at]))
    return outcomes


def stage_small(journal: Staging, commands: Sequence[Command], outcomes: list[Any]) -> None:
    """Stage commands from the one after the last outcome on, as long as each adds one small event
    to an open session and nothing is due to be saved before it.

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
    find, put = opened.get, opened.put if type(opened) is MapDraft else None
    for command in islice(commands, len(outcomes), None):
        make = _MAKERS.get(type(command))
        if make is None or end >= due_at or full:
            break
        try:
            made = make(command, find, state, sequence + 1, clock)
        except BaseException as refusal:  # noqa: BLE001 - raised again where it is not a refusal
            outcomes.append(journal.refused(refusal))
            continue
        if made is None:
            break
        number, time, payload, session, values, answer = made
        sequence, offset, end = sequence + 1, end, end + HEAD_SIZE + len(payload)
        rest = _pack_rest(len(payload), checksum, _EVENTS | sequence)
        checksum = crc32(payload, crc32(rest, salt))
        buffer.append(_pack_checksum(checksum) + rest)
        buffer.append(payload)
        if put is not None:
            put(number, session)
        else:
            sessions = sessions.set_open(number, session)
        if offset >= mark_at:
            catalog._mark(sequence, offset)
            mark_at = offset + tables.MARK_BYTES
        place = positions.get(number)
        if place is not None and len(place[1]) < most_places:
            place[1].append(offset)
        else:
            catalog._add(number, offset)
        if number not in changed:
            catalog.open.note(number)
        if keeps:
            event = DecidedEvent(sequence, time, session.info.session_id, values, number)
            journal._staged.append(event)
            journal._sizes.append(end - offset)
        outcomes.append(answer)
    if sequence != state.last_sequence:
        file.state = State(sequence, time, sessions, *state[3:])
        file._end, file._checksum, file._checksum_at = end, checksum, offset
        if not file._in_run:
            file._shown = file.state
