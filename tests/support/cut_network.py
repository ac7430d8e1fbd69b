"""Network namespaces on one bridge, so that the network between servers can be cut.

What is cut is lost without a word, as between machines: no connection ends for it. Clients, which
are in no namespace, reach every server all the time.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress


class CutNetwork:
    """A bridge, and ``count`` namespaces on it. One in a process.

    :raises PermissionError: where this process may not make them, or lacks iproute2.
    """

    def __init__(self, count: int) -> None:
        number = os.getpid() % 4096
        self._bridge = f"mvb{number}"
        # A part of the block that is for tests of networks (RFC 2544).
        net, first = f"198.18.{number // 16}", number % 16 * 16
        self.names = [f"mvn{number}x{at}" for at in range(count)]
        self.hosts = [f"{net}.{first + 2 + at}" for at in range(count)]
        self._cut: set[tuple[int, int]] = set()
        try:
            self._make(f"{net}.{first + 1}")
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise PermissionError("no network namespaces can be made here") from error

    def _make(self, own: str) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{own}/28", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for name, host in zip(self.names, self.hosts, strict=True):
            _ip("netns", "add", name)
            _ip("link", "add", f"{name}h", "type", "veth", "peer", "eth0", "netns", name)
            _ip("link", "set", f"{name}h", "master", self._bridge, "up")
            _ip("-n", name, "addr", "add", f"{host}/28", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def command(self, at: int) -> tuple[str, ...]:
        """What a program's command begins with, so that it runs in a namespace."""
        return "ip", "netns", "exec", self.names[at]

    def cut(self, one: int, other: int) -> None:
        """Lose all that one sends to the other, both ways, until :meth:`heal`."""
        for here, there in ((one, other), (other, one)):
            _ip("-n", self.names[here], "route", "add", "blackhole", f"{self.hosts[there]}/32")
            self._cut.add((here, there))

    def heal(self) -> None:
        """Mend everything that was cut."""
        for here, there in self._cut:
            _ip("-n", self.names[here], "route", "del", "blackhole", f"{self.hosts[there]}/32")
        self._cut.clear()

    def close(self) -> None:
        """Remove it all, once no program runs in it."""
        for name in self.names:
            with suppress(OSError, subprocess.CalledProcessError):
                _ip("netns", "del", name)
        with suppress(OSError, subprocess.CalledProcessError):
            _ip("link", "del", self._bridge)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
