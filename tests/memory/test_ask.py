"""Asking: what a model may be and reply, and what is kept of it."""

import asyncio
import threading

import anyio
import pytest

from memvid_async import (
    Conversion,
    Generated,
    Limits,
    StoreConfig,
    Verdict,
)
from tests.support.frame_calls import actions_of
from tests.support.loops import turns


def never(_prompt):
    raise AssertionError("a served model must not be asked")


class Blocking:
    """A callable that is not async and returns only once the loop has turned a hundred times
    since it was called: on the loop it would wait for itself."""

    def __init__(self, result):
        self.result = result
        self.begun = anyio.Event()
        self.turned = threading.Event()
        self.calls = 0

    def __call__(self, *_, **__):
        self.calls += 1
        anyio.from_thread.run_sync(self.begun.set)
        assert self.turned.wait(30)
        return self.result

    async def turn(self):
        await self.begun.wait()
        await turns(100)
        self.turned.set()


@pytest.mark.parametrize("kind", ["generate", "put", "find", "tool", "audit"])
async def test_what_is_not_async_leaves_the_loop_alone(make_store, kind):
    result = {"put": [[1.0, 0.0]], "find": [[1.0, 0.0]]}.get(kind, "done")
    blocking = Blocking(result)
    config = StoreConfig(embedder=blocking if kind in ("put", "find") else None)
    store = await make_store(config=config)

    async def act():
        if kind == "generate":
            await store.ask("why?", generate=blocking)
        elif kind == "put":
            await store.put("text")
        elif kind == "find":
            await store.find("text", mode="semantic")
        elif kind == "audit":
            async with store.session() as recorder:
                await recorder.record_ask("why?", response="done", duration_ms=1)
            await store.audit(recorder.session_id, {"m": blocking})
        else:
            async with store.session() as session:
                await session.call_tool("t", {"at": 1}, blocking)

    await asyncio.gather(act(), blocking.turn())
    assert blocking.calls == 1


async def test_what_does_not_take_a_prompt_is_refused_before_anything_is_done(make_store):
    embedded = []

    def embedder(texts):
        embedded.append(texts)
        return [[1.0, 0.0] for _ in texts]

    store = await make_store(config=StoreConfig(embedder=embedder))
    await store.put("text")
    embedded.clear()
    before = store.last_sequence
    async with store.session() as recorder:
        for wrong in (lambda: "", lambda question, context: "", lambda *, prompt: ""):
            with pytest.raises(TypeError, match=r"generate\(prompt\)"):
                await store.ask("why?", generate=wrong, mode="semantic")
        assert len(await actions_of(store, recorder)) == 0
    assert embedded == []
    assert store.last_sequence == before + 2


async def test_an_embedder_that_takes_no_texts_is_refused(make_store):
    store = await make_store(config=StoreConfig(embedder=lambda: [[1.0]]))
    with pytest.raises(TypeError, match="a list of texts"):
        await store.put("text")
    assert store.last_sequence == 0


@pytest.mark.parametrize("reply", [b"\xff\x00", b"plain", b"x" * 5000], ids=["odd", "text", "long"])
async def test_a_reply_in_bytes_stays_bytes(make_store, reply):
    store = await make_store()

    async def generate(_):
        yield reply[:1]
        yield Generated(reply[1:])

    async with store.session() as recorder:
        answer = await store.ask("why?", generate=generate)
        await store.ask("and?", generate=lambda _: reply)
    assert answer.text == reply
    first, second = await actions_of(store, recorder)
    assert await store.read_chunks(first) == [reply[:1], reply[1:]]
    assert await store.read_chunks(second) == [reply]
    async with store.serve(recorder.session_id) as recorded:
        chunks = [chunk async for chunk in recorded.stream_model("why?", never)]
        assert chunks == [reply[:1], reply[1:]]
        assert (await recorded.ask("and?", generate=never)).text == reply
    report = await store.audit(recorder.session_id, {"same": lambda _: reply})
    assert report.is_equal
    assert report.answers[0].answer == reply


