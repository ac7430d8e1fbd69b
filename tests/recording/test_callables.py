"""Calls of what the user passes in: where they run, what they may be, and what is refused."""

import asyncio
import functools
import threading
from contextvars import ContextVar

import anyio
import pytest

from memvid_async.recording.callables import call, check_fits, is_async
from tests.support.loops import turns

PLACE = ContextVar("PLACE", default="nowhere")


async def twice(value):
    return value * 2


async def chunks(value):
    yield value


class AsyncObject:
    async def __call__(self, value):
        return value * 2

    async def method(self, value):
        return value * 2

    @staticmethod
    async def static(value):
        return value * 2

    @classmethod
    async def of_class(cls, value):
        return value * 2


class Streaming:
    async def __call__(self, value):
        yield value


@functools.wraps(twice)
async def wrapped(*args, **kwargs):
    return await twice(*args, **kwargs)


ON_THE_LOOP = {
    "a function": twice,
    "a generator": chunks,
    "a method": AsyncObject().method,
    "a static method": AsyncObject.static,
    "a class method": AsyncObject.of_class,
    "an object": AsyncObject(),
    "an object that streams": Streaming(),
    "a partial": functools.partial(twice),
    "a partial of a partial": functools.partial(functools.partial(chunks)),
    "a partial of an object": functools.partial(AsyncObject()),
    "a partial of a method": functools.partial(AsyncObject().method),
    "a wrapper": wrapped,
}
IN_A_THREAD = {
    "a function": lambda value: value * 2,
    "a coroutine of a lambda": lambda value: twice(value * 1),
    "a partial": functools.partial(lambda factor, value: value * factor, 2),
    "a builtin": (2).__mul__,
    "a cached function": functools.cache(lambda value: value * 2),
}


@pytest.mark.parametrize("name", ON_THE_LOOP)
async def test_what_is_async_runs_on_the_loop(name):
    assert is_async(ON_THE_LOOP[name])
    threads = threading.active_count()
    given = await call(ON_THE_LOOP[name], (3,))
    assert given == 6 or [chunk async for chunk in given] == [3]
    assert threading.active_count() == threads


@pytest.mark.parametrize("name", IN_A_THREAD)
async def test_what_is_not_async_runs_in_a_thread_and_may_return_a_coroutine(name):
    assert not is_async(IN_A_THREAD[name])
    assert await call(IN_A_THREAD[name], (3,)) == 6


async def test_a_thread_sees_the_callers_context_and_changes_none_of_it():
    def look():
        seen = PLACE.get(), threading.current_thread() is threading.main_thread()
        PLACE.set("the thread")
        return seen

    PLACE.set("the task")
    assert await call(look) == ("the task", False)
    assert PLACE.get() == "the task"


async def test_a_coroutine_that_a_thread_returns_runs_in_the_callers_task():
    async def later():
        return asyncio.current_task(), threading.current_thread()

    task, thread = await call(functools.partial(lambda make: make(), later))
    assert task is asyncio.current_task()
    assert thread is threading.current_thread()


async def test_the_loop_turns_while_a_thread_is_blocked():
    """The call returns only once the loop has turned a hundred times during it."""
    begun, turned = anyio.Event(), threading.Event()

    def block():
        anyio.from_thread.run_sync(begun.set)
        return turned.wait(30)

    async def turn():
        await begun.wait()
        await turns(100)
        turned.set()

    turning = asyncio.create_task(turn())
    assert await call(block)
    await turning


async def test_an_error_keeps_its_traceback_and_its_type():
    def fails():
        raise LookupError("not here")

    with pytest.raises(LookupError, match="not here") as caught:
        await call(fails)
    assert caught.traceback[-1].name == "fails"


async def test_a_stop_iteration_is_an_error_and_ends_nothing_else():
    with pytest.raises(RuntimeError) as caught:
        await call(lambda: next(iter(())))
    assert isinstance(caught.value.__cause__, StopIteration)


@pytest.mark.parametrize("late", ["a value", "an error", "a coroutine"])
async def test_cancelled_it_returns_at_once_and_the_late_result_is_dropped(late):
    begun, release, ended = anyio.Event(), threading.Event(), threading.Event()

    def block():
        anyio.from_thread.run_sync(begun.set)
        assert release.wait(30)
        ended.set()
        if late == "an error":
            raise LookupError("nobody waits for it")
        return twice(1) if late == "a coroutine" else "a value"

    task = asyncio.create_task(call(block))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The thread goes on all the same.
    assert not ended.is_set()
    release.set()
    assert await anyio.to_thread.run_sync(ended.wait, 30)


def injects(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function("injected", *args, **kwargs)

    return inner


@injects
def with_injected(given, prompt):
    return given, prompt


def test_what_fits_is_known_from_the_signature():
    check_fits(lambda prompt: prompt, "a model", (1,))
    check_fits(lambda *_: None, "a model", (1,))
    check_fits(functools.partial(lambda key, prompt: None, "key"), "a model", (1,))
    check_fits(AsyncObject().method, "a model", (1,))
    # A decorator may pass other arguments on than it takes.
    check_fits(with_injected, "a model", (1,))
    # Nothing is known of it.
    check_fits(getattr, "a model", (1,))
    for wrong in (lambda: None, lambda question, context: None, lambda *, prompt: None):
        with pytest.raises(TypeError, match="a model: "):
            check_fits(wrong, "a model", (1,))
    for count in (0, 2):
        with pytest.raises(TypeError, match="a model: "):
            check_fits(AsyncObject().method, "a model", (1,) * count)


@pytest.mark.parametrize(
    "name", ["call", "count", "self", "name", "arguments", "named", "function", "what", "run"]
)
async def test_no_name_of_an_argument_collides_with_ours(name):
    namespace = {}
    exec(f"def tool({name}): return {name}", namespace)
    for tool in (namespace["tool"], lambda **given: given[name]):
        check_fits(tool, "tool", named={name: "given"})
        assert await call(tool, named={name: "given"}) == "given"


async def test_a_thread_does_not_close_the_task_that_waits_for_it(anyio_backend):
    def leave():
        raise GeneratorExit

    with pytest.raises(RuntimeError, match="GeneratorExit"):
        await call(leave)
