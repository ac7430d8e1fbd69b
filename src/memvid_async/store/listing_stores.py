"""Listing the stores on streams, in a thread."""

from __future__ import annotations

from ..config import StoreConfig
from ..errors import InvalidValueError
from ..stream.address import Address
from ..stream.listing import StoreSummary, read_summaries
from .long_work import run_telling


async def list_stores(address: str, *, config: StoreConfig | None = None) -> list[StoreSummary]:
    """Return the stores on the streams of the servers at ``nats://host:4222``, by name.

    ``config``: how they are reached, as with :func:`open_store`. It costs one or two requests for
    each, whatever they hold.

    :raises InvalidValueError: when it is not the address of servers.
    :raises StoreFailedError: when no server answers, or refuses.
    """
    if config is not None and not isinstance(config, StoreConfig):
        raise InvalidValueError("config must be a StoreConfig")
    where = Address.parse(address, with_name=False)
    return await run_telling("listing", None, read_summaries, where, config or StoreConfig())
