"""``evolve(state, event) -> state``: pure and total; no clock, no randomness, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from attrs import evolve as replace

from ..events.calls import (
    ActionStarted,
    AnswerDropped,
    ChunksCame,
    SessionChanged,
    SessionResumed,
    SessionSuspended,
)
from ..events.decided import AnyEvent, DecidedAction, DecidedStart, Extras, whole_content
from ..events.event import (
    ActionRecorded,
    CheckpointCreated,
    SessionDeleted,
    SessionEnded,
    SessionStarted,
    StoredMessages,
    Unknown,
)
from ..events.frames import FRAME_EVENTS, ForkPoint
from ..events.keyed import COLLECTION_EVENTS
from .collections_state import fold_collections
from .held_messages import hold_messages
from .memory_state import Branch, MemoryState, fold_memory
from .persistent_map import PersistentMap
from .session_state import NOTHING_HELD, Held, SessionInfo, SessionState, encode_map
from .state import State

# A release that does not know an event kind may skip it from this number on. Below it, a release
# that does not know the kind must not write.
FIRST_OPTIONAL_KIND = 128
_NOTES = (AnswerDropped, ChunksCame, SessionResumed, SessionSuspended)
_DECIDED = frozenset((DecidedAction, DecidedStart))
_new = tuple.__new__


def evolve(state: State, event: AnyEvent) -> State:
    """Return the state after the event. One that fits nothing changes only sequence and time."""
    return _FOLDS.get(type(event.payload), _evolve_other)(state, event)


def evolve_together(state: State, events: Sequence[AnyEvent]) -> tuple[State, int]:
    """Return the state after the events of one command, and the open session that they belong to:
    its number; 0 when they belong to none, or to one that has ended."""
    last = events[-1]
    number = last.session or max(event.session for event in events)
    # An action or a start that was decided is of an open session.
    takes = type(last.payload) in _DECIDED
    had_ended = False
    if number and not takes:
        takes = number in state.sessions.open
        had_ended = not takes and number in state.sessions.packed
    for event in events:
        state = evolve(state, event)
    # Events that the fold ignores, after a session's end or of no session, belong to nobody.
    if not takes and number and number in state.sessions:
        # After its end a session takes changes of itself alone.
        takes = not had_ended or {type(event.payload) for event in events} == {SessionChanged}
    return state, number if takes else 0


def _evolve_other(state: State, event: AnyEvent) -> State:
    payload = event.payload
    session = state.sessions.get(event.session)
    sessions, numbers, ambient = state.sessions, state.numbers, state.ambient
    memory, beyond = state.memory, state.beyond
    if isinstance(payload, FRAME_EVENTS):
        memory = fold_memory(memory, event)
    elif isinstance(payload, SessionStarted):
        if event.session_id is not None and event.session_id.bytes not in numbers:
            started = _started(event, payload, event.session_id)
            sessions = sessions.set(event.sequence, started)
            numbers = numbers.set(event.session_id.bytes, event.sequence)
            ambient = event.sequence if payload.ambient else ambient
            if payload.fork is not None:
                memory = branched(memory, event.sequence, payload.fork)
    elif isinstance(payload, Unknown):
        beyond = beyond or payload.kind < FIRST_OPTIONAL_KIND
    elif session is not None:
        if isinstance(payload, SessionDeleted):
            sessions = sessions.delete(event.session)
            numbers = numbers.delete(session.info.session_id.bytes)
            ambient = None if ambient == event.session else ambient
        else:
            sessions = sessions.set(event.session, _within(session, event))
            if isinstance(payload, SessionEnded) and ambient == event.session:
                ambient = None
    return State(
        event.sequence,
        event.time_ns,
        sessions,
        numbers,
        ambient,
        state.generation,
        memory,
        beyond,
        state.collections,
    )


def _change_keys(state: State, event: AnyEvent) -> State:
    folded = fold_collections(state.collections, event)
    return _new(State, (event.sequence, event.time_ns, *state[2:-1], folded))


def _act(state: State, event: AnyEvent) -> State:
    """Fold an action. Named tuples are made as tuples: in a third of the time."""
    _, _, sessions, numbers, ambient, generation, memory, beyond, collections = state
    number, now, payload = event.session, event.time_ns, event.payload
    session = sessions.open.get(number)
    if session is not None:
        info, _, ended, actions, checkpoints, unmarked, held, error, in_flight, sums = session
        if type(payload) is DecidedAction:
            _, _, _, _, kind, _, extras = payload
        else:
            kind, extras = payload.action.kind, Extras.of(payload)  # type: ignore[union-attr,arg-type]
        unmarked += 1
        if extras is None:
            sums = sums.adding(kind, None, None)
        else:
            sums = sums.adding(kind, extras.error, extras.reply)
            if extras.messages is not None:
                held = _held(held, payload, extras.messages)  # type: ignore[arg-type]
            call = extras.call
            if call is not None and call.started is not None:
                left = in_flight.without(call.started)
                if left is not in_flight:
                    # It counted when it began.
                    in_flight, unmarked = left, unmarked - 1
        # fmt: off
        acted = (
            info, now, ended, actions + 1, checkpoints, unmarked, held, error, in_flight, sums
        )
        # fmt: on
        sessions = sessions.set_open(number, _new(SessionState, acted))
    # fmt: off
    folded = (
        event.sequence, now, sessions, numbers, ambient, generation, memory, beyond, collections
    )
    # fmt: on
    return _new(State, folded)


def _begin(state: State, event: AnyEvent) -> State:
    """Fold the start of a call. One that is tried again counted already."""
    _, _, sessions, numbers, ambient, generation, memory, beyond, collections = state
    number, now, first = event.session, event.time_ns, event.payload.first  # type: ignore[union-attr]
    session = sessions.open.get(number)
    if session is not None:
        info, _, ended, actions, checkpoints, unmarked, held, error, in_flight, sums = session
        if first is None:
            in_flight, unmarked = in_flight.set(event.sequence, now), unmarked + 1
        # fmt: off
        begun = (
            info, now, ended, actions, checkpoints, unmarked, held, error, in_flight, sums
        )
        # fmt: on
        sessions = sessions.set_open(number, _new(SessionState, begun))
    # fmt: off
    folded = (
        event.sequence, now, sessions, numbers, ambient, generation, memory, beyond, collections
    )
    # fmt: on
    return _new(State, folded)


def _held(held: Held, payload: ActionRecorded | DecidedAction, messages: StoredMessages) -> Held:
    if isinstance(payload, ActionRecorded):
        action = payload.action
        return hold_messages(held, messages, action.index, action.input, action.output)
    given, output = map(whole_content, payload.fields[:2])
    return hold_messages(held, messages, payload.action_index, given, output)


def branched(memory: MemoryState, number: int, fork: ForkPoint) -> MemoryState:
    """Return the memory with a branch for the forked session ``number``."""
    if fork.branch >= number or (fork.branch and fork.branch not in memory.branches):
        return memory
    branch = Branch(fork.branch, fork.sequence, fork.last_frame, fork.frame_count, fork.memory_hash)
    return memory._replace(branches=memory.branches.set(number, branch))


def _started(event: AnyEvent, payload: SessionStarted, session_id: UUID) -> SessionState:
    info = SessionInfo(
        number=event.sequence,
        session_id=session_id,
        name=payload.name,
        created_ns=event.time_ns,
        ambient=payload.ambient,
        config=payload.config,
        fork=payload.fork,
        metadata=encode_map(payload.metadata),
    )
    fork = payload.fork
    if fork is None:
        return SessionState(info, event.time_ns)
    return SessionState(
        info,
        event.time_ns,
        None,
        fork.action_count,
        fork.checkpoint_count,
        in_flight=PersistentMap(fork.in_flight),
    )


def _within(session: SessionState, event: AnyEvent) -> SessionState:
    """Return a session after an event of its own that is neither its start nor its deletion."""
    payload = event.payload
    if isinstance(payload, SessionChanged):
        return _changed(session, event, payload)
    if session.ended_ns is None:
        if isinstance(payload, CheckpointCreated):
            return _marked(session, event)
        if isinstance(payload, SessionEnded):
            return _ended(session, event, payload)
        if isinstance(payload, SessionResumed):
            in_flight = session.in_flight
            for first, began_ns in payload.reopened:
                in_flight = in_flight.set(first, began_ns)
            session = session._replace(in_flight=in_flight)
        if isinstance(payload, _NOTES):
            return session._replace(last_ns=event.time_ns)
    return session


def _changed(session: SessionState, event: AnyEvent, payload: SessionChanged) -> SessionState:
    info, changes = session.info, payload.changes
    if "name" in changes:
        info = replace(info, name=changes["name"])
    if "metadata" in changes:
        info = replace(info, metadata=encode_map({**info.read_metadata(), **changes["metadata"]}))
    # What is said of a session after its end makes it no longer.
    last = event.time_ns if session.ended_ns is None else session.last_ns
    return session._replace(info=info, last_ns=last)


def _marked(session: SessionState, event: AnyEvent) -> SessionState:
    return session._replace(
        last_ns=event.time_ns,
        action_count=session.action_count + 1,
        checkpoint_count=session.checkpoint_count + 1,
        unmarked=0,
    )


def _ended(session: SessionState, event: AnyEvent, payload: SessionEnded) -> SessionState:
    return session._replace(
        last_ns=event.time_ns, ended_ns=event.time_ns, held=NOTHING_HELD, error=payload.error
    )


_FOLDS: dict[type, Callable[[State, AnyEvent], State]] = {
    **dict.fromkeys((DecidedAction, ActionRecorded), _act),
    **dict.fromkeys((DecidedStart, ActionStarted), _begin),
    **dict.fromkeys(COLLECTION_EVENTS, _change_keys),
}
