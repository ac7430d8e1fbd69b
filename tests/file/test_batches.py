"""However commands are batched: events, answers, state and bytes are those of a slow writer."""

import copy
import pickle
from unittest import mock
from uuid import UUID

import pytest
from attrs import asdict
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import Action, ActionKind, InvalidValueError
from memvid_async.core import commands
from memvid_async.events.content import EMPTY, content_digest
from memvid_async.events.decided import DecidedEvent, Extras
from memvid_async.events.prompts import Reply
from memvid_async.file import journal as journals
from memvid_async.file.journal import Journal
from memvid_async.format.segment import SegmentKind
from memvid_async.storage import RamStorage
from tests.support.naive import FIRST_TIME, Clock, Naive, ask, command, fixed_config, start
from tests.support.plans import CONTENTS, PLANS, TEXTS, examples, small_tables
from tests.support.segments import segments_of
from tests.support.slow_log import SlowLog, plain


def change(kind, frames, frame_id, changes):
    return commands.ChangeMemory((), kind, "english", frames, frame_id, changes, 1.5, "t", {})


def large(data):
    size = len(data.encode()) if isinstance(data, str) else len(data)
    return commands.LargeContent(data, content_digest(data), size, "preview")


def contents():
    return CONTENTS.map(lambda data: large(data) if len(data) >= 1023 else data)


FRAMES = st.lists(TEXTS | st.builds(commands.NewFrame, contents(), title=TEXTS), min_size=1)
CHANGES = st.one_of(
    st.builds(change, st.just(ActionKind.PUT_MANY), FRAMES.map(tuple), st.just(0), st.just({})),
    st.builds(
        change,
        st.just(ActionKind.UPDATE),
        st.just(()),
        st.integers(1, 4),
        st.fixed_dictionaries({"content": contents()}, optional={"title": TEXTS}),
    ),
    st.builds(change, st.just(ActionKind.DELETE), st.just(()), st.integers(1, 4), st.just({})),
)
PARTS = st.builds(
    commands.StoreParts, st.lists(st.sampled_from(["a", b"b", "c"]).map(large)).map(tuple)
)
# Fields of every length that CBOR tells apart, and of every type that a plain action's may have.
NUMBERS = st.sampled_from([0, 23, 24, 255, 256, 2**16, 2**32, 2**63 - 1, 2**63])
NAMES = st.none() | st.sampled_from(["", "name", "n" * 24, "ü" * 200])
SMALL = st.none() | TEXTS | st.binary(max_size=40) | st.just("é" * 300)
# How many names a kind has of its own.
DETAILS = {ActionKind.ASK: 2, ActionKind.UPDATE: 0}
COUNTS = st.none() | st.integers(0, 2**63 - 1)
REPLIES = st.builds(Reply, st.just(()), COUNTS, COUNTS, COUNTS, st.sampled_from([None, 0.25]))
EXTRAS = st.none() | st.builds(
    lambda *given: Extras(given[0], given[1], reply=given[2]).or_none(),
    st.none() | st.just("failed"),
    st.sampled_from([EMPTY, {"role": "user"}]),
    st.none() | REPLIES,
)


def plain_action(session, kind, names, extras, *fields):
    return commands.RecordAction(session, kind, (*fields, *names[: DETAILS[kind]]), extras)


PLAIN = st.builds(
    plain_action,
    st.sampled_from([1, 1, (1,), 2]),
    st.sampled_from(list(DETAILS)),
    st.tuples(NAMES, NAMES),
    EXTRAS,
    SMALL,
    SMALL,
    NUMBERS | st.floats(0, 2**63),
    st.none() | st.lists(NUMBERS, min_size=1, max_size=30).map(tuple),
    NAMES,
)
DO = st.lists(st.one_of(PLANS, PLANS, PLANS, CHANGES, PARTS, PLAIN), min_size=1, max_size=25)
# In runs, as a journal does it, and each command by the way that takes any.
WAYS = {
    "runs": journals.stage_run,
    "each": lambda journal, batch: [journal.stage_any(one) for one in batch],
}


def resolved(plans):
    """The commands of plans; a plan names sessions of a naive store that did those before it."""
    naive = Naive()
    for at, plan in enumerate([start(1, ambient=True), *plans]):
        op = plan.resolve(naive) if hasattr(plan, "resolve") else plan
        if not isinstance(op, (commands.ChangeMemory, commands.StoreParts, commands.RecordAction)):
            naive.apply(op, FIRST_TIME + 1000 * at)
        yield command(op)


