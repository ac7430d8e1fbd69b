"""Inside a session each call of the memory records itself, once, with all it did."""

import asyncio

import anyio
import pytest

from memvid_async import (
    AskDetails,
    DeleteDetails,
    FindDetails,
    Generated,
    InvalidValueError,
    Prompt,
    PutDetails,
    PutManyDetails,
    RecordingConfig,
    UpdateDetails,
)
from tests.support.frame_calls import actions_of, all_ids, body, ids_of


async def test_each_call_records_itself_once(make_store):
    store = await make_store()
    async with store.session("s") as recorder:
        one = await store.put("The otter sleeps.", title="T")
        many = await store.put_many(["Two otters.", "A fox."])
        await store.update(one, "The otter wakes.")
        found = await store.find("otter", top_k=5, uri=None, tags=())
        asked = await store.ask(
            "who wakes?",
            generate=lambda p: f"saw: {p.context}",
            provider="acme",
            model="m-1",
            top_k=1,
        )
        await store.delete(many[1])
        await store.get(one)
        await all_ids(store)
    actions = await actions_of(store, recorder)
    assert [a.kind for a in actions] == ["put", "put_many", "update", "find", "ask", "delete"]
    put, put_many, update, find, ask, delete = actions
    assert put.details == PutDetails(1)
    assert put_many.details == PutManyDetails((2, 3))
    assert update.details == UpdateDetails(1)
    assert find.details == FindDetails("lexical", 2, (1, 2)) or find.details == FindDetails(
        "lexical", 2, (2, 1)
    )
    assert ask.details == AskDetails("acme", "m-1", (1,), 0)
    assert delete.details == DeleteDetails(3)
    assert [a.affected_frames for a in (put, put_many, update, delete)] == [
        (1,),
        (2, 3),
        (1,),
        (3,),
    ]
    assert await store.read_content(put.input) == b"The otter sleeps."
    assert await store.read_content(update.input) == b"The otter wakes."
    assert put_many.input is None
    assert delete.input is None
    assert await store.read_content(find.input) == b"otter"
    assert find.affected_frames == tuple(hit.frame_id for hit in found.hits)
    assert find.retrieval.scores == tuple(hit.score for hit in found.hits)
    assert (find.retrieval.mode, find.retrieval.top_k) == ("lexical", 5)
    assert find.retrieval.parameters == {}
    assert find.retrieval.as_of == found.as_of == update.sequence
    assert ask == asked.action
    assert (
        (await store.read_content(ask.output)).decode() == asked.text == "saw: [1] The otter wakes."
    )
    assert all(a.duration_ms >= 0 and a.task == asyncio.current_task().get_name() for a in actions)
    assert ask.duration_ms == pytest.approx(asked.duration_ms, abs=0.01)


async def test_the_action_of_a_put_shares_the_bytes_of_its_frame(make_store):
    store = await make_store()
    text = "unmistakable words of it " * 20
    async with store.session() as recorder:
        await store.put(text)
    (put,) = await actions_of(store, recorder)
    assert await store.read_content(put.input) == text.encode()
    await store.aclose()
    assert store.path.read_bytes().count(b"unmistakable words of it " * 20) == 1


async def test_filters_and_embeddings_of_a_search_are_recorded(make_store):
    store = await make_store()
    await store.put(
        "x words", tags=["t"], metadata={"k": 1}, embedding=[1.0, 0.0], embedding_model="m"
    )
    async with store.session() as recorder:
        await store.find("words", tags=["t"], metadata={"k": 1}, since_ns=1)
        await store.find(None, mode="semantic", embedding=[1, 0], embedding_model="m")
    first, second = await actions_of(store, recorder)
    assert first.retrieval.parameters == {"tags": ["t"], "metadata": {"k": 1}, "since_ns": 1}
    assert second.retrieval.embedding == b"\x00\x00\x80?\x00\x00\x00\x00"
    assert second.retrieval.embedding_model == "m"
    assert second.retrieval.scores == (1.0,)


