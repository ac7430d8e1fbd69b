"""One contract suite for every event log: what the engine and all above it rely on."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

import pytest
from attrs import evolve

from memvid_async import Erased, SessionNotFoundError, StoreFailedError
from memvid_async.core.commands import DeleteSession, EndSession
from memvid_async.engine.event_log import EventLog, View
from memvid_async.engine.file_log import FileLog
from memvid_async.engine.reading import read_session
from memvid_async.engine.worker import Worker
from memvid_async.errors import StoreClosedError
from memvid_async.file.journal import Journal
from memvid_async.storage import FileStorage, RamStorage
from memvid_async.stream.address import Address
from memvid_async.stream.client_loop import ClientLoop, ClientWorker
from memvid_async.stream.stream_journal import StreamJournal
from memvid_async.stream.stream_log import StreamLog
from tests.support.depth import LOGS
from tests.support.loops import turns
from tests.support.naive import ask, command, fixed_config, start

PAGE = bytes(4096)


@pytest.fixture(params=LOGS)
async def open_log(request, tmp_path, anyio_backend):
    """A function that opens one log, again and again; all that it opened is released at the end."""
    ram = RamStorage()
    opened = []
    config = fixed_config()

    def storage():
        return FileStorage.open(tmp_path / "log") if request.param == "file" else ram.reopen()

    servers = {"stream": "nats_server", "cluster": "nats_cluster"}.get(request.param)
    if servers is not None:
        address = Address.parse(request.getfixturevalue(servers).address())
        config = evolve(config, replicas=3 if request.param == "cluster" else 1)

    def open_one():
        if servers is not None:
            loop = ClientLoop()
            with ThreadPoolExecutor() as threads:
                opening = threads.submit(
                    StreamJournal.open, address, config, read_only=False, loop=loop
                )
                journal = opening.result()
            workers = ClientWorker("io", loop), Worker("reads")
            log = StreamLog(journal, *workers, poll_interval=0.001)
        else:
            workers = Worker("io"), Worker("reads")
            log = FileLog(Journal.open(storage(), config), *workers, poll_interval=0.001)
        opened.append(log)
        return log

    yield open_one
    for log in opened:
        log.release()
        await log.wait_released()


@pytest.fixture
async def log(open_log) -> EventLog:
    return open_log()


@pytest.fixture
async def another(log, open_log) -> EventLog:
    """A second opener of the same log, as another process is."""
    return open_log()


async def commit(log, *operations):
    return await log.commit([command(operation) for operation in operations]).wait()


def sequences(events):
    return [event.sequence for event in events]


def read(view: View):
    """All events of a view, read a little at a time."""
    found = []
    while more := view.events_after(len(found), 1):
        found += more
    return found


async def test_what_is_committed_is_durable_readable_and_told(log, another):
    answers, appended = await commit(log, start(1), ask(1, "a?", "b"), ask(1, "c?", "d"))
    assert answers[0] == 1
    assert [action.index for action in answers[1:]] == [0, 1]
    assert sequences(appended.events) == [1, 2, 3] == sequences(read(log.view))
    assert len(appended.sizes) == 3
    await another.follow().wait()
    assert read(another.view) == read(log.view)
    assert another.view.state == log.view.state


async def test_a_refused_command_fails_alone(log):
    answers, appended = await commit(
        log, start(1), EndSession(UUID(int=7)), ask(1, "still?", "yes")
    )
    assert isinstance(answers[1], SessionNotFoundError)
    assert answers[2].index == 0
    assert sequences(appended.events) == [1, 2]


async def test_what_decides_nothing_appends_nothing(log):
    answers, appended = await commit(log, ask((), "nobody?", "no"))
    assert answers == [None]
    assert not appended.events
    assert log.view.state.last_sequence == 0


async def test_a_batch_of_nothing_takes_in_what_others_appended(log, another):
    for turn in range(1, 4):
        await commit(another, start(turn))
        answers, appended = await commit(log)
        assert answers == []
        assert sequences(appended.events) == [turn]
        assert log.view.state == another.view.state


async def test_a_batch_in_pieces_is_the_same_batch(log, another):
    await log.begin().wait()
    assert log.has_begun
    assert log.stage(command(start(1))) == 1
    (action,) = await log.stage_all([command(ask(1, "a?", "b"))]).wait()
    assert action.index == 0
    assert log.staged_bytes > 0
    assert log.view.state.last_sequence == 2
    appended = await log.flush().wait()
    assert sequences(appended.events) == [1, 2]
    assert not log.has_begun
    assert log.staged_bytes == 0
    await another.follow().wait()
    assert sequences(read(another.view)) == [1, 2]


async def test_each_decides_on_what_the_other_appended(log, another):
    assert (await commit(log, start(1)))[0] == [1]
    for turn in range(6):
        (action,), appended = await commit((another, log)[turn % 2], ask(1, f"{turn}?", "!"))
        assert action.index == turn
        # Others' events first, where others appended.
        assert sequences(appended.events)[-1] == turn + 2
    assert sequences(read(log.view)) == list(range(1, 8))


async def test_news_are_announced(log, another):
    assert not await log.has_news().wait()
    waiting = log.wait_for_news()
    await commit(another, start(1))
    await waiting.wait()
    assert await log.has_news().wait()
    appended = await log.follow().wait()
    assert sequences(appended.events) == [1]
    assert not await log.has_news().wait()


async def test_waiting_for_news_can_be_ended(log):
    waiting = log.wait_for_news()
    log.wake()
    await waiting.wait()


async def test_who_is_cancelled_can_ask_again(log):
    # What the thread finished before the cancellation was nothing to cancel; then the next one is.
    for number in range(1, 1000):
        pending = log.commit([command(start(number))])
        received = []
        pending.then(received.append)
        task = asyncio.ensure_future(pending.wait())
        await turns(1)
        if task.cancel():
            with suppress(asyncio.CancelledError):
                await task
        answers, _ = await pending.wait()
        assert answers == [number]
        assert received[0][0] == answers
        if task.cancelled():
            break
    assert task.cancelled()


async def test_a_view_stays_as_it_was(log):
    await commit(log, start(1), ask(1, "a?", "b" * 5000))
    view = log.view
    before = read(view)
    await commit(log, ask(1, "c?", "d"), EndSession(1))
    assert read(view) == before
    assert view.state.last_sequence == len(before)
    session = read_session(view, UUID(int=1))
    assert [view.data(action.output) for action in session.actions] == [b"b" * 5000]
    own = [event for event in before if event.session == 1]
    assert view.session_events(1)[0] == own
    for until in (None, *range(1, 5)):
        back = [one for events in view.session_events_back(1, until) for one in reversed(events)]
        assert back == [one for one in own[::-1] if until is None or one.sequence < until]
    assert [event for _, event in view.history(2)] == before[:2]
    for after in range(len(before)):
        for until in range(after, len(before) + 1):
            times = dict(view.times(after, until))
            assert set(times) <= set(range(after + 1, until + 1))
            assert until == after or until in times
            assert all(times[at] == before[at - 1].time_ns for at in times)
    assert view.has_session(1)
    assert not view.has_session(2)
    assert view.session_number(session.actions[0]) == 1


async def test_a_projection_is_kept_page_by_page(log):
    await commit(log, start(1))
    assert log.view.saved_projection("memory", 10) is None
    edition = log.view.edition
    first = [(0, PAGE), (1, b"\1" * 4096)]
    at, _ = await log.save_projection("memory", edition, 0, 1, 2, first).wait()
    assert at
    again, _ = await log.save_projection("memory", edition, at, 1, 2, [(1, b"\2" * 4096)]).wait()
    saved = log.view.saved_projection("memory", 10)
    assert (saved.at, saved.through, saved.page_count) == (again, 1, 2)
    assert {number: bytes(page) for number, page in saved.pages.items()} == {
        0: PAGE,
        1: b"\2" * 4096,
    }
    assert log.view.saved_projection("memory", 0) is None
    # Upon a save that is not the last one, or from views of another edition: not kept.
    assert (await log.save_projection("memory", edition, at, 1, 2, first[1:]).wait())[0] == 0
    assert (await log.save_projection("memory", object(), again, 1, 2, first[1:]).wait())[0] == 0


async def test_compaction_erases_and_tells(log, another):
    await commit(log, start(1), ask(1, "secret?", "s" * 2000), start(2), ask(2, "kept?", "yes"))
    await commit(log, DeleteSession(UUID(int=1)))
    edition, told = log.view.edition, []
    rewritten = []

    async def alone(call):
        answer, appended = await call(log).wait()
        rewritten.append(appended.rewritten)
        return answer

    report = await log.compact(alone, lambda *done: told.append(done), lambda _view: ())
    assert report.bytes_after < report.bytes_before
    assert rewritten == [False, True]
    assert log.view.edition is not edition
    assert told[-1][0] == told[-1][1]
    moved = await another.follow().wait()
    assert moved.rewritten
    found = read(another.view)
    assert sequences(found) == list(range(1, another.view.state.last_sequence + 1))
    assert sum(isinstance(event.payload, Erased) for event in found) == report.erased_events
    # What is appended after it is not a rewriting.
    assert not (await commit(log, ask(2, "on?", "on")))[1].rewritten


async def test_verifying_finds_nothing(log):
    await commit(log, start(1), *(ask(1, f"{n}?", "x" * n * 300) for n in range(8)))
    told = []
    report = await log.verify(lambda: log.view, lambda *done: told.append(done))
    assert report.ok
    assert report.event_count == log.view.state.last_sequence
    assert told[-1][0] == told[-1][1]


async def test_a_failed_log_refuses_to_append_and_can_be_read(log):
    await commit(log, start(1))
    log.fail(StoreFailedError("as a disk does"))
    with pytest.raises(StoreFailedError):
        await commit(log, ask(1, "a?", "b"))
    assert sequences(read(log.view)) == [1]


async def test_a_closed_log_can_be_read_until_it_is_released(log, open_log):
    await commit(log, start(1), ask(1, "a?", "b"))
    await log.close().wait()
    assert sequences(read(log.view)) == [1, 2]
    log.release()
    log.release()
    await log.wait_released()
    with pytest.raises(StoreClosedError):
        log.follow()
    assert sequences(read(open_log().view)) == [1, 2]


async def test_it_says_how_large_it_is(log):
    assert log.content_count == 0
    assert log.torn_tail.bytes_dropped == 0
    before = log.byte_count
    await commit(log, start(1), ask(1, "a?", "b" * 3000), ask(1, "b?", "b" * 3000))
    assert log.content_count == 1
    assert log.byte_count > before + 3000
