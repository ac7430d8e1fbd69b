"""The rows of events about calls and sessions, and the fields of an action that ends a call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import cbor2

from ..events.calls import (
    ActionStarted,
    AnswerDropped,
    CallFacts,
    ChunksCame,
    ErrorDetail,
    LanePath,
    SessionChanged,
    SessionResumed,
    SessionSuspended,
)
from ..events.content import EMPTY, Content
from ..events.decided import DecidedStart
from ..events.details import ActionKind
from ..events.fork_rows import pack_calls, unpack_calls
from ..events.values import decode_value, is_time
from .counts import is_count
from .frame_rows import content_field, read_bytes, read_content_field, read_map, read_optional
from .kinds import (
    ACTION_KINDS,
    ANSWER_DROPPED,
    CALL_STARTED,
    CHUNKS_CAME,
    SESSION_CHANGED,
    SESSION_RESUMED,
    SESSION_SUSPENDED,
)

NUMBERS = {kind: number for number, kind in ACTION_KINDS.items()}
# The types of the fields that only this kind has.
_DetailTypes = tuple[Collection[type], ...]
_NO_DETAILS: _DetailTypes = ()
_NAME = (str, type(None))
DETAIL_TYPES: dict[ActionKind, _DetailTypes] = dict.fromkeys(ActionKind, _NO_DETAILS) | {
    ActionKind.ASK: (_NAME, _NAME),
    ActionKind.FIND: ((str,), (int,)),
    ActionKind.TOOL_CALL: ((str,),),
    ActionKind.STEP: ((str,),),
    ActionKind.ONCE: ((str,),),
}
ReadContent = Callable[[int], Content]
CallEvent = ActionStarted | AnswerDropped | ChunksCame
SessionEvent = SessionChanged | SessionResumed | SessionSuspended
# The bits of a change's mask.
_RENAMED, _ANNOTATED = 1, 2


def read_detail(kind: ActionKind, fields: Sequence[Any]) -> tuple[Any, ...]:
    """Return the fields that only this kind has, which are the first of ``fields``.

    :raises TypeError: when they are of other types.
    """
    types = DETAIL_TYPES[kind]
    detail = tuple(fields[: len(types)])
    if len(detail) < len(types) or not all(map(_is_of, detail, types)):
        raise TypeError(f"an action's own fields {detail!r:.80}")
    return detail


def _is_of(value: object, types: Collection[type]) -> bool:
    return type(value) in types


# What an action has as the end of a call.


def call_fields(call: CallFacts, time_ns: int) -> tuple[Any, ...]:
    """Return the fields of an action that was made as a call, from *started* to *error detail*, and
    those after the marks of conversion. ``time_ns``: the action's own time."""
    began = None if call.started_ns is None else time_ns - call.started_ns
    detail = None if call.error_detail is None else _error_row(call.error_detail)
    raw = None if call.raw is None else content_field(call.raw)
    head = (
        call.started,
        began,
        call.parent,
        None if call.lane is None else list(call.lane),
        call.seen,
        detail,
    )
    return head, (call.settled_by, raw)


def read_call(fields: Sequence[Any], time_ns: int, content: ReadContent) -> CallFacts | None:
    """Return what :func:`call_fields` returned; None where there is nothing of it.

    :raises TypeError, ValueError: when the fields are not such ones.
    """
    if fields.count(None) == len(fields):
        return None
    started, began, parent, lane, seen, detail, settled_by, raw = fields
    started_ns = None if began is None else time_ns - _whole(began)
    if not (started_ns is None or is_time(started_ns)):
        raise TypeError("a call's start has a bad time")
    return CallFacts(
        _sequence(started),
        started_ns,
        _sequence(parent),
        None if lane is None else _read_lane(lane),
        _sequence(seen),
        None if detail is None else _read_error(detail),
        read_optional(settled_by, str),
        None if raw is None else read_content_field(raw, content),
    )


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("a distance in time is not an int")
    return value


def _count(value: Any) -> int:
    if not is_count(value):
        raise TypeError("a field is not a count")
    return value  # type: ignore[no-any-return]


def _sequence(value: Any) -> int | None:
    if not (value is None or is_count(value)):
        raise TypeError("a field is not a sequence")
    return value  # type: ignore[no-any-return]


def _read_lane(value: Any) -> LanePath:
    if not isinstance(value, list) or not all(isinstance(n, str) or is_count(n) for n in value):
        raise TypeError("a lane is not a list of names and numbers")
    return tuple(value)


# A group's members may be groups, at most this deep in each other.
_MOST_DEPTH = 8


def _error_row(detail: ErrorDetail) -> list[Any]:
    arguments, attributes = detail.arguments, detail.attributes
    row: list[Any] = [
        detail.module,
        detail.qualname,
        list(detail.frames),
        None if arguments is None else cbor2.dumps(list(arguments)),
        cbor2.dumps(dict(attributes)) if attributes else None,
    ]
    if detail.members:
        row.append([_error_row(member) for member in detail.members])
    return row


