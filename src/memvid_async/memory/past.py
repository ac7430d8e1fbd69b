"""What a store held at an earlier moment, folded again from the log. All functions block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any
from uuid import UUID

from attrs import evolve, fields, frozen

from ..core.evolve import branched
from ..core.memory_state import MemoryState, fold_memory
from ..core.projection import project_session
from ..core.session_state import SessionState
from ..core.state import State
from ..engine.event_log import View
from ..engine.reading import find_checkpoint, history_parts, session_history
from ..errors import (
    CheckpointNotFoundError,
    ContentNotFoundError,
    InvalidValueError,
    SessionNotFoundError,
    UnsupportedVersionError,
)
from ..events.calls import ActionStarted, SessionResumed
from ..events.details import FindDetails
from ..events.event import Action, ActionRecorded, CheckpointCreated, Session, SessionEnded
from ..events.frames import (
    Context,
    ContextItem,
    FindResult,
    ForkPoint,
    FramesPut,
    FrameUpdated,
    Hit,
    Retrieval,
    Version,
)
from ..search import Snippets
from ..search.schema import TOKENIZERS
from .body_text import text_of
from .folded import lineage_of


def state_at(view: View, sequence: int) -> State:
    """Return the folded state after the event with this sequence."""
    state = State(generation=view.state.generation)
    for folded, _ in view.history(sequence):
        state = folded
    return state


def session_at(view: View, session_id: UUID, sequence: int) -> Session:
    """Return a session as far as it was recorded at a moment, also if it was deleted since.

    :raises SessionNotFoundError: when there was none with this id.
    """
    found = view.state.find(session_id)
    if found is not None and found.info.number > sequence:
        raise SessionNotFoundError(session_id)
    if found is not None:
        history = session_history(view, found.info.number)
        return project_session(found, (e for e in history if e.sequence <= sequence), view.version)
    events, state = [], State()
    for state, event in view.history(sequence):  # noqa: B007 - the last one is needed
        if event.session_id == session_id:
            events.append(event)
    found = state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    return project_session(found, events, view.version)


def memory_at(view: View, sequence: int) -> MemoryState:
    """Return the state of the memory, and of all its branches, after an event."""
    events = view.memory_events(sequence, 2**63)
    if next(events, None) is None:
        return view.state.memory
    memory = MemoryState()
    for number in sorted(view.state.memory.branches):
        session = view.state.sessions.get(number)
        if session is not None and session.info.fork is not None:
            memory = branched(memory, number, session.info.fork)
    for event, _ in view.memory_events(0, sequence):
        memory = fold_memory(memory, event)
    return memory


def fork_point(
    view: View, session_id: UUID, checkpoint_id: int | None, action_index: int | None
) -> tuple[SessionState, ForkPoint]:
    """Return a session, and the point where a fork leaves it.

    That is after a checkpoint, after an action, or, when both are None, after all of it so far: of
    a session that has ended, after its last action.

    :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
    :raises InvalidValueError: when the session has no such action.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    number = found.info.number
    place = _place_of(view, number, checkpoint_id, action_index)
    if place is None and checkpoint_id is not None:
        raise CheckpointNotFoundError(session_id, checkpoint_id)
    if place is None:
        raise InvalidValueError(f"session {session_id} has no action {action_index}")
    sequence, actions, checkpoints, in_flight = place
    memory = memory_at(view, sequence)
    branch = number if number in memory.branches else 0
    count, digest = memory.summary(branch)
    return found, ForkPoint(
        parent=number,
        parent_id=session_id,
        sequence=sequence,
        action_count=actions,
        checkpoint_count=checkpoints,
        branch=branch,
        last_frame=memory.last_frame,
        frame_count=count,
        memory_hash=digest,
        in_flight=tuple(sorted(in_flight.items())),
    )