async def test_the_ambient_session_records_too_and_a_block_goes_before_it(make_store):
    store = await make_store()
    ambient = await store.start_session("ambient")
    await store.put("one")
    async with store.session("own") as recorder:
        await store.put("two")
    await store.find("one")
    assert [a.kind for a in (await store.get_session(ambient)).actions] == ["put", "find"]
    assert [a.kind for a in await actions_of(store, recorder)] == ["put"]
    await store.end_session()


async def test_a_session_that_is_full_takes_no_more_and_the_work_goes_on(make_store):
    store = await make_store()
    await store.start_session("ambient")
    async with store.session(config=RecordingConfig(max_actions=2)) as recorder:
        await store.put("one")
        await store.put("two")
        await store.put("three")
        await store.put_many(["four"])
        await store.update(1, "x")
        await store.delete(2)
        await store.find("three")
        await store.ask("four", generate=lambda _: "x", provider="p", model="m")
    assert len(await actions_of(store, recorder)) == 2
    assert await all_ids(store) == [1, 3, 4]
    assert await body(store, 1) == b"x"
    kinds = ["put", "put_many", "update", "delete", "find", "ask"]
    assert [action.kind for action in (await store.end_session()).actions] == kinds


async def test_an_automatic_checkpoint_pins_the_memory_after_the_put(make_store):
    store = await make_store()
    async with store.session(config=RecordingConfig(auto_checkpoint_interval=2)) as recorder:
        await store.put("one")
        await store.put_many(["two", "three"])
        pinned = store._engine.view.state.snapshot()
        await store.delete(1)
        await store.update(2, "changed")
    session = await store.get_session(recorder.session_id)
    assert [c.snapshot.frame_count for c in session.checkpoints] == [3, 2]
    first = session.checkpoints[0].snapshot
    assert (first.frame_count, first.memory_hash) == (pinned.frame_count, pinned.memory_hash)
    view = await store.at(session_id=recorder.session_id, checkpoint_id=0)
    assert await all_ids(view) == [1, 2, 3]
    view = await store.at(session_id=recorder.session_id, checkpoint_id=1)
    assert await all_ids(view) == [2, 3]
    assert await body(view_body(store, view), 2) == b"changed"


def view_body(store, view):
    """What reads bodies of a view: its frames, the store's contents."""

    class Both:
        get = view.get
        read_content = store.read_content

    return Both


async def test_frames_stay_when_their_session_is_deleted(make_store):
    store = await make_store()
    async with store.session() as recorder:
        await store.put("it stays", title="T")
        await store.put("and this, longer " * 100)
    await store.delete_session(recorder.session_id)
    assert await all_ids(store) == [1, 2]
    await store.compact()
    assert await all_ids(store) == [1, 2]
    assert await body(store, 1) == b"it stays"
    assert await body(store, 2) == b"and this, longer " * 100
    assert await ids_of(store, "stays") == [1]


async def chunks_of(*given):
    for item in given:
        yield item


REPLIES = {
    "str": lambda _: "whole",
    "awaited": lambda _: asyncio.sleep(0, "whole"),
    "generated": lambda _: Generated("whole", 3, 4),
    "stream": lambda _: chunks_of("wh", "", "ole"),
    "counted stream": lambda _: chunks_of(Generated("wh", 3), Generated("ole", None, 4)),
}


@pytest.mark.parametrize("name", REPLIES)
async def test_a_reply_is_recorded_as_it_came(make_store, name):
    store = await make_store()
    await store.put("something to find")
    async with store.session() as recorder:
        answer = await store.ask("find", generate=REPLIES[name], provider="p", model="m")
    (ask,) = await actions_of(store, recorder)
    counted = name in ("generated", "counted stream")
    chunks = {"stream": ["wh", "", "ole"], "counted stream": ["wh", "ole"]}.get(name, ["whole"])
    assert answer.text == "whole"
    assert await store.read_chunks(ask) == chunks
    assert (answer.input_tokens, answer.output_tokens) == ((3, 4) if counted else (None, None))
    assert (ask.reply.input_tokens, ask.reply.output_tokens) == (
        (3, 4) if counted else (None, None)
    )
    assert ask.error is None


