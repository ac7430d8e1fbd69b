"""Functions as tools: a call is recorded where a session is in force, and returns the result."""

import asyncio
import threading
from uuid import UUID

import pytest

import memvid_async
from memvid_async import InvalidValueError, current_call, open_store

pytestmark = pytest.mark.anyio


class RefusedError(Exception):
    def __init__(self, code):
        super().__init__(f"refused: {code}")
        self.code = code


@memvid_async.tool
async def search(words, *more, top=3, **options):
    return [words, list(more), top, options, current_call() is not None]


@memvid_async.tool(name="charge", effect=False, thread=False)
def pay(amount):
    if amount < 0:
        raise RefusedError(402)
    return threading.current_thread() is threading.main_thread()


class Shop:
    @memvid_async.tool
    def sell(self, what):
        return what, threading.current_thread() is threading.main_thread()


async def test_tools_record_into_the_session_in_force_and_run_without_one(tmp_path):
    assert await search(("a", "b"), 1, top=2, count=7) == [("a", "b"), [1], 2, {"count": 7}, False]
    async with open_store(tmp_path / "a.mva") as store, store.session("outer") as outer:
        async with store.session("inner") as inner:
            found = await asyncio.create_task(search(("a", "b"), 1, top=2, count=7))
            assert found == [("a", "b"), [1], 2, {"count": 7}, True]
        assert await pay(3)
        assert await Shop().sell("tea") == ("tea", False)
        with pytest.raises(RefusedError) as refused:
            await pay(-1)
        assert refused.value.code == 402
        with pytest.raises(TypeError, match="amount"):
            await pay()

        (action,) = (await store.get_session(inner.session_id)).actions
        arguments = {"words": ["a", "b"], "more": [1], "top": 2, "count": 7}
        assert (action.details.name, await store.read_arguments(action)) == ("search", arguments)
        paid, sold, failed = (await store.get_session(outer.session_id)).actions
        assert [one.details.name for one in (paid, sold, failed)] == ["charge", "sell", "charge"]
        assert (paid.started, sold.started is None, failed.started) == (None, False, None)
        assert await store.read_arguments(sold) == {"what": "tea"}
        detail = failed.error_detail
        assert detail.type_name == f"{RefusedError.__module__}.RefusedError"
        assert (failed.error, detail.attributes) == ("RefusedError: refused: 402", {"code": 402})


async def test_an_argument_named_self_is_recorded_but_for_a_method(
    tmp_path,
):
    async with open_store(tmp_path / "a.mva") as store, store.session("own") as own:

        @own.tool
        def like(self, other):
            return self == other

        class Local:
            @own.tool
            def like(self, other):
                return other

        assert not await like(1, 2)
        assert await Local().like(2) == 2
        named = (await store.get_session(own.session_id)).actions
        passed = [await store.read_arguments(action) for action in named]
        assert passed == [{"self": 1, "other": 2}, {"other": 2}]


class Odd:
    """Methods in every form, under names that an object or a class may have."""

    @memvid_async.tool
    @staticmethod
    def outside(self):  # noqa: PLW0211 - any name may be an argument's
        return self

    @staticmethod
    @memvid_async.tool
    def inside(self):  # noqa: PLW0211 - as above
        return self

    @memvid_async.tool
    @classmethod
    def of_class(cls, count):
        return cls.__name__, count

    @classmethod
    @memvid_async.tool
    def within_class(kind, count):  # noqa: N804 - as above
        return kind.__name__, count

    @memvid_async.tool(name="method")
    def method(this, call, /, *, name, **self):  # noqa: N805 - as above
        return call, name, self


class Derived(Odd):
    pass


class Word(str):
    __slots__ = ()

    @staticmethod
    @memvid_async.tool
    def shout(word):
        return word.upper()


async def test_what_is_recorded_of_a_method_is_all_but_its_object(tmp_path):
    async with open_store(tmp_path / "a.mva") as store, store.session() as session:
        odd = Derived()
        for each in (odd.outside, Odd.outside, odd.inside, Odd.inside):
            assert await each(4) == 4
        for each in (odd.of_class, Derived.of_class, odd.within_class, Derived.within_class):
            assert await each(4) == ("Derived", 4)
        assert await odd.method(1, name=2, self=3) == (1, 2, {"self": 3})
        upper = memvid_async.tool(str.upper)
        assert await upper("a") == "A"
        assert await Word.shout(Word("b")) == "B"
        with pytest.raises(TypeError, match="count"):
            await odd.of_class()

        made = (await store.get_session(session.session_id)).actions
        assert [action.details.name for action in made[::4]] == ["outside", "of_class", "method"]
        assert [await store.read_arguments(action) for action in made] == [
            *[{"self": 4}] * 4,
            *[{"count": 4}] * 4,
            {"call": 1, "name": 2, "self": 3},
            {"self": "a"},
            {"word": "b"},
        ]


async def test_a_session_s_own_tools_are_its_calls_wherever_they_are_made(tmp_path):
    async with open_store(tmp_path / "a.mva") as store, store.session("own") as own:

        @own.tool
        def double(n: int) -> int:
            return 2 * n

        @own.tool(timeout=0)
        async def slow() -> None:
            await asyncio.Event().wait()

        async with store.session("other"):
            assert await double(4) == 8
            with pytest.raises(TimeoutError):
                await slow()
        doubled, timed_out = (await store.get_session(own.session_id)).actions
        assert (doubled.details.name, timed_out.error) == ("double", "TimeoutError")
        with pytest.raises(InvalidValueError):
            own.tool(7)


async def test_what_an_agent_reads_is_recorded(tmp_path):
    """Rule 41."""
    async with open_store(tmp_path / "a.mva") as store, store.session() as session:
        values = [await session.now(), await session.uuid(), await session.random()]
        await session.sleep(0)
        assert await session.once("pick", lambda: {"b": 1, "a": 2}) == {"b": 1, "a": 2}
        assert list(map(type, values)) == [int, UUID, float]
        names = [
            action.details.name for action in (await store.get_session(session.session_id)).actions
        ]
        assert names == ["now", "uuid", "random", "sleep", "pick"]
        assert (await store.list_sessions(include_open=True))[0].tool_call_count == 0