def _place_of(
    view: View, number: int, checkpoint_id: int | None, action_index: int | None
) -> tuple[int, int, int, dict[int, int]] | None:
    """Return the sequence of a checkpoint or an action in a session's history; by default of its
    last event, or of its last action where it has ended.

    With it, how many actions and checkpoints the history holds up to there, and the calls that are
    in flight there: for the sequence of each one's start, its time.

    None when it is not there. Parents are read one by one, until it is found.
    """
    wants_last = checkpoint_id is None and action_index is None
    for fork, events in history_parts(view, number):
        sequence, actions, checkpoints = number, 0, 0
        in_flight: dict[int, int] = {}
        if fork is not None:
            sequence, in_flight = fork.sequence, dict(fork.in_flight)
            actions, checkpoints = fork.action_count, fork.checkpoint_count
        last = sequence
        for event in events:
            payload = event.payload
            # A fork does not have what was running when the block was left. What runs in a session
            # that is open may have had its effect, so a fork has to know that it began.
            if isinstance(payload, SessionEnded):
                last = sequence
                break
            last = event.sequence
            if isinstance(payload, ActionStarted):
                in_flight.setdefault(payload.call, event.time_ns)
            elif isinstance(payload, SessionResumed):
                in_flight.update(payload.reopened)
            if not isinstance(payload, (ActionRecorded, CheckpointCreated)):
                continue
            sequence, actions = event.sequence, payload.action.index + 1
            in_flight.pop(payload.action.started or 0, None)
            is_there = actions - 1 == action_index
            if isinstance(payload, CheckpointCreated):
                checkpoints += 1
                is_there = is_there or payload.checkpoint.checkpoint_id == checkpoint_id
            if is_there:
                return sequence, actions, checkpoints, in_flight
        if wants_last:
            return last, actions, checkpoints, in_flight
    return None


def sequence_at(view: View, time_ns: int) -> int:
    """Return the sequence of the last event whose time is not later than ``time_ns``; 0 for none.

    A clock may have stepped back, so the log is looked through from its end, in parts that grow: a
    recent moment costs little, and any other at most a third more than reading the log once.
    """
    until, step = view.state.last_sequence, 1024
    while until > 0:
        after = max(0, until - step)
        found = [sequence for sequence, then in view.times(after, until) if then <= time_ns]
        if found:
            return found[-1]
        until, step = after, step * 4
    return 0


