"""An action as it was given, before anything of it is checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..events.event import ActionKind
from ..events.frames import Reply, Retrieval


class ActionDraft(NamedTuple):
    """What a ``record_…`` call was given. It is made once, by name; checking makes a command of it.

    ``detail`` is checked already, and is what the kind adds (see :class:`RecordAction`). ``input``
    of a tool call is its arguments: any CBOR value. ``task`` None stands for the asyncio task.
    """

    kind: ActionKind
    detail: tuple[Any, ...] = ()
    input: Any = None
    output: str | bytes | None = None
    frames: Iterable[int] = ()
    duration_ms: float = 0
    task: str | None = None
    error: str | None = None
    metadata: Mapping[str, Any] | None = None
    messages: Sequence[Any] = ()
    retrieval: Retrieval | None = None
    reply: Reply | None = None


# Called by itself it takes names in a third of the time: a class that is called with names makes a
# dict of them first. It is given the class: ``new_draft(ActionDraft, kind=…)``.
new_draft = ActionDraft.__new__
