"""What opening needs: the folded state as saved in a TOC, and the rows of sessions in pages.

All of it is derived from the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple

import cbor2
from attrs import field, frozen

from ..core.collections_state import CollectionInfo, CollectionsState
from ..core.memory_state import Branch, MemoryState
from ..core.persistent_map import PersistentMap
from ..core.session_map import SessionMap, pack_session, packed_id, unpack_session
from ..core.session_state import NOTHING_HELD, Held, SessionState
from ..core.state import State
from ..events.values import decode_untagged, is_time
from ..format.tables import (
    CONTENT_ROW,
    MARK_ROW,
    MOST_ITEMS,
    NUMBER_ROW,
    PROJECTIONS,
    USED_KEY_ROW,
    check_rows,
    fields_of,
    ints_of,
)

_HELD_ROW = Struct("<16sII")


class OpenSession(NamedTuple):
    """An open session's state, and where its segments are."""

    session: SessionState
    chunk: int
    """The offset of the session's last chunk of positions, which names the one before; 0: none."""
    offsets: tuple[int, ...] = ()
    """The offsets of the segments after those."""


@frozen
class EndedSessions:
    """Ended sessions, as a page or a TOC holds them: in columns, with rows that stay encoded."""

    numbers: Sequence[int] = ()
    """The number of each session."""
    chunks: Sequence[int] = ()
    """The offset of each session's last chunk of positions, which names the chunk before."""
    rows: Sequence[bytes] = ()
    """The row of each session (:func:`..core.session_map.pack_session`)."""


@frozen
class SavedPlace:
    """Where a projection was saved last, and where the segments are that it folds."""

    offset: int = 0
    """The offset of the last part of its last save; 0 for none."""
    through: int = 0
    """The sequence of the last event folded into that save."""
    chunk: int = 0
    """The offset of the last chunk of positions; 0 for none."""
    offsets: Sequence[int] = ()
    """The offsets of the segments after those."""


@frozen
class Toc:
    """A folded state as saved, with what is in no page yet."""

    state: State
    open_sessions: tuple[OpenSession, ...]
    """Open sessions that changed since they were in a page, in the order in which they changed."""
    open_pages: tuple[int, ...]
    """The offsets of the pages that have the others, oldest first."""
    open_bytes: int
    """The size of the pages of open sessions that were written since the TOC before."""
    ended: EndedSessions
    """Ended sessions that are in no page yet."""
    deleted: bytes
    """Packed numbers of deleted sessions that are in no page yet."""
    pages: Mapping[int, int]
    """By table, the offset of the last of the pages that name the one before."""
    contents: bytes
    """Packed rows of stored contents that are in no page yet."""
    marks: bytes
    """Packed rows of marks that are in no page yet."""
    content_count: int
    """How many distinct contents are stored."""
    projections: Mapping[str, SavedPlace] = field(
        factory=lambda: dict.fromkeys(PROJECTIONS, SavedPlace())
    )
    """The projections, by name."""
    used_keys: bytes = b""
    """Packed rows of idempotency keys that are in no page yet."""


def open_row(found: OpenSession) -> list[Any]:
    """Return an open session as a row."""
    session, held = found.session, found.session.held
    packed = b""
    if held is not NOTHING_HELD:
        packed = b"".join([_HELD_ROW.pack(key, *at) for key, at in sorted(held.items())])
    return [pack_session(session), found.chunk, found.offsets, packed]


def read_open_row(row: Any) -> OpenSession:
    """Read the row of an open session.

    :raises ValueError: when it is not such a row.
    """
    packed, chunk, offsets, held = fields_of(row, 4)[:4]
    session = unpack_session(packed) if isinstance(packed, bytes) else None
    if session is None or session.ended_ns is not None:
        raise ValueError("an open session has no row, or that of an ended one")
    ints_of([chunk])
    session = session._replace(held=_read_held(held))
    return OpenSession(session, chunk, tuple(ints_of(offsets)))


def open_columns(numbers: Sequence[int], rows: list[list[Any]]) -> list[Any]:
    """Return open sessions as a page has them: ``[numbers, rows]``, the numbers packed."""
    return [b"".join(map(NUMBER_ROW.pack, numbers)), rows]


