"""Connecting the client of NATS, and what its errors mean until it is connected."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValueError, StoreFailedError
from .address import Address

if TYPE_CHECKING:
    from nats.aio.client import Client

_KNOWN: Mapping[str, Any] = {
    "name": "memvid-async",
    "connect_timeout": 2,
    "reconnect_time_wait": 0.05,
    "max_reconnect_attempts": -1,
    # A server that hangs is left for another one, after three of these in seconds.
    "ping_interval": 2,
    "max_outstanding_pings": 2,
}


async def connect_client(
    address: Address, options: Mapping[str, Any], patience: float, trouble: Callable[[], str]
) -> Client:
    """Return a client that is connected to the first server that answers; later, to whichever is
    there.

    ``options``: what its ``connect()`` takes. ``patience``: how many seconds servers may not
    answer. ``trouble``: returns what was said of why they do not.

    :raises InvalidValueError: when the options cannot be used, or the extra is missing.
    :raises StoreFailedError: when no server answers, or refuses.
    """
    try:
        from nats.errors import Error  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidValueError(
            "a store on a stream needs the extra: pip install 'memvid-async[nats]'"
        ) from None
    given = {**_KNOWN, **_options(address), **options}
    client = _client(insists=any(one.startswith("tls:") for one in address.servers))
    connected = False
    try:
        async with asyncio.timeout(patience):
            given = {**_KNOWN, **_options(address), **options}
            await client.connect(list(address.servers), **given)
        connected = True
    except (TimeoutError, OSError, Error) as error:
        if _is_unreadable(error):
            raise InvalidValueError(f"nats_options: {error}") from error
        why = trouble() or str(error) or type(error).__name__
        raise StoreFailedError(f"no server of the stream lets this client in: {why}") from error
    except ImportError as error:
        raise InvalidValueError(
            "nats_options: such credentials need pip install 'nats-py[nkeys]'"
        ) from error
    except Exception as error:
        # What the client says of credentials that it cannot read has many types.
        raise InvalidValueError(f"nats_options: {error!r}") from error
    finally:
        if not connected:
            with suppress(Exception):
                await client.close()
    return client


def _options(address: Address) -> dict[str, Any]:
    """Return what the files that an address names are to the client.

    :raises InvalidValueError: when the certificates cannot be read.
    """
    names = {"credentials": "user_credentials", "seed": "nkeys_seed"}
    options: dict[str, Any] = {
        names[kind]: path for kind, path in address.files.items() if kind in names
    }
    if "ca" in address.files:
        try:
            options["tls"] = ssl.create_default_context(cafile=address.files["ca"])
        except OSError as error:
            raise InvalidValueError(f"ca={address.files['ca']}: {error}") from error
    return options


def _client(*, insists: bool) -> Client:
    """Return a client; where it ``insists`` on TLS, one that tells no server without it who it is.

    The client itself uses TLS wherever the server asks for it, whatever the address says.
    """
    from nats.aio.client import Client  # noqa: PLC0415 - an extra
    from nats.errors import Error  # noqa: PLC0415

    client: Any = Client()
    # It has no public place for this; a test with a server without TLS sees that it is one.
    greeting = client._connect_command  # noqa: SLF001

    def greeting_in_secret() -> bytes:
        if not client._server_info.get("tls_required"):  # noqa: SLF001
            raise Error("the server has no TLS, and the address insists on it (tls://)")
        greeted: bytes = greeting()
        return greeted

    if insists:
        client._connect_command = greeting_in_secret  # noqa: SLF001
    connected: Client = client
    return connected


def is_final(error: Exception) -> bool:
    """Whether connecting again would not help."""
    from nats.errors import Error  # noqa: PLC0415 - an extra

    is_refused = "authorization" in str(error).lower()
    return is_refused or _is_unreadable(error) or not isinstance(error, (OSError, Error))


def _is_unreadable(error: Exception) -> bool:
    """Whether the client's credentials cannot be read."""
    from nats.errors import InvalidUserCredentialsError  # noqa: PLC0415 - an extra

    has_file = isinstance(error, OSError) and error.filename is not None
    return has_file or isinstance(error, InvalidUserCredentialsError)
