"""Which of a store's streams its log is on, and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..config import StoreConfig
from ..errors import NotAStoreError, StoreFailedError, StoreNotFoundError
from ..file.log_file import LogFile
from ..format.header import Header
from .address import StreamName
from .connection import Connection
from .messages import BATCH_BYTES, MessageKind, decode_message, encode_batch
from .server_answers import LostRaceError, StreamFacts, StreamGoneError
from .server_sync import check_sync
from .stream_storage import StreamStorage

# How a stream must be configured, so that it loses nothing by itself.
_REQUIRED: Mapping[str, Any] = {
    "retention": "limits",
    "max_age": 0,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "allow_direct": True,
    "storage": "file",
}


def find_stream(
    connection: Connection, config: StoreConfig, header: Header | None, *, read_only: bool
) -> tuple[StreamName, StreamFacts]:
    """Return the stream that has the log, and what it is; a writer creates the first one, with the
    log's header: ``header``, or one with a new id.

    It is the first one that does not say that the log goes on in the next. What follows it was left
    by a compaction, or is being written by one.

    :raises StoreNotFoundError: when there is none to read.
    :raises NotAStoreError: when it is not a store's.
    :raises StoreFailedError: when it has fewer replicas than asked, or when the servers contradict
        each other for too long.
    """
    for _ in connection.looks(config.server_timeout):
        streams = listed = connection.own_streams()
        if not listed:
            streams = [StreamName(connection.address.name)]
            if not read_only:
                connection.create(streams[0], config.replicas or 1)
        for stream in streams:
            facts = connection.facts(stream)
            if facts is None and (listed or not read_only):
                # It was deleted since they were listed.
                break
            if facts is None or (read_only and not facts.last):
                where = connection.address.name
                raise StoreNotFoundError(f"there is no store on a stream named {where}")
            _check(stream, facts, config)
            check_sync(config, facts.replicas)
            if not facts.last:
                _begin(connection, stream, header or Header(config.new_id()))
                break
            found = connection.fetch(stream, facts.last, 1, facts.last)
            if not found:
                break
            if decode_message(found[0][1]).kind != MessageKind.MOVED:
                return stream, facts
            if not read_only and stream is not streams[-1]:
                # The process that compacted it was killed before that.
                connection.delete(stream)
    raise StoreFailedError("the servers do not say which of the store's streams has its log")


def load_stream(
    connection: Connection, config: StoreConfig, header: Header | None, *, read_only: bool
) -> tuple[StreamName, StreamFacts, StreamStorage, LogFile]:
    """Return what :func:`find_stream` finds, its bytes, and the log in them, folded.

    :raises MemvidAsyncError: as :func:`find_stream` does, and where the log is damaged.
    """
    while True:
        stream, facts = find_stream(connection, config, header, read_only=read_only)
        # A compaction may replace it at any moment.
        with suppress(StreamGoneError):
            storage = read_stream(connection, stream, facts.last, config.limits.mirror_bytes)
            return stream, facts, storage, LogFile.load(storage, read_only=True)


def _check(stream: StreamName, facts: StreamFacts, config: StoreConfig) -> None:
    wrong = [key for key, value in _REQUIRED.items() if facts.config.get(key, value) != value]
    if wrong or facts.first > 1 or facts.config["subjects"] != [stream.subject]:
        what = ", ".join(wrong) or "its subject, or its first message"
        raise NotAStoreError(f"the stream {stream.name} is not a store's: {what}")
    if config.replicas is not None and facts.replicas < config.replicas:
        raise StoreFailedError(
            f"the stream {stream.name} has {facts.replicas} replicas, and {config.replicas} were "
            "asked for; `nats stream edit` changes that"
        )


def _begin(connection: Connection, stream: StreamName, header: Header) -> None:
    data = header.encode()
    (payload,) = encode_batch(0, (0, 0), bytes(BATCH_BYTES), data, connection.most_payload)
    # Where another process was first, its header is the log's.
    with suppress(LostRaceError):
        connection.publish(stream, payload, 0, stored=lambda: True)


def read_stream(connection: Connection, stream: StreamName, last: int, most: int) -> StreamStorage:
    """Return the bytes of a stream up to its message ``last``: the end is read now, what is before
    when it is needed. ``most``: how many bytes are held in memory."""

    def fetch(first: int, count: int) -> list[tuple[int, bytes]]:
        found = connection.fetch(stream, first, count, known=first)
        if not found:
            raise StreamGoneError(f"the stream {stream.name} is gone: the store was compacted")
        return found

    storage = StreamStorage(fetch, most)
    sequence = storage.start_before(last)
    while sequence <= last:
        for sequence, payload in fetch(sequence, 1024):  # noqa: B020
            storage.add(sequence, payload)
        sequence += 1
    return storage
