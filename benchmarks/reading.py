"""Reading one session out of a million actions, beside reading it where it is alone."""

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from memvid_async import open_store

from . import built
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread

READS = 25


def run(directory: Path, scale: Scale) -> Result:
    """Compare `get_session` over the files, in an open store and with the pages cached."""
    files = {
        "alone": built.alone(directory),
        "contiguous": built.contiguous(directory, scale),
        "interleaved": built.interleaved(directory, scale),
    }
    contenders = {name: _reader(file) for name, file in files.items()}
    for warm in contenders.values():
        warm()
    seconds = alternate(contenders, scale.rounds)
    count = files["contiguous"].sessions * built.ACTIONS
    figures = [
        Figure(
            case="reading one session",
            against=f"alone in its file; {name} in {count:,} actions",
            values=ratios(seconds[name], seconds["alone"]),
            unit="x",
            must=3,
            aim=1.5,
            at_least=False,
        )
        for name in ("contiguous", "interleaved")
    ]
    rows = [
        [name, *spread([second * 1e3 for second in taken], ".2f")]
        for name, taken in seconds.items()
    ]
    columns = ("the session lies", "ms a read, median", "least", "most")
    note = (
        f"100 actions a session. A sample opens the file and is the median of {READS} reads,"
        " each of another session where there are others."
    )
    return Result(
        figures=figures,
        details=[Detail(title="Reading one session", columns=columns, rows=rows, note=note)],
    )


def _reader(file: built.Built) -> Callable[[], float]:
    ids = asyncio.run(_session_ids(file))
    rng = random.Random(1)
    return lambda: asyncio.run(_read(file.path, [rng.choice(ids) for _ in range(READS)]))


async def _session_ids(file: built.Built) -> list[UUID]:
    async with open_store(file.path, read_only=True) as store:
        summaries = await store.list_sessions(include_open=True)
    return [found.session_id for found in summaries if found.action_count == file.actions]


async def _read(path: Path, session_ids: list[UUID]) -> float:
    taken = []
    async with open_store(path, read_only=True) as store:
        for session_id in session_ids:
            start = time.perf_counter()
            session = await store.get_session(session_id)
            taken.append(time.perf_counter() - start)
            assert len(session.actions) == built.ACTIONS
    return statistics.median(taken)
