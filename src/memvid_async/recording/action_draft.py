"""An action as a caller passed it to be recorded, and the command that is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from attrs import evolve

from ..config import Limits
from ..core.commands import LargeContent, Prepared, RecordAction, SessionChoice
from ..core.held_messages import Messages
from ..errors import InvalidValueError
from ..events.calls import CallFacts
from ..events.content import EMPTY
from ..events.decided import NO_EXTRAS, Extras
from ..events.details import ActionKind
from ..events.frames import Retrieval
from ..events.prompts import Reply
from ..events.values import LARGE, is_duration
from .prepare_values import (
    is_small_text,
    prepare_arguments,
    prepare_content,
    prepare_duration,
    prepare_error,
    prepare_frames,
    prepare_messages,
    prepare_metadata,
    prepare_output,
)
from .scrubbing import ScrubbingLimits, limits_for, scrubbed, scrubbed_call


class ActionDraft(NamedTuple):
    """The arguments of a ``record_…`` call. Only ``detail`` is checked."""

    kind: ActionKind
    detail: tuple[Any, ...] = ()
    """What the kind adds: see :class:`RecordAction`."""
    input: Any = None
    """Text or bytes; of a tool call its arguments, which may be any CBOR value."""
    output: Any = None
    """Anything: see :mod:`.converting`."""
    frames: Iterable[int] = ()
    duration_ms: float = 0
    task: str | None = None
    """The agent's task; None for the name of the asyncio task that records."""
    error: Any = None
    """Anything: see :mod:`.converting`."""
    metadata: Mapping[str, Any] | None = None
    messages: Messages | Sequence[Any] = ()
    retrieval: Retrieval | None = None
    reply: Reply | None = None
    conversion: int = 0
    """What was changed already, as :class:`Conversion`."""
    call: CallFacts | None = None
    """What only a call's action has."""
    key: str | None = None
    """The idempotency key, if there is one."""
    raw: bytes | None = None
    """A call's output as it came from the network, where that is something else."""
    prepared: Prepared | None = None
    """The input as it was prepared when the call began; None where it was not."""


# Compared by identity, because an array equals nothing. There is one empty tuple.
NO_MESSAGES: tuple[Any, ...] = ()
_TOOL_CALL, _STEP, _ASK, _FIND = (
    ActionKind.TOOL_CALL,
    ActionKind.STEP,
    ActionKind.ASK,
    ActionKind.FIND,
)

# Makes a draft: ``new_draft(ActionDraft, kind=…)``. Calling the class does the same but takes three
# times as long, because it makes a dict of the arguments first.
new_draft = ActionDraft.__new__
# Makes a named tuple as a tuple is made: in a third of the time.
_new = tuple.__new__


def prepare_action(
    session: SessionChoice, draft: ActionDraft, task: str | None, limits: Limits
) -> RecordAction:
    """Return the command that records an action. ``task`` replaces the draft's, and is checked.

    :raises InvalidValueError, LimitExceededError: when anything cannot be recorded.
    """
    # Unpacked at once: looking up each field takes three times as long.
    # fmt: off
    (
        kind, detail, given, output, frames, duration_ms, _, error, metadata, messages, retrieval,
        reply, conversion, call, _key, raw, ready,
    ) = draft
    # fmt: on
    scrubs = type(limits) is ScrubbingLimits
    if scrubs:
        limits = limits_for(kind, limits)
        detail = tuple(scrubbed(limits, "name", one) for one in detail)
        call = None if call is None else scrubbed_call(limits, call)
    if ready is not None:
        given = ready
    elif kind is _TOOL_CALL or (kind is _STEP and given is not None):
        given = prepare_arguments(given, limits)
    elif scrubs or not is_small_text(given):
        # As the caller's argument is named.
        what = "query" if kind is _ASK or kind is _FIND else "data"
        given = prepare_content(given, what, limits)
    if output is not None and (scrubs or not is_small_text(output)):
        output, changed = prepare_output(output, limits)
        conversion |= changed
        if reply is not None and (changed or scrubs):
            reply = _fitting(reply, output)
    if error is not None:
        error, changed = prepare_error(error, limits)
        conversion |= changed
    if raw is not None and call is not None:
        call = _with_raw(call, raw, limits)
    if not is_duration(duration_ms):
        duration_ms, changed = prepare_duration(duration_ms)
        conversion |= changed
    kept = EMPTY if metadata is None else prepare_metadata(metadata, limits)
    asked = None if messages is NO_MESSAGES else _prepared(messages, limits)
    extras = None
    if (
        error is not None
        or kept
        or asked is not None
        or retrieval is not None
        or reply is not None
        or call is not None
        or conversion
    ):
        extras = _new(Extras, (error, kept, asked, retrieval, reply, call, int(conversion)))
    ids = None if frames is NO_MESSAGES else prepare_frames(frames, limits) or None
    fields = (given, output, duration_ms, ids, task, *detail)
    return _new(RecordAction, (session, kind, fields, extras))


def _with_raw(call: CallFacts, raw: bytes, limits: Limits) -> CallFacts:
    """Return what only a call has, with what came from the network if that can be scrubbed."""
    with suppress(InvalidValueError):
        # The decider makes a content of it.
        content: Any = prepare_content(raw, "raw", limits)
        call = call._replace(raw=content)
    return call


def _prepared(messages: Messages | Sequence[Any], limits: Limits) -> Messages | None:
    return messages if isinstance(messages, Messages) else prepare_messages(messages, limits)


def _fitting(reply: Reply, output: Prepared | None) -> Reply:
    """Return how a reply came, of what is recorded: where that has another length than its chunks
    had, all of it is in the first, and the others are empty."""
    data = output.data if isinstance(output, LargeContent) else output
    if data is None or not reply.chunks or len(data) == sum(reply.chunks):
        return reply
    return evolve(reply, chunks=(len(data), *(0,) * (len(reply.chunks) - 1)))


def prepared_size(command: RecordAction) -> int:
    """Estimate how many bytes a prepared command holds."""
    size = LARGE
    extras = command.extras or NO_EXTRAS
    raw: Any = None if extras.call is None else extras.call.raw
    for content in (*command.fields[:2], raw):
        if content is not None:
            size += content.size if isinstance(content, LargeContent) else len(content)
    return size + sum(map(len, extras.messages.items if extras.messages is not None else ()))