def session_moment(view: View, session_id: UUID, checkpoint_id: int | None) -> tuple[int, int]:
    """Return a session's number, and the sequence of the last event before one of its checkpoints.

    With ``checkpoint_id`` None, it is the sequence of the session's last event.

    :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    number = found.info.number
    if checkpoint_id is None:
        last = next(view.session_events_back(number), None)
        return number, last[-1].sequence if last else number
    found_there = find_checkpoint(view, number, checkpoint_id)
    if found_there is None:
        raise CheckpointNotFoundError(session_id, checkpoint_id)
    return number, found_there.checkpoint.snapshot.log_sequence


def context_of(view: View, action: Action) -> Context:
    """Return what an action retrieved, frames as they were then; erased ones have no text."""
    retrieval = action.retrieval
    assert retrieval is not None
    bodies = [_body(view, version) for version in retrieval.versions]
    known: Mapping[int, PastFields] = {}
    if any(isinstance(body, bytes) for body in bodies):
        known = past_fields(view, [action])[action.sequence]
    return _context(action, retrieval, bodies, known)


def _context(
    action: Action,
    retrieval: Retrieval,
    bodies: Sequence[str | bytes | None],
    known: Mapping[int, PastFields],
) -> Context:
    items = []
    for frame_id, score, body in zip(
        action.affected_frames, retrieval.scores, bodies, strict=False
    ):
        media_type = known.get(frame_id, NO_FIELDS).media_type
        text = None if body is None else text_of(body, media_type)
        items.append(ContextItem(frame_id, score, text))
    return Context(tuple(items))


def retrieved(
    view: View, action: Action, known: Mapping[int, PastFields]
) -> tuple[tuple[Hit, ...], Context]:
    """Return what an action found, as it returned it, and the context that it had of that. The
    snippet of a frame that was erased is empty.

    ``known``: what :func:`past_fields` has of it.
    """
    retrieval = action.retrieval
    if retrieval is None:
        # Somebody else's search: its scores and texts are not known.
        return tuple(Hit(frame_id, 0.0, "") for frame_id in action.affected_frames), Context(())
    bodies = [_body(view, version) for version in retrieval.versions]
    context = _context(action, retrieval, bodies, known)
    texts = {one.frame_id: one.text for one in context.items if one.text is not None}
    query = None if action.input is None else view.value(action.input)
    language = view.state.memory.analyser or "english"
    if language not in TOKENIZERS:
        raise UnsupportedVersionError(f"this release knows no analyser {language!r:.80}")
    snippets = Snippets.once(
        language,
        query if isinstance(query, str) and query else None,
        texts,
        syntax=retrieval.syntax,
    )
    hits = []
    for one in context.items:
        fields = known.get(one.frame_id, NO_FIELDS)
        snippet = snippets.get(one.frame_id, "")
        hits.append(Hit(one.frame_id, one.score, snippet, fields.title, fields.uri))
    return tuple(hits), context


def find_result_of(view: View, action: Action, known: Mapping[int, PastFields]) -> FindResult:
    """Return what a recorded find returned; ``incomplete`` counts what of it was erased since."""
    hits, context = retrieved(view, action, known)
    details, retrieval = action.details, action.retrieval
    assert isinstance(details, FindDetails)
    return FindResult(
        hits,
        details.mode,  # type: ignore[arg-type]
        0 if retrieval is None else retrieval.as_of,
        action.duration_ms,
        sum(one.text is None for one in context.items),
    )


def _body(view: View, version: Version) -> str | bytes | None:
    content = view.frame_content_of(version)
    try:
        return None if content is None else view.value(content)
    except ContentNotFoundError:
        return None


@frozen
class PastFields:
    """What a frame had besides its body, when it was found."""

    title: str | None = None
    uri: str | None = None
    media_type: str | None = None


NO_FIELDS = PastFields()
_FIELDS = tuple(one.name for one in fields(PastFields))


def past_fields(view: View, actions: Sequence[Action]) -> dict[int, dict[int, PastFields]]:
    """Return the fields that frames had when these actions found them: by the action's sequence,
    then by the frame.

    It reads the events of the memory once, whatever the number of actions.
    """
    found: dict[int, dict[int, PastFields]] = {action.sequence: {} for action in actions}
    wanted: dict[int, list[tuple[dict[int, int], dict[int, PastFields]]]] = {}
    last = 0
    for action in actions:
        retrieval = action.retrieval
        if retrieval is None:
            continue
        number = view.session_number(action)
        until = dict(lineage_of(view.state, number, retrieval.as_of))
        for frame_id in action.affected_frames:
            wanted.setdefault(frame_id, []).append((until, found[action.sequence]))
        last = max(last, retrieval.as_of)
    for event, _ in view.memory_events(0, last):
        payload: Any = event.payload
        branch = getattr(payload, "branch", -1)
        for frame_id, changes in _changed_fields(payload, wanted.keys()):
            for until, known in wanted[frame_id]:
                if event.sequence <= until.get(branch, 0):
                    known[frame_id] = evolve(known.get(frame_id, NO_FIELDS), **changes)
    return found


def _changed_fields(
    payload: Any, wanted: AbstractSet[int]
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield what an event says of the fields of these frames."""
    if isinstance(payload, FramesPut):
        ids = payload.frame_ids
        few, others = (ids, wanted) if len(ids) < len(wanted) else (wanted, ids)
        for frame_id in (one for one in few if one in others):
            frame = payload[frame_id - payload.frame_id]
            yield frame_id, {name: getattr(frame, name, None) for name in _FIELDS}
    elif isinstance(payload, FrameUpdated) and payload.frame_id in wanted:
        changes = {name: value for name, value in payload.changes.items() if name in _FIELDS}
        yield payload.frame_id, changes
