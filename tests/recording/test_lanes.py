"""Lanes: a task is known by its creator's lane and its name, and the next run has the same ones."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest

from memvid_async.recording.lanes import Lane, Lanes, chosen_name

from ..support.loops import turns

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "name",
    ["Task-7", "Task-12345", "", None, f"{__name__}.worker", f"{__name__}.f.<locals>.worker"],
)
def test_a_name_that_nobody_chose_is_none(name: str | None) -> None:
    """Rule 3."""
    assert chosen_name(name) is None


@pytest.mark.parametrize("name", ["researcher", "Task-7b", "task 7", "v1.2", "café.worker"])
def test_a_chosen_name_is_kept(name: str) -> None:
    assert chosen_name(name) == name


async def _run(lanes: Lanes, found: dict[str, tuple[str | int, ...]]) -> None:
    async def call(what: str, *inside: Callable[[], Awaitable[None]]) -> None:
        found[what] = lanes.current().path
        for one in inside:
            await one()

    await call("root")
    async with asyncio.TaskGroup() as group:
        group.create_task(call("a"), name="a")
        group.create_task(call("first"))
        group.create_task(call("second", lambda: asyncio.create_task(call("below"))))
    async with anyio.create_task_group() as scope:
        scope.start_soon(call, "in a group of anyio's")


async def test_lanes_are_beneath_their_creators_lane_and_the_same_in_every_run() -> None:
    """Rule 3."""
    runs: list[dict[str, tuple[str | int, ...]]] = [{}, {}]
    for found in runs:
        await _run(Lanes(), found)
    assert runs[0] == runs[1]
    assert runs[0] == {
        "root": (),
        "a": ("a",),
        "first": (0,),
        "second": (1,),
        "below": (1, 0),
        "in a group of anyio's": (2,),
    }


async def test_a_task_that_made_no_call_is_no_lane() -> None:
    lanes = Lanes()

    async def inner() -> Lane:
        return lanes.current()

    async def outer() -> Lane:
        return await asyncio.create_task(inner(), name="inner")

    assert (await asyncio.create_task(outer())).path == ("inner",)


async def test_the_second_task_of_a_name_counts_as_one_without_a_name() -> None:
    lanes = Lanes()

    async def call() -> tuple[str | int, ...]:
        await turns(1)
        return lanes.current().path

    tasks = [asyncio.create_task(call(), name="w") for _ in range(2)]
    assert await asyncio.gather(*tasks) == [("w",), (0,)]
    assert await asyncio.create_task(call(), name="w") == (1,)
    assert lanes.named("w").path == ("w",)


async def test_two_sessions_have_lanes_of_their_own() -> None:
    one = Lanes()
    other = Lanes()

    async def both() -> tuple[Lane, Lane, Lane]:
        return one.current(), other.current(), one.current()

    a, b, again = await asyncio.create_task(both(), name="x")
    assert a is again
    assert (a.parent, b.parent) == (one.root, other.root)


async def test_numbers_that_a_recording_has_are_not_used_again() -> None:
    lanes = Lanes()
    lanes.root.reserve(4)
    assert lanes.root.child(None).path == (5,)
    followed = lanes.root.child(None)
    followed.follow((2,))
    assert followed.path == (2,)
