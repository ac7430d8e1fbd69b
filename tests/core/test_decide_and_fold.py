"""The pure core against a naive store: the same events, the same answers, after every command."""

from uuid import UUID

import pytest
from attrs import evolve as replace
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from memvid_async import (
    Action,
    ActionKind,
    CheckpointCreated,
    CollectionChanged,
    Content,
    ContentStored,
    Erased,
    Event,
    InvalidValueError,
    MemvidAsyncError,
    RecordingConfig,
    SessionEnded,
    Unknown,
)
from memvid_async.core import commands
from memvid_async.core.decide import decide
from memvid_async.core.evolve import evolve
from memvid_async.core.held_messages import restore_messages
from memvid_async.core.projection import project_session
from memvid_async.core.recent_keys import RecentKeys
from memvid_async.core.session_map import SessionMap
from memvid_async.core.state import State
from memvid_async.events.content import StoredContent
from memvid_async.file.toc import (
    EndedSessions,
    OpenSession,
    Toc,
    decode_toc,
    encode_toc,
    with_sessions,
)
from memvid_async.format.codec import decode_events, encode_events
from tests.support.asking import action_answer, event_answer, session_answer, summary_answer
from tests.support.naive import FIRST_TIME, Naive, ask, command, start
from tests.support.plans import ASKS, PLANS, SIMPLE_PLANS, STARTS, examples

NO_EVENT = Event(1, 1, None, Erased())


def made(events):
    """The events that were decided, as readers get them."""
    return [event.event() for event in events]


class Known(dict):
    """The contents by digest, and the keys that changed last."""

    def __init__(self):
        self.recent_keys = RecentKeys()


class Core:
    """Decide and fold without a file: the events in a list, their content beside it."""

    def __init__(self):
        self.state = State()
        self.events: list[Event] = []
        self.known = Known()

    def do(self, op, now):
        before = self.state
        events, answer = decide(before, command(op), now, self.known)
        assert self.state is before
        assert encode_events(events or [NO_EVENT]) == encode_events(made(events) or [NO_EVENT])
        for event in events:
            assert event.sequence == self.state.last_sequence + 1
            self.state = evolve(self.state, event)
            if isinstance(event.payload, ContentStored):
                assert event.payload.digest not in self.known
                self.known[event.payload.digest] = event.sequence
            if isinstance(event.payload, CollectionChanged):
                self.known.recent_keys.note(event)
        self.events += made(events)
        return made(events), answer

    def data(self, content: Content) -> bytes:
        data = content.data
        if data is None:
            data = self.events[content.stored.sequence - 1].payload.data
        return data.encode() if isinstance(data, str) else data

    def content(self, sequence: int) -> bytes:
        payload = self.events[sequence - 1].payload
        assert isinstance(payload, ContentStored)
        return self.data(Content(payload.data))

    def messages(self, number):
        def of(action: Action):
            if not getattr(action.details, "message_count", 0):
                return []
            asks = {
                e.payload.action.index: (e.payload.action, getattr(e.payload, "messages", None))
                for e in self.events
                if e.session == number and hasattr(e.payload, "action")
            }
            return restore_messages(action.index, asks.__getitem__, self.content)

        return of

    def answers(self):
        """Answer as a journal does, but for what a deletion does to earlier events."""
        state = self.state
        given = {
            ("last",): (state.last_sequence, state.last_time_ns),
            ("ambient",): state.sessions[state.ambient].info.session_id if state.ambient else None,
            ("listed",): [summary_answer(s.summary()) for _, s in sorted(state.sessions.items())],
            ("events",): [event_answer(event) for event in self.events],
        }
        for number, session in state.sessions.items():
            own = [event for event in self.events if event.session == number]
            session_id = session.info.session_id
            assert state.find(session_id) == session
            given["events of", session_id] = [event_answer(event) for event in own]
            given["session", session_id] = session_answer(
                project_session(session, own, 1), self.data, self.messages(number)
            )
        return given


def visible(answers, naive):
    """Without the events of deleted sessions: the core alone does not rewrite what it emitted. And
    without the keys of collections, which the folded state does not have."""
    hidden = {
        at for at, (_, number, _) in enumerate(naive.log) if number and number not in naive.sessions
    }
    events = [event for at, event in enumerate(answers["events",]) if at not in hidden]
    others = {question: answer for question, answer in answers.items() if question[0] != "keys"}
    return {**others, ("events",): events}


