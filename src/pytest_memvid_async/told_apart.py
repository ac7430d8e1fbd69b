"""Whether another run of an agent can tell its tasks apart as this one did.

Tasks that nobody named, and that begin with the same call, are known by which of them makes that
call first (`docs/rules.md`). Where each makes it as soon as it runs, that is the order in which the
tasks were created, and the same in every run. Where it was another order, something that is not
recorded made one of them wait, and may make another one wait in the next run. So may a step: it
takes a moment where it is recorded, and none where it is answered.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from memvid_async import Action, ActionStarted, Event, Store, UnrecordedWarning

MOST_COMPARED = 100
"""At most this many tasks that begin alike are compared with each other."""

# What asyncio calls a task that nobody named: numbers in the order of their creation.
_NUMBERED = re.compile(r"Task-(\d+)").fullmatch
_Told = tuple[Hashable, Hashable]


async def find_chances(store: Store, session_id: UUID) -> list[UnrecordedWarning]:
    """Return a warning for each pair of tasks of an ended session that only chance told apart."""
    from memvid_async import SessionEnded, UnrecordedWarning  # noqa: PLC0415 - see the package

    events = []
    async with store.subscribe(session_id=session_id) as coming:
        async for event in coming:
            events.append(event)
            if isinstance(event.payload, SessionEnded):
                break
    return [
        UnrecordedWarning(
            f"{a} and {b} begin with the same {call}, and were told different things. What came "
            "first was not what was created first, so the next run may take one for the other. "
            "Name them (asyncio.create_task(…, name=…)), or pass task=… with their calls."
        )
        for a, b, call in tasks_told_apart_by_chance(events)
    ]


def tasks_told_apart_by_chance(events: Iterable[Event]) -> list[tuple[str, str, str]]:
    """Return the pairs of tasks of a session that only chance told apart, with the call with which
    both of them began.

    ``events``: those of the session. Such a pair has no names, began with the same call, was told
    different things, and began in another order than that of its creation, or one of them in a
    step and the other not.
    """
    from memvid_async import ActionKind, ActionRecorded, ActionStarted  # noqa: PLC0415 - see the package

    begun: dict[int, Action | ActionStarted] = {}
    answers: dict[int, Hashable] = {}
    steps: dict[int | None, int | None] = {}
    for event in events:
        payload = event.payload
        if isinstance(payload, ActionStarted):
            if payload.kind is ActionKind.STEP:
                steps[payload.sequence] = payload.parent
            else:
                begun.setdefault(payload.call, payload)
        elif isinstance(payload, ActionRecorded):
            action = payload.action
            start = action.started
            if start is None and action.call.lane is not None:
                start, begun[action.sequence] = action.sequence, action
            if start is not None:
                output = None if action.output is None else action.output.digest
                answers[start] = action.error, output
    tasks: dict[Hashable, list[tuple[str, bool, list[_Told]]]] = {}
    lanes: dict[Hashable, list[_Told]] = {}
    for start, one in sorted(begun.items(), key=lambda item: item[0]):
        scope = one.parent
        while scope in steps:
            scope = steps[scope]
        lane = one.lane if isinstance(one, ActionStarted) else one.call.lane or ()
        name = getattr(one.details, "name", None)
        content = one.kind, name, None if one.input is None else one.input.digest
        told = lanes.get((lane, scope))
        if told is None:
            told = lanes[lane, scope] = []
            if lane and isinstance(lane[-1], int) and one.task and _NUMBERED(one.task):
                group = tasks.setdefault((lane[:-1], scope, content), [])
                if len(group) < MOST_COMPARED:
                    group.append((one.task, one.parent in steps, told))
        told.append((content, answers.get(start)))
    return [
        (a, b, " ".join(str(part) for part in key[2][:2] if part))  # type: ignore[index]
        for key, group in tasks.items()
        for (a, a_in_step, told_a), (b, b_in_step, told_b) in combinations(group, 2)
        if (_number(a) > _number(b) or a_in_step != b_in_step) and _were_told_apart(told_a, told_b)
    ]


def _number(task: str) -> int:
    found = _NUMBERED(task)
    return 0 if found is None else int(found[1])


def _were_told_apart(a: list[_Told], b: list[_Told]) -> bool:
    """Whether two tasks that did the same were told different things."""
    first = next((pair for pair in zip(a, b, strict=False) if pair[0] != pair[1]), None)
    return first is not None and first[0][0] == first[1][0]
