"""The part of a store that replays, compares, serves and audits its sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Literal, TypeVar
from uuid import UUID

from anyio import to_thread

from ..config import Limits
from ..core.commands import ResumeSession
from ..engine.engine import Engine
from ..errors import InvalidValueError
from ..events.content import EMPTY
from ..events.values import is_one_of
from ..memory.frame_store import FrameStore
from ..recording.command_intake import CommandIntake
from ..recording.prepare_values import prepare_count, prepare_seconds, prepare_session_id
from ..recording.replies import Model, check_model
from .audit import AuditReport, run_audit
from .compare import (
    ChangedAction,
    Comparison,
    build_comparison,
    find_differences,
    pair_up,
    read_side,
)
from .match import Match, check_match, check_pace
from .recorded_errors import ErrorTypes, check_types
from .replay_run import Replay
from .resumed import ResumedSession, ResumeOptions
from .scratch import WhatIf, prepare_what_if
from .serve import ServedSession, ServeOptions

T = TypeVar("T")


class Replays:
    """The part of a store that replays, compares, serves and audits its sessions.

    ``fork`` makes a fork, as the method of :class:`Store` does; ``start`` starts a session that is
    resumed at once.
    """

    def __init__(
        self,
        engine: Engine,
        memory: FrameStore,
        intake: CommandIntake,
        fork: Callable[[UUID], Awaitable[UUID]],
        start: Callable[[], Awaitable[UUID]],
        limits: Limits,
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._intake = intake
        self._fork = fork
        self._start = start
        self._read = engine.read
        self._limits = limits

    async def compare(self, session_a: UUID | str, session_b: UUID | str) -> Comparison:
        """Align two sessions by what they did, and say where and how they differ.

        It compares the kind, the details, input, output, messages, metadata, task, error and a
        checkpoint's state, but not when and where an action was recorded. `docs/replay.md` has the
        list.

        :raises SessionNotFoundError: when there is no such session.
        :raises CorruptFileError: when one cannot be read.
        """
        a = await self._read(read_side, prepare_session_id(session_a))
        b = await self._read(read_side, prepare_session_id(session_b))
        pairs, unequal = await to_thread.run_sync(pair_up, a, b)
        changed = []
        for i, j in unequal:
            differences = await self._read(find_differences, a, i, b, j)
            actions = a.recording.actions[i], b.recording.actions[j]
            changed.append(ChangedAction(*actions, differences))
        return await to_thread.run_sync(build_comparison, a, b, pairs, changed)

    def serve(
        self,
        session_id: UUID | str | None,
        *,
        missing: Literal["raise", "run"] = "raise",
        order: Literal["task"] = "task",
        match: Match | Collection[str] | None = None,
        errors: ErrorTypes = EMPTY,
        stall: float = 2.0,
        unserved: Literal["raise", "allow"] = "raise",
        pace: float | None = None,
    ) -> ServedSession:
        """Answer the calls of an agent from a session, in an ``async with`` block.

        ``missing``: what happens to a call that is made after everything recorded was answered. It
        raises :class:`ReplayDivergenceError`; with ``"run"`` it runs, and is recorded in a fork of
        the session. ``session_id``: with ``"run"`` it may be None, for a recording without calls:
        all of them run, in a new session. ``order``: calls are matched by their task and their
        place in it. ``match``: what of a call is compared, as ``match(kind, field, value)`` returns
        it, or the names of the fields. ``errors``: exception types by the names that the recording
        has for them, for those that no loaded module has. ``stall``: how many seconds longer than
        then the agent may take to make the next recorded call, while others wait for it.
        ``unserved``: what happens when the block is left with recorded calls that nobody asked for.
        ``pace``: how fast the chunks of streams come, 1 as they came then, 2 twice as fast; None
        for all at once.

        Entering raises :class:`SessionNotFoundError`.
        """
        for value, allowed, what in (
            (missing, ("raise", "run"), "missing"),
            (order, ("task",), "order"),
            (unserved, ("raise", "allow"), "unserved"),
        ):
            if not is_one_of(value, allowed):
                known = " or ".join(map(repr, allowed))
                raise InvalidValueError(f"{what} must be {known}, not {value!r:.80}")
        is_new = session_id is None and missing == "run"
        wanted = None if is_new else prepare_session_id(session_id)
        options = ServeOptions(
            check_types(errors),
            check_match(match),
            check_pace(pace),
            prepare_seconds(stall, "stall"),
            unserved,
        )
        live = None
        if missing == "run":
            live = lambda: self._live(wanted, options)  # noqa: E731
        return ServedSession(self._intake, self._read, wanted, options, live)

    async def _live(self, session_id: UUID | None, options: ServeOptions) -> ResumedSession:
        """Return the fork in which calls run that a served session does not have; of none, a new
        session."""
        made = await (self._start() if session_id is None else self._fork(session_id))
        command = ResumeSession(made)
        resumed = ResumeOptions("run", options.stall, options.errors, options.match, options.pace)
        return ResumedSession(self._engine, self._memory, self._intake, command, resumed)

    def replay(
        self,
        session_id: UUID | str,
        *,
        checkpoint_id: int | None = None,
        before_index: int | None = None,
        what_if: WhatIf | None = None,
    ) -> Replay:
        """Repeat a session from its events alone, and compare each action with the recorded one.

        ``async for step in store.replay(…)`` yields the verdicts one by one, ``await
        store.replay(…).report()`` returns all of them. ``checkpoint_id``: the checkpoint to start
        at, whose state is rebuilt and compared first. ``before_index``: only the actions before
        this one. ``what_if``: change the searches, and say what they find then. Iterating raises
        :class:`SessionNotFoundError`, :class:`CheckpointNotFoundError` or
        :class:`CorruptFileError`.
        """
        for value, what in ((checkpoint_id, "checkpoint_id"), (before_index, "before_index")):
            if value is not None:
                prepare_count(value, what)
        if what_if is not None:
            what_if = prepare_what_if(what_if)
        return Replay(
            self._read, prepare_session_id(session_id), checkpoint_id, before_index, what_if
        )

    async def audit(
        self, session_id: UUID | str, generate: Mapping[str, Model], *, concurrency: int = 8
    ) -> AuditReport:
        """Put a session's questions to other models, and compare their answers with the recorded.

        ``generate``: models by the names that the report has for them. Each is called with the
        :class:`Prompt` of every ask: its question, what the store's ask retrieved then, and its
        messages. It returns a reply as the ``generate`` of :meth:`Store.ask` does. ``concurrency``:
        how many calls run at the same time. An error that a model raises is kept with its answer.

        :raises TypeError: when a callable does not take one argument; none was called.
        :raises SessionNotFoundError: when there is no such session.
        """
        if type(concurrency) is not int or concurrency < 1:
            raise InvalidValueError(f"concurrency must be an int from 1, not {concurrency!r:.80}")
        session_id, models = prepare_session_id(session_id), _models(generate)
        return await run_audit(self._read, self._limits, session_id, models, concurrency)


def _models(value: object) -> dict[str, Model]:
    if not isinstance(value, Mapping):
        raise InvalidValueError("generate must be a dict of callables by name")
    for model in value.values():
        check_model(model)
    return dict(value)
