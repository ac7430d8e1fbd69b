"""How soon the servers have on their disks what they acknowledge.

A client is not told. The monitoring address of a server says it: ``/varz`` has the settings of
JetStream, the interval in nanoseconds (https://docs.nats.io/running-a-nats-service/nats_admin/monitoring).
"""

from __future__ import annotations

import json
import urllib.request
import warnings
from typing import Any

from ..config import StoreConfig
from ..errors import StoreFailedError, UnknownSyncWarning

# A monitoring address answers within this many seconds.
_ANSWER = 5.0


def check_sync(config: StoreConfig, replicas: int) -> None:
    """Return if every server syncs as often as the configuration asks.

    :raises StoreFailedError: when one does not.
    """
    wanted = config.sync_interval
    if wanted is None:
        return
    known = 0
    for monitor in config.nats_monitors:
        seconds = _sync_interval(monitor)
        if seconds is None:
            continue
        known += 1
        if seconds > wanted:
            raise StoreFailedError(
                f"the server at {monitor} syncs every {seconds:g} s, and {wanted:g} s were asked "
                "for; `jetstream { sync_interval: always }` in its configuration is 0"
            )
    if known < replicas:
        warnings.warn(
            f"the stream is on {replicas} servers, and of {known} it is known how often they sync: "
            "name their monitoring addresses in StoreConfig(nats_monitors=…)",
            UnknownSyncWarning,
            stacklevel=2,
        )


def _sync_interval(monitor: str) -> float | None:
    """Return after how many seconds at most a server syncs; 0: before it acknowledges. None where
    it does not say."""
    try:
        # The configuration takes addresses of http and https only.
        url = f"{monitor.rstrip('/')}/varz"
        with urllib.request.urlopen(url, timeout=_ANSWER) as answer:  # noqa: S310
            settings: dict[str, Any] = json.load(answer)["jetstream"]["config"]
        return 0.0 if settings.get("sync_always") else settings["sync_interval"] / 1e9
    except (OSError, ValueError, LookupError, TypeError):
        return None
