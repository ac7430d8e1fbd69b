"""How soon the servers have on their disks what they acknowledge.

A client is not told. What says it is ``varz`` of a server, with the settings of JetStream and the
interval in nanoseconds: at its monitoring address, or to a user of the system account, whom all
servers of a cluster answer
(https://docs.nats.io/running-a-nats-service/nats_admin/monitoring,
https://docs.nats.io/running-a-nats-service/configuration/sys_accounts).
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..config import StoreConfig
from ..errors import MemvidAsyncError, StoreFailedError, UnknownSyncWarning
from .address import Address, is_address
from .connecting import connect_client, is_final

# A server answers within this many seconds, and all of a cluster within a few after the first.
_ANSWER = 5.0
_OTHERS = 0.5
_PING = "$SYS.REQ.SERVER.PING.VARZ"


def check_sync(config: StoreConfig, replicas: int) -> None:
    """Return if every server syncs as often as the configuration asks.

    :raises StoreFailedError: when one does not.
    """
    wanted = config.sync_interval
    if wanted is None:
        return
    known: set[str] = set()
    for monitor in config.nats_monitors:
        for told in _told(monitor):
            with suppress(LookupError, TypeError):
                seconds = _sync_interval(told["jetstream"]["config"])
                known.add(told["server_id"])
                if seconds > wanted:
                    raise StoreFailedError(
                        f"the server {told['server_name']} syncs every {seconds:g} s, and "
                        f"{wanted:g} s were asked for; `jetstream {{ sync_interval: always }}` in "
                        "its configuration is 0"
                    )
    if len(known) < replicas:
        warnings.warn(
            f"the stream is on {replicas} servers, and of {len(known)} it is known how often they "
            "sync: name their monitoring addresses, or that of a user of the system account, in "
            "StoreConfig(nats_monitors=…)",
            UnknownSyncWarning,
            stacklevel=2,
        )


def _sync_interval(settings: dict[str, Any]) -> float:
    """Return after how many seconds at most a server syncs; 0: before it acknowledges."""
    return 0.0 if settings.get("sync_always") else settings["sync_interval"] / 1e9


def _told(monitor: str) -> Iterator[dict[str, Any]]:
    """Iterate over what the servers of a monitoring address say of themselves; nothing where they
    do not answer."""
    answers: list[bytes] = []
    if is_address(monitor):
        with suppress(MemvidAsyncError):
            answers = asyncio.run(_ping(Address.parse(monitor, with_name=False)))
    else:
        # The configuration takes addresses of http and https only.
        with (
            suppress(OSError),
            urllib.request.urlopen(f"{monitor.rstrip('/')}/varz", timeout=_ANSWER) as answer,  # noqa: S310
        ):
            answers = [answer.read()]
    for data in answers:
        with suppress(ValueError):
            found = json.loads(data)
            yield found.get("data", found)


async def _ping(address: Address) -> list[bytes]:
    """Return the answers of all servers to a user of the system account."""

    async def give_up(error: Exception) -> None:
        if is_final(error):
            raise error

    client = await connect_client(address, {"error_cb": give_up}, _ANSWER, str)
    answers: list[bytes] = []
    try:
        inbox = client.new_inbox()
        arriving = await client.subscribe(inbox)
        await client.publish(_PING, b"", reply=inbox)
        with suppress(TimeoutError):
            while True:
                message = await arriving.next_msg(_OTHERS if answers else _ANSWER)
                if not message.data:
                    # Nobody answers who is not of that account.
                    break
                answers.append(message.data)
    finally:
        await client.close()
    return answers
