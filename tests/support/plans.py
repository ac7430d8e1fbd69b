"""What hypothesis lets a store do: plans, operations but for what depends on the store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve, frozen
from hypothesis import settings
from hypothesis import strategies as st

from memvid_async import (
    ActionKind,
    KeyDeleted,
    KeyPut,
    ListChanged,
    PrefixDeleted,
    RecordingConfig,
)
from memvid_async.core import commands
from memvid_async.events.calls import (
    AnswerDropped,
    CallFacts,
    ChunksCame,
    ErrorDetail,
    SessionResumed,
    SessionSuspended,
)
from memvid_async.events.content import Content
from memvid_async.events.prompts import Reply
from memvid_async.file import catalog as index
from memvid_async.file import open_table
from memvid_async.format.tables import Table
from tests.support.naive import Begin, Naive, Op, Record

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# On both sides of every bound: repeated strings meet again as pieces, as contents, as prefixes.
STRINGS = st.sampled_from(
    ["", "a", "p" * 31, "p" * 32, "q" * 40, "é" * 16, "c" * 1023, "c" * 1024, "é" * 512, "d" * 3000]
)
BYTES = st.sampled_from([b"", b"\0\xff", b"p" * 32, b"c" * 1024, b"\xe9" * 1500, b"c" * 1023])
CONTENTS = st.one_of(STRINGS, BYTES, TEXTS)
KEYS = st.one_of(TEXTS, st.integers(-(2**63), 2**64 - 1), st.binary(max_size=8))


def _values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.one_of(st.none(), st.booleans(), numbers, TEXTS, st.binary(max_size=8)),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=8,
    )


# What a field of a row may hold, and what a caller may record.
FIELDS = _values(st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False))
_WIDE = st.sampled_from([2**64, -(2**64) - 1, 1 << 600])
VALUES = _values(st.integers() | _WIDE | st.floats(allow_nan=False) | st.just(math.nan))
MESSAGES = st.one_of(
    st.builds(lambda role, content: {"role": role, "content": content}, TEXTS, CONTENTS),
    st.lists(CONTENTS, max_size=3),
    VALUES,
)
COUNTS = st.integers(0, 2**63 - 1)
ERRORS = st.none() | TEXTS
METADATA = st.none() | st.dictionaries(KEYS, VALUES, max_size=3)
PICKS = st.integers(0, 1000)
CONFIGS = st.builds(
    RecordingConfig,
    auto_checkpoint_interval=st.sampled_from([0, 0, 1, 2, 3]),
    max_actions=st.sampled_from([None, None, 1, 2, 5]),
)
IDS = st.integers(1, 6).map(lambda number: UUID(int=number))


@frozen
class Plan:
    """An operation but for what depends on the store: which session, which messages before."""

    op: Op
    pick: int
    branch: int = 0

    def resolve(self, naive: Naive) -> Op:
        """The operation on the naive store as it is now; mostly on sessions that are open."""
        op = self.op
        if isinstance(op, _WHOLE):
            return op
        if isinstance(op, commands.EndSession) and isinstance(op.session, UUID):
            return op
        still_open = [n for n, s in naive.sessions.items() if s["ended"] is None]
        if isinstance(op, commands.EndSession):
            numbers = [*still_open, *still_open, *naive.ids, None]
            return commands.EndSession(numbers[self.pick % len(numbers)], op.error)
        if isinstance(op, commands.NoteEvent):
            numbers = [*still_open, *still_open, *naive.ids, 1]
            number, note = numbers[self.pick % len(numbers)], op.note
            if isinstance(note, SessionResumed) and number in naive.sessions:
                note = evolve(note, reopened=self._ended_calls(naive, number))
            return commands.NoteEvent(number, note)
        if isinstance(op, Begin):
            return self._begin(naive, op, still_open)
        if isinstance(op, Record) and op.call is not None:
            return self._end(naive, op, still_open)
        # Of one block, of blocks within each other (some were left), or of none.
        blocks = (*naive.ids,)[self.pick % (len(naive.ids) + 1) :: -1]
        choices = [*still_open, *still_open, *naive.ids, blocks, blocks, ()]
        choice: commands.SessionChoice = choices[self.pick % len(choices)]
        if isinstance(op, commands.CreateCheckpoint):
            return commands.CreateCheckpoint(choice, op.task)
        messages = op.messages
        if op.kind is ActionKind.ASK and naive.asked and self.branch:
            before = naive.asked[-1 - self.branch // 8 % len(naive.asked)]
            messages = before[: len(before) - self.branch % 3] + messages
        values = {**{a: getattr(op, a) for a in _RECORD_FIELDS}, "session": choice}
        return Record(**{**values, "messages": messages})

    def _ended_calls(self, naive: Naive, number: int) -> tuple[tuple[int, int], ...]:
        """Calls of a session that have ended, each with the time of its start; some of them."""
        session = naive.sessions[number]
        ended = [
            (call["sequence"], call["time"])
            for call in session["begun"]
            if not (call["sequence"] in naive.tries or call["sequence"] in session["in_flight"])
        ]
        return tuple(ended[self.branch % 3 :])

    def _begin(self, naive: Naive, op: Begin, still_open: list[int]) -> Op:
        """The start of a call of an open session mostly; or another try of one in flight."""
        numbers = [*still_open, *still_open, *naive.ids, 1]
        number = numbers[self.pick % len(numbers)]
        calls = list(naive.sessions.get(number, {}).get("in_flight", {}))
        parent = [*calls, None][self.branch % (len(calls) + 1)]
        if op.first is None:
            return evolve(op, session=number, parent=parent)
        first = [*calls, 1][self.branch % (len(calls) + 1)]
        return evolve(op, session=number, first=first)

    def _end(self, naive: Naive, op: Record, still_open: list[int]) -> Op:
        """The end of a call in flight mostly; also of one that is not, or of none."""
        assert op.call is not None
        numbers = [*still_open, *still_open, *naive.ids, 1]
        number = numbers[self.pick % len(numbers)]
        calls = [*naive.sessions.get(number, {}).get("in_flight", {})]
        started = [*calls, *calls, 1, None][self.branch % (2 * len(calls) + 2)]
        return evolve(op, session=number, call=op.call._replace(started=started))


_WHOLE = (
    *(commands.StartSession, commands.ResumeSession),
    *(commands.DeleteSession, commands.ChangeSession, commands.ChangeCollection),
)
_RECORD_FIELDS = [field.name for field in Record.__attrs_attrs__]


TOKENS = st.none() | st.sampled_from([0, 1, 5, 2**63 - 1])
REPLIES = st.builds(
    Reply,
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
    TOKENS,
    TOKENS,
    TOKENS,
    st.none() | st.floats(0, 1e6) | st.integers(0, 5).map(lambda n: n / 10),
)
LANES = st.lists(TEXTS | st.integers(0, 3), max_size=2).map(tuple)
LONE_ERRORS = st.builds(
    ErrorDetail,
    TEXTS,
    TEXTS,
    st.none() | st.lists(VALUES, max_size=2).map(tuple),
    st.dictionaries(TEXTS, VALUES, max_size=2),
    st.lists(TEXTS, max_size=2).map(tuple),
)
ERROR_DETAILS = LONE_ERRORS | st.builds(
    ErrorDetail, TEXTS, TEXTS, members=st.lists(LONE_ERRORS, min_size=1, max_size=2).map(tuple)
)
CALLS = st.builds(
    CallFacts,
    st.none(),
    st.none(),
    st.none() | COUNTS,
    st.none() | LANES,
    st.none() | COUNTS,
    st.none() | ERROR_DETAILS,
    ERRORS,
    st.none() | CONTENTS.filter(lambda raw: len(raw) < 300).map(Content),
)
_FRAME = st.tuples(COUNTS)
_FRAMES = st.lists(COUNTS, max_size=4).map(tuple)
_COMMON: dict[str, st.SearchStrategy[Any]] = {
    "duration_ms": st.one_of(COUNTS, st.floats(0, 1e15)),
    "task": ERRORS,
    "error": ERRORS,
    "metadata": METADATA,
}
_FIELDS: dict[ActionKind, dict[str, st.SearchStrategy[Any]]] = {
    ActionKind.ASK: {
        "input": CONTENTS,
        "output": st.none() | CONTENTS,
        "frames": _FRAMES,
        "detail": st.tuples(TEXTS, TEXTS),
        "messages": st.lists(MESSAGES, max_size=3).map(tuple),
        "reply": st.none() | REPLIES,
    },
    ActionKind.PUT: {"input": CONTENTS, "frames": _FRAME},
    ActionKind.PUT_MANY: {"frames": _FRAMES},
    ActionKind.FIND: {"input": CONTENTS, "frames": _FRAMES, "detail": st.tuples(TEXTS, COUNTS)},
    ActionKind.UPDATE: {"input": CONTENTS, "frames": _FRAME},
    ActionKind.DELETE: {"frames": _FRAME},
    ActionKind.TOOL_CALL: {
        "input": VALUES | STRINGS,
        "output": st.none() | CONTENTS,
        "detail": st.tuples(TEXTS),
    },
    ActionKind.STEP: {
        "input": st.none() | VALUES,
        "output": st.none() | CONTENTS,
        "detail": st.tuples(TEXTS),
    },
    ActionKind.ONCE: {"output": st.none() | CONTENTS, "detail": st.tuples(TEXTS)},
}
_NAMED = (ActionKind.TOOL_CALL, ActionKind.STEP)


@st.composite
def records(draw: st.DrawFn, kind: ActionKind | None = None) -> Record:
    """What a ``record_…`` call may be given. (A composite, for its representation is short.)"""
    kind = kind or draw(st.sampled_from(list(_FIELDS)))
    fields = {**_COMMON, **_FIELDS[kind]}
    return Record((), kind, **{name: draw(strategy) for name, strategy in fields.items()})


@st.composite
def begins(draw: st.DrawFn) -> Begin:
    """What begins a call or a step, or tries it again."""
    kind = draw(st.sampled_from([*_NAMED, ActionKind.ASK]))
    again = draw(st.booleans())
    return Begin(
        0,
        kind,
        draw(_FIELDS[kind]["input"]),
        draw(_FIELDS[kind]["detail"]),
        draw(ERRORS),
        None,
        draw(LANES),
        draw(COUNTS),
        1 if again else None,
        draw(st.integers(2, 5)) if again else 1,
        draw(ERRORS) if again else None,
        draw(st.none() | st.binary(min_size=16, max_size=16)),
    )


@st.composite
def ends(draw: st.DrawFn) -> Record:
    """What ends a call."""
    kind = draw(st.sampled_from([*_NAMED, ActionKind.ASK]))
    return evolve(draw(records(kind)), call=draw(CALLS))


NOTES = st.one_of(
    st.builds(AnswerDropped, COUNTS),
    st.builds(ChunksCame, COUNTS, COUNTS, COUNTS, st.lists(CONTENTS, max_size=2).map(tuple)),
    st.builds(
        SessionResumed,
        COUNTS,
        st.lists(st.tuples(COUNTS, COUNTS), max_size=2).map(lambda calls: tuple(sorted(calls))),
    ),
    st.builds(SessionSuspended, COUNTS),
)
CHANGES = st.fixed_dictionaries(
    {}, optional={"name": ERRORS, "metadata": st.dictionaries(KEYS, VALUES, max_size=3)}
)


@st.composite
def starts(draw: st.DrawFn) -> commands.StartSession:
    """What starts a session."""
    return commands.StartSession(
        draw(IDS),
        draw(ERRORS),
        draw(CONFIGS),
        draw(METADATA) or {},
        ambient=draw(st.booleans()),
        if_none=draw(st.booleans()),
    )


_PLACES = st.sampled_from(["", "a/1", "a/2", "é"])
_ENCODED = st.sampled_from([b"\x01", b"\x63abc", b"\xf6", b"\x59\x06\x40" + bytes(1600)])
_DELETED = st.builds(KeyDeleted, _PLACES) | st.builds(PrefixDeleted, st.sampled_from(["a", "x"]))
_PUTS = st.builds(KeyPut, _PLACES, _ENCODED, st.sampled_from([None, b"\xa1\x61n\x01"]))
_LISTS = st.builds(
    ListChanged,
    _PLACES,
    st.integers(0, 2),
    st.none() | st.integers(0, 3),
    st.lists(_ENCODED, max_size=2).map(tuple),
)


@st.composite
def key_changes(draw: st.DrawFn) -> commands.ChangeCollection:
    """What changes a collection of values, or one of lists: deciding that needs to know no key."""
    names, changes = draw(st.sampled_from([(["v", "values"], _PUTS), (["l"], _LISTS)]))
    made = draw(st.lists(changes | _DELETED, min_size=1, max_size=3).map(tuple))
    return commands.ChangeCollection(draw(st.sampled_from(names)), made, (), {}, -1, 100)


KEY_CHANGES = key_changes()
ASKS = records(ActionKind.ASK)
STARTS = starts()
OTHERS = st.one_of(
    st.builds(commands.EndSession, st.none() | IDS, ERRORS),
    st.builds(commands.ResumeSession, IDS),
    st.builds(commands.DeleteSession, IDS),
    st.builds(commands.CreateCheckpoint, st.just(()), ERRORS),
    st.builds(commands.NoteEvent, st.just(0), NOTES),
    st.builds(commands.ChangeSession, IDS, CHANGES, st.sampled_from([30, 10**6])),
)
PLANS = st.builds(
    Plan, st.one_of(records(), STARTS, ASKS, begins(), ends(), OTHERS, KEY_CHANGES), PICKS, PICKS
)
# Cheap to draw, for what needs many operations rather than strange ones.
SIMPLE_ASKS = st.builds(
    Record,
    st.just(()),
    st.just(ActionKind.ASK),
    input=STRINGS,
    output=STRINGS,
    detail=st.just(("o", "m")),
    messages=st.lists(STRINGS, max_size=2).map(tuple),
)
SIMPLE_PLANS = st.builds(
    Plan, st.one_of(SIMPLE_ASKS, SIMPLE_ASKS, SIMPLE_ASKS, STARTS, OTHERS), PICKS, PICKS
)


def examples(share: float) -> settings:
    """So large a share of the examples that the chosen profile asks for."""
    return settings(max_examples=max(1, int(settings().max_examples * share)))


@contextmanager
def small_tables(chunk: int = 3, toc: int = 900) -> Iterator[None]:
    """Bounds so low that a short log has chunks, pages, marks and TOCs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "TOC_LEAST_BYTES", toc)
        patch.setattr(index, "TOC_FACTOR", 1)
        patch.setattr(index, "CHUNK", chunk)
        patch.setattr(index, "MARK_BYTES", 300)
        rows = dict.fromkeys(Table, 2) | {Table.MARKS: 3}
        patch.setattr(index, "PAGE_ROWS", rows)
        patch.setattr(open_table, "PAGE_BYTES", 50)
        patch.setattr(open_table, "LEAST_PAGES", 1)
        yield
