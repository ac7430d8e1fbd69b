"""What of a call is compared with the recorded one, where the caller says it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from ..errors import InvalidValueError
from ..events.details import ActionKind
from ..events.message_digests import drop_call_ids, value_digest
from ..events.values import as_list
from ..recording.callables import check_fits
from .facts import INPUT_NAMES

Match = Callable[[str, str, Any], Any]
"""``match(kind, field, value)`` returns what is compared of a field of a call; None for nothing.

``kind``: as :class:`ActionKind` has them. ``field``: ``name`` and ``arguments`` of a tool call,
``query``, ``provider``, ``model`` and ``messages`` of an ask, ``query`` of a find; of either one of
the store, ``mode``, ``top_k``, ``filters`` and ``syntax`` too; ``data`` of a put, ``frame_id`` and
``data`` of an update, ``frame_id`` of a delete.
"""

DATA_IS_A_FACT = (ActionKind.PUT, ActionKind.UPDATE)
"""Their data is compared where the live call says it, because a stream cannot say it."""


def check_match(value: Any) -> Match | None:
    """Return how calls are compared; a collection of names stands for these fields.

    :raises InvalidValueError: when it is neither callable nor such a collection.
    """
    if value is None:
        return None
    if callable(value):
        check_fits(value, "match is called with a kind, a field and a value", ("", "", None))
        return value  # type: ignore[no-any-return]
    what = "match must be callable or names of fields"
    names = as_list(value, what)
    if not all(isinstance(name, str) for name in names):
        raise InvalidValueError(f"{what}, not {value!r:.80}")
    fields = frozenset(names)
    return lambda _kind, field, found: found if field in fields else None


def check_pace(value: Any) -> float | None:
    """Return the pace of streams: how many times as fast as they came; None for at once.

    :raises InvalidValueError: when it is not a number above 0.
    """
    if value is None or (type(value) in (int, float) and 0 < value <= sys.float_info.max):
        return None if value is None else float(value)
    raise InvalidValueError(f"pace must be a number above 0, or None, not {value!r:.80}")


def compared_content(
    match: Match, kind: ActionKind, name: str | None, given: Any
) -> tuple[ActionKind, Any, bytes]:
    """Return what is compared of a call's kind, name and input."""
    is_fact = kind in DATA_IS_A_FACT
    shown = None if is_fact else match(str(kind), INPUT_NAMES.get(kind, "input"), given)
    named = None if name is None else match(str(kind), "name", name)
    return kind, named, value_digest(shown)


def compared_facts(match: Match, kind: ActionKind, facts: Mapping[str, Any]) -> dict[str, Hashable]:
    """Return what is compared of a call's other fields, those of which there is something."""
    found: dict[str, Hashable] = {}
    for name, value in facts.items():
        if value is None:
            continue
        given = _without_ids(value) if name == "messages" else value
        shown = match(str(kind), name, given)
        if shown is not None:
            found[name] = value_digest(shown)
    return found


def keeps_messages(match: Match, kind: ActionKind, messages: Sequence[Any]) -> bool:
    """Whether messages are compared as they are. Those of a call in flight are known by their
    digest alone, so they are compared then, and not where something of them is left out."""
    given = _without_ids(messages)
    shown = match(str(kind), "messages", given)
    return shown is given or value_digest(shown) == value_digest(given)


def _without_ids(messages: Sequence[Any]) -> list[Any]:
    return [drop_call_ids(one) for one in messages]
