"""The stream of a store: found, or created, and looked at before anything is read from it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..config import StoreConfig
from ..errors import NotAStoreError, StoreFailedError, StoreNotFoundError
from ..format.header import Header
from .connection import Connection, LostRaceError, StreamFacts
from .messages import BATCH_BYTES, encode_batch

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
) -> StreamFacts:
    """Return what the stream is; a writer creates it where there is none, with the log's header.

    :raises StoreNotFoundError: when there is none to read.
    :raises NotAStoreError: when it is not a store's.
    :raises StoreFailedError: when it has fewer replicas than asked.
    """
    name, facts = connection.address.name, connection.facts()
    if read_only and (facts is None or not facts.last):
        raise StoreNotFoundError(f"there is no store on a stream named {name}")
    if facts is None:
        connection.create(config.replicas or 1)
        facts = _known(connection)
    wrong = [key for key, value in _REQUIRED.items() if facts.config.get(key, value) != value]
    if wrong or facts.first > 1 or facts.config["subjects"] != [connection.address.subject]:
        what = ", ".join(wrong) or "its subject, or its first message"
        raise NotAStoreError(f"the stream {name} is not a store's: {what}")
    if config.replicas is not None and facts.replicas < config.replicas:
        raise StoreFailedError(
            f"the stream {name} has {facts.replicas} replicas, and {config.replicas} were asked "
            "for; `nats stream edit` changes that"
        )
    if not facts.last:
        data = (header or Header(config.new_id())).encode()
        (payload,) = encode_batch(0, (0, 0), bytes(BATCH_BYTES), data, connection.most_payload)
        # Where another process was first, its header is the log's.
        with suppress(LostRaceError):
            connection.publish(payload, 0, stored=lambda: True)
        facts = _known(connection)
    return facts


def _known(connection: Connection) -> StreamFacts:
    facts = connection.facts()
    if facts is None:
        raise StoreFailedError(f"the stream {connection.address.name} was deleted meanwhile")
    return facts
