"""Asking any replica of a stream for messages
(https://docs.nats.io/nats-concepts/jetstream/streams#direct-get)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.client import Client

# One answer of the server to a request may take this many seconds; then it is asked again.
ANSWER = 2.0


async def get_messages(
    client: Client, stream: str, first: int, count: int, size: int
) -> tuple[list[tuple[int, bytes]], int]:
    """Return the messages that one replica has from the sequence ``first`` on, in a row: at most
    ``count``, which reach ``size`` bytes, or one. Where it lacks the first and has later ones, also
    the sequence of the next of these; else 0.

    :raises TimeoutError: when no answer comes.
    """
    found: list[tuple[int, bytes]] = []
    inbox = client.new_inbox()
    arrived = await client.subscribe(inbox)
    try:
        body = {"seq": first, "batch": count, "max_bytes": max(1, size)}
        what = f"$JS.API.DIRECT.GET.{stream}"
        await client.publish(what, json.dumps(body).encode(), reply=inbox)
        while True:
            message = await arrived.next_msg(ANSWER)
            headers = message.headers or {}
            if "Status" in headers or "Nats-Sequence" not in headers:
                return found, 0
            sequence = int(headers["Nats-Sequence"])
            if sequence != first + len(found):
                return found, 0 if found else sequence
            found.append((first + len(found), message.data))
    finally:
        with suppress(Exception):
            await arrived.unsubscribe()
