"""The sessions of a state: the open ones as they are folded, the ended ones packed.

Ended sessions never change, and there may be very many. Each is kept as the bytes of its row, which
are decoded only when the session is looked up. So neither writing a TOC nor the garbage collector
has to visit each session.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from uuid import UUID

import cbor2

from ..config import DEFAULT_RECORDING, recording_config
from ..errors import CorruptFileError
from ..events.fork_rows import MOST_ACTIONS, fork_row, pack_calls, read_fork_row, unpack_calls
from ..events.values import decode_untagged, decode_value, is_time
from .persistent_map import PersistentMap
from .session_state import NO_SUMS, NONE_IN_FLIGHT, SessionInfo, SessionState, Sums

# A row is an array of fewer than 24 items that begins with the session's id. So the id is always at
# the same place: after the head of the array (1 byte) and the head of the 16 bytes (0x50).
_ID_HEAD, _ID_AT, _ID_END = 0x50, 2, 18


# The head of a row's array, and its last fields where a session has nothing but its begin: most
# have, among very many, and their rows are encoded in half the time.
_ROW_HEAD = b"\x91"
_NOTHING_ELSE: bytes = cbor2.dumps((0, None, None, None, None, tuple(NO_SUMS), b""))[1:]


def pack_session(session: SessionState) -> bytes:
    """Return a session as the bytes of its row, without the messages that an open one holds."""
    # Unpacked at once: looking up each field takes three times as long.
    info, last, ended, actions, checkpoints, unmarked, _, error, in_flight, sums = session
    config = info.config
    # fmt: off
    begin = (
        info.session_id.bytes, info.number, info.name, info.created_ns, ended, last, actions,
        checkpoints, unmarked, info.ambient,
    )
    # fmt: on
    if (
        sums is NO_SUMS
        and config is DEFAULT_RECORDING
        and error is None
        and info.fork is None
        and in_flight is NONE_IN_FLIGHT
        and not info.metadata
    ):
        short: bytes = cbor2.dumps(begin)
        return _ROW_HEAD + short[1:] + _NOTHING_ELSE
    row = (
        *begin,
        config.auto_checkpoint_interval,
        config.max_actions,
        None if info.fork is None else fork_row(info.fork),
        error,
        info.metadata or None,
        # Not as a named tuple, of which the encoder asks more.
        tuple(sums),
        b"" if in_flight is NONE_IN_FLIGHT else pack_calls(in_flight.items()),
    )
    packed: bytes = cbor2.dumps(row)
    return packed


def packed_id(packed: bytes) -> bytes:
    """Return the id in the bytes of a session's row.

    :raises ValueError: when there is none.
    """
    if len(packed) < _ID_END or packed[_ID_AT - 1] != _ID_HEAD:
        raise ValueError("a session row does not begin with an id")
    return packed[_ID_AT:_ID_END]


def unpack_session(packed: bytes) -> SessionState:
    """Return the session in the bytes of a row. A newer release may have added fields at its end.

    :raises ValueError: when the bytes are not such a row.
    """
    session_id = UUID(bytes=packed_id(packed))
    fields = decode_untagged(packed)
    if not isinstance(fields, list) or len(fields) < 17:
        raise ValueError("a session row is not a list, or is too short")
    number, name, created, ended, last, actions, checkpoints, unmarked = fields[1:9]
    ambient, interval, most, fork, error, metadata, sums, in_flight = fields[9:17]
    if not isinstance(sums, list) or len(sums) < len(Sums._fields):
        raise ValueError("a session row has no sums")
    sums = sums[: len(Sums._fields)]
    for count in (number, actions, checkpoints, unmarked, *sums):
        if type(count) is not int or not 0 <= count < 2**63:
            raise ValueError("a session row has a bad count")
    if actions >= MOST_ACTIONS:
        raise ValueError("a session row counts more actions than a session can have")
    if not all(map(is_time, (created, last, created if ended is None else ended))):
        raise ValueError("a session row has a bad time")
    if not all(text is None or isinstance(text, str) for text in (name, error)):
        raise ValueError("a session row has a bad name or error")
    if not (metadata is None or (isinstance(metadata, bytes) and is_map(metadata))):
        raise ValueError("a session row has bad metadata")
    try:
        forked, calls = read_fork_row(fork), dict(unpack_calls(in_flight))
    except TypeError as wrong:
        raise ValueError(str(wrong)) from None
    config = recording_config(interval, most)
    info = SessionInfo(
        number, session_id, name, created, ambient is True, config, forked, metadata or b""
    )
    return SessionState(
        info,
        last,
        ended,
        actions,
        checkpoints,
        unmarked,
        error=error,
        # Most sessions share these: the collector visits what each of 50,000 open ones has alone.
        in_flight=PersistentMap(calls) if calls else NONE_IN_FLIGHT,
        sums=Sums(*sums) if any(sums) else NO_SUMS,
    )


def is_map(data: bytes) -> bool:
    """Whether the bytes are a map in CBOR, as metadata must be."""
    try:
        return isinstance(decode_value(data), dict)
    except ValueError:
        return False


class SessionMap(Mapping[int, SessionState]):
    """Sessions by number, without deleted ones. Setting or deleting one returns a new map.

    ``open``: the open ones. ``packed``: the ended ones, as :func:`pack_session` returns them.
    Looking one up raises :class:`CorruptFileError` when its row is not valid.
    """

    __slots__ = ("open", "packed")

    def __init__(
        self, opened: PersistentMap[int, SessionState], packed: PersistentMap[int, bytes]
    ) -> None:
        self.open = opened
        self.packed = packed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SessionMap):
            return NotImplemented
        return self.open == other.open and self.packed == other.packed

    # It holds maps, which have no hash.
    __hash__ = None  # type: ignore[assignment]

    def get(self, number: int, default: Any = None) -> Any:
        """Return a session, or ``default``."""
        session = self.open.get(number)
        if session is not None:
            return session
        packed = self.packed.get(number)
        return default if packed is None else _unpacked(packed)

    def __getitem__(self, number: int) -> SessionState:
        session = self.open.get(number)
        return session if session is not None else _unpacked(self.packed[number])

    def __contains__(self, number: object) -> bool:
        return number in self.open or number in self.packed

    def __len__(self) -> int:
        return len(self.open) + len(self.packed)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the numbers, in the order in which the sessions began."""
        return iter(sorted((*self.open, *self.packed)))

    def session_id(self, number: int) -> UUID | None:
        """Return the id of a session; None when there is none with this number."""
        opened = self.open_id(number)
        if opened is not None:
            return opened
        packed = self.packed.get(number)
        return None if packed is None else UUID(bytes=packed_id(packed))

    def open_id(self, number: int) -> UUID | None:
        """Return the id of an open session; None when there is none with this number."""
        session = self.open.get(number)
        return None if session is None else session.info.session_id

    def set(self, number: int, session: SessionState) -> SessionMap:
        """Return a map that also has this session."""
        if session.ended_ns is None:
            return self.set_open(number, session)
        opened = self.open.delete(number) if number in self.open else self.open
        return SessionMap(opened, self.packed.set(number, pack_session(session)))

    def set_open(self, number: int, session: SessionState) -> SessionMap:
        """Return a map that also has this session, which is open."""
        opened = self.open.set(number, session)
        # A draft is changed itself.
        return self if opened is self.open else SessionMap(opened, self.packed)

    def delete(self, number: int) -> SessionMap:
        """Return a map without this session.

        :raises KeyError: when there is none with this number.
        """
        if number in self.open:
            return SessionMap(self.open.delete(number), self.packed)
        return SessionMap(self.open, self.packed.delete(number))

    def listed(
        self,
        *,
        include_open: bool,
        newest_first: bool = False,
        after: int | None = None,
        limit: int | None = None,
    ) -> Iterator[SessionState]:
        """Iterate over sessions in the order in which they began; the open ones only if asked for.

        ``newest_first``: in the opposite order. ``after``: only those that come after the session
        with this number. ``limit``: at most this many.
        """
        numbers = self.packed.key_list()
        if include_open:
            numbers += self.open.key_list()
        # They are in order but for the sessions that ended in another one.
        numbers.sort()
        if newest_first:
            wanted = reversed(range(len(numbers) if after is None else bisect_left(numbers, after)))
        else:
            wanted = iter(range(0 if after is None else bisect_right(numbers, after), len(numbers)))
        return (self[numbers[at]] for at in islice(wanted, limit))


def _unpacked(packed: bytes) -> SessionState:
    try:
        return unpack_session(packed)
    except ValueError as error:
        raise CorruptFileError(0, f"a page of ended sessions is not valid: {error}") from None


NO_SESSIONS = SessionMap(PersistentMap(), PersistentMap())
