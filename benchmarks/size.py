"""The bytes a file takes: per action, and for asks that carry the whole chat every time."""

import asyncio
import itertools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from memvid_async import open_store

from . import contenders
from .harness import Detail, Figure, Result, Scale
from .racers import is_installed
from .samples import asks, chat, chat_bytes

TURNS = 200


def run(directory: Path, scale: Scale) -> Result:
    """Measure the overhead per action, and repeated content."""
    figures, rows = [], []
    for tasks in (1, 64):
        figure, row = _overhead(directory, scale, tasks)
        figures.append(figure)
        rows.append(row)
    overhead = Detail(
        title="File size",
        columns=("what", "arguments, bytes an action", "file, bytes an action", "beside"),
        rows=rows,
        note="The file after `aclose()`: header, sessions, framing and tables included.",
    )
    repeated = _repeated(directory, scale.count(TURNS))
    return Result(figures=[*figures, *repeated.figures], details=[overhead, *repeated.details])


def _overhead(directory: Path, scale: Scale, tasks: int) -> tuple[Figure, list[str]]:
    samples = asks(scale.count(12_800, multiple=64))
    path = directory / f"size-{tasks}"
    asyncio.run(contenders.race(contenders.ours, path, samples, tasks))
    given = sum(ask.size for ask in samples) / len(samples)
    kept = path.stat().st_size / len(samples)
    what = f"{len(samples):,} asks in {tasks} session{'s' * (tasks > 1)}"
    figure = Figure(
        case="file size",
        against=f"the arguments; {what}",
        values=[kept - given],
        unit="bytes",
        must=150,
        aim=80,
        at_least=False,
    )
    return figure, [what, f"{given:.0f}", f"{kept:.0f}", f"{kept - given:.0f}"]


def _repeated(directory: Path, turns: int) -> Result:
    figures, rows = [], []
    for size in (250, 450, 2_000):
        messages = chat(turns, size)
        path = directory / f"chat-{size}"
        asyncio.run(_record_chat(path, messages))
        distinct, kept = chat_bytes(messages), path.stat().st_size
        peers = [
            _saved_chat_bytes(directory / f"chat-{size}-{delta}.sqlite", messages, delta=delta)
            for delta in (False, True)
        ]
        figures.append(
            Figure(
                case="repeated content",
                against=f"distinct messages of {size:,} bytes",
                values=[kept / distinct],
                unit="x",
                must=2,
                aim=1.3,
                at_least=False,
            )
        )
        told = [f"{peer:,}" if peer else "—" for peer in peers]
        rows.append([f"{size:,}", f"{distinct:,}", f"{kept:,}", *told])
    columns = (
        "bytes a message",
        "distinct messages",
        "memvid_async",
        "AsyncSqliteSaver",
        "the same with DeltaChannel",
    )
    note = (
        f"Bytes. {turns} asks, each carrying the whole chat so far as its `messages`, the last of"
        " them as its query, the next as its response. The saver"
        " keeps a graph whose state is the list of all messages, and which runs once a turn;"
        " DeltaChannel, opt-in and beta, stores what each turn added."
    )
    return Result(
        figures=figures,
        details=[Detail(title="Repeated content", columns=columns, rows=rows, note=note)],
    )


async def _record_chat(path: Path, messages: list[dict[str, str]]) -> None:
    async with open_store(path) as store, store.session("chat") as recorder:
        for place in range(0, len(messages), 2):
            await recorder.record_ask(
                messages[place]["content"],
                provider="openai",
                model="gpt-4o-mini",
                response=messages[place + 1]["content"],
                duration_ms=800,
                messages=messages[: place + 1],
            )


def _saved_chat_bytes(path: Path, messages: list[dict[str, str]], *, delta: bool) -> int:
    if not (is_installed("langgraph.graph") and is_installed("langgraph.checkpoint.sqlite")):
        return 0
    asyncio.run(_save_chat(path, messages, delta=delta))
    return path.stat().st_size


async def _save_chat(path: Path, messages: list[dict[str, str]], *, delta: bool) -> None:
    """Run a graph of one step, a turn at a time, whose state is the list of all messages."""
    from langgraph.channels import BinaryOperatorAggregate, DeltaChannel
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from langgraph.graph import END, START, StateGraph

    def joined(state: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
        return [*state, *itertools.chain.from_iterable(writes)]

    channel = DeltaChannel(joined, list) if delta else BinaryOperatorAggregate(list, operator.add)
    state: Any = TypedDict("State", {"messages": Annotated[list[Any], channel]})  # type: ignore[name-match]
    builder = StateGraph(state)
    builder.add_node("reply", lambda held: {"messages": [messages[len(held["messages"])]]})
    builder.add_edge(START, "reply")
    builder.add_edge("reply", END)
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        graph = builder.compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": "chat"}}
        for place in range(0, len(messages), 2):
            await graph.ainvoke({"messages": [messages[place]]}, config)
