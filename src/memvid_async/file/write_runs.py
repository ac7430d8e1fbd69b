"""Pieces of the log, joined for as few writes as possible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# One write has at most this many bytes, unless a single piece has more.
WRITE_BYTES = 1024 * 1024


def write_runs(pieces: Iterable[bytes | bytearray]) -> Iterator[bytes | bytearray]:
    """Join pieces for as few writes as possible; large pieces are not copied."""
    run: list[bytes | bytearray] = []
    size = 0
    for piece in pieces:
        if run and size + len(piece) > WRITE_BYTES:
            yield run[0] if len(run) == 1 else b"".join(run)
            run, size = [], 0
        run.append(piece)
        size += len(piece)
    yield b"".join(run) if len(run) > 1 else run[0]
