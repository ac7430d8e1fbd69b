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
# A value as it is kept: [0, type, bytes], [1, digest], or [2, digests of runs, the other items].
_INLINE, _STORED, _RUNS = range(3)


def kept_value(serde: Any, value: Any, bodies: dict[bytes, Any]) -> list[Any]:
    """Return a value as its checkpoint has it, and add what is stored besides to ``bodies``."""
    if type(value) is list and len(value) >= _RUN_ITEMS:
        items = [list(serde.dumps_typed(item)) for item in value]
        end = len(items) - len(items) % _RUN_ITEMS
        digests = b"".join(
            _add(bodies, items[at : at + _RUN_ITEMS]) for at in range(0, end, _RUN_ITEMS)
        )
        return [_RUNS, digests, items[end:]]
    kind, data = serde.dumps_typed(value)
    if len(data) <= _INLINE_BYTES:
        return [_INLINE, kind, data]
    return [_STORED, _add(bodies, [kind, data])]


async def read_values(serde: Any, c: Collection, thread: str, values: list[Any]) -> dict[str, Any]:
    """Return a checkpoint's values from what it keeps of them.

    :raises KeyError: when the thread was deleted meanwhile.
    """
    digests = list(dict.fromkeys(d for _, *kept in values for d in digests_in(kept)))
    held = await c.get_many([f"b/{part(thread)}/{digest.hex()}" for digest in digests])
    bodies = {
        digest: value.data for digest, value in zip(digests, held, strict=True) if value is not None
    }
    found: dict[str, Any] = {}
    for channel, kind, *kept in values:
        if kind == _INLINE:
            found[channel] = serde.loads_typed((kept[0], kept[1]))
        elif kind == _STORED:
            found[channel] = serde.loads_typed(tuple(bodies[kept[0]]))
        else:
            items = [item for d in digests_in([kind, *kept]) for item in bodies[d]]
            found[channel] = [serde.loads_typed(tuple(i)) for i in [*items, *kept[1]]]
    return found


def _add(bodies: dict[bytes, Any], body: list[Any]) -> bytes:
    """Add what is stored besides a checkpoint; return its digest (BLAKE2b-128)."""
    digest = hashlib.blake2b(digest_size=16)
    for kind, data in body if isinstance(body[0], list) else [body]:
        digest.update(f"{kind} {len(data)} ".encode() + data)
    bodies[digest.digest()] = body
    return digest.digest()


def digests_in(kept: list[Any]) -> list[bytes]:
    """Return the digests of what a value that was kept refers to."""
    if kept[0] == _STORED:
        return [kept[1]]
    if kept[0] == _RUNS:
        return [kept[1][at : at + 16] for at in range(0, len(kept[1]), 16)]
    return []