async def test_who_replied_need_not_be_said(make_store):
    store = await make_store()
    async with store.session() as recorder:
        await store.ask("why?", generate=lambda _: "so")
        await store.ask("why?", generate=lambda _: "so", model="m")
        await recorder.record_ask("why?", response="so", duration_ms=1, provider="p")
    await store.aclose()
    store = await make_store()
    asks = await actions_of(store, recorder)
    assert [(ask.details.provider, ask.details.model) for ask in asks] == [
        (None, None),
        (None, "m"),
        ("p", None),
    ]
    assert (await store.compare(recorder.session_id, recorder.session_id)).is_equal
    async with store.serve(recorder.session_id) as recorded:
        for who in ({}, {"model": "m"}, {"provider": "p"}):
            assert str(await recorded.ask("why?", generate=never, **who)) == "so"


async def test_all_that_a_model_counts_is_kept(make_store):
    store = await make_store()

    async def generate(_):
        yield Generated("a", input_tokens=100, cached_tokens=60)
        yield Generated("b", output_tokens=2, cost_usd=0.25)

    async with store.session() as recorder:
        answer = await store.ask("why?", generate=generate)
    counts = (100, 2, 60, 0.25)
    assert str(answer) == "ab"
    assert counts == (
        answer.input_tokens, answer.output_tokens, answer.cached_tokens, answer.cost_usd,
    )  # fmt: skip
    await store.aclose()
    store = await make_store()
    (ask,) = await actions_of(store, recorder)
    reply = ask.reply
    assert counts == (
        reply.input_tokens, reply.output_tokens, reply.cached_tokens, reply.cost_usd,
    )  # fmt: skip


async def test_a_reply_that_is_too_long_is_cut_and_marked(make_store):
    store = await make_store(config=StoreConfig(limits=Limits(content_bytes=2000)))

    async def generate(_):
        for _ in range(5):
            yield Generated("x" * 900, output_tokens=1)

    async with store.session() as recorder:
        answers = [
            await store.ask("why?", generate=generate),
            await store.ask("why?", generate=lambda _: "x" * 2001),
        ]
    streamed, whole = await actions_of(store, recorder)
    assert [answer.text for answer in answers] == ["x" * 2000] * 2
    # What a stream counted comes last, and is kept.
    assert answers[0].output_tokens == 5
    assert await store.read_chunks(streamed) == ["x" * 900, "x" * 900, "x" * 200, "", ""]
    assert await store.read_content(whole.output) == b"x" * 2000
    assert streamed.conversion == whole.conversion == Conversion.OUTPUT_CUT
    assert streamed.error is whole.error is None


async def test_half_a_surrogate_pair_does_not_lose_the_reply(make_store):
    store = await make_store()

    async def generate(_):
        yield "Sure! "
        yield "here \ud83d"

    async with store.session() as recorder:
        assert (await store.ask("why?", generate=generate)).text == "Sure! here \ufffd"
    (ask,) = await actions_of(store, recorder)
    assert await store.read_chunks(ask) == ["Sure! ", "here \ufffd"]


async def test_messages_are_recorded_as_they_were_when_the_model_was_asked(make_store):
    store = await make_store()
    messages = [{"role": "user", "content": "why?"}]

    def generate(prompt):
        assert prompt.messages == messages
        prompt.messages.append("mine")
        messages.append("later")
        return "so"

    async with store.session() as recorder:
        await store.ask("why?", generate=generate, messages=messages)
    (ask,) = await actions_of(store, recorder)
    assert await store.read_messages(ask) == messages[:1]


async def test_a_cancelled_ask_does_not_wait_for_its_thread(make_store):
    store = await make_store()
    begun, release, ended = anyio.Event(), threading.Event(), threading.Event()

    def generate(_):
        anyio.from_thread.run_sync(begun.set)
        assert release.wait(30)
        ended.set()
        return "too late"

    async with store.session() as recorder:
        asking = asyncio.create_task(store.ask("why?", generate=generate))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not ended.is_set()
        release.set()
        assert await anyio.to_thread.run_sync(ended.wait, 30)
    (ask,) = await actions_of(store, recorder)
    assert ask.error.startswith("CancelledError")
    assert ask.output is None
    report = await store.audit(recorder.session_id, {"m": lambda _: "so"})
    assert report.answers[0].verdict is Verdict.SKIPPED
