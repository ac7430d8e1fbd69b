"""Handing over recorded answers, where something fails meanwhile."""

import asyncio

import pytest

from memvid_async import MemvidAsyncError, ReplayDivergenceError, ReplayStopped
from memvid_async.recording.answers import AskedCall
from memvid_async.recording.lanes import Lanes
from memvid_async.replay.handover import Handover, LiveCall
from memvid_async.replay.matching import Matching, Outcome, RecordedCall
from tests.support.loops import turns

pytestmark = pytest.mark.anyio


async def _never(due: RecordedCall | None, call: LiveCall | None) -> ReplayDivergenceError:
    raise AssertionError("nothing diverges here")


async def test_a_cancellation_that_cannot_be_recorded_ends_the_waiting() -> None:
    """The task would otherwise never end."""
    lanes = Lanes()
    recorded = RecordedCall(1, 2, (), 0, 0, "content", Outcome.FINISHED)
    matching = Matching([recorded], lanes.root)

    async def fail(_: RecordedCall) -> None:
        raise MemvidAsyncError("the disk is full")

    handover = Handover(matching, _never, fail, 10, lambda: False)
    call = LiveCall(AskedCall(lanes.current(), 0, (None, None, None)), "content")  # type: ignore[arg-type]
    await handover.ask(call)

    task = asyncio.create_task(handover.wait(call))
    await turns(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ReplayStopped, match="the disk is full"):
        await handover.leave(0)
