"""Every seeded bug above the log can still be seeded, and tests for those that no other test finds.

`nox -s mutants` seeds each of them, and looks whether it is found.
"""

import pytest

from memvid_async import FrameNotFoundError, FramesPut, open_store
from memvid_async.storage import notices
from tests.mutants.above_the_log import MUTANTS, ROOT, SOURCE


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_a_bug_can_still_be_seeded(mutant):
    source = (ROOT / SOURCE / mutant.file).read_text(encoding="utf-8")
    compile(mutant.seed(source), mutant.file, "exec")
    assert (ROOT / "tests" / mutant.found_by.partition("::")[0]).exists()


def test_there_are_enough_of_every_kind():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


async def test_a_deleted_fork_that_has_a_fork_loses_its_name_and_its_metadata(tmp_path):
    path = tmp_path / "store.mva"
    async with open_store(path) as store:
        async with store.session("parent") as parent:
            await store.put("a frame")
        first = await store.fork(parent.session_id, name="secret name", metadata={"key": "hidden"})
        async with store.resume_session(first):
            await store.put("in the first fork")
        second = await store.fork(first, name="second")
        await store.delete_session(first)
        await store.compact()
        async with store.resume_session(second):
            assert (await store.find("first fork")).hits[0].frame_id == 2
    data = path.read_bytes()
    assert b"second" in data
    assert b"secret name" not in data
    assert b"hidden" not in data


async def test_events_that_wait_in_memory_are_erased_by_a_compaction_too(tmp_path):
    async with open_store(tmp_path / "store.mva") as store, store.subscribe() as events:
        await store.delete(await store.put("a secret that is deleted"))
        await store.put("what stays")
        last = store.last_sequence
        await store.compact()
        seen = []
        while not seen or seen[-1].sequence < last:
            seen.append(await anext(events))
    puts = [event for event in seen if isinstance(event.payload, FramesPut)]
    assert len(puts) == 2
    assert "secret" not in repr([list(event.payload.kept) for event in puts])
    assert "what stays" in repr([list(event.payload.kept) for event in puts])


def test_what_happens_while_the_path_is_asked_for_is_asked_for_again():
    """A notice that comes after the answer, and before it is noted, must not be taken with it."""

    class Told:
        count = 0
        waiting = False

        def take(self):
            if self.waiting:
                self.count, self.waiting = self.count + 1, False
            return self.count

    told = Told()
    watch = notices.Watch(told, [])

    def moved_right_after():
        told.waiting = True
        return True

    assert watch.look_again(moved_right_after)
    assert told.waiting or watch._seen != told.count


async def test_a_fork_has_what_its_parent_deletes_later_and_can_change_it(tmp_path):
    async with open_store(tmp_path / "store.mva") as store:
        async with store.session("parent") as parent:
            frame_id = await store.put("a frame of both")
        fork = await store.fork(parent.session_id)
        await store.delete(frame_id)
        async with store.resume_session(fork):
            await store.update(frame_id, title="the fork's")
            assert (await store.get(frame_id)).title == "the fork's"
            await store.delete(frame_id)
            with pytest.raises(FrameNotFoundError):
                await store.update(frame_id, title="gone")


async def test_a_fork_at_a_moment_before_its_parent_began_sees_no_more_than_then(tmp_path):
    async with open_store(tmp_path / "store.mva") as store:
        async with store.session("first") as first:
            await store.put("early")
            await store.put("late")
        middle = await store.fork(first.session_id)
        async with store.resume_session(await store.fork(middle, action_index=0)):
            assert [hit.frame_id for hit in (await store.find("early late")).hits] == [1]
            with pytest.raises(FrameNotFoundError):
                await store.update(2, title="not there")


async def test_a_frame_that_is_deleted_takes_no_place_among_the_nearest(tmp_path):
    near = {"mode": "semantic", "embedding": [1.0, 0.0], "embedding_model": "m", "top_k": 2}
    async with open_store(tmp_path / "store.mva") as store:
        for angle in (0.0, 0.1, 0.2):
            await store.put("text", embedding=[1.0, angle], embedding_model="m")
        assert [hit.frame_id for hit in (await store.find("", **near)).hits] == [1, 2]
        await store.delete(1)
        assert [hit.frame_id for hit in (await store.find("", **near)).hits] == [2, 3]
