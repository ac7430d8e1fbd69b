"""Steps and conversations of Pydantic AI's harness; skipped where it is not installed."""

import asyncio
import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("pydantic_ai_harness.step_persistence")

from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import Agent
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    UserPromptPart,
)
from pydantic_ai.models.test import TestModel
from pydantic_ai_harness.step_persistence import (
    ContinuableSnapshot,
    InMemoryStepStore,
    RunRecord,
    StepEvent,
    StepPersistence,
    StepStore,
    continue_run,
)
from pydantic_ai_harness.step_persistence.conversations import (
    ConversationConflict,
    ConversationSummary,
)

from memvid_async import Durability, InvalidValueError, StoreConfig, SyncStore, open_store
from memvid_async.interop.pydantic_ai import MemvidConversationStore, MemvidStepStore
from scripts import check_docs

pytestmark = pytest.mark.one_loop

ROOT = Path(__file__).resolve().parents[2]


def said(*texts):
    parts = [[UserPromptPart(text)] for text in texts]
    return [ModelRequest(parts=one) for one in parts]


def dumped(messages):
    return json.loads(ModelMessagesTypeAdapter.dump_json(messages))


# Steps.


async def test_a_run_is_kept_while_it_goes_on(make_store):
    store, other = await make_store("one.mva"), await make_store("one.mva")
    steps, others, seen = MemvidStepStore(store), MemvidStepStore(other), []
    assert isinstance(steps, StepStore)
    agent = Agent(TestModel(), capabilities=[StepPersistence(store=steps, agent_name="a")])

    @agent.tool_plain
    async def look(city: str) -> str:
        """What another process sees while this runs, as after a kill."""
        (run,) = await others.list_runs(conversation_id="talk")
        (effect,) = await others.list_unresolved_tool_effects(run_id=run.run_id)
        latest = await others.latest_snapshot(run_id=run.run_id)
        seen.append((effect.tool_name, effect.status, latest))
        return f"dry in {city}"

    result = await agent.run("go", conversation_id="talk")
    assert seen == [("look", "started", None)]
    (run,) = await others.list_runs(conversation_id="talk")
    assert await others.get_run(run_id=run.run_id) == run
    history = await continue_run(others, run_id=run.run_id)
    assert dumped(history) == dumped(result.all_messages())
    kinds = [event.kind for event in await others.list_events(run_id=run.run_id)]
    assert (kinds[0], kinds[-1]) == ("run_started", "run_completed")
    assert await others.list_unresolved_tool_effects(run_id=run.run_id) == []
    assert await others.list_runs(parent_run_id="nobody") == []
    again = await agent.run("go on", message_history=history, conversation_id="talk")
    assert len(await others.list_runs(conversation_id="talk")) == 2
    assert len(again.all_messages()) > len(history)


async def test_a_run_has_one_registration(make_store):
    one, two = [MemvidStepStore(await make_store("one.mva")) for _ in range(2)]
    record = RunRecord(run_id="a/b", registration_id="1")
    await one.register_run(record)
    await one.register_run(record)
    with pytest.raises(ValueError, match="another run"):
        await two.register_run(replace(record, registration_id="2"))
    assert await two.get_run(run_id="a") is None


async def test_snapshots_share_their_messages_and_go_when_they_are_pruned(make_store):
    store = await make_store()
    steps = MemvidStepStore(store, max_snapshots_per_run=2)
    picture = BinaryContent(data=b"\xff\x00" * 500, media_type="image/png")
    history = [
        ModelRequest(parts=[UserPromptPart([picture])]),
        *said(*(f"{n} " * 500 for n in range(20))),
    ]
    for n in range(1, 21):
        await steps.save_snapshot(
            ContinuableSnapshot(run_id="r", step_index=n, messages=history[:n])
        )
    assert store.statistics().file_bytes < 3 * len(str(dumped(history)))
    kept = await steps.list_snapshots(run_id="r")
    assert [one.step_index for one in kept] == [19, 20]
    assert dumped(kept[1].messages) == dumped(history[:20])
    secret = said("secret " * 100)
    await steps.save_snapshot(ContinuableSnapshot(run_id="r", step_index=21, messages=secret))
    for n in (22, 23):
        await steps.save_snapshot(ContinuableSnapshot(run_id="r", step_index=n, messages=[]))
    await store.compact()
    assert b"secret" not in store.path.read_bytes()
    for most in (0, 1.5, True, -1):
        with pytest.raises(InvalidValueError, match="max_snapshots_per_run"):
            MemvidStepStore(store, max_snapshots_per_run=most)


