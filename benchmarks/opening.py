"""Opening a file of a million events, after a close and after a kill, beside folding them all."""

import asyncio
import itertools
import shutil
import time
from pathlib import Path
from uuid import UUID

from memvid_async import Content, StoreConfig, open_store
from memvid_async.core.evolve import evolve
from memvid_async.core.state import State
from memvid_async.format.codec import decode_events
from memvid_async.format.header import LOG_START, decode_header
from memvid_async.format.segment import SegmentKind, scan
from memvid_async.storage import FileStorage

from . import built
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread


def run(directory: Path, scale: Scale) -> Result:
    """Compare opening for writing with folding every event; the pages of the files are cached."""
    closed = built.contiguous(directory, scale)
    killed = built.interleaved(directory, scale)
    numbers = itertools.count()

    def opening(file: built.Built) -> float:
        # Opening cuts, and closing saves: every sample has a copy of its own.
        copy = directory / f"opening-{next(numbers)}"
        shutil.copyfile(file.path, copy)
        seconds = asyncio.run(_open(copy))
        copy.unlink()
        return seconds

    seconds = alternate(
        {
            "after aclose()": lambda: opening(closed),
            "after a kill": lambda: opening(killed),
            "folding all": lambda: fold_all(closed.path),
        },
        scale.rounds,
    )
    figures = [
        Figure(
            case="opening",
            against=f"folding all of {closed.sessions:,} sessions; {name}",
            values=[100 * one for one in ratios(seconds[name], seconds["folding all"])],
            unit="%",
            must=2,
            aim=0.5,
            at_least=False,
        )
        for name in ("after aclose()", "after a kill")
    ]
    rows = [
        [name, *spread([second * 1e3 for second in taken], ",.1f")]
        for name, taken in seconds.items()
    ]
    note = (
        f"{closed.sessions:,} sessions of {closed.actions} actions, each also with a start and an"
        " end. Opening: `open_store` for writing, until it returns."
    )
    columns = ("what", "ms, median", "least", "most")
    return Result(
        figures=figures, details=[Detail(title="Opening", columns=columns, rows=rows, note=note)]
    )


async def _open(path: Path) -> float:
    start = time.perf_counter()
    store = await open_store(path, config=StoreConfig())
    seconds = time.perf_counter() - start
    await store.aclose()
    return seconds


def fold_all(path: Path) -> float:
    """Return the seconds it takes to read, decode and fold every event, and nothing else."""
    storage = FileStorage.open(path, read_only=True)
    unread = Content(None)
    try:
        start = time.perf_counter()
        salt = decode_header(storage.read(0, LOG_START)).salt
        state = State()

        def session_id(number: int) -> UUID | None:
            session = state.sessions.get(number)
            return session.info.session_id if session is not None else None

        for segment in scan(storage.read, LOG_START, storage.size(), salt, salt):
            if segment.kind == SegmentKind.EVENTS:
                events = decode_events(
                    segment.payload, segment.sequence, session_id, lambda _: unread
                )
                for event in events:
                    state = evolve(state, event)
        return time.perf_counter() - start
    finally:
        storage.close()
