"""Actions: every kind comes back as it was given; contents whole; messages kept once."""

import asyncio
import contextlib
import hashlib
import itertools
import math
import os

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    ActionKind,
    AskDetails,
    ContentNotFoundError,
    DeleteDetails,
    FindDetails,
    InvalidValueError,
    LimitExceededError,
    Limits,
    PutDetails,
    PutManyDetails,
    Reply,
    StoreConfig,
    ToolCallDetails,
    UpdateDetails,
    open_store,
)

MIB = 1024 * 1024
KIB = 1024


@pytest.fixture
def clock():
    """Nanoseconds, one more at each look."""
    return itertools.count(1_700_000_000_000_000_000).__next__


async def ask(recorder, query="q", **rest):
    given = {"provider": "p", "model": "m", "response": "r", "duration_ms": 1}
    return await recorder.record_ask(query, **(given | rest))


async def read(store, content):
    return None if content is None else await store.read_content(content)


def same(one, other):
    """Equal in value and in type: 1 is neither True nor 1.0."""
    return cbor2.dumps(one, canonical=True) == cbor2.dumps(other, canonical=True)


KINDS = {
    "ask": (
        {"query": "why?", "provider": "acme", "model": "m-1", "response": b"because\xff"}
        | {"duration_ms": 12.5, "retrieved_frames": [3, 1, 3]},
        AskDetails("acme", "m-1", (3, 1, 3), 0),
        (b"why?", b"because\xff", (3, 1, 3)),
    ),
    "find": (
        {"query": "needle", "mode": "lexical", "result_count": 9, "result_frames": (5, 6)},
        FindDetails("lexical", 9, (5, 6)),
        (b"needle", None, (5, 6)),
    ),
    "put": (
        {"frame_id": 7, "data": "body \N{SNOWMAN}"},
        PutDetails(7),
        ("body \N{SNOWMAN}".encode(), None, (7,)),
    ),
    "put_many": ({"frame_ids": range(3)}, PutManyDetails((0, 1, 2)), (None, None, (0, 1, 2))),
    "update": (
        {"frame_id": 2**63 - 1, "data": b""},
        UpdateDetails(2**63 - 1),
        (b"", None, (2**63 - 1,)),
    ),
    "delete": ({"frame_id": 0}, DeleteDetails(0), (None, None, (0,))),
    "tool_call": (
        {"name": "book", "arguments": {"b": 1, "a": [None, True, 2.5, b"x"]}, "result": "done"},
        ToolCallDetails("book"),
        (cbor2.dumps({"a": [None, True, 2.5, b"x"], "b": 1}, canonical=True), b"done", ()),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["store", "recorder"])
async def test_every_kind_comes_back_as_it_was_given(make_store, clock, kind, by):
    arguments, details, (given, result, frames) = KINDS[kind]
    duration = arguments.get("duration_ms", 7)
    arguments = arguments | {
        "duration_ms": duration,
        "task": "planner",
        "error": "it \N{BOMB}",
        "metadata": {"k": [1, {"deep": b"\0"}], 5: None, b"x": -1.5},
    }
    store = await make_store(config=StoreConfig(clock=clock))
    async with store.session() as recorder:
        owner = recorder if by == "recorder" else store
        first = await recorder.record_delete(1)
        action = await getattr(owner, f"record_{kind}")(**arguments)
    session = await store.get_session(recorder.session_id)
    assert session.actions == (first, action)
    await store.aclose()

    again = await make_store(read_only=True)
    session = await again.get_session(recorder.session_id)
    assert session.actions == (first, action)
    action = session.actions[1]
    assert action.index == 1
    assert action.sequence == first.sequence + 1
    assert action.time_ns > first.time_ns
    assert action.kind is ActionKind(kind)
    assert action.details == details
    assert action.affected_frames == frames
    assert (await read(again, action.input), await read(again, action.output)) == (given, result)
    assert (action.duration_ms, action.task) == (duration, "planner")
    assert action.error == "it \N{BOMB}"
    assert dict(action.metadata) == {"k": [1, {"deep": b"\0"}], 5: None, b"x": -1.5}


@pytest.mark.parametrize(
    ("response", "chunks"), [("an answer", (9,)), (b"\xff\0", (2,)), ("", (0,)), (None, ())]
)
async def test_what_a_model_counted_comes_back(make_store, response, chunks):
    store = await make_store()
    counts = {"input_tokens": 2**63 - 1, "output_tokens": 0, "cached_tokens": 7, "cost_usd": 0.125}
    given = [counts, {name: counts[name] for name in ("output_tokens", "cost_usd")}, {}]
    async with store.session() as recorder:
        actions = [await ask(recorder, response=response, **one) for one in given]
    assert [action.reply for action in actions] == [
        Reply(chunks, **one) if one else None for one in given
    ]
    await store.aclose()
    store = await make_store(read_only=True)
    assert (await store.get_session(recorder.session_id)).actions == tuple(actions)


async def test_an_ask_needs_no_more_than_its_query(make_store):
    store = await make_store()
    async with store.session() as recorder:
        action = await recorder.record_ask("why?")
    assert action.details == AskDetails(None, None, (), 0)
    assert (action.output, action.duration_ms, action.reply) == (None, 0, None)
    assert (await store.get_session(recorder.session_id)).actions == (action,)


async def test_what_is_not_given_has_a_plain_default(make_store):
    store = await make_store()
    async with store.session() as recorder:

        async def work():
            return [
                await ask(recorder, response=None),
                await recorder.record_find("q", mode="m", result_count=0, result_frames=()),
                await recorder.record_put(1, "d"),
                await recorder.record_tool_call("t", arguments=None),
            ]

        actions = await asyncio.create_task(work(), name="navigator")
    for action in actions:
        assert action.task == "navigator"
        assert action.error is None
        assert action.metadata == {}
        assert action.output is None
    assert actions[2].duration_ms == 0
    assert await store.read_arguments(actions[3]) is None
    assert await store.read_messages(actions[0]) == []


async def test_a_task_name_that_utf8_cannot_hold_does_not_stop_recording(make_store):
    store = await make_store()
    async with store.session() as recorder:
        named = asyncio.create_task(recorder.record_put(1, "d"), name="odd \ud800 name")
        action = await named
        checkpoint = asyncio.create_task(recorder.create_checkpoint(), name="odd \ud800 name")
        await checkpoint
    action.task.encode()
    session = await store.get_session(recorder.session_id)
    assert session.actions[0] == action


@pytest.mark.parametrize(
    "data", ["", b"", "\0", "\ufeff", "a\r\n\x1b[31m", b"\xff\xfe", "\U0010ffff"]
)
async def test_small_contents_come_back_whole(make_store, data):
    store = await make_store()
    async with store.session() as recorder:
        action = await ask(recorder, data, response=data)
    raw = data if isinstance(data, bytes) else data.encode()
    for content in (action.input, action.output):
        assert await store.read_content(content) == raw
        assert content.size == len(raw)
        assert content.digest == hashlib.blake2b(raw, digest_size=32).digest()


@pytest.mark.parametrize("size", [1023, 1024, 1025, 65_535, 65_536, 70_000, 16 * MIB])
@pytest.mark.parametrize("kind", ["ascii", "text", "bytes"])
async def test_contents_of_every_size_come_back_whole(make_store, size, kind):
    raw = os.urandom(64) * (size // 64 + 1)
    data = raw[:size]
    if kind == "ascii":
        data = data.hex()[:size]
    elif kind == "text":
        data = "\N{EURO SIGN}" * (size // 3) + "x" * (size % 3)
    expected = data if kind == "bytes" else data.encode()
    store = await make_store()
    async with store.session() as recorder:
        await recorder.record_put(1, data)
    await store.aclose()
    store = await make_store()
    (action,) = (await store.get_session(recorder.session_id)).actions
    assert action.input.size == size
    assert await store.read_content(action.input) == expected
    assert action.input.digest == hashlib.blake2b(expected, digest_size=32).digest()
    assert len(action.input.preview) <= 512


async def test_a_preview_is_short_and_safe_to_print(make_store):
    store = await make_store()
    hostile = "\x1b]0;owned\x07\x9b31m\tfine\nline\x7f" + "\N{GRINNING FACE}" * 5000
    async with store.session() as recorder:
        actions = [
            await recorder.record_put(1, hostile[:60]),
            await recorder.record_put(1, hostile),
            await recorder.record_put(1, hostile.encode()[:-1]),
            await recorder.record_put(1, b"\xff\x00" * 4000),
        ]
    for action in actions:
        shown = action.input.preview
        assert 0 < len(shown) <= 512
        assert not [c for c in shown if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)]
    assert "\tfine\nline" in actions[0].input.preview


async def test_large_content_is_kept_once_however_often_it_is_recorded(make_store, tmp_path):
    body = os.urandom(200 * KIB)
    text = body.hex()
    store = await make_store()
    for _ in range(2):
        async with store.session() as recorder:
            await asyncio.gather(
                *(ask(recorder, body, response=text) for _ in range(40)),
                *(recorder.record_put(i, text.encode()) for i in range(10)),
            )
    await store.aclose()
    store = await make_store()
    async with store.session() as recorder:
        last = await ask(recorder, body, response=text)
    assert store.statistics().content_count == 2
    assert await store.read_content(last.input) == body
    assert await store.read_content(last.output) == text.encode()
    await store.aclose()
    assert (tmp_path / "store.mva").stat().st_size < len(body) + len(text) + 102 * 250


async def test_content_of_another_file_is_not_found(make_store):
    store, other = await make_store("one"), await make_store("other")
    async with store.session() as recorder, other.session() as others:
        here = await recorder.record_put(1, os.urandom(5000))
        there = await others.record_put(1, os.urandom(5000))
        far = [await others.record_put(1, os.urandom(5000)) for _ in range(20)][-1]
        for foreign in (there, far):
            with pytest.raises(ContentNotFoundError):
                await store.read_content(foreign.input)
        assert len(await store.read_content(here.input)) == 5000


async def test_what_is_over_a_limit_records_nothing(make_store, tmp_path):
    limits = Limits(
        content_bytes=2000,
        value_bytes=500,
        messages_bytes=900,
        name_chars=10,
        error_chars=20,
        frames=3,
    )
    store = await make_store(config=StoreConfig(limits=limits))
    async with store.session() as recorder:
        good = [
            await ask(recorder, "x" * 2000, response=b"y" * 2000, task="t" * 10, error="e" * 20),
            await recorder.record_put_many([1, 2, 3]),
            await ask(recorder, messages=["m" * 440] * 2),
        ]
        await store.sync()
        before = (tmp_path / "store.mva").read_bytes()
        sequence = store.last_sequence
        for limit, value, call in [
            ("content_bytes", 2001, lambda: ask(recorder, "x" * 2001)),
            ("content_bytes", 2002, lambda: recorder.record_put(1, "\N{POUND SIGN}" * 1001)),
            ("content_bytes", 2001, lambda: recorder.record_update(1, b"x" * 2001)),
            ("value_bytes", 503, lambda: recorder.record_tool_call("t", arguments="x" * 500)),
            ("value_bytes", 506, lambda: ask(recorder, metadata={"a": "x" * 500})),
            ("value_bytes", 503, lambda: ask(recorder, messages=["ok", "x" * 500])),
            ("messages_bytes", 906, lambda: ask(recorder, messages=["x" * 299] * 3)),
            ("name_chars", 11, lambda: ask(recorder, provider="x" * 11)),
            ("name_chars", 11, lambda: ask(recorder, model="x" * 11)),
            ("name_chars", 11, lambda: ask(recorder, task="x" * 11)),
            ("frames", 4, lambda: recorder.record_put_many(range(4))),
            ("frames", 4, lambda: ask(recorder, retrieved_frames=[1] * 4)),
        ]:
            with pytest.raises(LimitExceededError) as caught:
                await call()
            assert caught.value.limit == limit
            assert caught.value.value == value
        await store.sync()
        assert store.last_sequence == sequence
        assert (tmp_path / "store.mva").read_bytes() == before
        good.append(await ask(recorder))
    assert (await store.get_session(recorder.session_id)).actions == tuple(good)


async def test_frames_without_end_are_refused_and_not_collected(make_store):
    store = await make_store(config=StoreConfig(limits=Limits(frames=100)))
    taken = itertools.count()
    async with store.session() as recorder:
        with pytest.raises(LimitExceededError):
            await recorder.record_put_many(itertools.takewhile(lambda n: n < 10**6, taken))
    assert next(taken) < 1000


# What the limits admit must come back, whatever it is made of: a file that cannot be read again
# is worse than a refusal.
async def record_many_messages(recorder):
    return await ask(recorder, messages=[0] * 300_000)


async def record_many_items(recorder):
    return await recorder.record_tool_call("t", arguments=[0] * 300_000)


async def record_many_frames(recorder):
    return await recorder.record_put_many(range(300_000))


async def record_huge_content(recorder):
    return await ask(recorder, bytes(130 * MIB))


@pytest.mark.parametrize(
    "record", [record_many_messages, record_many_items, record_many_frames, record_huge_content]
)
async def test_what_cannot_be_read_again_is_refused(make_store, record):
    limits = Limits(content_bytes=256 * MIB, value_bytes=16 * MIB, frames=10**6)
    store = await make_store(config=StoreConfig(limits=limits))
    kept = []
    async with store.session() as recorder:
        await recorder.record_put(1, "before")
        with contextlib.suppress(LimitExceededError, InvalidValueError):
            kept.append((await record(recorder)).kind)
        await recorder.record_put(2, "after")
    await store.aclose()
    store = await make_store()
    session = await store.get_session(recorder.session_id)
    assert [action.kind for action in session.actions] == ["put", *kept, "put"]
    assert (await store.verify()).ok


async def test_arguments_are_hashed_in_their_deterministic_encoding(make_store):
    store = await make_store()
    async with store.session() as recorder:
        one = await recorder.record_tool_call("t", arguments={"b": 2, "a": 1.0, "c": {2: 1, 1: 2}})
        two = await recorder.record_tool_call("t", arguments={"c": {1: 2, 2: 1}, "a": 1.0, "b": 2})
    assert one.input == two.input
    assert await store.read_arguments(one) == {"a": 1.0, "b": 2, "c": {1: 2, 2: 1}}


async def test_what_the_caller_changes_afterwards_changes_nothing(make_store):
    store = await make_store()
    metadata, messages, frames = {"a": [1]}, [{"role": "user", "content": ["x"]}], [1]
    async with store.session(metadata=metadata) as recorder:
        action = await ask(recorder, metadata=metadata, messages=messages, retrieved_frames=frames)
        metadata["a"].append(2)
        messages[0]["content"].append("y")
        frames.append(2)
        second = await ask(recorder, messages=messages)
    session = await store.get_session(recorder.session_id)
    assert dict(action.metadata) == dict(session.metadata) == {"a": [1]}
    assert action.affected_frames == (1,)
    assert await store.read_messages(action) == [{"role": "user", "content": ["x"]}]
    assert await store.read_messages(second) == [{"role": "user", "content": ["x", "y"]}]
    with pytest.raises(TypeError):
        action.metadata["a"] = 5


# Messages.


def chat(turns, size=120):
    """A growing chat: what the model sees at each turn."""
    messages = [{"role": "system", "content": "You are a careful clerk. " * 8}]
    for turn in range(turns):
        question = f"question {turn} " + hashlib.blake2b(b"%d" % turn).hexdigest() * (size // 100)
        messages = [*messages, {"role": "user", "content": question}]
        yield messages, f"answer {turn} " + question[::-1]
        messages = [*messages, {"role": "assistant", "content": f"answer {turn} " + question[::-1]}]


async def test_a_growing_chat_is_kept_once(make_store, tmp_path):
    store = await make_store()
    given = list(chat(200))
    async with store.session() as recorder:
        for messages, answer in given:
            await ask(recorder, messages[-1]["content"], response=answer, messages=messages)
    await store.aclose()
    distinct = len(cbor2.dumps(given[-1][0]))
    assert (tmp_path / "store.mva").stat().st_size <= 2 * distinct
    store = await make_store()
    actions = (await store.get_session(recorder.session_id)).actions
    for turn in (0, 1, 99, 198, 199):
        assert await store.read_messages(actions[turn]) == given[turn][0]
        assert actions[turn].details.message_count == len(given[turn][0])


async def test_messages_that_branch_repeat_and_shrink_come_back_exactly(make_store):
    long = "long " * 700
    base = [{"role": "system", "content": "s" * 40}, {"role": "user", "content": long}]
    asked = [
        base,
        base,
        base[:1],
        [*base, {"role": "assistant", "content": "q" * 50}],
        [*base, {"role": "assistant", "content": b"q" * 50}],
        [*base[::-1]],
        [],
        [None, True, 0, -1, 2**64 - 1, -(2**63), 1.5, "", b"", [], {}],
        [{"role": "user", "content": [{"type": "text", "text": "r" * 60}, {"q" * 50: long}]}],
        [*base, {"role": "assistant", "content": "q" * 50}, {"role": "user", "content": "r" * 60}],
    ]
    store = await make_store()
    actions = []
    async with store.session() as recorder:
        for number, messages in enumerate(asked):
            actions.append(
                await ask(recorder, "q" * 50, response="r" * 60, messages=tuple(messages))
            )
            if number % 3 == 0:
                await recorder.create_checkpoint()
        for action, messages in zip(actions, asked, strict=True):
            assert await store.read_messages(action) == messages
    await store.aclose()
    store = await make_store(read_only=True)
    recorded = (await store.get_session(recorder.session_id)).actions
    asks = [action for action in recorded if action.kind == "ask"]
    for action, messages in zip(asks, asked, strict=True):
        assert same(await store.read_messages(action), messages)


async def test_a_chat_goes_on_sharing_after_the_file_was_opened_again(make_store, tmp_path):
    store = await make_store()
    session_id = await store.start_session()
    given = list(chat(40, size=1000))
    sizes = []
    for messages, answer in given:
        await ask(store, "next", response=answer, messages=messages)
        await store.aclose()
        sizes.append((tmp_path / "store.mva").stat().st_size)
        store = await make_store()
    assert sizes[-1] < 2 * len(cbor2.dumps(given[-1][0]))
    actions = (await store.get_session(session_id)).actions
    for action, (messages, _) in zip(actions, given, strict=True):
        assert await store.read_messages(action) == messages


async def test_no_prefix_is_shared_with_another_session(make_store):
    store = await make_store()
    messages = [{"role": "user", "content": "a secret of one session " * 3}] * 2
    async with store.session() as one:
        await ask(one, messages=messages)
    async with store.session() as two:
        action = await ask(two, messages=messages)
    await store.delete_session(one.session_id)
    assert await store.read_messages(action) == messages


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
scalars = st.none() | st.booleans() | st.integers() | st.just(math.nan) | st.just(-(1 << 200))
scalars |= texts | st.binary(max_size=80) | st.floats(allow_nan=False)
keys = texts | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
)
pieces = st.sampled_from(
    ["p" * 31, "p" * 32, b"p" * 32, "\N{EURO SIGN}" * 11, "L" * 1024, b"L" * 1024]
)


@given(data=st.data())
def test_whatever_may_be_recorded_comes_back_equal(tmp_path_factory, data):
    """One session of asks and tool calls over a small pool of messages, so that much is shared."""
    pool = data.draw(st.lists(values | pieces, min_size=1, max_size=5))
    items = st.sampled_from(pool) | st.lists(st.sampled_from(pool), max_size=3)
    asked = data.draw(
        st.lists(st.tuples(pieces, pieces, st.lists(items, max_size=5)), min_size=1, max_size=5)
    )
    called = data.draw(st.lists(st.tuples(values, st.dictionaries(keys, values)), max_size=3))
    path = tmp_path_factory.mktemp("values") / "store.mva"

    async def scenario():
        async with open_store(path) as store, store.session() as recorder:
            for query, response, messages in asked:
                await ask(recorder, query, response=response, messages=messages)
            for arguments, metadata in called:
                await recorder.record_tool_call("t", arguments=arguments, metadata=metadata)
        async with open_store(path, read_only=True) as store:
            actions = (await store.get_session(recorder.session_id)).actions
            for action, (query, response, messages) in zip(actions, asked, strict=False):
                assert same(await store.read_messages(action), messages)
                for content, given in ((action.input, query), (action.output, response)):
                    raw = given if isinstance(given, bytes) else given.encode()
                    assert await store.read_content(content) == raw
            for action, (arguments, metadata) in zip(actions[len(asked) :], called, strict=True):
                assert same(await store.read_arguments(action), arguments)
                assert same(dict(action.metadata), metadata)
            assert (await store.verify()).ok

    asyncio.run(scenario())