def through_bytes(core: Core, events: list[Event]) -> None:
    """One command's events come back from their encoding as they were."""
    before = {e.session: e.session_id for e in core.events if e.session}

    def content(sequence):
        payload = core.events[sequence - 1].payload
        shown = Content(payload.data).preview
        return Content(None, StoredContent(payload.digest, payload.size, shown, sequence))

    payload = encode_events(events)
    assert decode_events(payload, events[0].sequence, before.get, content) == events


def through_toc(state: State) -> State:
    opened = tuple(OpenSession(session, 0) for _, session in sorted(state.sessions.open.items()))
    packed = dict(state.sessions.packed)
    ended = EndedSessions(tuple(packed), (0,) * len(packed), tuple(packed.values()))
    payload = encode_toc(Toc(state, opened, (), 0, ended, b"", {}, b"", b"", 0))
    toc = decode_toc(payload, state.generation)
    assert toc.open_sessions == opened
    found = dict(zip(toc.ended.numbers, toc.ended.rows, strict=True))
    assert found == packed
    return with_sessions(toc.state, [one.session for one in toc.open_sessions], found)


class Model(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.core, self.naive = Core(), Naive()
        self.core.do(start(1), FIRST_TIME)
        self.naive.apply(start(1), FIRST_TIME)

    @rule(plan=PLANS, tick=st.integers(-5, 5))
    def do(self, plan, tick):
        now = FIRST_TIME + 1000 * len(self.core.events) + 100 * tick
        op = plan.resolve(self.naive)
        expected = self.naive.apply(op, now)
        try:
            events, answer = self.core.do(op, now)
        except MemvidAsyncError as error:
            events, answer = [], type(error)
        if isinstance(answer, Action):
            messages = self.core.messages(events[-1].session)
            answer = action_answer(answer, self.core.data, messages)
        assert getattr(getattr(answer, "info", None), "number", answer) == expected
        if events:
            through_bytes(self.core, events)
        given, wanted = self.core.answers(), self.naive.answers()
        assert visible(given, self.naive) == visible(wanted, self.naive)

    @precondition(lambda self: self.core.events)
    @rule()
    def reopen_from_a_toc(self):
        state = through_toc(self.core.state)
        assert state == self.core.state
        self.core.state = state

    @precondition(lambda self: self.core.events)
    @rule()
    def reopen_from_the_events(self):
        state = State()
        for event in self.core.events:
            state = evolve(state, event)
        assert state == self.core.state
        self.core.state = state


def test_the_core_answers_as_a_naive_store_does():
    run_state_machine_as_test(Model, settings=examples(0.5))


@given(st.lists(SIMPLE_PLANS, min_size=15, max_size=40))
@examples(1)
def test_long_histories_fold_as_the_naive_store_says(plans):
    core, naive = Core(), Naive()
    core.do(start(1), FIRST_TIME)
    naive.apply(start(1), FIRST_TIME)
    for now, plan in enumerate(plans, FIRST_TIME):
        op = plan.resolve(naive)
        expected = naive.apply(op, now)
        refused = None
        try:
            core.do(op, now)
        except MemvidAsyncError as error:
            refused = type(error)
        assert refused is (expected if isinstance(expected, type) else None)
    assert visible(core.answers(), naive) == visible(naive.answers(), naive)
    assert through_toc(core.state) == core.state


@given(STARTS, ASKS, st.booleans())
def test_folding_is_the_same_from_the_command_and_from_the_bytes(op, record, auto_record):
    config = replace(op.config, auto_record=auto_record)
    core = Core()
    core.do(replace(op, config=config), FIRST_TIME)
    number = core.state.last_sequence
    core.do(replace(record, session=number), FIRST_TIME)
    state, read = State(), []
    for event in core.events:
        if isinstance(event.payload, ContentStored):
            read.append(event)
        elif event.session:
            group, read = [*read, event], []
            ids = {n: s.info.session_id for n, s in state.sessions.items()}
            first = group[0].sequence
            for decoded in decode_events(
                encode_events(group), first, ids.get, lambda _: Content("")
            ):
                state = evolve(state, decoded)
    assert state == core.state


def test_time_may_step_back():
    core, naive = Core(), Naive()
    for op, now in ((start(1), 100), (ask(1, "q"), -50), (ask(1, "q"), 120)):
        naive.apply(op, now)
        core.do(op, now)
    assert [event.time_ns for event in core.events] == [100, -50, 120]
    assert core.answers() == naive.answers()


def test_a_checkpoint_is_due_after_so_many_actions_and_is_none_of_them():
    core = Core()
    core.do(start(1, auto_checkpoint_interval=2, max_actions=5), 1)
    kinds = []
    for _ in range(5):
        events, _ = core.do(ask(1, "q"), 1)
        kinds.append([type(event.payload).__name__ for event in events])
    once, marked, ended = (
        ["ActionRecorded"],
        ["ActionRecorded", "CheckpointCreated"],
        ["ActionRecorded", "SessionEnded"],
    )
    assert kinds == [once, marked, once, marked, ended]
    assert core.state.sessions[1].action_count == 7


def test_a_checkpoint_asked_for_starts_the_interval_afresh():
    core = Core()
    core.do(start(1, auto_checkpoint_interval=2), 1)
    core.do(ask(1, "q"), 1)
    core.do(commands.CreateCheckpoint(1), 1)
    assert len(core.do(ask(1, "q"), 1)[0]) == 1
    assert len(core.do(ask(1, "q"), 1)[0]) == 2


def test_max_actions_and_interval_fall_together():
    core = Core()
    core.do(start(1, auto_checkpoint_interval=1, max_actions=1), 1)
    events, action = core.do(ask(1, "q"), 1)
    assert [type(event.payload) for event in events][1:] == [CheckpointCreated, SessionEnded]
    assert action.index == 0
    assert core.state.sessions[1].ended_ns == 1


def test_what_two_actions_of_a_command_share_is_stored_once():
    core = Core()
    core.do(start(1), 1)
    text = "t" * 5000
    events, action = core.do(ask(1, text, text, text, {"content": text, "n": 1}), 1)
    assert [type(event.payload).__name__ for event in events] == ["ContentStored", "ActionRecorded"]
    assert core.messages(1)(action) == [text, {"content": text, "n": 1}]
    again, _ = core.do(ask(1, text, "", text.encode()), 1)
    assert len(again) == 1


def test_decide_refuses_without_a_trace():
    core = Core()
    core.do(start(1, ambient=True), 1)
    before = core.state
    refused = [
        start(2, ambient=True),
        start(1),
        ask(99, "q"),
        commands.EndSession(99),
        commands.EndSession(UUID(int=5)),
        commands.ResumeSession(UUID(int=5)),
        commands.DeleteSession(UUID(int=5)),
        commands.CreateCheckpoint(99),
    ]
    for op in refused:
        with pytest.raises(MemvidAsyncError):
            core.do(op, 2)
    assert core.state == before
    assert len(core.events) == 1


def test_an_id_in_use_is_refused_and_free_again_after_the_deletion():
    core = Core()
    core.do(start(1), 1)
    with pytest.raises(InvalidValueError):
        core.do(start(1), 1)
    core.do(commands.DeleteSession(UUID(int=1)), 1)
    assert core.do(start(1), 1)[1] == 3


def test_nothing_is_recorded_while_there_is_no_ambient_session():
    assert Core().do(ask((), "q" * 5000), 1) == ([], None)


@pytest.mark.parametrize("kind", [0, 6, 9, 17, 127])
def test_an_unknown_kind_that_must_be_understood_is_remembered(kind):
    state = evolve(State(), Event(1, 1, None, Unknown(kind, ())))
    assert state.beyond
    assert evolve(state, Event(2, 1, None, Erased())).beyond


def test_an_unknown_kind_that_may_be_skipped_only_moves_the_log_on():
    state = evolve(State(), Event(1, 5, None, Unknown(128, (1, 2))))
    assert state == State(last_sequence=1, last_time_ns=5)


@given(st.lists(PLANS, max_size=6), st.integers(0, 3))
@examples(0.5)
def test_evolve_is_total(plans, skipped):
    """Events that fit nothing, in an order that decide would never make, still fold."""
    core, naive = Core(), Naive()
    for plan in plans:
        op = plan.resolve(naive)
        if not isinstance(naive.apply(op, 1), type):
            core.do(op, 1)
    state = State()
    for event in core.events[skipped:]:
        state = evolve(state, event)
    for event in reversed(core.events):
        state = evolve(state, event)
    assert isinstance(state.sessions, SessionMap)


def test_a_state_snapshot_and_a_checkpoint_agree():
    core = Core()
    core.do(start(1), 1)
    snapshot = core.state.snapshot()
    events, action = core.do(commands.CreateCheckpoint(1, "task"), 1)
    checkpoint = events[0].payload.checkpoint
    assert checkpoint.snapshot == snapshot
    assert len(checkpoint.state_hash) == 32
    assert (action.kind, action.task) == (ActionKind.CHECKPOINT, "task")


def test_recording_config_is_kept_as_given():
    core = Core()
    config = RecordingConfig(auto_checkpoint_interval=3, max_actions=9)
    core.do(commands.StartSession(UUID(int=1), None, config), 1)
    assert core.state.sessions[1].info.config == config
