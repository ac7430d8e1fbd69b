"""The map under the folded state: each one stays as it was made, whatever is made of it later."""

import gc
import sys
import threading
import weakref
from contextlib import contextmanager
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.core.persistent_map import _LEAST_CHANGES, PersistentMap
from tests.support.plans import examples

KEYS = st.integers(0, 5)
# What is done, to which of the maps made so far, with which values and without which keys.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["set", "delete", "without", "changed", "read", "iterate", "drop"]),
        st.integers(0, 50),
        st.dictionaries(KEYS, st.integers(), max_size=3),
        st.lists(KEYS, max_size=2),
    ),
    max_size=40,
)


@given(st.dictionaries(KEYS, st.integers(), max_size=3), STEPS)
@examples(4)
def test_every_map_stays_what_a_copied_dict_is(start, steps):
    made = [(PersistentMap(start), dict(start))]
    for what, which, values, gone in steps:
        found, plain = made[which % len(made)]
        key, value = next(iter(values.items()), (0, 7))
        if what == "set":
            made.append((found.set(key, value), {**plain, key: value}))
        elif what == "without":
            less = found.without(key)
            assert (less is found) == (key not in plain)
            made.append((less, {k: v for k, v in plain.items() if k != key}))
        elif what == "delete" and key in plain:
            made.append((found.delete(key), {k: v for k, v in plain.items() if k != key}))
        elif what == "delete":
            with pytest.raises(KeyError):
                found.delete(key)
        elif what == "changed":
            kept = {k: v for k, v in {**plain, **values}.items() if k not in gone}
            made.append((found.changed(values, gone), kept))
        elif what == "read":
            assert (found.get(key), key in found) == (plain.get(key), key in plain)
        elif what == "iterate":
            assert sorted(found.items()) == sorted(plain.items())
        elif len(made) > 1:
            del made[which % len(made)]
    for found, plain in made:
        assert found == plain
        assert len(found) == len(plain)
        assert sorted(found) == sorted(found.keys()) == sorted(found.key_list()) == sorted(plain)
        assert sorted(found.values()) == sorted(plain.values())
        assert [found.get(key, "none") for key in range(6)] == [
            plain.get(key, "none") for key in range(6)
        ]


def test_a_key_that_is_not_there_is_an_error():
    found = PersistentMap({1: 2})
    assert found[1] == 2
    with pytest.raises(KeyError, match="3"):
        found[3]
    assert repr(found) == "PersistentMap({1: 2})"


def test_maps_compare_by_what_they_hold():
    old = PersistentMap([(1, 2)])
    new = old.set(2, 3)
    assert old == PersistentMap({1: 2}) != new
    assert new.delete(2) == old


def test_nothing_changed_is_the_same_map():
    found = PersistentMap({1: 2})
    assert found.changed({}) is found


def test_an_empty_map_that_is_a_default_value_keeps_nothing_of_what_follows():
    empty = PersistentMap()
    follower = weakref.ref(empty.set(1, 2))
    assert follower() is None
    assert dict(empty) == {}


class Held:
    """A value that can be watched."""


def test_what_nobody_holds_is_freed_at_once():
    gc.disable()
    try:
        found = PersistentMap({0: None})
        watched = []
        for _ in range(100):
            value = Held()
            found = found.set(0, value)
            watched.append((weakref.ref(found), weakref.ref(value)))
            del value
        assert [made() for made, _ in watched] == [None] * 99 + [found]
        assert [value() for _, value in watched] == [None] * 99 + [found[0]]
    finally:
        gc.enable()


def test_an_old_map_that_is_read_lets_go_of_those_between():
    old = PersistentMap({0: None})
    between = old.set(0, Held())
    watched = weakref.ref(between)
    newest = between.set(0, 1)
    del between
    assert watched() is not None
    assert old.get(0) is None
    assert watched() is None
    assert newest[0] == 1


def test_an_old_map_that_is_held_for_ever_does_not_hold_all_that_follow():
    """It is never read, so that nothing but setting can notice it."""
    first = dict.fromkeys(range(10), 0)
    old = found = PersistentMap(first)
    sets = 50 * _LEAST_CHANGES
    for at in range(sets):
        found = found.set(at % 10, at)
    links, place = 0, old._place
    while type(place) is tuple:
        links, place = links + 1, place[1]._place
    assert links <= 2 * _LEAST_CHANGES
    assert dict(old) == first
    assert dict(found) == {key: sets - 10 + key for key in range(10)}


def test_a_dict_is_shared_for_as_long_as_nobody_holds_an_old_map():
    found = PersistentMap(dict.fromkeys(range(10), 0))
    data = found._place
    for at in range(10 * _LEAST_CHANGES):
        found = found.set(at % 10, at)
    assert found._place is data


def test_a_very_long_row_of_maps_is_freed_without_recursion():
    old = found = PersistentMap(dict.fromkeys(range(200_000), 0))
    for key in range(200_000):
        found = found.set(key, 1)
    watched = weakref.ref(found)
    del found
    assert watched() is not None
    del old
    assert watched() is None


@pytest.mark.parametrize("count", [10, 10_000])
def test_reading_an_old_map_costs_what_was_changed_since_then_nothing(count):
    """Counted in maps passed on the way: what was taken in once is not passed again."""
    old = found = PersistentMap(dict.fromkeys(range(count), 0))
    for key in range(count):
        found = found.set(key, 1)
    assert old[0] == 0
    assert old._place[1] is found
    assert sum(old.values()) == 0


