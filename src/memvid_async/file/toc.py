"""What opening needs: the folded state as saved in a TOC, and the rows of sessions in pages.

All of it is derived from the events.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import cbor2
from attrs import frozen

from ..config import recording_config
from ..core.memory_state import Branch, MemoryState
from ..core.persistent_map import PersistentMap
from ..core.state import NOTHING_HELD, Held, SessionInfo, SessionState, State
from ..events.values import decode_value
from ..format.frame_rows import fork_row, read_fork_row
from ..format.tables import (
    CONTENT_ROW,
    MARK_ROW,
    MEMORY,
    MOST_ITEMS,
    check_rows,
    fields_of,
    ints_of,
)

_HELD_ROW = struct.Struct("<16sII")
# An open session keeps an action's index in four bytes. Half of that range is left for appending.
_MOST_ACTIONS = 2**31


@frozen
class Placed:
    """A session's state, and where its segments are."""

    session: SessionState
    chunk: int
    """The offset of the session's last chunk of positions, which names the one before; 0: none."""
    offsets: tuple[int, ...] = ()
    """The offsets of the segments after those."""


@frozen
class Toc:
    """A folded state as saved, with what is in no page yet."""

    state: State
    open_sessions: tuple[Placed, ...]
    ended: tuple[Placed, ...]
    """Ended sessions that are in no page yet."""
    deleted: tuple[int, ...]
    """Numbers of sessions that are in pages and were deleted since."""
    pages: tuple[int, int, int]
    """The offset of each table's last page; 0 for none."""
    contents: bytes
    """Packed rows of stored contents that are in no page yet."""
    marks: bytes
    """Packed rows of marks that are in no page yet."""
    content_count: int
    """How many distinct contents are stored."""
    memory_chunk: int = 0
    """The offset of the last chunk of the memory's positions; 0 for none."""
    memory_offsets: Sequence[int] = ()
    """The offsets of the memory's segments after those."""
    saved_index: tuple[int, int] = (0, 0)
    """The offset of the last part of the last saved search index (0: none), and the sequence of the
    last event folded into it."""


def session_row(placed: Placed) -> list[Any]:
    """Return a session as a row; an ended one has two fields less."""
    session, info = placed.session, placed.session.info
    row = [
        info.number,
        info.session_id.bytes,
        info.name,
        info.created_ns,
        session.ended_ns,
        session.last_ns,
        session.action_count,
        session.checkpoint_count,
        session.unmarked,
        info.ambient,
        info.config.auto_checkpoint_interval,
        info.config.max_actions,
        placed.chunk,
        fork_row(info.fork),
    ]
    if session.ended_ns is None:
        held = b"".join(_HELD_ROW.pack(key, *at) for key, at in sorted(session.held.items()))
        row += [list(placed.offsets), held]
    return row


def read_session_row(row: Any) -> Placed:
    """Read a session's row.

    :raises ValueError: when it is no such row.
    """
    fields = fields_of(row, 14)
    number, session_id, name, created, ended, last, actions, checkpoints, unmarked = fields[:9]
    ambient, interval, most, chunk, fork = fields[9:14]
    ints_of([number, created, last, actions, checkpoints, unmarked, chunk], 7)
    if actions >= _MOST_ACTIONS:
        raise ValueError("a session row counts more actions than there can be")
    if not (isinstance(session_id, bytes) and len(session_id) == 16):
        raise ValueError("a session row has a bad id")
    if not (name is None or isinstance(name, str)) or not (ended is None or type(ended) is int):
        raise ValueError("a session row has a bad name or end")
    if ended is None:
        fields_of(fields, 16)
    config = recording_config(interval, most)
    try:
        found = read_fork_row(fork)
    except TypeError as error:
        raise ValueError(str(error)) from None
    info = SessionInfo(
        number, UUID(bytes=session_id), name, created, ambient is True, config, found
    )
    held, offsets = NOTHING_HELD, tuple[int, ...]()
    if ended is None:
        offsets = tuple(ints_of(row[14]))
        held = _read_held(row[15])
    session = SessionState(info, last, ended, actions, checkpoints, unmarked, held)
    return Placed(session, chunk, offsets)


def _read_held(data: Any) -> Held:
    data = check_rows(data, _HELD_ROW)
    return PersistentMap({key: (at, place) for key, at, place in _HELD_ROW.iter_unpack(data)})


_PAIR = struct.Struct("<QQ")


def _packed(pairs: PersistentMap[int, int]) -> bytes:
    return b"".join(_PAIR.pack(*pair) for pair in sorted(pairs.items()))


def _unpacked(data: Any) -> PersistentMap[int, int]:
    return PersistentMap(_PAIR.iter_unpack(check_rows(data, _PAIR)))


