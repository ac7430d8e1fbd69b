"""Replies as they are read: whole or in chunks, to their end or as far as they come."""

import asyncio
import threading
from contextlib import aclosing

import pytest

from memvid_async import Conversion, Generated, InvalidValueError, Prompt
from memvid_async.recording import replies
from memvid_async.recording.replies import GrowingReply, check_model

PROMPT = Prompt("why?")
MOST = 100


def streamed(*given):
    async def generate(_):
        for chunk in given:
            yield chunk

    return generate


WHOLE = {
    "str": (lambda _: "why", "why", (3,)),
    "bytes": (lambda _: b"\xff\x00", b"\xff\x00", (2,)),
    "nothing": (lambda _: "", "", (0,)),
    "generated": (lambda _: Generated("why"), "why", (3,)),
    "chunks": (streamed("a", "", Generated("bc")), "abc", (1, 0, 2)),
    "chunks of bytes": (streamed(b"a", Generated(b"\xff")), b"a\xff", (1, 1)),
    "no chunks": (streamed(), "", ()),
    "chunks that are not async": (lambda _: iter(["a", Generated("bc")]), "abc", (1, 2)),
    "half a pair": (lambda _: "here \ud83d", "here \ufffd", (6,)),
    "halves in chunks": (streamed("\ud83d", "\ude00!"), "\U0001f600!", (0, 2)),
    "a half at the end": (streamed("a\ud83d", ""), "a\ufffd", (1, 1)),
    "a half before bytes": (streamed("a\ud83d", b"\xff"), "a\ufffd\ufffd", (2, 1)),
    "nothing at all": (lambda _: None, "", ()),
    "a number": (lambda _: 7, "7", (1,)),
    "a dict": (lambda _: Generated({"a": 1}), '{"a": 1}', (8,)),
    "no text in chunks": (streamed("a", Generated(None), "b"), "ab", (1, 1)),
    "a chunk that is a number": (streamed("a", 7), "a7", (1, 1)),
    "text and bytes": (streamed("a", b"b\xff"), "ab\ufffd", (1, 2)),
    "bytes and text": (streamed(b"a", "é"), b"a\xc3\xa9", (1, 2)),
    "bytes and a half": (streamed(b"a", "\ud83d"), b"a\xef\xbf\xbd", (1, 3)),
    "too long": (lambda _: "x" * 101, "x" * 100, (100,)),
    "too long as UTF-8": (lambda _: "\u20ac" * 34, "\u20ac" * 33, (33,)),
    "too long in chunks": (streamed("x" * 60, "y" * 41, "z"), "x" * 60 + "y" * 40, (60, 40, 0)),
    "nothing after a cut": (streamed("x" * 98, "\u20ac", "z"), "x" * 98, (98, 0, 0)),
    "halves and no room": (streamed("x" * 98, "\ud83d", "z"), "x" * 98, (98, 0, 0)),
    "a whole pair": (lambda _: "\U0001f600", "\U0001f600", (1,)),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_reply_is_read_to_its_end(name):
    generate, text, lengths = WHOLE[name]
    growing = GrowingReply(MOST)
    assert await growing.read(generate, PROMPT) == Generated(text)
    assert growing.text == text
    assert growing.output == (None if name == "nothing at all" else text)
    assert type(growing.text) is type(text)
    assert growing.reply.chunks == lengths
    assert "".join(growing.reply.split("x" * len(text))) == "x" * len(text)


async def test_counts_are_summed_over_the_chunks_that_have_them():
    growing = GrowingReply(MOST)
    chunks = (
        Generated("a", 1),
        "b",
        Generated("c", 2, output_tokens=4, cached_tokens=0, cost_usd=0.5),
        Generated("", cost_usd=1),
    )
    whole = await growing.read(streamed(*chunks), PROMPT)
    assert whole == Generated("abc", 3, 4, 0, 1.5)
    assert growing.counts == {
        "input_tokens": 3, "output_tokens": 4, "cached_tokens": 0, "cost_usd": 1.5,
    }  # fmt: skip
    assert growing.reply.cost_usd == 1.5


FAILED = {
    "at once": (streamed(), None),
    "after a chunk": (streamed("a"), "a"),
    "after a half": (streamed("a", "\ud83d"), "a\ufffd"),
    "after nothing": (streamed(""), ""),
}


@pytest.mark.parametrize("name", FAILED)
async def test_what_came_before_a_failure_stays(name):
    generate, so_far = FAILED[name]

    async def failing(prompt):
        async for chunk in generate(prompt):
            yield chunk
        raise TimeoutError

    growing = GrowingReply(MOST)
    with pytest.raises(TimeoutError):
        await growing.read(failing, PROMPT)
    assert growing.output == so_far
    assert isinstance(await GrowingReply(MOST).try_to_read(failing, PROMPT), TimeoutError)


async def test_a_cancelled_one_is_told_as_far_as_it_came():
    begun = asyncio.Event()

    async def generate(_):
        yield "so far"
        begun.set()
        await asyncio.Event().wait()

    growing = GrowingReply(MOST)
    task = asyncio.create_task(growing.try_to_read(generate, PROMPT))
    await begun.wait()
    task.cancel()
    assert isinstance(await task, asyncio.CancelledError)
    assert growing.output == "so far"


def spoken(raw):
    """What the bytes of a made-up format mean: their text, and how many they are."""
    return Generated(raw.decode("utf-8", "replace").removeprefix(">"), input_tokens=len(raw))


async def test_bytes_of_a_format_are_kept_beside_what_they_mean():
    growing = GrowingReply(MOST, spoken)
    assert (growing.raw, growing.output) == (None, None)
    reply = await growing.read(streamed(b">a", b"b"), PROMPT)
    assert str(reply) == growing.text == growing.output == "ab"
    assert growing.raw == b">ab"
    assert (reply.input_tokens, growing.reply.input_tokens) == (3, 3)
    assert growing.reply.chunks == (2, 1)


async def test_bytes_that_broke_off_mean_what_they_say_so_far():
    async def generate(_):
        yield b">a"
        assert growing.text == "a"
        yield b"b\xff"
        raise ConnectionError

    growing = GrowingReply(MOST, spoken)
    assert isinstance(await growing.try_to_read(generate, PROMPT), ConnectionError)
    assert (growing.raw, growing.output, growing.counts["input_tokens"]) == (
        b">ab\xff",
        "ab\ufffd",
        4,
    )


async def test_a_generator_left_half_way_is_closed_at_once():
    closed = []

    async def generate(_):
        try:
            yield "x"
            yield "y"
        finally:
            closed.append(True)

    chunks = GrowingReply(MOST).chunks(generate, PROMPT)
    assert await anext(chunks) == "x"
    await chunks.aclose()
    assert closed == [True]


async def test_a_generator_that_is_not_async_advances_and_is_closed_in_threads():
    seen = []

    def generate(_):
        try:
            for chunk in "abc":
                seen.append(threading.current_thread() is threading.main_thread())
                yield chunk
        finally:
            seen.append("closed")

    async with aclosing(GrowingReply(MOST).chunks(generate, PROMPT)) as chunks:
        assert await anext(chunks) == "a"
    assert seen == [False, "closed"]


async def test_more_chunks_than_are_kept_apart_are_one_at_the_end(monkeypatch):
    monkeypatch.setattr(replies, "MOST_CHUNKS", 3)
    growing = GrowingReply(MOST)
    await growing.read(streamed("a", "b", "c", "", "de", "f"), PROMPT)
    assert growing.text == "abcdef"
    assert growing.reply.split(growing.text) == ["a", "b", "cdef"]


async def test_a_long_reply_is_measured_off_the_loop():
    text = "\u20ac" * 100_000
    growing = GrowingReply(300_000)
    assert (await growing.read(lambda _: text, PROMPT)).text == text
    assert (await GrowingReply(299_999).read(lambda _: text, PROMPT)).text == text[:-1]


def test_a_model_takes_one_prompt():
    check_model(lambda prompt: prompt)
    with pytest.raises(TypeError, match=r"generate\(prompt\)"):
        check_model(lambda question, context: question)
    with pytest.raises(InvalidValueError):
        check_model("a name")


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_tokens": -1}, {"input_tokens": 1.5},
        {"output_tokens": True}, {"cached_tokens": "3"}, {"input_tokens": 2**63},
        {"cost_usd": -0.1}, {"cost_usd": float("nan")}, {"cost_usd": float("inf")},
        {"cost_usd": "free"}, {"cost_usd": True},
    ],
    ids=repr,
)  # fmt: skip
async def test_a_count_that_cannot_be_kept_is_left_out_and_marked(wrong):
    growing = GrowingReply(MOST)
    reply = await growing.read(lambda _: Generated("x", **wrong), PROMPT)
    assert reply == Generated("x")
    assert growing.conversion == Conversion.COUNT
