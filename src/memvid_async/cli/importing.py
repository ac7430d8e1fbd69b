"""`import-chat`: transcripts from files, recorded in a store."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, aclosing

from attrs import define, field
from rich.progress import Progress, TaskID

from .. import Durability, Store, StoreConfig, open_store
from ..interop.openai_chat import PlannedAsk, PlannedToolCall, SessionPlan, read_plans, record_run
from ..interop.transcripts import TranscriptError
from .exits import report

# No single record needs an fsync: an import that was interrupted is run again.
CONFIG = StoreConfig(durability=Durability.BUFFERED)


@define
class Importer:
    """Records the runs that can be recorded, reports why the others cannot, and counts both."""

    file: str
    provider: str
    max_bytes: int
    progress: Progress
    sessions: int = 0
    asks: int = 0
    tool_calls: int = 0
    unanswered: int = 0
    failures: int = 0
    started: float = field(factory=time.monotonic)

    async def run(self, transcripts: Iterable[str]) -> None:
        """Import the files, in order. The store is opened when there is a run to record."""
        task = self.progress.add_task("importing", total=None)
        async with AsyncExitStack() as stack:
            store: Store | None = None
            for path in transcripts:
                try:
                    async with aclosing(
                        read_plans(path, limits=CONFIG.limits, max_bytes=self.max_bytes)
                    ) as batches:
                        async for plans in batches:
                            store = store or await self._open(stack, plans)
                            await self._record_all(store, plans, task)
                except TranscriptError as error:
                    self._fail(error)
            if store is not None:
                await store.sync()

    def summary(self) -> str:
        """Say in one line what was imported."""
        return (
            f"imported {self.sessions} sessions with {self.asks} asks "
            f"and {self.tool_calls} tool calls, {self.unanswered} of them without a result, "
            f"in {time.monotonic() - self.started:.1f} s"
        )

    async def _open(
        self, stack: AsyncExitStack, plans: list[SessionPlan | TranscriptError]
    ) -> Store | None:
        if not any(isinstance(plan, SessionPlan) for plan in plans):
            return None
        return await stack.enter_async_context(open_store(self.file, config=CONFIG))

    async def _record_all(
        self, store: Store | None, plans: list[SessionPlan | TranscriptError], task: TaskID
    ) -> None:
        total = self.progress.tasks[task].total or 0
        self.progress.update(task, total=total + len(plans))
        for plan in plans:
            if isinstance(plan, TranscriptError):
                self._fail(plan)
            elif store is not None:
                await record_run(store, plan, provider=self.provider)
                self._count(plan)
            self.progress.advance(task)

    def _count(self, plan: SessionPlan) -> None:
        calls = [planned for planned in plan.actions if isinstance(planned, PlannedToolCall)]
        self.sessions += 1
        self.asks += sum(isinstance(planned, PlannedAsk) for planned in plan.actions)
        self.tool_calls += len(calls)
        self.unanswered += sum(call.result is None for call in calls)

    def _fail(self, error: TranscriptError) -> None:
        self.failures += 1
        report(error)