NUMBERS = count()
UNNUMBERED = ("x", "y:z")
KEYS = st.sampled_from([None, *UNNUMBERED, "0:a", "1:a", "1:b", "2:a", "10:a"])
SAVES = st.lists(st.tuples(KEYS, st.sampled_from(["complete", "interrupted"])), max_size=8)


@pytest.fixture(scope="module")
def buffered(tmp_path_factory):
    config = StoreConfig(durability=Durability.BUFFERED)
    with SyncStore.open(tmp_path_factory.mktemp("steps") / "a.mva", config=config) as store:
        yield store


@given(SAVES, st.sampled_from([None, 1, 2, 3]))
def test_it_keeps_what_the_harness_keeps(buffered, saves, most):
    """Whatever is saved, or sent again."""

    async def check():
        theirs = InMemoryStepStore(max_snapshots_per_run=most)
        run = str(next(NUMBERS))
        ours = MemvidStepStore(buffered, max_snapshots_per_run=most)
        for n, (key, state) in enumerate(saves):
            if most is not None and key in UNNUMBERED:
                # They are forgotten there with their snapshot.
                key = None
            one = ContinuableSnapshot(
                run_id=run, step_index=n, messages=[], state=state, idempotency_key=key
            )
            event = StepEvent(run_id=run, kind="run_started", step_index=n, idempotency_key=key)
            for steps in (theirs, ours):
                await steps.save_snapshot(one)
                await steps.append_event(event)
        assert await ours.list_events(run_id=run) == await theirs.list_events(run_id=run)
        for every in (False, True):
            asked = {"run_id": run, "include_interrupted": every}
            assert await ours.list_snapshots(**asked) == await theirs.list_snapshots(**asked)
            assert await ours.latest_snapshot(**asked) == await theirs.latest_snapshot(**asked)

    asyncio.run(check())


# Conversations.


async def test_of_two_that_go_on_one_succeeds(make_store):
    one, two = [MemvidConversationStore(await make_store("one.mva")) for _ in range(2)]
    first = await one.save(summary=ConversationSummary(workspace="/a"), messages=said("hello"))
    going_on = [
        store.save(summary=first, messages=said("hello", name))
        for store, name in ((one, "one"), (two, "two"))
    ]
    ended = await asyncio.gather(*going_on, return_exceptions=True)
    (conflict,) = [one for one in ended if isinstance(one, Exception)]
    assert isinstance(conflict, ConversationConflict)
    (saved,) = [one for one in ended if not isinstance(one, Exception)]
    kept = await two.get(conversation_id=first.id)
    assert (kept.summary, len(kept.messages), kept.summary.revision) == (saved, 2, 2)
    # A name is given beside those who go on, and counts what it took in any case.
    naming = [store.name(source=saved, title=t, tokens=5) for store, t in ((one, "x"), (two, "y"))]
    assert sorted(await asyncio.gather(*naming)) == [False, True]
    third = await one.save(summary=saved, messages=said("hello"))
    assert (third.title in ("x", "y"), third.naming_tokens, third.revision) == (True, 10, 3)
    with pytest.raises(ConversationConflict):
        await two.delete(source=saved)
    await two.delete(source=third)
    with pytest.raises(LookupError, match=first.id):
        await one.get(conversation_id=first.id)
    with pytest.raises(ConversationConflict, match="deleted"):
        await one.save(summary=third, messages=[])
    assert not await one.name(source=third, title="late")


