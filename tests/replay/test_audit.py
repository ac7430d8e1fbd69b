"""Putting a session's questions to other models."""

import asyncio
import uuid

import pytest

from memvid_async import (
    Durability,
    Generated,
    InvalidValueError,
    SessionNotFoundError,
    StoreConfig,
    Verdict,
)

ASK = {"provider": "local", "model": "small", "duration_ms": 3}


@pytest.fixture
async def store(make_store):
    return await make_store(config=StoreConfig(durability=Durability.BUFFERED))


@pytest.fixture
async def session(store):
    async with store.session() as recorder:
        prompt = [{"role": "user", "content": "one"}]
        await recorder.record_ask("one", response="ONE", messages=prompt, **ASK)
        await recorder.record_tool_call("look", arguments={}, result="a cat")
        await recorder.record_ask("two\nlines", response="TWO\nLINES", **ASK)
        await recorder.record_ask("three", response=None, error="no model", **ASK)
    return recorder.session_id


async def test_each_model_answers_each_ask(store, session):
    async def tells_tokens(prompt):
        assert prompt.context is None
        return Generated(
            prompt.question.upper(),
            input_tokens=len(prompt.messages),
            output_tokens=10,
            cached_tokens=3,
            cost_usd=0.25,
        )

    def changes_a_line(prompt):
        return prompt.question.upper().replace("LINES", "ROWS")

    report = await store.audit(session, {"a": tells_tokens, "b": changes_a_line})
    assert [(x.index, x.model, x.verdict.value) for x in report.answers] == [
        (0, "a", "matched"),
        (0, "b", "matched"),
        (2, "a", "matched"),
        (2, "b", "diverged"),
        (3, "a", "skipped"),
        (3, "b", "skipped"),
    ]
    a, b = report.models
    assert (a.same, a.changed, a.failed, a.skipped) == (2, 0, 0, 1)
    assert (a.input_tokens, a.output_tokens, a.cached_tokens, a.cost_usd) == (1, 20, 6, 0.5)
    assert (report.answers[0].cached_tokens, report.answers[0].cost_usd) == (3, 0.25)
    assert (b.same, b.changed, b.failed, b.skipped) == (1, 1, 0, 1)
    assert (b.input_tokens, b.output_tokens, b.cached_tokens, b.cost_usd) == (None,) * 4
    assert a.duration_ms > 0
    assert report.answers[3].diff == "  TWO\n- LINES\n+ ROWS"
    assert report.answers[3].answer == "TWO\nROWS"
    assert "no model" in report.answers[4].reason
    assert not report.is_equal
    assert (await store.audit(session, {"a": tells_tokens})).is_equal
    assert (await store.audit(session, {})).answers == ()


async def test_a_model_that_fails_is_told_per_ask(store, session):
    def fails(prompt):
        if prompt.messages:
            raise RuntimeError("too long")
        raise TimeoutError

    report = await store.audit(session, {"bad": fails})
    first, second, _ = report.answers
    assert first.verdict is second.verdict is Verdict.UNVERIFIABLE
    assert first.reason == "the model failed: RuntimeError: too long"
    assert second.reason == "the model failed: TimeoutError: "
    assert report.models[0].failed == 2
    assert not report.is_equal


async def test_no_more_are_under_way_than_allowed(store):
    async with store.session() as recorder:
        for number in range(32):
            await recorder.record_ask(str(number), response="same", **ASK)
    under_way, most = 0, 0
    # Without as many as are allowed, none would go on.
    four = asyncio.Barrier(4)

    async def model(_):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await four.wait()
        under_way -= 1
        return "same"

    report = await store.audit(recorder.session_id, {"m": model}, concurrency=4)
    assert most == 4
    assert report.models[0].same == 32


async def test_wrong_use_is_named(store, session):
    with pytest.raises(InvalidValueError):
        await store.audit(session, {"m": "model"})
    with pytest.raises(InvalidValueError):
        await store.audit(session, ["model"])
    asked = []
    models = {"m": asked.append, "old": lambda question, context: context}
    with pytest.raises(TypeError, match="generate"):
        await store.audit(session, models)
    assert asked == []
    with pytest.raises(InvalidValueError):
        await store.audit(session, {}, concurrency=0)
    with pytest.raises(SessionNotFoundError):
        await store.audit(uuid.uuid4(), {})


async def test_an_ask_of_the_stores_own_is_put_with_what_it_retrieved_then(store):
    got = []

    def model(prompt):
        got.append(prompt)
        return str(prompt)

    options = {"provider": "local", "model": "small", "messages": [{"role": "system"}]}
    first = await store.put("The red ball lies under the bed.")
    async with store.session() as session:
        await store.ask("red ball", generate=model, **options)
    await store.put("Another red ball lies on the shelf.")
    await store.update(first, "The red ball was moved away.")
    assert (await store.audit(session.session_id, {"m": model})).is_equal
    # What is asked again is what was asked.
    assert got[0] == got[1]
    await store.delete(first)
    await store.compact()
    (answer,) = (await store.audit(session.session_id, {"m": model})).answers
    assert (answer.verdict, answer.answer) == (Verdict.UNVERIFIABLE, None)
    assert "erased" in answer.reason
