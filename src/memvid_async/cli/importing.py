"""`import-chat`: transcripts from files, recorded in a store."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, aclosing

import click
from attrs import asdict, define, evolve, field
from rich.progress import Progress, TaskID

from .. import Durability, Limits, SessionSummary, Store, StoreConfig, open_store
from ..interop.chat_plans import KEY, PlannedAsk, PlannedToolCall, SessionPlan
from ..interop.chats import read_plans, record_run
from ..interop.transcripts import MAX_TRANSCRIPT_BYTES, TranscriptError
from ..view.text import count_of
from . import render
from .arguments import file_argument, limit_option, run
from .exits import BAD, FINE, report, say_note, telling_what_is_kept

# A message may hold a picture, and more of them than an agent records by itself.
LIMITS = {"value_bytes": 16 * 1024 * 1024}
"""The limits that an import raises, in bytes."""


@click.command("import-chat")
@file_argument
@click.argument(
    "transcripts", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False)
)
@click.option("--provider", default="", help="Who ran the model; a transcript does not say it.")
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    default=MAX_TRANSCRIPT_BYTES,
    show_default=True,
    help="How many bytes a transcript file may hold at most, decompressed.",
)
@limit_option(**LIMITS)
def import_chat(
    file: str, transcripts: tuple[str, ...], provider: str, max_bytes: int, limits: Limits
) -> int:
    """Record chat TRANSCRIPTs in FILE, one session per run.

    The formats of OpenAI, Anthropic, LangChain, Claude Code, Codex, Inspect and ShareGPT are read:
    a JSON list of runs (objects with `messages`, `traj` or `conversations`), one run, a list of
    messages, or JSON lines. A transcript may be plain, compressed by gzip, or in a tar or zip.
    FILE is created if it does not exist.
    """
    return run(_import_chat, file, transcripts, provider, max_bytes, limits)


async def _import_chat(
    file: str, transcripts: tuple[str, ...], provider: str, max_bytes: int, limits: Limits
) -> int:
    with render.progress_bar(counted=True) as progress:
        importer = Importer(file, provider, max_bytes, limits, progress)
        with telling_what_is_kept(importer.kept):
            await importer.run(transcripts)
    click.echo(importer.summary())
    return BAD if importer.failures else FINE


@define
class Importer:
    """Records the runs that can be recorded, reports why the others cannot, and counts both."""

    file: str
    provider: str
    max_bytes: int
    limits: Limits
    progress: Progress
    sessions: int = 0
    asks: int = 0
    tool_calls: int = 0
    unanswered: int = 0
    failures: int = 0
    known: int = 0
    started: float = field(factory=time.monotonic)
    _held: dict[str, SessionSummary] = field(factory=dict)

    async def run(self, transcripts: Iterable[str]) -> None:
        """Import the files, in order. The store is opened when there is a run to record."""
        task = self.progress.add_task("importing", total=None)
        async with AsyncExitStack() as stack:
            store: Store | None = None
            for path in transcripts:
                try:
                    async with aclosing(
                        read_plans(path, limits=self.limits, max_bytes=self.max_bytes)
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
        calls = count_of(self.tool_calls, "tool call")
        return (
            f"imported {count_of(self.sessions, 'session')} with {count_of(self.asks, 'ask')} "
            f"and {calls}, {self.unanswered} of them without a result, "
            f"in {time.monotonic() - self.started:.1f} s"
            + (f"; {count_of(self.known, 'run')} there already" if self.known else "")
        )

    def kept(self) -> str:
        """Say what is in the file whatever happens."""
        done = count_of(self.sessions, "session")
        return f"{done} imported, and kept; the same import again goes on from there"

    async def _open(
        self, stack: AsyncExitStack, plans: list[SessionPlan | TranscriptError]
    ) -> Store | None:
        if not any(isinstance(plan, SessionPlan) for plan in plans):
            return None
        # No single record needs an fsync: an import that was interrupted is run again.
        config = StoreConfig(durability=Durability.BUFFERED, limits=self.limits)
        store = await stack.enter_async_context(open_store(self.file, config=config))
        for summary in await store.list_sessions(include_open=True):
            about = summary.metadata.get(KEY)
            if isinstance(about, Mapping) and isinstance(about.get("digest"), str):
                self._held[about["digest"]] = summary
        return store

    async def _record_all(
        self, store: Store | None, plans: list[SessionPlan | TranscriptError], task: TaskID
    ) -> None:
        total = self.progress.tasks[task].total or 0
        self.progress.update(task, total=total + len(plans))
        for plan in plans:
            if isinstance(plan, TranscriptError):
                self._fail(plan)
            elif store is not None:
                await self._record(store, plan)
            self.progress.advance(task)

    async def _record(self, store: Store, plan: SessionPlan) -> None:
        """Record a run, unless it is there; what an interrupted import left of it is deleted."""
        digest = self._digest(plan)
        held = self._held.get(digest)
        if held is not None and held.ended_ns is not None and held.error is None:
            self.known += 1
            return
        if held is not None:
            await store.delete_session(held.session_id)
        about = {**plan.metadata[KEY], "digest": digest}
        marked = evolve(plan, metadata={**plan.metadata, KEY: about})
        await record_run(store, marked, provider=self.provider)
        self._count(plan)

    def _digest(self, plan: SessionPlan) -> str:
        """Return what tells a run from all others: its place, and all that is recorded of it."""
        planned = [self.provider, plan.name, plan.metadata, *map(asdict, plan.actions)]
        data = json.dumps(planned, default=str).encode("utf-8", "backslashreplace")
        return hashlib.blake2b(data, digest_size=16).hexdigest()

    def _count(self, plan: SessionPlan) -> None:
        for note in plan.notes:
            say_note(note)
        calls = [planned for planned in plan.actions if isinstance(planned, PlannedToolCall)]
        self.sessions += 1
        self.asks += sum(isinstance(planned, PlannedAsk) for planned in plan.actions)
        self.tool_calls += len(calls)
        self.unanswered += sum(call.result is None for call in calls)

    def _fail(self, error: TranscriptError) -> None:
        self.failures += 1
        report(error)