async def test_conversations_are_listed(make_store):
    store = MemvidConversationStore(await make_store())
    saved = []
    for n, text in enumerate(["Straße", "two", "three"]):
        summary = ConversationSummary(workspace="/a", title=f"Title {n}")
        answer = ModelResponse(parts=[TextPart(f"about {text}")])
        saved.append(await store.save(summary=summary, messages=[*said(text), answer]))
    assert await store.listing() == saved[::-1]
    assert await store.listing(limit=1, offset=1) == [saved[1]]
    assert await store.listing(query="STRASSE") == [saved[0]]
    assert await store.listing(query="title 2") == [saved[2]]
    assert await store.listing(query="nowhere") == []
    if hasattr(saved[0], "archived_at"):
        archived = await store.set_archived(conversation_id=saved[1].id, archived=True)
        assert await store.set_archived(conversation_id=saved[1].id, archived=True) == archived
        assert await store.listing(archived=True) == [archived]
        assert await store.listing(archived=False) == [saved[2], saved[0]]
        back = await store.save(summary=archived, messages=[])
        assert back.archived_at is None
        assert await store.set_archived(conversation_id=back.id, archived=False) == back
    with pytest.raises(LookupError, match="nobody"):
        await store.set_archived(conversation_id="nobody", archived=True)
    for limit, offset in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="at least"):
            await store.listing(limit=limit, offset=offset)


async def test_deleting_a_conversation_deletes_its_runs(make_store):
    store = await make_store()
    steps, conversations = MemvidStepStore(store), MemvidConversationStore(store)
    saved = [
        await conversations.save(summary=ConversationSummary(workspace="/"), messages=said(text))
        for text in ("secret one", "kept two")
    ]
    for one in saved:
        text = "secret step" if one is saved[0] else "kept step"
        await steps.register_run(RunRecord(run_id=one.id, conversation_id=one.id))
        await steps.append_event(StepEvent(run_id=one.id, kind="run_started", step_index=0))
        snapshot = ContinuableSnapshot(run_id=one.id, step_index=0, messages=said(text))
        await steps.save_snapshot(snapshot)
    await conversations.delete(source=saved[0])
    assert await steps.get_run(run_id=saved[0].id) is None
    assert await steps.latest_snapshot(run_id=saved[0].id) is None
    assert await steps.list_events(run_id=saved[0].id) == []
    assert (await steps.latest_snapshot(run_id=saved[1].id)).messages[0].parts[
        0
    ].content == "kept step"
    await store.compact()
    data = store.path.read_bytes()
    assert (b"secret" in data, b"kept step" in data) == (False, True)


def test_it_works_on_any_loop(tmp_path):
    with SyncStore.open(tmp_path / "a.mva") as store:
        steps = MemvidStepStore(store)
        agent = Agent(TestModel(), capabilities=[StepPersistence(store=steps)])
        asyncio.run(agent.run("hello", run_id="r"))
        assert len(asyncio.run(continue_run(steps, run_id="r"))) == 2


async def test_the_pages_program_runs(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "integrations" / "pydantic-ai.md").read_text(encoding="utf-8")
    ((_, code),) = [block for block in check_docs.code_blocks(page) if block[0] == "python"]
    names = {}
    exec(code, names)
    path = tmp_path / "a.mva"
    assert await names["chat"](path, "hello", TestModel()) == "success (no tool calls)"
    assert await names["chat"](path, "go on", TestModel()) == "success (no tool calls)"
    async with open_store(path, read_only=True) as store:
        runs = await MemvidStepStore(store).list_runs(conversation_id="anna")
        assert len(runs) == 2
        assert len(await continue_run(MemvidStepStore(store), run_id=runs[1].run_id)) == 4