async def test_the_model_gets_the_question_and_the_context(make_store):
    store = await make_store()
    await store.put_many(["The first otter.", "The second otter.", "A fox."])
    got = []

    def generate(prompt):
        got.append(prompt)
        return "ok"

    async with store.session() as recorder:
        answer = await store.ask(
            "otter?", generate=generate, provider="p", model="m", messages=[{"role": "user"}],
            metadata={"k": 1}, task="mine",
        )  # fmt: skip
    (prompt,) = got
    assert prompt == Prompt("otter?", answer.context, [{"role": "user"}])
    context = prompt.context
    assert context.is_complete
    assert [item.text for item in context.items] == ["The first otter.", "The second otter."]
    assert str(context) == "[1] The first otter.\n\n[2] The second otter."
    (ask,) = await actions_of(store, recorder)
    assert await store.read_context(ask) == context
    assert await store.read_messages(ask) == [{"role": "user"}]
    assert (ask.metadata, ask.task) == ({"k": 1}, "mine")


async def test_an_error_of_the_model_is_recorded_with_the_chunks_before_it(make_store):
    store = await make_store()
    await store.put("something")

    async def broken(_):
        yield "so "
        yield "far"
        raise RuntimeError("the line went dead")

    def refused(_):
        raise PermissionError("no key")

    async with store.session() as recorder:
        for generate, kind in ((broken, RuntimeError), (refused, PermissionError)):
            with pytest.raises(kind):
                await store.ask("something", generate=generate, provider="p", model="m")
    first, second = await actions_of(store, recorder)
    assert await store.read_chunks(first) == ["so ", "far"]
    assert first.error == "RuntimeError: the line went dead"
    assert (second.output, second.error) == (None, "PermissionError: no key")
    assert await store.read_chunks(second) == []


async def test_a_cancelled_ask_is_recorded_as_far_as_it_came(make_store):
    store = await make_store()
    await store.put("something")
    started = anyio.Event()

    async def slow(_):
        yield "begin"
        started.set()
        await anyio.sleep_forever()

    async with store.session() as recorder, anyio.create_task_group() as group:

        async def ask():
            await store.ask("something", generate=slow, provider="p", model="m")

        group.start_soon(ask)
        await started.wait()
        group.cancel_scope.cancel()
    (ask,) = await actions_of(store, recorder)
    assert await store.read_chunks(ask) == ["begin"]
    assert ask.error.startswith("CancelledError")


async def test_the_context_of_an_ask_is_what_it_was_then(make_store):
    store = await make_store()
    await store.put(b"bytes of an otter", media_type="text/plain")
    await store.put("otter of text " * 100)
    async with store.session() as recorder:
        first = await store.ask("otter", generate=lambda _: "1", provider="p", model="m")
        await store.update(1, media_type="image/png", title="otter")
        await store.update(2, "a newer otter")
        second = await store.ask("otter", generate=lambda _: "2", provider="p", model="m")
        find = await store.find("otter")
    asks = await actions_of(store, recorder)
    assert await store.read_context(asks[0]) == first.context
    assert await store.read_context(asks[3]) == second.context
    assert {item.text for item in second.context.items} == {"", "a newer otter"}
    found = await store.read_context(asks[4])
    assert [item.frame_id for item in found.items] == [hit.frame_id for hit in find.hits]
    await store.aclose()
    again = await make_store()
    assert await again.read_context(asks[0]) == first.context


async def test_only_what_searched_has_a_context_and_only_an_ask_chunks(make_store):
    store = await make_store()
    async with store.session() as recorder:
        put = await recorder.record_put(1, "x")
        ask = await recorder.record_ask("q", provider="p", model="m", response="r", duration_ms=1)
    with pytest.raises(InvalidValueError):
        await store.read_context(put)
    with pytest.raises(InvalidValueError):
        await store.read_context(ask)
    with pytest.raises(InvalidValueError):
        await store.read_chunks(put)
    with pytest.raises(InvalidValueError):
        await store.read_context("no action")
    with pytest.raises(InvalidValueError):
        await store.read_chunks(None)
    assert await store.read_chunks(ask) == ["r"]
