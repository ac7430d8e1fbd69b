"""TornTail of a damaged file with a memory: what is left of it can be searched, and no more."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import ContentNotFoundError, FrameNotFoundError, StoreConfig, open_store, recover
from memvid_async.format.header import LOG_START
from memvid_async.format.segment import SegmentKind
from tests.support.frame_calls import all_ids, ids_of
from tests.support.frame_plans import HISTORIES, Life, eager_saving
from tests.support.naive import fixed_config
from tests.support.plans import examples, small_tables
from tests.support.segments import segments_of


def damage(path, segment):
    data = bytearray(path.read_bytes())
    data[segment.offset + 30 : segment.offset + 34] = b"\xff\x00\xff\x00"
    path.write_bytes(data)


async def put_all(path):
    """Frames 1 to 6, one command each; frame 1 is changed, frame 2 deleted, frame 3 changed."""
    async with open_store(path, config=fixed_config()) as store:
        for n in range(1, 7):
            await store.put(f"the otter number {n}", title=f"T{n}")
        await store.update(1, title="changed")
        await store.delete(2)
        await store.update(3, "a changed otter")


@pytest.mark.parametrize("lost", range(6))
async def test_a_lost_put_is_missing_and_nothing_else(tmp_path, lost):
    path, out = tmp_path / "damaged.mva", tmp_path / "out.mva"
    await put_all(path)
    puts = segments_of(path.read_bytes(), SegmentKind.EVENTS)[:6]
    damage(path, puts[lost])
    report = await recover(path, out)
    assert not report.complete
    left = [n for n in (1, 3, 4, 5, 6) if n != lost + 1]
    if lost == 2:
        # Its later body is there, but not what it was put with.
        assert 3 not in left
    async with open_store(out, config=StoreConfig()) as store:
        assert await all_ids(store) == left
        result = await store.find("otter", top_k=50)
        assert sorted(hit.frame_id for hit in result.hits) == left
        assert result.incomplete == (lost + 1 in (1, 3))
        with pytest.raises(FrameNotFoundError):
            await store.get(lost + 1)
        new = await store.put("a new otter")
        assert new not in left
        assert new in await ids_of(store, "otter", top_k=50)
        assert (await store.verify()).ok
        await store.compact()
        assert await all_ids(store) == [*left, new]


async def test_a_lost_change_leaves_the_frame_as_it_was(tmp_path):
    path, out = tmp_path / "damaged.mva", tmp_path / "out.mva"
    await put_all(path)
    events = segments_of(path.read_bytes(), SegmentKind.EVENTS)
    damage(path, events[6])
    damage(path, events[7])
    await recover(path, out)
    async with open_store(out) as store:
        assert await all_ids(store) == [1, 2, 3, 4, 5, 6]
        assert (await store.get(1)).title == "T1"


async def test_a_damaged_save_costs_nothing(tmp_path):
    path, out = tmp_path / "damaged.mva", tmp_path / "out.mva"
    with eager_saving():
        async with open_store(path) as store:
            for n in range(5):
                await store.put(f"the otter number {n}")
                await store.find("otter")
    saves = segments_of(path.read_bytes(), SegmentKind.PROJECTION)
    assert saves
    for save in saves:
        damage(path, save)
    report = await recover(path, out)
    assert report.complete
    assert report.lost == ()
    assert all(s.kind != SegmentKind.PROJECTION for s in segments_of(out.read_bytes()))
    async with open_store(out) as store:
        assert await ids_of(store, "otter") == [1, 2, 3, 4, 5]


@examples(0.3)
@given(HISTORIES, st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_whatever_is_damaged_the_rest_can_be_searched(history, places):
    async def live():
        with tempfile.TemporaryDirectory() as folder, eager_saving(), small_tables():
            life = Life(Path(folder))
            store = await life.run(history)
            before = {frame.frame_id: frame async for frame in store.frames()}
            bodies = {n: await store.read_content(f.content) for n, f in before.items()}
            await store.aclose()
            data = bytearray(life.path.read_bytes())
            if len(data) == LOG_START:
                return
            for place in places:
                data[LOG_START + place % (len(data) - LOG_START)] ^= 0x5A
            life.path.write_bytes(data)
            out = Path(folder) / "out.mva"
            report = await recover(life.path, out)
            async with open_store(out, config=life.config) as again:
                ids = await all_ids(again)
                if report.complete:
                    assert ids == sorted(before)
                await again.find("otter river", top_k=100)
                for frame_id in ids:
                    frame = await again.get(frame_id)
                    if frame == before.get(frame_id) and frame.content.size:
                        try:
                            body = await again.read_content(frame.content)
                        except ContentNotFoundError:
                            # Another frame's put held it too, and that was lost.
                            assert not report.complete
                        else:
                            assert body == bodies[frame_id]
                assert (await again.verify()).ok

    asyncio.run(live())
