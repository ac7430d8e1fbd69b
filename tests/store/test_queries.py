"""Actions across sessions, what they used, and sessions by name and metadata."""

import datetime as dt
from itertools import product
from uuid import UUID, uuid4

import pytest

from memvid_async import (
    ActionKind,
    InvalidValueError,
    SessionNotFoundError,
    StoreConfig,
    UsageRow,
)
from memvid_async.engine import finding_actions
from memvid_async.engine.finding_actions import ActionQuery, find_actions
from memvid_async.file.journal import Journal
from memvid_async.storage import RamStorage
from tests.support.naive import ask, fixed_config, start

START = int(dt.datetime(2026, 11, 28, 23, 59, 50, tzinfo=dt.UTC).timestamp()) * 10**9
SECOND = 10**9


class Ticking:
    """A clock that is a second later each time."""

    def __init__(self):
        self.now = START

    def __call__(self):
        self.now += SECOND
        return self.now


@pytest.fixture
async def store(make_store, monkeypatch):
    """Two sessions that overlap, one that was deleted, and a fork."""
    monkeypatch.setattr(finding_actions, "_READ_EVENTS", 4)
    monkeypatch.setattr(finding_actions, "_READ_BYTES", 300)
    monkeypatch.setattr(finding_actions, "_LAST_EVENTS", 2)
    monkeypatch.setattr(finding_actions, "_LAST_BYTES", 100)
    store = await make_store(config=StoreConfig(clock=Ticking()))
    one = store.session("one", metadata={"user": 7, "tags": ["a"]})
    two = store.session("two", metadata={"user": 7})
    gone = store.session("gone")
    async with one, two, gone:
        for turn in range(3):
            await one.record_ask(
                f"question {turn}", model="large", response="yes", duration_ms=10,
                input_tokens=100, output_tokens=20, cached_tokens=50, cost_usd=0.1, task="main",
            )  # fmt: skip
            error = "no such page" if turn else None
            arguments = {"Where": f"Page {turn}"}
            await two.record_tool_call("fetch", arguments=arguments, duration_ms=5, error=error)
            await gone.record_ask("never", model="large", response="no", input_tokens=10**6)
        await two.record_ask("why?", model="small", response="x" * 3000, input_tokens=7)
        await two.record_find("Straße", mode="m", result_count=0, result_frames=())
        await two.create_checkpoint()
        await two.record_ask("unnamed", response=b"\xff", error="out of luck")
    await store.delete_session(gone.session_id)
    store.one, store.two = one.session_id, two.session_id
    store.fork_id = await store.fork(one.session_id, action_index=1, name="one")
    async with store.resume_session(store.fork_id) as fork:
        await fork.record_ask("again", model="large", response="no", cost_usd=0.2)
    return store


async def listed(store, *args, **options):
    return [action async for action in store.actions(*args, **options)]


async def test_actions_come_in_the_order_of_the_log_or_back(store):
    forward = await listed(store)
    assert [a.sequence for a in forward] == sorted(a.sequence for a in forward)
    assert len(forward) == 3 + 3 + 4 + 1
    assert {a.session_id for a in forward} == {store.one, store.two, store.fork_id}
    assert await listed(store, newest_first=True) == forward[::-1]
    for at, back in product(range(len(forward)), (False, True)):
        order = forward[::-1] if back else forward
        after = order[at] if at % 2 else order[at].sequence
        rest = await listed(store, after=after, newest_first=back, limit=2)
        assert rest == order[at + 1 : at + 3]
    assert await listed(store, limit=0) == []


async def test_actions_of_one_session_are_those_of_it(store):
    for session_id in (store.one, store.two, store.fork_id):
        actions = list((await store.get_session(session_id)).actions)
        assert await listed(store, session_id) == actions
        assert await listed(store, str(session_id), newest_first=True) == actions[::-1]
        assert await listed(store, session_id, after=actions[0], limit=1) == actions[1:2]
        last = await listed(store, session_id, after=actions[-1], newest_first=True)
        assert last == actions[-2::-1]
    with pytest.raises(SessionNotFoundError):
        await listed(store, uuid4())


