"""What becomes of a recording: the verdicts of its replay, and why an answer is what it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import groupby
from uuid import UUID

from .. import (
    Action,
    ContentNotFoundError,
    InvalidValueError,
    ReplayReport,
    ReplayStep,
    Store,
    Verdict,
    Why,
    WhyFrame,
)
from .bars import title_of
from .markup import aside, block, diff_block, facts_list, named, part, parts_list, shown
from .session_names import SessionNames
from .shell import LIST_KEYS, end, head, start
from .text import count_of, format_time, shorten

_LOOKS = {
    Verdict.MATCHED: "put",
    Verdict.DIVERGED: "t-failed",
    Verdict.SERVED: "find",
    Verdict.SKIPPED: "soft",
    Verdict.UNVERIFIABLE: "checkpoint",
}


def rate_told(report: ReplayReport) -> str:
    """Say how much of a recording matched."""
    counts = report.counts
    compared = counts[Verdict.MATCHED] + counts[Verdict.DIVERGED]
    if not compared:
        return "nothing could be compared"
    return f"{report.match_rate:.1%} of {count_of(compared, 'compared action')} matched"


async def replay_page(store: Store, session_id: str) -> AsyncGenerator[str, None]:
    """Yield the page of a session's replay."""
    session = await store.get_summary(session_id)
    yield head(live=True) + start("Replay", live=True)
    yield (
        f"<main><header><h1>Replay of {named(session.name or '')}</h1>"
        f'<p class="note"><a href="/sessions/{session.session_id}">the session</a></p></header>'
    )
    report = await store.replay(session_id).report()
    told = {verdict.value: str(count) for verdict, count in report.counts.items() if count}
    yield f'<p class="verdict">{rate_told(report)}</p>{facts_list(told)}<div id="list">'
    for (verdict, reason), steps in groupby(report.steps, key=lambda s: (s.verdict, s.reason)):
        yield _steps(session.session_id, verdict, reason, list(steps))
    yield "</div>" + end(LIST_KEYS, live=True)


def _steps(session: UUID, verdict: Verdict, reason: str | None, steps: list[ReplayStep]) -> str:
    links = ", ".join(_link(session, step.action) for step in steps[:20])
    more = f" and {len(steps) - 20} more" if len(steps) > 20 else ""
    why = "" if reason is None else f'<p class="note">{shown(reason)}</p>'
    differences = parts_list(
        part(difference.field, diff_block(difference.diff))
        for step in steps
        for difference in step.differences
    )
    return (
        f'<article data-kind="{verdict.value}"><h2><i class="{_LOOKS[verdict]}">'
        f"{verdict.value}</i> <span>{links}{more}</span></h2>{why}{differences}</article>"
    )


def _link(session: UUID | None, action: Action) -> str:
    name = f"{action.kind.value.replace('_', ' ')} {named(title_of(action.details), '', 40)}"
    href = f"/sessions/{session}?from={action.index}#a{action.index}"
    return f'<a href="{href}">{action.index} {name}</a>'


async def why_page(store: Store, session_id: str, index: int) -> AsyncGenerator[str, None]:
    """Yield the page of what an answer was made of."""
    session = await store.get_summary(session_id)
    if index >= session.action_count:
        raise InvalidValueError(f"the session has no action {index}")
    yield head(live=True) + start("Why", live=True) + "<main><header><h1>Why this answer?</h1>"
    action = await _action(store, session_id, index)
    if action is None:
        yield '<p class="note">It was erased.</p></header>' + end(LIST_KEYS, live=True)
        return
    yield (
        f'<p class="note">{_link(session.session_id, action)} of {named(session.name or "")}</p>'
        "</header>"
    )
    why, names = await store.why(action), SessionNames(store)
    both = (("query", action.input), ("answer", action.output))
    yield parts_list(part(name, block(told.preview)) for name, told in both if told is not None)
    yield f'<h2>{_count_told(why)}</h2><div id="list">'
    for frame in why.frames:
        yield await _given(store, frame, names, action)
    yield "</div>" + end(LIST_KEYS, live=True)


async def _action(store: Store, session_id: str, index: int) -> Action | None:
    async with aclosing(store.actions(session_id)) as actions:
        async for action in actions:
            if action.index == index:
                return action
    return None


def _count_told(why: Why) -> str:
    if not why.frames:
        return "It was given no frames of the memory"
    return f"It was given {count_of(len(why.frames), 'frame')}"


async def _given(store: Store, frame: WhyFrame, names: SessionNames, action: Action) -> str:
    as_of = action.sequence if action.retrieval is None else action.retrieval.as_of
    score = "" if frame.score is None else f'<span class="soft">score {frame.score:.3g}</span>'
    version = "" if frame.sequence is None else f"its body of event {frame.sequence}"
    text = '<p class="note">(not known, or erased)</p>'
    if frame.content is not None:
        try:
            data = await store.read_content(frame.content)
            text = block(data.decode("utf-8", "replace"), frame.content.size)
        except ContentNotFoundError:
            text = '<p class="note">(erased)</p>'
    parts = (
        part("as it was", text),
        part("put by", await _put_by(frame, names)),
        part("used later", await _later(frame.later, names)),
    )
    return (
        '<article data-kind="frame"><h2>'
        f'<a href="/memory/{frame.frame_id}?at={as_of}">frame {frame.frame_id}</a>{score}'
        f"<small>{version}</small></h2>{parts_list(parts)}</article>"
    )


async def _put_by(frame: WhyFrame, names: SessionNames) -> str:
    when = "" if frame.put_ns is None else f" at {format_time(frame.put_ns)}"
    if frame.put_by is None:
        return f'<p class="note">no session that is known{when}</p>'
    return f'<p class="note">{await _in_session(frame.put_by, names)}{when}</p>'


async def _in_session(action: Action, names: SessionNames) -> str:
    session = action.session_id
    name = None if session is None else await names.get(session)
    if name is None:
        return f"a deleted session's action {action.index}"
    return f"{_link(session, action)} of {named(name)}"


async def _later(later: Sequence[Action], names: SessionNames) -> str:
    if not later:
        return '<p class="note">by no answer since</p>'
    items = ""
    for action in later[:20]:
        asked = shown(shorten(action.input.preview if action.input else "", 80))
        items += f'<li>{await _in_session(action, names)} <span class="soft">{asked}</span></li>'
    more = f"<li>and {len(later) - 20} more</li>" if len(later) > 20 else ""
    listed = f'<ol class="rows">{items}{more}</ol>'
    return listed if len(later) < 6 else aside(count_of(len(later), "answer"), listed)
