"""The time is the clock's: it may step back, and be before 1970. The order is by sequence."""

import random
import re

import pytest

from memvid_async import InvalidValueError, StoreConfig, open_store, recover

YEAR = 365 * 86_400 * 10**9
NOW, FAR = 56 * YEAR, 126 * YEAR


async def last_not_later(store, time_ns):
    """Return the sequence that ``at(time_ns=…)`` is to find, from the events themselves."""
    found = 0
    async with store.subscribe() as events:
        while events.last_sequence < store.last_sequence:
            event = await anext(events)
            found = event.sequence if event.time_ns <= time_ns else found
    return found


async def found(store, **filters):
    return sorted(hit.frame_id for hit in (await store.find("fox", **filters)).hits)


async def test_one_clock_that_is_far_ahead_pins_no_later_time(make_store, tmp_path):
    times = iter([NOW, FAR, NOW + 1, NOW + 2, NOW + 3])
    store = await make_store(config=StoreConfig(clock=lambda: next(times)))
    ids = [await store.put(f"fox {n}") for n in range(5)]
    frames = [frame async for frame in store.frames()]
    assert [f.created_ns for f in frames] == [NOW, FAR, NOW + 1, NOW + 2, NOW + 3]
    assert await found(store, since_ns=NOW + 1, until_ns=NOW + 3) == ids[2:4]
    assert await found(store, since_ns=FAR) == [ids[1]]
    for time_ns in (NOW - 1, NOW, NOW + 1, NOW + 2, FAR - 1, FAR):
        view = await store.at(time_ns=time_ns)
        assert view.sequence == await last_not_later(store, time_ns)
    now = await store.at(time_ns=NOW + 1)
    assert [frame.frame_id async for frame in now.frames()] == ids[:3]


async def test_times_before_1970(make_store):
    times = iter([-50 * YEAR, -1, 0, 1])
    store = await make_store(config=StoreConfig(clock=lambda: next(times)))
    ids = [await store.put(f"fox {n}") for n in range(4)]
    assert await found(store, since_ns=-YEAR) == ids[1:]
    assert await found(store, until_ns=-YEAR) == ids[:1]
    then = await store.at(time_ns=-YEAR)
    assert [frame.frame_id async for frame in then.frames()] == ids[:1]
    assert (await store.at(time_ns=-60 * YEAR)).sequence == 0
    for bad in (2**63, -(2**63) - 1, 1.0, True, "now"):
        with pytest.raises(InvalidValueError, match="since_ns"):
            await store.find("fox", since_ns=bad)
        with pytest.raises(InvalidValueError, match="time_ns"):
            await store.at(time_ns=bad)


@pytest.mark.parametrize("bad", [2**63, -(2**63) - 1, 1.5, True, None])
async def test_a_clock_that_returns_no_time_is_refused(make_store, bad):
    store = await make_store(config=StoreConfig(clock=lambda: bad))
    with pytest.raises(InvalidValueError, match=re.escape("clock() returned")):
        await store.put("fox")


async def walk(store, rng):
    """Record sessions, puts, deletes and large contents, with a clock of any kind."""
    ids = [await store.put(f"fox {n}" + "x" * rng.choice([0, 3000])) for n in range(8)]
    for n in range(6):
        async with store.session(f"s{n}") as session:
            for m in range(rng.randrange(4)):
                await session.record_ask(f"q{m}", provider="p", model="m", response="r" * 2000)
            await session.create_checkpoint()
        if n % 2:
            await store.delete_session(session.session_id)
        await store.delete(ids.pop())


@pytest.mark.parametrize("seed", range(3))
async def test_a_log_whose_clock_jumps_is_as_any_other(make_store, tmp_path, seed):
    """It reopens, verifies, is compacted and recovered, and each moment is found."""
    rng = random.Random(seed)
    config = StoreConfig(clock=lambda: rng.choice([NOW, FAR, 0, -FAR, -(2**63), 2**63 - 1]))
    async with open_store(tmp_path / "a.mva", config=config) as store:
        await walk(store, rng)
    asked = (-(2**63), -FAR - 1, -FAR, -1, 0, NOW - 1, NOW, FAR, 2**63 - 1)
    for round_ in range(3):
        async with open_store(tmp_path / "a.mva", config=config) as store:
            assert (await store.verify()).ok
            for time_ns in asked:
                view = await store.at(time_ns=time_ns)
                assert view.sequence == await last_not_later(store, time_ns), time_ns
            before = [(s.created_ns, s.ended_ns) for s in await store.list_sessions()]
            if round_ == 0:
                await store.compact()
            times = [await last_not_later(store, time_ns) for time_ns in asked]
        if round_ == 1:
            report = await recover(tmp_path / "a.mva", tmp_path / "b.mva")
            assert report.complete
            async with open_store(tmp_path / "b.mva") as store:
                assert (await store.verify()).ok
                assert [(s.created_ns, s.ended_ns) for s in await store.list_sessions()] == before
                assert [await last_not_later(store, time_ns) for time_ns in asked] == times


async def test_a_moment_long_ago_is_found_in_a_long_log(make_store):
    """The search goes back in parts; the moments beside the parts' ends are found as well."""
    now = iter(range(10**9))
    store = await make_store(config=StoreConfig(clock=lambda: next(now)))
    async with store.session() as session:
        for n in range(2600):
            await session.record_tool_call("t", arguments={"n": n})
    last = store.last_sequence
    first = (await store.get_session(session.session_id)).created_ns
    for back in (0, 1, 1023, 1024, 1025, 2047, 2500, last - 1):
        sequence = last - back
        view = await store.at(time_ns=first + sequence - 1)
        assert view.sequence == sequence
