"""What a call of a tool costs, from many tasks, beside recording one that somebody else made."""

import asyncio
import gc
import os
import time
from pathlib import Path

from memvid_async import SessionRecorder, open_store

from .harness import Detail, Figure, Result, Scale, ratios, spread

TASKS, EACH = 64, 40


def run(directory: Path, scale: Scale) -> Result:
    """Compare the processor time of both, in one session."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        taken = asyncio.run(_measure(directory / "calls.mva", scale))
    finally:
        os.sched_setaffinity(0, cores)
    figure = Figure(
        case=f"call_tool, {TASKS} tasks, pinned, processor time",
        against="record_tool_call",
        values=ratios(taken["call_tool"], taken["record_tool_call"]),
        unit="x",
        must=2.2,
        at_least=False,
    )
    rows = [[name, *spread(values, ".1f")] for name, values in taken.items()]
    columns = ("call", "µs of processor, median", "least", "most")
    note = (
        f"{scale.count(EACH)} calls a task; a call of a tool is two synced events, and the agent is"
        " told of one end after another."
    )
    detail = Detail(title="Calls of tools", columns=columns, rows=rows, note=note)
    return Result(figures=[figure], details=[detail])


async def _measure(path: Path, scale: Scale) -> dict[str, list[float]]:
    """Return the processor's microseconds for each call, of each round."""
    each = scale.count(EACH)
    async with open_store(path) as store, store.session() as session:
        works = {"record_tool_call": _record, "call_tool": _call}
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(1 + scale.rounds):
            for name, work in works.items():
                gc.collect()
                start = time.process_time()
                await asyncio.gather(*(work(session, each) for _ in range(TASKS)))
                taken[name].append((time.process_time() - start) * 1e6 / (TASKS * each))
    # The first round is not counted.
    return {name: values[1:] for name, values in taken.items()}


async def _record(session: SessionRecorder, each: int) -> None:
    for n in range(each):
        given = {"q": f"question {n}"}
        await session.record_tool_call("search", arguments=given, result={"ok": given["q"]})


async def _call(session: SessionRecorder, each: int) -> None:
    for n in range(each):
        await session.call_tool("search", {"q": f"question {n}"}, _tool)


async def _tool(q: str) -> dict[str, object]:
    return {"ok": q}
