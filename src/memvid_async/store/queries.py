"""The part of a store that finds actions across sessions, and sums what they used."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any, get_args
from uuid import UUID

from ..engine.engine import Engine
from ..engine.finding_actions import ActionQuery, find_actions
from ..engine.usage_sums import UsageBy, UsageRow, sum_usage
from ..errors import InvalidValueError
from ..events.details import ActionKind
from ..events.event import Action
from ..events.values import check_text, is_one_of, shown
from ..recording.prepare_values import (
    prepare_count,
    prepare_flag,
    prepare_session_id,
    prepare_time,
)

_BY = get_args(UsageBy)


class Queries:
    """What a store answers about the actions of many sessions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def actions(
        self,
        session_id: UUID | str | None = None,
        *,
        kind: ActionKind | str | None = None,
        name: str | None = None,
        task: str | None = None,
        failed: bool | None = None,
        text: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        newest_first: bool = False,
        after: Action | int | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Action, None]:
        """Iterate over actions in the order of the log: of one session, or of all where it is None.

        ``name``: of the tool or the step; of an ask the model. ``failed``: those that failed, or
        those that did not. ``text``: part of the input, the output, the arguments or the error, in
        any case. ``since_ns``, ``until_ns``: recorded from this time on, and before that one, in
        nanoseconds since the Unix epoch. ``after``: those that come after this action (or the one
        with this sequence) in the order that is asked for. ``limit``: at most this many. It reads
        what was recorded before the first one is asked for, a piece at a time; of all sessions, all
        events up to the last action that is taken.

        :raises InvalidValueError: when an argument is of another type.
        :raises SessionNotFoundError: when there is no such session.
        """
        query = _query(
            session_id=session_id,
            kind=kind,
            name=name,
            task=task,
            failed=failed,
            text=text,
            since_ns=since_ns,
            until_ns=until_ns,
            newest_first=newest_first,
            after=after,
        )
        left = None if limit is None else prepare_count(limit, "limit")
        view = await self._engine.fresh_view()
        found = find_actions(view, query)
        while left is None or left > 0:
            actions = await self._engine.reads.run(_next, found)
            if actions is None:
                return
            for action in actions if left is None else actions[:left]:
                yield action
            left = None if left is None else left - len(actions)

    async def usage(
        self,
        *,
        by: UsageBy = "session",
        session_id: UUID | str | None = None,
        name: str | None = None,
        task: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> list[UsageRow]:
        """Sum the tokens, the cost and the time of asks and tool calls.

        ``by``: what a row is of: a ``session``, a ``model``, a ``tool`` or a ``day`` (in UTC). The
        others are as for :meth:`actions`. It reads all actions that it counts.

        :raises InvalidValueError: when an argument is of another type.
        :raises SessionNotFoundError: when there is no such session.
        """
        if not is_one_of(by, _BY):
            raise InvalidValueError(f"by must be one of {_BY}, not {shown(by)}")
        query = _query(
            session_id=session_id, name=name, task=task, since_ns=since_ns, until_ns=until_ns
        )
        return await self._engine.read(sum_usage, by, query)


def _next(found: Iterator[list[Action]]) -> list[Action] | None:
    """Return the next actions, which may be none; None when there are no more."""
    return next(found, None)


def _query(**given: Any) -> ActionQuery:
    checked = {name: value for name, value in given.items() if value is not None}
    for name, value in checked.items():
        if name == "session_id":
            checked[name] = prepare_session_id(value)
        elif name == "kind":
            checked[name] = _kind(value)
        elif name in ("since_ns", "until_ns"):
            checked[name] = prepare_time(value, name)
        elif name in ("failed", "newest_first"):
            checked[name] = prepare_flag(value, name)
        elif name == "after":
            checked[name] = prepare_count(getattr(value, "sequence", value), name)
        else:
            checked[name] = check_text(value, name)
    return ActionQuery(**checked)


def _kind(value: object) -> ActionKind:
    if isinstance(value, str) and value in [one.value for one in ActionKind]:
        return ActionKind(value)
    kinds = ", ".join(ActionKind)
    raise InvalidValueError(f"kind must be one of {kinds}, not {shown(value)}")
