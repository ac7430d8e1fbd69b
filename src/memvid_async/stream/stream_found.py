"""Which of a store's streams its log is on, and reading it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..config import StoreConfig
from ..errors import CorruptFileError, NotAStoreError, StoreFailedError, StoreNotFoundError
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
from .server_answers import LostRaceError, MessageLostError, StreamFacts, StreamGoneError
from .server_sync import check_sync
from .stream_storage import FETCH_BYTES, StreamStorage

# How a stream must be configured, so that it loses nothing by itself and can be appended to.
_REQUIRED: Mapping[str, Any] = {
    "retention": "limits",
    "max_age": 0,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "allow_direct": True,
    "storage": "file",
    "discard": "new",
    "mirror": None,
    "sources": None,
    "sealed": False,
    "max_msg_size": -1,
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
        try:
            found = _find(connection, config, streams, header)
            if found is None:
                continue
            stream, facts, newest = found
            storage = _read(connection, stream, facts.last, newest, config.limits.mirror_bytes)
            file = LogFile.load(storage, read_only=True)
            if not read_only:
                _use(connection, stream, storage)
                _delete_before(connection, stream, streams)
        except (StreamGoneError, LostRaceError):
            # A compaction may replace it at any moment.
            continue
        except MessageLostError as lost:
            raise CorruptFileError(_end_before(connection, lost), str(lost)) from lost
        return stream, facts, storage, file
    raise StoreFailedError("the servers do not say which of the store's streams has its log")


def _end_before(connection: Connection, lost: MessageLostError) -> int:
    """Return the offset in the log at which a lost message began, as far as that is known."""
    before = lost.sequence - 1
    with suppress(MessageLostError):
        for _, payload in connection.fetch(lost.stream, before, 1, before) if before else ():
            message = decode_message(payload)
            is_whole = message.kind == MessageKind.LOG and message.parts == 1
            return message.at + (len(message.data) if is_whole else 0)
    return 0


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
) -> tuple[StreamName, StreamFacts, tuple[int, bytes]] | None:
    """Return which of a store's streams has its log, with its last message and the sequence of
    that; None where that is not known yet.

    It is the first one that is used, or to which one before has moved, and that has not moved
    itself. Any other one was left by a compaction, or is being written by one; or the one that
    moved there is missing in the list.
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
        _check(stream, facts, config, writes=header is not None)
        check_sync(config, facts.replicas)
        if not facts.last:
            # Beside others it is a copy that has just begun, or was created by one that was not
            # told of the others. It may also be a leader that lags: so it is not deleted here.
            if len(streams) == 1 and not stream.number:
                _begin(connection, stream, header)
            continue
        newest = _newest(connection, stream, facts.last)
        if newest is None:
            return None
        last = decode_message(newest[1])
        if last.kind == MessageKind.MOVED:
            following = last.next_number
        elif stream.number in (0, following) or not last.is_copied:
            return stream, facts, newest
    return None


def _newest(connection: Connection, stream: StreamName, last: int) -> tuple[int, bytes] | None:
    """Return the last message of a store, with its sequence; None when the stream is gone.

    :raises NotAStoreError: when there is none.
    """
    for sequence in range(last, 0, -1):
        found = connection.fetch(stream, sequence, 1, sequence)
        if not found:
            return None
        if decode_message(found[0][1]).kind != MessageKind.FOREIGN:
            return found[0]
    raise NotAStoreError(f"the stream {stream.name} holds no message of a store")


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


def _check(stream: StreamName, facts: StreamFacts, config: StoreConfig, *, writes: bool) -> None:
    if "memvid-async" not in facts.config.get("metadata", {}):
        raise NotAStoreError(f"there is a stream named {stream.name} that is not a store's")
    needed: Mapping[str, Any] = {
        **_REQUIRED,
        "subjects": [stream.subject],
        "republish": {"src": stream.subject, "dest": stream.news_subject},
    }
    # What is not said has the value that it must have, but for the subject of the news.
    has = {**needed, "republish": None, **facts.config}
    wrong = ", ".join(f"{key}={has[key]!r}" for key in needed if has[key] != needed[key])
    # What can be read can be copied to another place.
    if wrong and (writes or has["allow_direct"] is False):
        raise StoreFailedError(
            f"somebody changed the settings of the stream {stream.name}, and it may lose what it "
            f"holds: {wrong}; `nats stream edit` changes them back"
        )
    if facts.first > 1:
        raise CorruptFileError(
            0,
            f"the first {facts.first - 1} messages of the stream {stream.name} are gone; "
            "recover() saves what is left",
        )
    if config.replicas is not None and facts.replicas < config.replicas:
        raise StoreFailedError(
            f"the stream {stream.name} has {facts.replicas} replicas, and {config.replicas} were "
            "asked for; `nats stream edit` changes that"
        )


def _read(
    connection: Connection, stream: StreamName, last: int, newest: tuple[int, bytes], most: int
) -> StreamStorage:
    """Return the bytes of a stream up to its message ``last``. The batch of the ``newest`` message
    of a store is read now, what is before when it is needed. ``most``: how many bytes are held in
    memory."""

    def fetch(first: int, count: int, size: int) -> list[tuple[int, bytes]]:
        found = connection.fetch(stream, first, count, first, size)
        if not found:
            raise StreamGoneError(f"the stream {stream.name} is gone: the store was compacted")
        return found

    storage = StreamStorage(fetch, most)
    sequence = storage.start_before(*newest)
    while sequence <= last:
        end = newest[0] if sequence < newest[0] else last + 1
        known = sequence == newest[0]
        for each in [newest] if known else fetch(sequence, end - sequence, FETCH_BYTES):
            storage.add(*each)
        sequence = storage.last + 1
    return storage