@contextmanager
def at_each_line(of, call):
    """Before each line that these methods run, ``call()``, as another thread might."""
    codes = {method.__code__ for method in of}

    def trace(frame, what, _argument):
        if frame.f_code not in codes:
            return None
        if what == "line":
            sys.settrace(None)
            call()
            sys.settrace(trace)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


CHANGES = [
    lambda found: found.set(1, "new"),
    lambda found: found.set(9, "new"),
    lambda found: found.changed({1: "new", 9: "new"}, [2]),
    lambda found: found.delete(2),
]


@pytest.mark.parametrize("change", CHANGES)
def test_whoever_reads_between_any_two_steps_of_a_change_sees_none_of_it(change):
    older = PersistentMap({1: "a", 2: "b", 3: "c"})
    old = older.set(3, "d")
    looked = []

    def look():
        looked.append((dict(older.items()), dict(old.items())))
        looked.append(tuple({key: found[key] for key in (1, 2, 3)} for found in (older, old)))
        assert (9 in old, 9 in older) == (False, False)

    methods = [PersistentMap.set, PersistentMap.changed, PersistentMap._may_share]
    with at_each_line(methods, look):
        new = change(old)
    assert len(looked) > 10
    assert all(both == ({1: "a", 2: "b", 3: "c"}, {1: "a", 2: "b", 3: "d"}) for both in looked)
    plain = {1: "a", 2: "b", 3: "d"}
    assert dict(new) != plain == dict(old)


@pytest.mark.parametrize("change", CHANGES)
def test_two_changes_of_one_map_at_once_are_made_one_after_the_other(change):
    """Another thread could go between any two steps where the lock is free."""
    methods = [PersistentMap.set, PersistentMap.changed, PersistentMap._may_share]
    plain = {1: "a", 2: "b"}
    free = 0
    for skipped in range(30):
        old, steps, others = PersistentMap(plain), count(), []

        def go_between(old=old, skipped=skipped, steps=steps, others=others):
            lock = old._family.lock
            if next(steps) == skipped and lock.acquire(blocking=False):
                lock.release()
                others.append(old.set(1, "other"))

        with at_each_line(methods, go_between):
            new = change(old)
        free += len(others)
        assert all(dict(other) == {**plain, 1: "other"} for other in others)
        assert dict(old) == plain
        assert dict(new) == dict(change(PersistentMap(plain)))
    assert free


READS = [
    lambda found: [found.get(key) for key in (1, 2, 9)],
    lambda found: list(map(dict(found.items()).get, (1, 2, 9))),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("age", [0, 1, 2])
def test_a_change_between_any_two_steps_of_a_read_does_not_show(change, read, age):
    methods = [getattr(PersistentMap, name) for name in ("get", "_find", "_caught_up", "_copy")]
    for skipped in count():
        old = newest = PersistentMap({1: "a", 2: "b"})
        for number in range(age):
            newest = newest.set(1, number)
        steps, made = count(), []

        def go_on(skipped=skipped, steps=steps, made=made, newest=newest):
            if next(steps) >= skipped and len(made) < 3:
                # The second and third time, the first key again and another one.
                after = made[-1] if made else newest
                made.append((change, *CHANGES[:2])[len(made)](after))

        with at_each_line(methods, go_on):
            assert read(old) == ["a", "b", None]
        if not made:
            break
    assert skipped > 2


@pytest.fixture
def _often_switching():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_often_switching")
def test_maps_stay_as_they_are_while_another_thread_sets():
    """Every map holds one number under each of its keys, but for those that a deletion took."""
    keys, rounds, looks = 8, 4000, 3000
    published = [PersistentMap(dict.fromkeys(range(keys), 0))]
    stop, wrong, looked = threading.Event(), [], [0, 0, 0]

    def read(seed):
        held = []
        while not stop.is_set():
            looked[seed] += 1
            held.append(published[0])
            if len(held) > 5:
                held.pop(seed % len(held))
            for found in held:
                one = [found.get((seed + key) % keys) for key in range(keys)]
                whole = dict(found.items())
                if len({*one, *whole.values()}) != 1 or len(whole) != keys:
                    wrong.append((one, whole))
                    return

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    try:
        found = published[0]
        for number in count(1):
            if wrong or (number > rounds and sum(looked) > looks):
                break
            for key in range(keys):
                found = found.set(key, number)
                if number % 7 == key:
                    found = found.delete(key).changed({key: number})
            published[0] = found
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not wrong


@pytest.mark.usefixtures("_often_switching")
def test_two_threads_may_set_on_the_same_map():
    for _ in range(200):
        start = PersistentMap(dict.fromkeys(range(5), 0))
        ends = [None, None]
        ready = threading.Barrier(2)

        def change(name, start=start, ends=ends, ready=ready):
            found = start
            ready.wait()
            for key in range(5):
                found = found.set(key, name)
            ends[name - 1] = found

        threads = [threading.Thread(target=change, args=(name,)) for name in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert dict(start) == dict.fromkeys(range(5), 0)
        assert [dict(end) for end in ends] == [dict.fromkeys(range(5), name) for name in (1, 2)]


def test_a_set_costs_no_more_the_larger_the_map_is():
    """Counted in what is copied: nothing is, so the dict is the same one all the way."""
    for size in (100, 10_000):
        maps = [PersistentMap(dict.fromkeys(range(size), 0))]
        for key in range(50):
            maps.append(maps[-1].set(key, 1))
        assert all(type(older._place) is tuple for older, _ in pairwise(maps))
        assert maps[-1]._place is not maps[0]._place
        assert len(maps[-1]._place) == size