FILTERS = {
    "a kind": ({"kind": ActionKind.TOOL_CALL}, 3),
    "a kind as text": ({"kind": "checkpoint"}, 1),
    "a tool": ({"name": "fetch"}, 3),
    "a model": ({"name": "small"}, 1),
    "a task": ({"task": "main"}, 3),
    "failed": ({"failed": True}, 3),
    "not failed": ({"failed": False, "kind": "tool_call"}, 1),
    "text of an input": ({"text": "QUESTION 1"}, 1),
    "text of an output": ({"text": "yes"}, 3),
    "text of a large output": ({"text": "x" * 2000}, 1),
    "text of an argument": ({"text": "page 2"}, 1),
    "text of an argument's name": ({"text": '"where":'}, 3),
    "text of an error": ({"text": "such"}, 2),
    "text in another case": ({"text": "STRASSE"}, 1),
    "since": ({"since_ns": START + 14 * SECOND, "until_ns": START + 16 * SECOND}, 2),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_actions_are_found_by_what_they_are(store, name):
    options, count = FILTERS[name]
    found = await listed(store, **options)
    assert len(found) == count
    assert await listed(store, newest_first=True, **options) == found[::-1]


async def test_usage_adds_up_whatever_it_is_summed_by(store):
    assert await store.usage(by="model") == [
        UsageRow("large", None, 4, 0, 0, 300, 60, 150, 0.5, 30),
        UsageRow(None, None, 1, 0, 1, 0, 0, 0, 0, 0),
        UsageRow("small", None, 1, 0, 0, 7, 0, 0, 0, 0),
    ]
    assert await store.usage(by="tool") == [UsageRow("fetch", None, 0, 3, 2, 0, 0, 0, 0, 15)]
    sessions = await store.usage()
    assert sessions == [
        UsageRow("one", store.one, 3, 0, 0, 300, 60, 150, 0.3, 30),
        UsageRow("two", store.two, 2, 3, 3, 7, 0, 0, 0, 15),
        UsageRow("one", store.fork_id, 1, 0, 0, 0, 0, 0, 0.2, 0),
    ]
    days = await store.usage(by="day")
    assert [row.name for row in days] == ["2026-11-28", "2026-11-29"]
    for field in ("ask_count", "failed_count", "input_tokens", "duration_ms"):
        for rows in (sessions, days):
            assert sum(getattr(row, field) for row in rows) == {
                "ask_count": 6, "failed_count": 3, "input_tokens": 307, "duration_ms": 45,
            }[field]  # fmt: skip
    for summary in await store.list_sessions(include_open=True):
        (row,) = [row for row in sessions if row.session_id == summary.session_id]
        for field in ("ask_count", "tool_call_count", "failed_count", "input_tokens", "cost_usd"):
            assert getattr(row, field) == getattr(summary, field)
    assert await store.usage(by="tool", session_id=store.one) == []
    assert (await store.usage(by="model", name="small"))[0].input_tokens == 7


async def test_sessions_are_listed_by_name_and_metadata(store):
    async def ids(**options):
        return [s.session_id for s in await store.list_sessions(**options)]

    assert await ids(name="one") == [store.one, store.fork_id]
    assert await ids(name="one", newest_first=True, limit=1) == [store.fork_id]
    assert await ids(name="one", after=store.one) == [store.fork_id]
    assert await ids(metadata={"user": 7}) == [store.one, store.two]
    assert await ids(metadata={"user": 7, "tags": ["a"]}) == [store.one]
    assert await ids(metadata={"user": 8}) == await ids(name="none") == []
    view = await store.at(sequence=store.last_sequence)
    assert [s.session_id for s in await view.list_sessions(name="two")] == [store.two]


async def test_bad_questions_are_named(store):
    bad = [
        {"kind": "walk"}, {"name": 7}, {"task": b"x"}, {"failed": 1}, {"text": 5},
        {"since_ns": "now"}, {"newest_first": "yes"}, {"after": -1}, {"limit": -1},
    ]  # fmt: skip
    for options in bad:
        with pytest.raises(InvalidValueError, match=next(iter(options))):
            await listed(store, **options)
    for options in ({"by": "week"}, {"by": 3}, {"since_ns": 1.5}, {"session_id": "x"}):
        with pytest.raises(InvalidValueError):
            await store.usage(**options)
    for options in ({"name": 5}, {"metadata": [1]}):
        with pytest.raises(InvalidValueError):
            await store.list_sessions(**options)
    assert isinstance(store.one, UUID)


def test_a_session_is_read_back_in_few_pieces():
    """Each piece is a change to the thread that reads and back."""
    journal = Journal.open(RamStorage(), fixed_config())
    journal.commit([start(1)])
    journal.commit([ask(1, "q").command()] * 100)
    query = ActionQuery(UUID(int=1), newest_first=True)
    pieces = [[action.index for action in piece] for piece in find_actions(journal.view, query)]
    assert [index for piece in pieces for index in piece] == list(range(99, -1, -1))
    assert len(pieces[0]) == 24
    assert len(pieces) <= 3


async def test_arguments_with_keys_that_json_does_not_have_are_searched(make_store):
    store = await make_store()
    async with store.session() as session:
        odd = await session.record_tool_call(
            "t", arguments={b"key": 1, 3: ["needle", float("nan")]}
        )
        plain = await session.record_tool_call("t", arguments={"a needle": b"\xff"})
    assert [action async for action in store.actions(text="needle")] == [odd, plain]
