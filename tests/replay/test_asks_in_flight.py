"""An ask that was in flight is tried again only if it is asked the same."""

import asyncio
import shutil

import pytest

from memvid_async import ReplayDivergenceError, open_store

pytestmark = pytest.mark.anyio

SYSTEM = {"role": "system", "content": "Be brief. It is noon."}
CALLED = {"role": "assistant", "tool_calls": [{"id": "call_1", "name": "clock"}]}
ASKED = [SYSTEM, {"role": "user", "content": "Will it rain?"}, CALLED]
BY = {"provider": "local", "model": "tiny"}


def without_time(_kind, field, value):
    if field != "messages":
        return value
    return [
        {**one, "content": one.get("content", "").replace("noon", "").replace("night", "")}
        for one in value
    ]


@pytest.fixture
async def left(tmp_path):
    """The file of a process that died while it asked a model, and its session."""
    path, asked, answered = tmp_path / "a.mva", asyncio.Event(), asyncio.Event()

    async def model(_):
        asked.set()
        await answered.wait()
        return "No."

    async with open_store(path) as store, store.session("asks") as session:
        asking = asyncio.create_task(session.call_model(ASKED, model, **BY), name="asker")
        await asked.wait()
        shutil.copy(path, tmp_path / "left.mva")
        answered.set()
        await asking
    return tmp_path / "left.mva", session.session_id


async def ask_again(left, asked, by=BY, **options):
    path, session_id = left

    async def model(prompt):
        return f"asked {len(prompt.messages)}"

    async with (
        open_store(path) as store,
        store.resume_session(session_id, replay=True, uncertain="run", **options) as session,
    ):
        task = asyncio.create_task(session.call_model(asked, model, **by), name="asker")
        return str(await task)


NEW_ID = {**CALLED, "tool_calls": [{"id": "call_2", "name": "clock"}]}
AT_NIGHT = {**SYSTEM, "content": "Be brief. It is night."}


@pytest.mark.parametrize(
    ("asked", "by", "options"),
    [
        (ASKED, BY, {}),
        ([*ASKED[:2], NEW_ID], BY, {}),
        (ASKED, BY, {"match": lambda _kind, _field, value: value}),
        ([AT_NIGHT, *ASKED[1:]], BY, {"match": without_time}),
        ([AT_NIGHT, *ASKED[1:]], BY, {"match": ["query", "model"]}),
        (ASKED, {**BY, "model": "large"}, {"match": ["query", "messages"]}),
    ],
    ids=["same", "new id of a call", "match all", "match less", "match no messages", "no model"],
)
async def test_the_same_question_is_asked_again(left, asked, by, options):
    assert await ask_again(left, asked, by, **options) == "asked 3"


@pytest.mark.parametrize(
    ("changed", "asked", "by", "options"),
    [
        ("messages", [AT_NIGHT, *ASKED[1:]], BY, {}),
        ("messages", ASKED[1:], BY, {}),
        ("messages", "Will it rain?", BY, {}),
        ("model", ASKED, {**BY, "model": "large"}, {}),
        ("provider", ASKED, {**BY, "provider": "far"}, {}),
        ("messages", [AT_NIGHT, *ASKED[1:]], BY, {"match": ["query", "messages"]}),
        ("model", ASKED, {**BY, "model": "large"}, {"match": without_time}),
    ],
)
async def test_another_question_is_a_divergence(left, changed, asked, by, options):
    with pytest.raises(ReplayDivergenceError, match=f"in flight.*; changed: {changed}"):
        await ask_again(left, asked, by, **options)
    # It was not asked, and the session can be resumed by the agent that it is of.
    assert await ask_again(left, ASKED) == "asked 3"