def memory_row(memory: MemoryState) -> list[Any]:
    """Return the memory's state as a row."""
    branches = [
        [number, *branch[:5], _packed(branch.gone)]
        for number, branch in sorted(memory.branches.items())
    ]
    return [
        memory.last_frame,
        memory.frame_count,
        memory.memory_hash,
        memory.analyser,
        memory.embedding_model,
        memory.dimension,
        _packed(memory.gone),
        _packed(memory.owners),
        branches,
    ]


def read_memory_row(row: Any) -> MemoryState:
    """Read the memory's row.

    :raises ValueError: when it is no such row.
    """
    last, count, digest, analyser, model, dimension, gone, owners, rows = fields_of(row, 9)[:9]
    ints_of([last, count, dimension])
    if not all(name is None or isinstance(name, str) for name in (analyser, model)):
        raise ValueError("a memory has a bad analyser or model")
    branches: dict[int, Branch] = {}
    for fields in fields_of(rows, 0):
        number, parent, sequence, frame, frames, hashed, erased = fields_of(fields, 7)[:7]
        ints_of([number, parent, sequence, frame, frames])
        if parent >= number or (parent and parent not in branches):
            raise ValueError("a branch has no parent")
        branches[number] = Branch(
            parent, sequence, frame, frames, _digest(hashed), _unpacked(erased)
        )
    return MemoryState(
        last,
        count,
        _digest(digest),
        analyser,
        model,
        dimension,
        _unpacked(gone),
        _unpacked(owners),
        PersistentMap(branches),
    )


def _digest(value: Any) -> bytes:
    if not (isinstance(value, bytes) and len(value) == 32):
        raise ValueError("a digest has a wrong type or length")
    return value


def encode_toc(toc: Toc) -> bytes:
    """Encode the payload of a TOC segment. The segment itself has the TOC's sequence."""
    state = toc.state
    data: bytes = cbor2.dumps(
        [
            state.last_sequence,
            state.last_time_ns,
            state.ambient,
            memory_row(state.memory),
            state.beyond,
            [session_row(placed) for placed in toc.open_sessions],
            [session_row(placed) for placed in toc.ended],
            list(toc.deleted),
            list(toc.pages),
            toc.contents,
            toc.marks,
            toc.content_count,
            [[MEMORY, *toc.saved_index, toc.memory_chunk, *toc.memory_offsets]],
        ]
    )
    return data


def decode_toc(payload: bytes, generation: int) -> Toc:
    """Decode a TOC. Its state has no sessions yet, because those in pages are missing.

    :raises ValueError: when the payload is no TOC.
    """
    fields = fields_of(decode_value(payload, most=MOST_ITEMS), 13)
    sequence, time_ns, ambient, memory, beyond = fields[:5]
    opened, ended, deleted, pages, contents, marks, content_count, projections = fields[5:13]
    ints_of([sequence, time_ns, ambient or 0, content_count])
    saved, through, memory_chunk, *memory_offsets = _projection(projections, MEMORY)
    if not (ambient is None or type(ambient) is int):
        raise ValueError("a TOC has a bad ambient session")
    check_rows(contents, CONTENT_ROW)
    check_rows(marks, MARK_ROW)
    state = State(
        last_sequence=sequence,
        last_time_ns=time_ns,
        ambient=ambient,
        generation=generation,
        memory=read_memory_row(memory),
        beyond=beyond is True,
    )
    first, second, third = ints_of(pages, 3)[:3]
    return Toc(
        state,
        tuple(map(read_session_row, fields_of(opened, 0))),
        tuple(map(read_session_row, fields_of(ended, 0))),
        tuple(ints_of(deleted)),
        (first, second, third),
        contents,
        marks,
        content_count,
        memory_chunk,
        tuple(memory_offsets),
        (saved, through),
    )


def _projection(rows: Any, name: str) -> list[int]:
    """Return a TOC's row for a projection, without the name; zeros when it has none.

    The row: the offset of the last save, the last event folded into that, the offset of the last
    chunk of positions, and the offsets since that chunk.
    """
    found = [0, 0, 0]
    for row in fields_of(rows, 0):
        own, *places = fields_of(row, 4)
        if own == name:
            found = ints_of(places, 3)
    return found


def with_sessions(state: State, sessions: Iterable[SessionState]) -> State:
    """Return the state with exactly these sessions."""
    by_number = {session.info.number: session for session in sessions}
    return State(
        state.last_sequence,
        state.last_time_ns,
        PersistentMap(by_number),
        PersistentMap({s.info.session_id: number for number, s in by_number.items()}),
        state.ambient,
        state.generation,
        state.memory,
        state.beyond,
    )
