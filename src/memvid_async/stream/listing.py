"""The stores on the streams of some servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from ..config import StoreConfig
from ..errors import MemvidAsyncError, StoreFailedError
from ..format.header import decode_header
from ..format.rows import decode_rows
from ..format.segment import SegmentKind, scan
from ..format.stubs import decode_stubs
from .address import Address, StreamName
from .client_loop import ClientLoops
from .connection import Connection
from .direct_get import ANSWER
from .messages import Message, MessageKind, decode_message


@frozen
class StoreSummary:
    """A store on a stream, as :func:`list_stores` lists it."""

    name: str
    """The last part of its address."""
    event_count: int
    """How many events it has, erased ones included."""
    byte_count: int
    """How many bytes its stream takes on each server that has a replica."""
    replicas: int
    """How many servers have it."""
    last_ns: int
    """When the servers stored something in it last, in nanoseconds since the Unix epoch."""


class ServersConnection(Connection):
    """A connection that asks for all streams of the servers, and not for one store's alone."""

    def fetch_one(self, name: str, sequence: int) -> bytes:
        """Return one message of the stream with this name, which is known to have it.

        :raises StoreFailedError: when it has not.
        """

        async def fetch() -> bytes:
            assert self._client is not None
            what, body = f"$JS.API.DIRECT.GET.{name}", json.dumps({"seq": sequence}).encode()
            reply = await self._client.request(what, body, timeout=ANSWER)
            if "Nats-Sequence" not in (reply.headers or {}):
                raise StoreFailedError(f"the stream {name} has lost its message {sequence}")
            data: bytes = reply.data
            return data

        return self._answer(fetch)

    def streams(self) -> Iterator[dict[str, Any]]:
        """Iterate over all streams, as the servers describe them."""
        offset = 0
        while True:
            body = {"offset": offset}
            answer = self._told("STREAM.LIST", body) or {}
            page = answer.get("streams") or []
            yield from page
            offset += len(page)
            if not page or offset >= answer["total"]:
                return


def read_summaries(
    address: Address, config: StoreConfig, loops: ClientLoops, tell: Callable[[int, int], None]
) -> list[StoreSummary]:
    """Return the stores there, by name, without other streams and those that hold nothing.

    ``tell`` is called with the streams looked at, and how many there are.

    :raises StoreFailedError: when no server answers, or refuses.
    """
    options, patience = config.nats_options, config.server_timeout
    connection = ServersConnection.open(address, options, patience, loops.new())
    try:
        streams = [info for info in connection.streams() if _is_ours(info)]
        streams.sort(key=lambda info: StreamName.parse(info["config"]["name"]).number)
        found: dict[str, StoreSummary] = {}
        following: dict[str, int] = {}
        for done, info in enumerate(streams):
            tell(done, len(streams))
            # Where a store has several, it is being compacted, or was: the first one counts that is
            # used and has not moved, or that one has moved to.
            stream = StreamName.parse(info["config"]["name"])
            name = stream.store
            if name in found or stream.number < following.get(name, 0):
                continue
            summary = _summary(connection, stream, info, following.get(name, 0))
            if isinstance(summary, StoreSummary):
                found[name] = summary
            elif summary is not None:
                following[name] = summary
    finally:
        connection.close()
    return [found[name] for name in sorted(found)]


def _is_ours(info: dict[str, Any]) -> bool:
    return "memvid-async" in info["config"].get("metadata", {}) and bool(info["state"]["last_seq"])


def _summary(
    connection: ServersConnection, stream: StreamName, info: dict[str, Any], following: int
) -> StoreSummary | int | None:
    """Return what a stream's store is; where its log has moved, the number of the next stream; None
    where it cannot be read, or is a copy that nobody uses.

    ``following``: the number of the stream to which one before has moved.
    """
    config, state = info["config"], info["state"]
    try:
        newest = decode_message(connection.fetch_one(config["name"], state["last_seq"]))
        if newest.kind == MessageKind.MOVED:
            return newest.next_number
        if newest.is_copied and stream.number not in (0, following):
            return None
        count = _event_count(connection, config["name"], state["last_seq"])
    except MemvidAsyncError:
        # It was deleted meanwhile, or somebody else wrote to it.
        return None
    told = datetime.fromisoformat(state["last_ts"]).astimezone(UTC)
    return StoreSummary(
        stream.store,
        count,
        state["bytes"],
        config["num_replicas"],
        round(told.timestamp() * 1_000_000_000),
    )


def _event_count(connection: ServersConnection, name: str, last: int) -> int:
    """Return the sequence of the last event: the last whole batch tells it."""

    def message(at: int) -> Message:
        return decode_message(connection.fetch_one(name, at))

    salt = decode_header(message(1).data).salt
    while last > 1:
        found = message(last)
        first = last - found.part
        if found.kind != MessageKind.LOG:
            last -= 1
            continue
        if found.part == found.parts - 1:
            data = b"".join([message(at).data for at in range(first, last)] + [found.data])
            return _last_sequence(data, salt)
        # Its writer is at it, or died.
        last = first - 1
    return 0


def _last_sequence(data: bytes, salt: int) -> int:
    *_, segment = scan(lambda at, length: data[at : at + length], 0, len(data), None, salt)
    count = 0
    if segment.kind == SegmentKind.EVENTS:
        count = len(decode_rows(segment.payload)[2])
    elif segment.kind == SegmentKind.STUBS:
        count = sum(count for _, count in decode_stubs(segment.payload))
    return segment.sequence + count - 1
