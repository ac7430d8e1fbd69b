"""Why an answer is what it is: the frames it was given, who put them, and what they led to."""

import pytest

from memvid_async import InvalidValueError, Why


async def answer(prompt):
    return "an answer"


async def test_from_an_answer_to_who_put_its_frames_and_to_later_answers(make_store):
    store = await make_store()
    outside = await store.put("rain in Oslo, said nobody")
    async with store.session("writer") as writer:
        kept = await store.put("rain in Bergen")
        await store.put_many([{"content": "snow"}, {"content": "rain in Trondheim"}])
        await store.update(kept, "much rain in Bergen")
    async with store.session("reader") as reader:
        await store.ask("rain?", generate=answer, top_k=9)
        await store.update(kept, "no rain in Bergen")
        await store.ask("rain in Bergen?", generate=answer, top_k=1)
        found = await store.find("rain", top_k=9)
    first, update, second, find = (await store.get_session(reader.session_id)).actions
    why = await store.why(first)
    assert why.action == first
    by_id = {frame.frame_id: frame for frame in why.frames}
    assert list(by_id) == list(first.affected_frames)
    put_by = {
        frame_id: frame.put_by and (frame.put_by.kind, frame.put_by.session_id)
        for frame_id, frame in by_id.items()
    }
    assert put_by == {
        outside: None,
        kept: ("update", writer.session_id),
        kept + 2: ("put_many", writer.session_id),
    }
    assert by_id[kept].content.preview == "much rain in Bergen"
    assert by_id[kept].put_ns == by_id[kept].put_by.time_ns
    assert {frame_id: frame.later for frame_id, frame in by_id.items()} == {
        outside: (),
        kept: (second,),
        kept + 2: (),
    }
    (again,) = (await store.why(second)).frames
    assert again.put_by == update
    assert again.later == ()
    assert len((await store.why(find)).frames) == len(found.hits)


async def test_a_fork_s_answers_count_too(make_store):
    store = await make_store()
    async with store.session("parent") as parent:
        kept = await store.put("rain")
        await store.ask("rain", generate=answer)
    fork = await store.fork(parent.session_id)
    async with store.resume_session(fork):
        await store.update(kept, "rain of the fork")
        await store.ask("rain", generate=answer)
    _, ask, update, of_fork = (await store.get_session(fork)).actions
    (given,) = (await store.why(ask)).frames
    assert given.later == (of_fork,)
    (given,) = (await store.why(of_fork)).frames
    assert given.put_by == update


async def test_what_was_erased_and_what_somebody_else_found(make_store):
    store = await make_store()
    async with store.session("a") as session:
        kept = await store.put("rain")
        await store.ask("rain", generate=answer)
        await session.record_ask("?", response="!", retrieved_frames=[kept, 77])
        await session.record_ask("?", response="!", retrieved_frames=[77])
    put, ask, theirs, _ = (await store.get_session(session.session_id)).actions
    frames = (await store.why(theirs)).frames
    assert [(one.frame_id, one.score, one.content, len(one.later)) for one in frames] == [
        (kept, None, None, 0),
        (77, None, None, 1),
    ]
    await store.delete(kept)
    await store.compact()
    why = await store.why(ask)
    assert isinstance(why, Why)
    assert why.frames[0].content is None
    with pytest.raises(InvalidValueError, match="was given no frames"):
        await store.why(put)
