"""A search is of one moment: its view, its index, its texts and its ``as_of``, whatever the order.

The threads of the memories are scheduled by the test. So finds, puts and saves of the search index,
in two sessions, a fork and two stores of one file, overlap in every order there is.
"""

import asyncio
import contextvars
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from attrs import define, field
from hypothesis import example, given
from hypothesis import strategies as st

from memvid_async import Store, Verdict, open_store
from memvid_async.memory import folded, recall
from tests.support.loops import run_dry
from tests.support.scheduled import ScheduledWorker

WORDS = ("otter", "river", "fox", "moss", "snow")
OPENERS = ("writer", "other", "follower")
BY = {"provider": "p", "model": "m"}


@define
class Opener:
    """A store of the file, and the tasks of its calls that wait for a memory's thread."""

    store: Store
    contexts: dict[str, contextvars.Context] = field(factory=dict)
    calls: list[asyncio.Task] = field(factory=list)

    @property
    def workers(self):
        return self.store._recall._worker, self.store._recall._past_worker


@define
class Life:
    """One file, opened three times; what was found, and in which sessions it is recorded."""

    path: Path
    stack: AsyncExitStack
    openers: list[Opener] = field(factory=list)
    sessions: list = field(factory=list)
    found: list = field(factory=list)
    frames: int = 0
    compacted: bool = False

    async def open(self):
        for name in OPENERS:
            opening = open_store(self.path, read_only=name == "follower")
            opener = Opener(await self.stack.enter_async_context(opening))
            opener.contexts["outside"] = contextvars.copy_context()
            self.openers.append(opener)
        for opener in self.openers[:2]:
            recorder = await self._enter(opener, opener.store.session(), "session")
            forked = await opener.store.fork(recorder.session_id)
            await self._enter(opener, opener.store.resume_session(forked), "fork")

    async def _enter(self, opener, block, name):
        """Enter a session's block in a context of its own."""
        opener.contexts[name] = context = contextvars.copy_context()
        entering = asyncio.get_running_loop().create_task(block.__aenter__(), context=context)
        recorder = await entering
        self.stack.push_async_exit(block)
        self.sessions.append((opener, recorder.session_id))
        return recorder

    async def settle(self):
        """Let everything go on that needs no memory's thread."""
        await run_dry()
        for opener in self.openers[:2]:
            # What the writer's thread was asked for, saves among it.
            await opener.store.sync()
        await run_dry()

    # The moves.

    async def put(self, opener, context, pick):
        """Put, update or delete something, which waits for no memory."""
        store, word = opener.store, WORDS[pick % len(WORDS)]
        if store.read_only:
            return
        if pick % 5 == 3 and self.frames:
            # Another session's frames may not be there, in a fork or after a deletion.
            await self._in(opener, context, store.update(1 + pick % self.frames, f"{word} again"))
        elif pick % 5 == 4 and self.frames:
            await self._in(opener, context, store.delete(1 + pick % self.frames))
        else:
            await self._in(opener, context, store.put(f"{word} {pick} " * (1 + pick % 3)))
            self.frames += 1

    async def _in(self, opener, context, call):
        task = asyncio.get_running_loop().create_task(call, context=opener.contexts[context])
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert outcome is None or isinstance(outcome, (int, recall.FrameNotFoundError)), outcome

    async def find(self, opener, context, pick):
        """Begin a find or an ask."""
        store, query = opener.store, WORDS[pick % len(WORDS)]
        context = context if context in opener.contexts else "outside"
        call = (
            store.ask(query, generate=lambda prompt: str(prompt.context), **BY)
            if pick % 3 == 0 and not store.read_only
            else store.find(query, top_k=1 + pick % 4)
        )
        task = asyncio.get_running_loop().create_task(call, context=opener.contexts[context])
        opener.calls.append(task)
        await run_dry()
        if context == "outside":
            task.add_done_callback(lambda done: self._note(done, query))

    def _note(self, done, query):
        if not done.cancelled() and hasattr(done.result(), "as_of"):
            self.found.append((query, done.result()))

    async def step(self, opener, _, pick):
        """Let a memory's thread make its next call."""
        opener.workers[pick % 2].step()
        await self.settle()

    async def cancel(self, opener, _, pick):
        """Cancel a call."""
        if opener.calls:
            opener.calls.pop(pick % len(opener.calls)).cancel()
            await run_dry()

    async def compact(self, opener, _, pick):
        """Replace the file."""
        if not opener.store.read_only:
            self.compacted = True
            await opener.store.compact()

    # The end.

    async def check(self):
        """Let every call end, replay each session, and search again at each moment."""
        ScheduledWorker.holds = False
        for opener in self.openers:
            for worker in opener.workers:
                while worker.step():
                    await self.settle()
            await asyncio.gather(*opener.calls, return_exceptions=True)
            assert not [t for t in opener.calls if not t.cancelled() and t.exception()]
        other = self.openers[1].store
        await other.refresh()
        for _, session_id in self.sessions:
            report = await other.replay(session_id).report()
            assert report.counts[Verdict.DIVERGED] == 0, report
            assert self.compacted or report.counts[Verdict.UNVERIFIABLE] == 0, report
        for query, result in self.found:
            again = await (await other.at(sequence=result.as_of)).find(query, top_k=4)
            if not (self.compacted and again.incomplete):
                expected = [(hit.frame_id, hit.score) for hit in again.hits][: len(result.hits)]
                assert [(hit.frame_id, hit.score) for hit in result.hits] == expected
        assert (await other.verify()).ok


MOVES = st.lists(
    st.tuples(
        st.sampled_from(("put", "put", "find", "find", "step", "step", "cancel", "compact")),
        st.sampled_from((0, 0, 0, 1, 2)),
        st.sampled_from(("outside", "session", "session", "fork")),
        st.integers(0, 30),
    ),
    min_size=4,
    max_size=30,
)


async def live(moves):
    with TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            life = Life(Path(folder) / "one.mva", stack)
            await life.open()
            for name, number, context, pick in moves:
                await getattr(life, name)(life.openers[number], context, pick)
            await life.check()


@pytest.fixture
def scheduled(monkeypatch):
    """The test schedules the memories, and the search index is saved after each put."""
    monkeypatch.setattr(recall, "Worker", ScheduledWorker)
    monkeypatch.setattr(recall, "_LOOK_BYTES", 1)
    monkeypatch.setattr(folded, "_SAVE_CHARS", 1)


# A save takes its view after the find that waits for it: it folds what the find has not seen yet.
AHEAD = [
    ("put", 0, "outside", 0),
    ("find", 0, "session", 5),
    ("put", 0, "outside", 5),
    ("step", 0, "outside", 0),
    ("step", 0, "outside", 0),
]


@given(MOVES)
@example(AHEAD)
def test_each_search_is_of_one_moment(scheduled, moves):
    ScheduledWorker.holds = True
    asyncio.run(live(moves))
