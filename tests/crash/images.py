"""What a power cut may leave of a disk: the images of its pending sectors, sizes and names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from random import Random

from tests.support.disk import SECTOR, Frozen, FrozenFile, Image, SimFile, Write

# At most this many of the sector borders between two sizes are taken as sizes too.
_BETWEEN_SIZES = 3


def torn(frozen: Frozen, rng: Random) -> Frozen | None:
    """The disk as it would be, had the process been killed inside its last write."""
    for at, file in enumerate(frozen.files):
        if file.pending and isinstance(file.pending[-1], Write) and len(file.pending[-1].data) > 1:
            *before, last = file.pending
            assert isinstance(last, Write)
            part = Write(last.offset, last.data[: rng.randrange(1, len(last.data))])
            thawed = SimFile(file.durable)
            for op in (*before, part):
                thawed.apply(op)
            half = FrozenFile(
                file.durable, (*before, part), bytes(thawed.cache), file.starts, file.dropped
            )
            return Frozen(frozen.names, (*frozen.files[:at], half, *frozen.files[at + 1 :]))
    return None


def images(frozen: Frozen, name: str, rng: Random, limit: int) -> Iterator[Image]:
    """What a power cut may leave: everything that ``name`` may hold, or about ``limit`` samples
    where that is more, each beside something that the other names may hold."""
    share = max(1, limit // len(frozen.names))
    for names in frozen.names:
        found = {
            each: list(crash_contents(frozen.files[at], rng, share if each == name else 2))
            for each, at in names
        }
        for at in range(max(map(len, found.values()), default=1)):
            yield tuple((each, data[at % len(data)]) for each, data in found.items())


def crash_contents(file: FrozenFile, rng: Random, limit: int) -> Iterator[bytes]:
    """What may stand in a file after a power cut."""
    if not file.pending:
        yield file.durable
        return
    sizes, cells = _cells(file, rng)
    base = bytearray(file.durable.ljust(max(sizes), b"\0"))

    def build(size: int, choice: tuple[bytes, ...]) -> bytes:
        for sector, data in zip(cells, choice, strict=True):
            start = sector * SECTOR
            if start < size:
                base[start : start + len(data)] = data
        return bytes(memoryview(base)[:size])

    options = list(cells.values())
    # A sector's data may reach past the longest file; it is cut to size all the same.
    base.extend(bytes(SECTOR))
    if len(sizes) * math.prod(map(len, options)) <= limit:
        for size in sizes:
            for choice in itertools.product(*options):
                yield build(size, choice)
        return
    yield from (build(size, choice) for size, choice in _plain(sizes, options))
    for _ in range(limit):
        choice = tuple(option[int(rng.random() * len(option))] for option in options)
        yield build(rng.choice(sizes), choice)


def _plain(sizes: list[int], options: list[list[bytes]]) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """The images that come to mind first: nothing written, all written, written up to a sector,
    one sector that differs from the others."""
    old = tuple(option[0] for option in options)
    new = tuple(option[-1] for option in options)
    for size in sizes:
        yield size, old
        yield size, new
    for at in range(len(options)):
        yield sizes[-1], (*new[:at], *old[at:])
        for data in options[at]:
            yield sizes[-1], (*new[:at], data, *new[at + 1 :])


def _sector(data: bytearray | bytes, number: int) -> bytes:
    return bytes(data[number * SECTOR : number * SECTOR + SECTOR]).ljust(SECTOR, b"\0")


def _cells(file: FrozenFile, rng: Random) -> tuple[list[int], dict[int, list[bytes]]]:
    """The lengths that the file may have, the newest last; and per sector at risk what it may
    hold, as it was first, as it was to be last."""
    current = bytearray(file.durable)
    sizes = [len(current)]
    versions: dict[int, list[bytes]] = {}
    risk: dict[int, list[tuple[int, int]]] = {}
    for op in file.pending:
        start = op.offset if isinstance(op, Write) else op.size
        end = start + len(op.data) if isinstance(op, Write) else max(len(current), start)
        sectors = range(start // SECTOR, math.ceil(end / SECTOR))
        for sector in sectors:
            versions.setdefault(sector, [_sector(file.durable, sector)])
        if isinstance(op, Write):
            current.extend(bytes(max(0, end - len(current))))
            current[start:end] = op.data
            for sector in sectors:
                low = sector * SECTOR
                risk.setdefault(sector, []).append((max(start - low, 0), min(end - low, SECTOR)))
        else:
            del current[start:]
            current.extend(bytes(start - len(current)))
        for sector in sectors:
            versions[sector].append(_sector(current, sector))
        sizes.append(len(current))
    options = {
        sector: list(dict.fromkeys([*found[:1], *_harmed(file, sector, found, risk, rng), *found]))
        for sector, found in versions.items()
    }
    for sector, found in versions.items():
        # Duplicates went; what it was to be still has to come last.
        options[sector].remove(found[-1])
        options[sector].append(found[-1])
    return _lengths(sizes, rng), options


def _harmed(
    file: FrozenFile,
    sector: int,
    versions: list[bytes],
    risk: dict[int, list[tuple[int, int]]],
    rng: Random,
) -> Iterator[bytes]:
    """The sector half-way, as zeros, as garbage; bytes that were not being written stay."""
    new, ranges = versions[-1], risk.get(sector, [])
    zeros, garbage = bytearray(new), bytearray(new)
    for low, high in ranges:
        zeros[low:high] = bytes(high - low)
        garbage[low:high] = _garbage(file, high - low, rng)
    if ranges:
        low, high = ranges[-1]
        middle = rng.randrange(low, high)
        yield new[:middle] + versions[-2][middle:]
        yield bytes(zeros)
        yield bytes(garbage)


def _garbage(file: FrozenFile, length: int, rng: Random) -> bytes:
    """Noise, or what stands elsewhere in the file, from where a write began."""
    if file.starts and rng.random() < 0.5:
        start = rng.choice(file.starts)
        return file.durable[start : start + length].ljust(length, b"\xa5")
    return rng.randbytes(length)


def _lengths(sizes: list[int], rng: Random) -> list[int]:
    found = list(sizes)
    for before, after in itertools.pairwise(sizes):
        low, high = sorted((before, after))
        between = list(range(low // SECTOR * SECTOR + SECTOR, high, SECTOR))
        found += rng.sample(between, min(len(between), _BETWEEN_SIZES))
        if high - low > 1:
            found.append(rng.randrange(low + 1, high))
    found.append(sizes[-1])
    return list(dict.fromkeys(reversed(found)))[::-1]