def outcome(answer):
    return type(answer) if isinstance(answer, Exception) else answer


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@given(plans=DO, data=st.data())
@examples(3)
def test_a_batch_does_what_one_event_at_a_time_does(way, plans, data):
    todo = list(resolved(plans))
    slow, storage = SlowLog(), RamStorage()
    for at, one in enumerate(todo):
        slow.do(one, FIRST_TIME + 1000 * (at + 1))
    clock, events, answers = Clock(), [], []
    with small_tables(), mock.patch.object(journals, "stage_run", way):
        journal = Journal.open(storage, fixed_config(clock))
        while todo:
            size = data.draw(st.integers(1, 8))
            batch, todo = todo[:size], todo[size:]
            before = journal.view.state
            seen = plain(before)
            outcomes, appended = journal.commit(batch)
            assert plain(before) == seen
            events += appended.events
            answers += map(outcome, outcomes)
    payloads = [segment.payload for segment in segments_of(bytes(storage.data), SegmentKind.EVENTS)]
    assert payloads == slow.payloads
    assert [asdict(one) for one in events] == [asdict(one) for one in slow.events]
    assert plain(journal.view.state) == plain(slow.state)
    assert len(answers) == len(slow.answers)
    for got, wanted in zip(answers, slow.answers, strict=True):
        assert plain_answer(got) == plain_answer(wanted)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_damaged_file_may_name_any_place(way):
    """A mark, and the bytes until the next TOC, may be any number in a file."""
    with mock.patch.object(journals, "stage_run", way):
        journal = Journal.open(RamStorage(), fixed_config())
        journal.commit([start(1)])
        catalog = journal._file.catalog
        catalog.mark_offsets[-1], catalog._toc_interval = 2**64 - 1, 2**64
        outcomes, _ = journal.commit([ask(1, "q").command(), ask(1, "r").command()])
    assert [outcome.index for outcome in outcomes] == [0, 1]


def plain_answer(answer):
    if hasattr(answer, "held"):
        return {**answer._asdict(), "held": dict(answer.held)}
    return answer


@pytest.fixture
def unseen():
    """An action that nobody has looked at, and the same one with all of its fields."""
    journal = Journal.open(RamStorage(), fixed_config())
    journal.commit([start(1)])
    (answer,), appended = journal.commit([ask(1, "q", "r", {"role": "user"}).command()])
    assert all(type(one) is DecidedEvent for one in appended.added)
    assert not vars(answer)
    return answer, appended.events[0].payload.action


LOOKS = {
    "equality": lambda one: one == copy.copy(one),
    "repr": repr,
    "a field": lambda one: one.details.message_count,
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "asdict": asdict,
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_an_action_is_whole_at_any_first_look(unseen, look):
    answer, whole = unseen
    assert type(answer) is type(whole) is Action
    assert look(answer) == look(whole)
    assert vars(answer) == vars(whole)
    assert answer == whole
    assert repr(answer) == repr(whole)


def test_an_action_has_no_other_attributes(unseen):
    answer, _ = unseen
    assert not hasattr(answer, "session")
    with pytest.raises(AttributeError):
        answer.index = 3
    with pytest.raises(AttributeError, match="no attribute 'held'"):
        answer.held  # noqa: B018 - the look is what is tested


def test_what_a_batch_refuses_changes_nothing():
    journal = Journal.open(RamStorage(), fixed_config())
    journal.commit([start(1)])
    refused = commands.EndSession(99)
    outcomes, appended = journal.commit([ask(1, "a").command(), refused, ask(1, "b").command()])
    assert [type(one) is Action for one in outcomes] == [True, False, True]
    assert [event.sequence for event in appended.events] == [2, 3]
    assert journal.view.state.sessions[1].action_count == 2


def test_a_clock_that_fails_in_a_batch_refuses_that_command_alone():
    times = iter([FIRST_TIME, FIRST_TIME, "late", FIRST_TIME])
    journal = Journal.open(RamStorage(), fixed_config(lambda: next(times)))
    journal.commit([start(1)])
    outcomes, _ = journal.commit([ask(1, one).command() for one in "abc"])
    assert [type(one) for one in outcomes] == [Action, InvalidValueError, Action]
    assert journal.view.state.sessions[1].action_count == 2


def test_a_batch_may_start_end_and_delete_what_it_starts():
    journal = Journal.open(RamStorage(), fixed_config())
    journal.commit([start(1), start(2), start(3)])
    before = journal.view.state
    outcomes, _ = journal.commit(
        [
            start(4),
            ask(4, "a").command(),
            commands.EndSession(4),
            commands.DeleteSession(UUID(int=2)),
            commands.EndSession(1),
            ask(1, "b").command(),
            start(2),
        ]
    )
    assert [type(one).__name__ for one in outcomes[5:]] == ["SessionEndedError", "int"]
    state = journal.view.state
    assert (sorted(state.sessions.open), sorted(state.sessions.packed)) == ([3, 9], [1, 4])
    assert sorted(state.numbers.values()) == [1, 3, 4, 9]
    assert sorted(before.sessions.open) == [1, 2, 3]
