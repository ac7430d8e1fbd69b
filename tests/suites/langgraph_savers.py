"""LangGraph's conformance suite on a saver, and savers that it must find wrong."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from memvid_async.interop.langgraph import MemvidSaver


class ForgetsWrites(MemvidSaver):
    """Keeps no pending writes."""

    async def aput_writes(self, *given: Any, **named: Any) -> None:
        """Do nothing."""


class ForgetsParents(MemvidSaver):
    """Does not say what a checkpoint follows."""

    async def aget_tuple(self, config: Any) -> Any:
        """Return the checkpoint without its parent."""
        found = await super().aget_tuple(config)
        return found and found._replace(parent_config=None)


class ListsOldestFirst(MemvidSaver):
    """Lists in the wrong order."""

    async def alist(self, *given: Any, **named: Any) -> Any:
        """Yield the checkpoints, oldest first."""
        for found in reversed([one async for one in super().alist(*given, **named)]):
            yield found


class IgnoresNamespaces(MemvidSaver):
    """Mixes the checkpoints of subgraphs with those of their graph."""

    async def aput(self, config: Any, *given: Any) -> Any:
        """Keep the checkpoint in the root namespace."""
        config["configurable"]["checkpoint_ns"] = ""
        return await super().aput(config, *given)


class DeletesTooLittle(MemvidSaver):
    """Leaves a thread that is deleted."""

    async def adelete_thread(self, thread_id: str) -> None:
        """Do nothing."""


class PrunesTooMuch(MemvidSaver):
    """Leaves nothing of a thread that is pruned."""

    async def aprune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
        """Delete the threads."""
        await super().aprune(thread_ids, strategy="delete")


BROKEN = (
    ForgetsWrites,
    ForgetsParents,
    ListsOldestFirst,
    IgnoresNamespaces,
    DeletesTooLittle,
    PrunesTooMuch,
)


async def conformance(saver: type[MemvidSaver], path: Path) -> dict[str, Any]:
    """Run the suite on a saver, with a new file for each capability; return what it found."""
    from langgraph.checkpoint.conformance import checkpointer_test, validate  # noqa: PLC0415

    numbers = count()

    @checkpointer_test(name=saver.__name__)
    async def factory() -> Any:
        async with saver.from_path(path.with_name(f"{next(numbers)}.mva")) as opened:
            yield opened

    results = (await validate(factory)).results.values()
    return {
        "passed": sum(found.tests_passed for found in results),
        "failed": [failure for found in results for failure in found.failures],
        "capabilities": sum(bool(found.passed) for found in results),
    }