def _read_error(value: Any, depth: int = 0) -> ErrorDetail:
    module, qualname, frames, arguments, attributes, *more = value
    if not all(isinstance(text, str) for text in (module, qualname, *frames)):
        raise TypeError("an error's class or frame is not text")
    values = None if arguments is None else decode_value(read_bytes(arguments))
    if not isinstance(values, list | None):
        raise TypeError("an error's arguments are not a list")
    args = None if values is None else tuple(values)
    members = tuple([_read_error(one, depth + 1) for one in more[0]]) if more else ()
    if members and depth >= _MOST_DEPTH:
        raise TypeError("an error's members are too deep in each other")
    return ErrorDetail(module, qualname, args, read_map(attributes), tuple(frames), members)


# Events of their own.


def start_row(start: DecidedStart) -> list[Any]:
    """Return the row of a call's start."""
    _, _, _, kind, detail, given, task, parent, lane, seen, *others = start
    first, try_number, settled_by, digest = others
    row: list[Any] = [
        CALL_STARTED,
        NUMBERS[kind],
        content_field(given) if isinstance(given, Content) else given,
        parent,
        list(lane),
        seen,
        task,
        *detail,
    ]
    if first is not None or digest is not None:
        row += (digest, first, None if first is None else try_number, settled_by)
        while row[-1] is None:
            row.pop()
    return row


def read_start(
    row: list[Any], sequence: int, time_ns: int, session_id: UUID | None, content: ReadContent
) -> ActionStarted:
    """Return the start in a row.

    :raises TypeError, ValueError, IndexError: when the row is not such a one.
    """
    _, number, given, parent, lane, seen, task, *rest = row
    kind = ACTION_KINDS.get(number)
    if kind is None:
        raise TypeError("a call of a kind that no action has")
    detail = read_detail(kind, rest)
    digest, first, tried, settled_by = (*rest[len(detail) : len(detail) + 4], *(None,) * 4)[:4]
    if first is not None and not (is_count(tried) and tried > 1):
        raise TypeError("a retry has no number")
    return DecidedStart(
        sequence,
        time_ns,
        session_id,
        kind,
        detail,
        None if given is None else read_content_field(given, content),
        read_optional(task, str),
        _sequence(parent),
        _read_lane(lane),
        _count(seen),
        _sequence(first),
        1 if first is None else tried,
        read_optional(settled_by, str),
        None if digest is None else read_bytes(digest, 16),
    ).start()


def note_row(payload: CallEvent | SessionEvent) -> list[Any]:
    """Return the row of an event about a call or a session, other than a start."""
    if isinstance(payload, ActionStarted):
        return start_row(DecidedStart.of(payload))
    if isinstance(payload, ChunksCame):
        return [CHUNKS_CAME, payload.started, payload.seen, payload.first, *payload.chunks]
    if isinstance(payload, AnswerDropped):
        return [ANSWER_DROPPED, payload.action_sequence]
    if isinstance(payload, SessionResumed):
        return [SESSION_RESUMED, payload.through, pack_calls(payload.reopened)]
    if isinstance(payload, SessionSuspended):
        return [SESSION_SUSPENDED, payload.since]
    return _change_row(payload.changes)


def _change_row(changes: Mapping[str, Any]) -> list[Any]:
    mask = _RENAMED * ("name" in changes) | _ANNOTATED * ("metadata" in changes)
    metadata = changes.get("metadata")
    packed = None if metadata is None else cbor2.dumps(dict(metadata))
    return [SESSION_CHANGED, mask, changes.get("name"), packed]


def read_note(row: list[Any]) -> CallEvent | SessionEvent:
    """Return the event about a call or a session in a row, other than a start.

    :raises TypeError, ValueError, IndexError: when the row is not such a one.
    """
    kind, *fields = row
    if kind == SESSION_CHANGED:
        mask, name, metadata = fields[:3]
        changes: dict[str, Any] = {}
        if _whole(mask) & _RENAMED:
            changes["name"] = read_optional(name, str)
        if mask & _ANNOTATED:
            changes["metadata"] = EMPTY if metadata is None else read_map(metadata)
        return SessionChanged(changes)
    if not is_count(fields[0]):
        raise TypeError("an event names no other by its sequence")
    if kind == SESSION_RESUMED:
        return SessionResumed(fields[0], unpack_calls(fields[1]))
    if kind == SESSION_SUSPENDED:
        return SessionSuspended(fields[0])
    if kind == ANSWER_DROPPED:
        return AnswerDropped(fields[0])
    started, seen, first, *chunks = fields
    if not all(isinstance(chunk, (str, bytes)) for chunk in chunks):
        raise TypeError("chunks are neither text nor bytes")
    return ChunksCame(started, _count(seen), _count(first), tuple(chunks))
