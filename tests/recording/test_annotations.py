"""Sessions are renamed and annotated, while they are open and after their end."""

from uuid import uuid4

import pytest

from memvid_async import (
    InvalidValueError,
    LimitExceededError,
    Limits,
    SessionChanged,
    SessionNotFoundError,
    StoreConfig,
    open_store,
)
from tests.support.plans import small_tables

pytestmark = pytest.mark.anyio


async def test_what_is_said_of_a_session_stays_whatever_happens_to_the_file(tmp_path):
    """Across its end, reopening by the TOC and by pages, and compaction; and as of then."""
    path, ids = tmp_path / "a.mva", []
    with small_tables():
        async with open_store(path) as store:
            for number in range(5):
                async with store.session(
                    f"s{number}", metadata={"n": number, "kept": 1}
                ) as session:
                    ids.append(session.session_id)
                    await session.annotate({"n": -number, "open": True})
            ended = store.last_sequence
            for session_id in ids:
                await store.annotate_session(session_id, {"rating": {"stars": 5}})
                await store.rename_session(session_id, f"renamed {session_id}")
            await store.rename_session(ids[0], None)

        async def check(store):
            for number, listed in enumerate(await store.list_sessions()):
                whole = await store.get_session(listed.session_id)
                name = f"renamed {listed.session_id}" if number else None
                wanted = {"n": -number, "kept": 1, "open": True, "rating": {"stars": 5}}
                assert (listed.name, listed.metadata) == (whole.name, whole.metadata)
                assert (whole.name, whole.metadata) == (name, wanted)
                assert (listed.ended_ns, listed.duration_ns) == (
                    whole.ended_ns,
                    whole.ended_ns - whole.created_ns,
                )
                before = await (await store.at(sequence=ended)).get_session(listed.session_id)
                assert (before.name, "rating" in before.metadata) == (f"s{number}", False)
            assert (await store.verify()).ok

        async with open_store(path, read_only=True) as store:
            await check(store)
        async with open_store(path) as store:
            await check(store)
            await store.compact()
            await check(store)
            await store.annotate_session(ids[0], {"rating": {"stars": 5}})
        async with open_store(path) as store:
            await check(store)
            async with store.subscribe(session_id=ids[1]) as events:
                seen = []
                while not events.caught_up:
                    seen.append(type((await anext(events)).payload))
            assert seen.count(SessionChanged) == 3
            await store.delete_session(ids[1])
        async with open_store(path) as store:
            assert len(await store.list_sessions()) == 4
            assert (await store.verify()).ok


async def test_metadata_stays_within_its_limit_however_often_it_is_added_to(tmp_path):
    config = StoreConfig(limits=Limits(value_bytes=100))
    async with open_store(tmp_path / "a.mva", config=config) as store, store.session() as session:
        for number in range(4):
            await session.annotate({f"k{number}": "x" * 15})
        before = (await store.get_session(session.session_id)).metadata
        for too_much in ({"k4": "x" * 30}, {"k": "x" * 101}):
            with pytest.raises(LimitExceededError, match="value_bytes"):
                await session.annotate(too_much)
        assert (await store.get_session(session.session_id)).metadata == before
        await session.annotate({"k3": "shorter"})


async def test_what_cannot_be_said_of_a_session_is_refused(tmp_path):
    async with open_store(tmp_path / "a.mva") as store, store.session() as session:
        for wrong in ({"a": object()}, "text", {"a": {1.5: 1}}):
            with pytest.raises(InvalidValueError):
                await store.annotate_session(session.session_id, wrong)
        with pytest.raises(InvalidValueError):
            await store.rename_session(session.session_id, 7)
        for call in (store.annotate_session(uuid4(), {}), store.rename_session(uuid4(), "n")):
            with pytest.raises(SessionNotFoundError):
                await call
        assert store.last_sequence == 1
