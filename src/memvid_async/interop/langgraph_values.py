"""How a LangGraph checkpoint keeps its channels' values: what several share is stored once."""

from __future__ import annotations

import hashlib
from typing import Any

from .. import Collection
from .collection_bridge import part

# A value of at most this many bytes is kept in its checkpoint.
_INLINE_BYTES = 512
# A list is kept in runs of this many items, and what is left over in its checkpoint.
_RUN_ITEMS = 8
# About this many bytes of what was stored besides checkpoints are remembered.
_MOST_BYTES = 4 * 1024 * 1024
# A value as it is kept: [0, type, bytes], [1, digest], or [2, digests of runs, type, bytes]: a run,
# and what follows the runs, is a list as the serializer has it.
_INLINE, _STORED, _RUNS = range(3)

# A value, or a run, as the serializer has it: its type and its bytes.
Body = tuple[str, bytes]


class Bodies:
    """What was stored besides checkpoints, by digest: those that were used last."""

    def __init__(self) -> None:
        self._bodies: dict[bytes, Body] = {}
        self._bytes = 0

    def get(self, digest: bytes) -> Body | None:
        """Return a body, if it is remembered."""
        body = self._bodies.pop(digest, None)
        if body is not None:
            # The one that was used last is last.
            self._bodies[digest] = body
        return body

    def add(self, digest: bytes, body: Body) -> None:
        """Remember a body."""
        if self.get(digest) is None:
            self._bodies[digest] = body
            self._bytes += len(body[1])
            while self._bytes > _MOST_BYTES:
                _, data = self._bodies.pop(next(iter(self._bodies)))
                self._bytes -= len(data)


def kept_value(serde: Any, value: Any, bodies: dict[bytes, Body]) -> list[Any]:
    """Return a value as its checkpoint has it, and add what is stored besides to ``bodies``."""
    if type(value) is list and len(value) >= _RUN_ITEMS:
        end = len(value) - len(value) % _RUN_ITEMS
        digests = b"".join(
            _add(bodies, serde.dumps_typed(value[at : at + _RUN_ITEMS]))
            for at in range(0, end, _RUN_ITEMS)
        )
        return [_RUNS, digests, *serde.dumps_typed(value[end:])]
    kind, data = serde.dumps_typed(value)
    if len(data) <= _INLINE_BYTES:
        return [_INLINE, kind, data]
    return [_STORED, _add(bodies, (kind, data))]


async def read_values(
    serde: Any, c: Collection, thread: str, values: list[Any], known: Bodies
) -> dict[str, Any]:
    """Return a checkpoint's values from what it keeps of them, and from bodies that are known.

    :raises KeyError: when the thread was deleted meanwhile.
    """
    digests = dict.fromkeys(d for _, *kept in values for d in digests_in(kept))
    bodies = {digest: body for digest in digests if (body := known.get(digest)) is not None}
    missing = [digest for digest in digests if digest not in bodies]
    if missing:
        held = await c.get_many([f"b/{part(thread)}/{digest.hex()}" for digest in missing])
        for digest, value in zip(missing, held, strict=True):
            if value is not None:
                bodies[digest] = body = tuple(value.data)
                known.add(digest, body)
    found: dict[str, Any] = {}
    for channel, kind, *kept in values:
        if kind == _INLINE:
            found[channel] = serde.loads_typed(tuple(kept))
        elif kind == _STORED:
            found[channel] = serde.loads_typed(bodies[kept[0]])
        else:
            runs = [*(bodies[d] for d in digests_in([kind, *kept])), tuple(kept[1:])]
            found[channel] = [item for run in runs for item in serde.loads_typed(run)]
    return found


def _add(bodies: dict[bytes, Body], body: Body) -> bytes:
    """Add what is stored besides a checkpoint; return its digest (BLAKE2b-128)."""
    kind, data = body
    hashed = hashlib.blake2b(f"{len(kind)} {kind}".encode(), digest_size=16)
    hashed.update(data)
    bodies[hashed.digest()] = body
    return hashed.digest()


def digests_in(kept: list[Any]) -> list[bytes]:
    """Return the digests of what a value that was kept refers to."""
    if kept[0] == _STORED:
        return [kept[1]]
    if kept[0] == _RUNS:
        return [kept[1][at : at + 16] for at in range(0, len(kept[1]), 16)]
    return []
