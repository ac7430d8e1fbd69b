"""Which of a store's streams its log is on, and reading it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..config import StoreConfig
from ..errors import NotAStoreError, StoreFailedError, StoreNotFoundError
from ..file.log_file import LogFile
from ..format.header import Header
from .address import StreamName
from .connection import Connection
from .messages import (
    BATCH_BYTES,
    COPYING,
    WRITER_BYTES,
    MessageKind,
    decode_message,
    encode_batch,
    encode_mark,
)
from .server_answers import LostRaceError, StreamFacts, StreamGoneError
from .server_sync import check_sync
from .stream_storage import FETCH_BYTES, StreamStorage

# How a stream must be configured, so that it loses nothing by itself.
_REQUIRED: Mapping[str, Any] = {
    "retention": "limits",
    "max_age": 0,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "allow_direct": True,
    "storage": "file",
}


def load_stream(
    connection: Connection,
    config: StoreConfig,
    header: Callable[[], Header] | None,
    *,
    read_only: bool,
) -> tuple[StreamName, StreamFacts, StreamStorage, LogFile]:
    """Return the stream that has the log, what it is, its bytes, and the log in them, folded.

    ``header``: returns the log's, where there is none yet; None where it is not to be created.

    :raises StoreNotFoundError: when there is none, and it is not to be created.
    :raises NotAStoreError: when it is not a store's.
    :raises StoreFailedError: when it has fewer replicas than asked, or when the servers contradict
        each other for too long.
    :raises CorruptFileError: when the log is damaged.
    """
    for _ in connection.looks(config.server_timeout):
        streams = connection.own_streams()
        if not streams:
            _create(connection, config, header)
            continue
        # A compaction may replace it at any moment.
        with suppress(StreamGoneError, LostRaceError):
            found = _find(connection, config, streams, header)
            if found is None:
                continue
            stream, facts, newest = found
            storage = _read(connection, stream, facts.last, newest, config.limits.mirror_bytes)
            file = LogFile.load(storage, read_only=True)
            if not read_only:
                _use(connection, stream, storage)
                _delete_before(connection, stream, streams)
            return stream, facts, storage, file
    raise StoreFailedError("the servers do not say which of the store's streams has its log")


def _create(
    connection: Connection, config: StoreConfig, header: Callable[[], Header] | None
) -> None:
    """Create the first stream. Then it is looked again: a server that was just elected may not have
    known of the others, but one that creates a stream knows of all."""
    if header is None:
        raise StoreNotFoundError(f"there is no store on a stream named {connection.address.name}")
    connection.create(StreamName(connection.address.name), config.replicas or 1)


def _find(
    connection: Connection,
    config: StoreConfig,
    streams: Sequence[StreamName],
    header: Callable[[], Header] | None,
) -> tuple[StreamName, StreamFacts, bytes] | None:
    """Return which of a store's streams has its log, with its last message; None where that is not
    known yet.

    It is the first one that does not say that the log goes on in another. What follows it was left
    by a compaction, or is being written by one. So is one that nobody has begun to use, unless the
    one before says so: that one may be missing in the list.
    """
    following = 0
    for stream in streams:
        if stream.number < following:
            # A killed compaction left it.
            continue
        facts = connection.facts(stream)
        if facts is None:
            # It was deleted since they were listed.
            return None
        _check(stream, facts, config)
        check_sync(config, facts.replicas)
        if not facts.last:
            # Beside others it is a copy that has just begun, or was created by one that was not
            # told of the others. It may also be a leader that lags: so it is not deleted here.
            if len(streams) == 1 and not stream.number:
                _begin(connection, stream, header)
            continue
        found = connection.fetch(stream, facts.last, 1, facts.last)
        if not found:
            return None
        payload = found[0][1]
        last = decode_message(payload)
        if last.kind != MessageKind.MOVED:
            is_used = not stream.number or last.batch[:WRITER_BYTES] != COPYING
            return (stream, facts, payload) if is_used or stream.number == following else None
        following = last.next_number
    return None


def _begin(connection: Connection, stream: StreamName, header: Callable[[], Header] | None) -> None:
    """Append the header to the first stream, which is empty."""
    if header is None:
        raise StoreNotFoundError(f"there is no store on a stream named {connection.address.name}")
    data = header().encode()
    (payload,) = encode_batch(0, (0, 0), bytes(BATCH_BYTES), data, connection.most_payload)
    # Where another process was first, its header is the log's.
    connection.publish(stream, payload, 0, stored=lambda: True)


def _use(connection: Connection, stream: StreamName, storage: StreamStorage) -> None:
    """Say in a stream that a compaction wrote that the log goes on there, unless somebody did.

    :raises LostRaceError: when somebody has just done so.
    """
    if stream.number and storage.last_batch[:WRITER_BYTES] == COPYING:
        batch = os.urandom(BATCH_BYTES)
        payload = encode_mark(MessageKind.BEGUN, storage.size(), storage.toc, batch)
        # One that was sent twice counts as lost: then it is looked again.
        sequence = connection.publish(stream, payload, storage.last, stored=lambda: False)
        storage.add(sequence, payload)


def _delete_before(
    connection: Connection, stream: StreamName, streams: Sequence[StreamName]
) -> None:
    """Delete the streams that this one has replaced: the process that compacted them may have been
    killed before that."""
    for one in streams:
        if one.number < stream.number:
            # Where that fails, the next one that opens the store does it.
            with suppress(StoreFailedError):
                connection.delete(one)


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


def _read(
    connection: Connection, stream: StreamName, last: int, newest: bytes, most: int
) -> StreamStorage:
    """Return the bytes of a stream up to its message ``last``, which is ``newest``: its batch is
    read now, what is before when it is needed. ``most``: how many bytes are held in memory."""

    def fetch(first: int, count: int, size: int) -> list[tuple[int, bytes]]:
        found = connection.fetch(stream, first, count, first, size)
        if not found:
            raise StreamGoneError(f"the stream {stream.name} is gone: the store was compacted")
        return found

    storage = StreamStorage(fetch, most)
    sequence = storage.start_before(last, newest)
    while sequence < last:
        for sequence, payload in fetch(sequence, last - sequence, FETCH_BYTES):  # noqa: B020
            storage.add(sequence, payload)
        sequence += 1
    storage.add(last, newest)
    return storage
