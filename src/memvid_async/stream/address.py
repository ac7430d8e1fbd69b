"""The address of a store on a stream: ``nats://host:4222/NAME``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PosixPath
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from attrs import field, frozen

from ..errors import InvalidValueError

_SCHEMES = ("nats://", "tls://")
_FILES = {"credentials", "seed", "ca"}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")


def is_address(value: object) -> bool:
    """Whether a value is the address of a stream, and not a path."""
    return isinstance(value, (str, StreamPath)) and str(value).startswith(_SCHEMES)


@frozen
class Address:
    """Where a stream is. Made by :meth:`parse`."""

    servers: tuple[str, ...]
    """The servers' addresses, each of which may hold a user and a password, or a token."""
    name: str
    """The name of the store, which its stream has too; "" for all stores there."""
    files: Mapping[str, str] = field(factory=dict)
    """The paths of the files that say who this is (`credentials`, `seed`), and whose signature a
    server's certificate must have (`ca`)."""

    @classmethod
    def parse(cls, text: str, *, with_name: bool = True) -> Address:
        """Read ``nats://[user:password@]host[:port][,host…]/NAME[?credentials=PATH][&ca=PATH]``;
        ``tls://`` insists on TLS.

        :raises InvalidValueError: when it is not such an address.
        """
        parts = urlsplit(text)
        name = parts.path.strip("/")
        is_wrong = not _NAME.fullmatch(name) if with_name else bool(name)
        if parts.fragment or not parts.netloc or is_wrong:
            raise InvalidValueError(_wrong(text, with_name=with_name))
        user, at, hosts = parts.netloc.rpartition("@")
        each = [host for host in hosts.split(",") if host]
        servers = tuple(f"{parts.scheme}://{user}{at}{host}" for host in each)
        try:
            ports = [urlsplit(server).port for server in servers]
            files = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        except ValueError:
            raise InvalidValueError(_wrong(text, with_name=with_name)) from None
        if not ports or files.keys() - _FILES:
            raise InvalidValueError(_wrong(text, with_name=with_name))
        return cls(servers, name, files)

    @property
    def log_subjects(self) -> str:
        """The subjects of the messages in all of the store's streams."""
        return f"memvid.log.{self.name}.*"

    @property
    def lost_subject(self) -> str:
        """The subject on which a writer tells the others that it lost a race."""
        return f"memvid.lost.{self.name}"


@frozen
class StreamName:
    """One of the streams of a store: a compaction writes the next one, and deletes the others."""

    store: str
    """The name of the store."""
    number: int = 0
    """0 of the first one; of one that a compaction wrote, a higher one than all before it had."""

    @classmethod
    def parse(cls, name: str) -> StreamName:
        """Return the one with this name."""
        store, _, number = name.partition("=")
        return cls(store, int(number or 0))

    @property
    def name(self) -> str:
        """The stream's name."""
        return f"{self.store}={self.number}" if self.number else self.store

    @property
    def subject(self) -> str:
        """The subject of its messages."""
        return f"memvid.log.{self.store}.{self.number}"

    @property
    def news_subject(self) -> str:
        """The subject on which the server tells of each message that it has stored."""
        return f"memvid.news.{self.store}.{self.number}"


def _wrong(text: str, *, with_name: bool) -> str:
    if not with_name:
        return f"{without_secrets(text)!r} is not the address of servers alone: nats://host:4222"
    return (
        f"{without_secrets(text)!r} is not the address of a store: nats://host:4222/NAME, where "
        "NAME has letters, digits, '-' and '_', at most 200; after it at most ?credentials=, seed= "
        "and ca= with paths"
    )


def without_secrets(text: str) -> str:
    """Return an address without the user and the password."""
    parts = urlsplit(text)
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))


class StreamPath(PosixPath):
    """What stands for the path of a store on a stream: its text is the address without secrets."""

    _address: str

    @classmethod
    def of(cls, address: str) -> StreamPath:
        """Return the path that stands for an address."""
        path = cls(without_secrets(address))
        path._address = without_secrets(address)
        return path

    def __str__(self) -> str:
        return self._address

    __fspath__ = __str__
