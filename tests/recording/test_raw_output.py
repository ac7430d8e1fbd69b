"""An output as it came from the network is kept beside what it means, and as long as that."""

import pytest

from memvid_async import ActionKind, LimitExceededError, Limits, StoreConfig
from memvid_async.events.calls import CallFacts
from memvid_async.recording.action_draft import ActionDraft


async def record(store, session, raw):
    draft = ActionDraft(ActionKind.ASK, (None, None), "why?", "because", call=CallFacts(), raw=raw)
    return await store._intake.record(session._block.session, draft)


@pytest.mark.parametrize("size", [5, 5_000, 500_000])
async def test_it_is_read_again_and_erased_with_its_session(make_store, size):
    raw = bytes(range(256)) * (size // 256 + 1)
    store = await make_store()
    async with store.session("kept") as kept:
        made = await record(store, kept, raw)
    async with store.session("gone") as gone:
        await record(store, gone, raw + b"gone")
    for _ in range(2):
        (action,) = (await store.get_session(kept.session_id)).actions
        assert action.raw == made.raw
        assert await store.read_content(action.raw) == raw
        assert await store.read_content(action.output) == b"because"
        await store.delete_session(gone.session_id) if gone else None
        gone = None
        await store.compact()
    assert raw + b"gone" not in store.path.read_bytes()
    again = await make_store(read_only=True)
    assert await again.read_content(action.raw) == raw


async def test_it_is_bounded_as_an_output_is(make_store):
    store = await make_store(config=StoreConfig(limits=Limits(content_bytes=2_000)))
    async with store.session() as session:
        with pytest.raises(LimitExceededError):
            await record(store, session, b"x" * 2_001)