def read_open_columns(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Return the numbers of the open sessions in a page, and their rows, not read yet.

    :raises ValueError: when they are not such columns.
    """
    packed, rows = fields_of(value, 2)[:2]
    numbers = read_numbers(packed)
    if len(numbers) != len(fields_of(rows, 0)):
        raise ValueError("open sessions have columns of different lengths")
    return numbers, rows


def read_numbers(data: Any) -> tuple[int, ...]:
    """Return packed numbers or offsets.

    :raises ValueError: when they are not packed.
    """
    return tuple(number for (number,) in NUMBER_ROW.iter_unpack(check_rows(data, NUMBER_ROW)))


def ended_columns(found: EndedSessions) -> list[Any]:
    """Return ended sessions as ``[numbers, chunks, rows]``, the numbers and offsets packed."""
    pack = Struct(f"<{len(found.rows)}Q").pack
    return [pack(*found.numbers), pack(*found.chunks), list(found.rows)]


def read_ended_columns(value: Any) -> EndedSessions:
    """Read the columns of ended sessions. A row is decoded when its session is looked up.

    :raises ValueError: when they are not such columns.
    """
    numbers, chunks, rows = fields_of(value, 3)[:3]
    rows = fields_of(rows, 0)
    for column in (numbers, chunks):
        if not isinstance(column, bytes) or len(column) != 8 * len(rows):
            raise ValueError("ended sessions have columns of different lengths")
    if rows and set(map(type, rows)) != {bytes}:
        raise ValueError("ended sessions have a bad row")
    unpack = Struct(f"<{len(rows)}Q").unpack
    return EndedSessions(unpack(numbers), unpack(chunks), rows)


def _read_held(data: Any) -> Held:
    data = check_rows(data, _HELD_ROW)
    if not data:
        return NOTHING_HELD
    return PersistentMap({key: (at, place) for key, at, place in _HELD_ROW.iter_unpack(data)})


_PAIR = Struct("<QQ")


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

    :raises ValueError: when it is not such a row.
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
            [
                b"".join(map(NUMBER_ROW.pack, toc.open_pages)),
                toc.open_bytes,
                [open_row(found) for found in toc.open_sessions],
            ],
            ended_columns(toc.ended),
            toc.deleted,
            [list(item) for item in sorted(toc.pages.items())],
            toc.contents,
            toc.marks,
            toc.content_count,
            [
                [name, place.offset, place.through, place.chunk, *place.offsets]
                for name, place in toc.projections.items()
            ],
            toc.used_keys,
            collection_rows(state.collections),
        ]
    )
    return data


def decode_toc(payload: bytes, generation: int) -> Toc:
    """Decode a TOC. Its state has no sessions yet, because those in pages are missing.

    :raises ValueError: when the payload is not a TOC.
    """
    fields = fields_of(decode_untagged(payload, most=MOST_ITEMS), 15)
    sequence, time_ns, ambient, memory, beyond = fields[:5]
    opened, ended, deleted, pages, contents, marks, content_count, projections = fields[5:13]
    used_keys, collections = fields[13:15]
    ints_of([sequence, ambient or 0, content_count])
    if not is_time(time_ns):
        raise ValueError("a TOC has a bad time")
    if not (ambient is None or type(ambient) is int):
        raise ValueError("a TOC has a bad ambient session")
    check_rows(contents, CONTENT_ROW)
    check_rows(marks, MARK_ROW)
    open_pages, open_bytes, rows = fields_of(opened, 3)[:3]
    ints_of([open_bytes])
    state = State(
        last_sequence=sequence,
        last_time_ns=time_ns,
        ambient=ambient,
        generation=generation,
        memory=read_memory_row(memory),
        beyond=beyond is True,
        collections=read_collection_rows(collections),
    )
    return Toc(
        state,
        tuple(map(read_open_row, fields_of(rows, 0))),
        read_numbers(open_pages),
        open_bytes,
        read_ended_columns(ended),
        check_rows(deleted, NUMBER_ROW),
        dict(_pair(page) for page in fields_of(pages, 0)),
        contents,
        marks,
        content_count,
        {name: _projection(projections, name) for name in PROJECTIONS},
        check_rows(used_keys, USED_KEY_ROW),
    )


def _pair(value: Any) -> tuple[int, int]:
    table, offset = ints_of(fields_of(value, 2)[:2])
    return table, offset


def collection_rows(collections: CollectionsState) -> list[Any]:
    """Return the collections as rows, in the order of their numbers."""
    return [list(info) for _, info in sorted(collections.by_number.items())]


def read_collection_rows(rows: Any) -> CollectionsState:
    """Read the rows of the collections.

    :raises ValueError: when they are not such rows.
    """
    found = []
    for row in fields_of(rows, 0):
        number, name, has_values, has_lists = fields_of(row, 4)[:4]
        ints_of([number])
        flags = type(has_values) is bool and type(has_lists) is bool
        if not (isinstance(name, str) and flags):
            raise ValueError("a collection has a bad name or flag")
        found.append(CollectionInfo(number, name, has_values, has_lists))
    return CollectionsState(
        PersistentMap({info.number: info for info in found}),
        PersistentMap({info.name: info.number for info in found}),
    )


def _projection(rows: Any, name: str) -> SavedPlace:
    """Return what a TOC says of a projection.

    The row: the offset of the last save, the last event folded into that, the offset of the last
    chunk of positions, and the offsets since that chunk.
    """
    found = SavedPlace()
    for row in fields_of(rows, 0):
        own, *places = fields_of(row, 4)
        if own == name:
            offset, through, chunk, *offsets = ints_of(places, 3)
            found = SavedPlace(offset, through, chunk, tuple(offsets))
    return found


def with_sessions(
    state: State, opened: Iterable[SessionState], ended: Mapping[int, bytes]
) -> State:
    """Return the state with exactly these sessions, the ended ones by number as their rows.

    :raises ValueError: when its ambient session is not an open one.
    """
    by_number = {session.info.number: session for session in opened}
    if state.ambient is not None and state.ambient not in by_number:
        raise ValueError("the ambient session is not open")
    numbers = {packed_id(row): number for number, row in ended.items()}
    numbers.update((s.info.session_id.bytes, number) for number, s in by_number.items())
    sessions = SessionMap(PersistentMap(by_number), PersistentMap(ended))
    return state._replace(sessions=sessions, numbers=PersistentMap(numbers))
