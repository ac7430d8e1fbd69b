"""Scrubbing: what must not be recorded is taken out before anything else looks at it.

``StoreConfig(scrub=…)`` is called with every text of a caller, before the text is checked, cut,
encoded, hashed, indexed or previewed. The store's limits carry it to where values are prepared.
Without it they are plain :class:`Limits`, and nothing is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from attrs import asdict, evolve, field, frozen

from ..config import Limits, Scrub
from ..core.commands import Command, NoteEvent, StartAction
from ..errors import InvalidValueError
from ..events.calls import CallFacts, ChunksCame, ErrorDetail
from ..events.frozen_dict import FrozenDict
from ..events.values import MAX_DEPTH

AnyCommand = TypeVar("AnyCommand", bound=Command | None)

WITHHELD = "(left out, because StoreConfig.scrub failed)"
"""In place of what came after an effect, and could not be scrubbed: refusing it would lose that
there was an effect."""

# What an action's input and output are called, where they are not just that.
_FIELDS = {
    ("ask", "input"): "query",
    ("ask", "output"): "response",
    ("find", "input"): "query",
    ("tool_call", "output"): "result",
    ("put", "input"): "data",
    ("update", "input"): "data",
}


@frozen(kw_only=True, repr=False)
class ScrubbingLimits(Limits):
    """The limits of a store that scrubs, and what it scrubs with.

    ``kind``: what is being recorded.
    """

    scrub: Scrub = field(repr=False)
    kind: str = "session"

    def text(self, what: str, text: str) -> str:
        """Return a text without what must not be recorded.

        :raises InvalidValueError: when the caller's function raises, or returns another type. The
            message tells nothing of the text.
        """
        made: Any = None
        failed = ""
        try:
            made = self.scrub(self.kind, _FIELDS.get((self.kind, what), what), text)
        except Exception as error:  # noqa: BLE001 - what it raises may hold the text
            failed = f"raised {type(error).__name__}"
        else:
            if not isinstance(made, str):
                failed = f"returned {type(made).__name__}, not str"
        if failed:
            raise InvalidValueError(f"StoreConfig.scrub {failed}, so nothing was recorded")
        return str.__str__(made)

    def data(self, what: str, data: bytes) -> bytes:
        """Do what :meth:`text` does with bytes, as far as they are UTF-8; the others stay."""
        text = data.decode("utf-8", "surrogateescape")
        made = self.text(what, text)
        if made == text:
            return data
        return made.encode("utf-8", "surrogateescape")

    def value(self, what: str, value: Any, depth: int = MAX_DEPTH) -> Any:
        """Do what :meth:`text` does with all texts and bytes in a value, the keys of dicts too.

        What is of another type is returned as it is, for the checks to refuse it.
        """
        if isinstance(value, str):
            return self.text(what, value)
        if isinstance(value, bytes):
            return self.data(what, value)
        if depth and isinstance(value, list):
            return [self.value(what, item, depth - 1) for item in value]
        if depth and isinstance(value, dict):
            pairs = value.items()
            return {self.value(what, k): self.value(what, v, depth - 1) for k, v in pairs}
        return value


def scrubbing(limits: Limits, scrub: Scrub | None) -> Limits:
    """Return limits that carry what a store scrubs with, if it does."""
    if scrub is None:
        return limits
    return ScrubbingLimits(**asdict(limits), scrub=scrub)


def limits_for(kind: str, limits: Limits) -> Limits:
    """Return the limits for what is recorded as this kind."""
    return evolve(limits, kind=kind) if type(limits) is ScrubbingLimits else limits


def cleaner(limits: Limits, what: str) -> Callable[[Any], Any] | None:
    """Return what scrubs a field's texts and bytes; None where nothing does."""
    return partial(limits.value, what) if type(limits) is ScrubbingLimits else None


def scrubbed(limits: Limits, what: str, value: Any) -> Any:
    """Return a value scrubbed, where the limits are of a store that scrubs."""
    return limits.value(what, value) if type(limits) is ScrubbingLimits else value


def scrubbed_call(limits: Limits, call: CallFacts) -> CallFacts:
    """Return what only a call has, scrubbed: its lane, and the exception that it raised. Of one
    that cannot be scrubbed, the type is left."""
    detail = call.error_detail
    if detail is not None:
        try:
            detail = _scrubbed_error(limits, detail)
        except InvalidValueError:
            detail = ErrorDetail(detail.module, detail.qualname)
    lane = None if call.lane is None else tuple(scrubbed(limits, "task", [*call.lane]))
    return call._replace(error_detail=detail, lane=lane)


def _scrubbed_error(limits: Limits, detail: ErrorDetail) -> ErrorDetail:
    arguments = detail.arguments
    return evolve(
        detail,
        arguments=None if arguments is None else tuple(scrubbed(limits, "error", [*arguments])),
        attributes=FrozenDict(scrubbed(limits, "error", dict(detail.attributes))),
        frames=tuple(scrubbed(limits, "error", [*detail.frames])),
        members=tuple([_scrubbed_error(limits, member) for member in detail.members]),
    )


def scrubbed_command(limits: Limits, command: AnyCommand) -> AnyCommand:
    """Return a command with those of its texts scrubbed that are not prepared before: the lane of a
    call that begins, and the chunks of a stream.

    Chunks are looked at in one piece, and are one where that changes them, empty where it fails. A
    secret that is in two notes of chunks is not whole in either.
    """
    if type(limits) is not ScrubbingLimits:
        return command
    if isinstance(command, StartAction):
        lane = tuple(limits.value("task", [*command.lane]))
        return command._replace(lane=lane)
    if isinstance(command, NoteEvent) and isinstance(command.note, ChunksCame):
        chunks: tuple[Any, ...] = command.note.chunks
        whole = (b"" if isinstance(chunks[0], bytes) else "").join(chunks) if chunks else ""
        try:
            made = limits.value("response", whole)
        except InvalidValueError:
            made = whole[:0]
        if made != whole:
            kept = (made, *[made[:0]] * (len(chunks) - 1))
            return evolve(command, note=evolve(command.note, chunks=kept))
    return command
