"""Two sessions compared: aligned by what their actions are, not by where they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from attrs import field, frozen

from ..engine.event_log import View
from ..errors import ContentNotFoundError
from ..events.content import Content
from ..events.event import Action
from ..events.message_digests import drop_call_ids
from ..events.printing import counted, html_table
from .facts import INPUT_NAMES, OUTPUT_NAMES, own_metadata, without_call_ids
from .lcs import Pairs, align
from .recorded import (
    Facts,
    RecordedSession,
    calls_in_flight,
    load_recording,
    read_arguments,
    read_text,
)
from .textdiff import content_text, plain_text, response_diff, text_diff
from .verdicts import Difference


@frozen
class ChangedAction:
    """An action of each session: of the same kind, in corresponding places, and different."""

    a: Action
    """The action in a."""
    b: Action
    """The action in b."""
    differences: tuple[Difference, ...]
    """Every field in which they differ."""


@frozen
class Comparison:
    """Two sessions, aligned by a longest common subsequence of equal actions.

    All actions are in order.
    """

    session_a: UUID
    """The id of a."""
    session_b: UUID
    """The id of b."""
    first_divergence: int | None
    """The index, the same in both, of the first action that is not equal; None when all are."""
    only_in_a: tuple[Action, ...] = field(repr=counted("action"))
    """Actions of a that have no counterpart."""
    only_in_b: tuple[Action, ...] = field(repr=counted("action"))
    """Actions of b that have no counterpart."""
    changed: tuple[ChangedAction, ...] = field(repr=counted("pair"))
    """Pairs that differ, of the same kind (tool calls: of the same tool), between equal pairs."""
    equal: tuple[tuple[Action, Action], ...] = field(repr=counted("pair"))
    """Pairs of equal actions."""

    @property
    def is_equal(self) -> bool:
        """Whether both did the same, in the same order."""
        return self.first_divergence is None

    def _repr_html_(self) -> str:
        """A table for notebooks: what is not equal."""
        rows = chain(
            ((c.a.index, c.b.index, c.a.kind, _names(c.differences)) for c in self.changed),
            ((a.index, None, a.kind, "only in a") for a in self.only_in_a),
            ((None, b.index, b.kind, "only in b") for b in self.only_in_b),
        )
        caption = f"{self.session_a} (a) and {self.session_b} (b): {len(self.equal):,} equal"
        total = len(self.changed) + len(self.only_in_a) + len(self.only_in_b)
        return html_table(caption, ("in a", "in b", "action", "what differs"), rows, total)


def _names(differences: Sequence[Difference]) -> str:
    return ", ".join(difference.field for difference in differences)


@frozen
class Side:
    """One of the two sessions, with what is compared of each action."""

    recording: RecordedSession
    facts: list[Facts]
    messages: list[bytes | None]


def read_side(view: View, session_id: UUID) -> Side:
    """Read a session, and the facts of its actions; also of its calls in flight.

    :raises SessionNotFoundError, CorruptFileError: when it cannot be read.
    """
    recording = load_recording(view, session_id)
    for action in calls_in_flight(view, session_id):
        recording.add(action)
    actions = recording.actions
    return Side(
        recording,
        [recording.facts(view, action) for action in actions],
        [recording.messages_digest(view, action) for action in actions],
    )


def pair_up(a: Side, b: Side) -> tuple[Pairs, Pairs]:
    """Return the pairs of corresponding actions, and those of them that are not equal.

    Equal actions are paired first. Then, in each gap, those of the same kind with the same input,
    then with the same output, then those of the same kind.
    """
    pairs = _fill(a, b, 0, (0, len(a.facts)), (0, len(b.facts)))
    return pairs, [(i, j) for i, j in pairs if not _is_equal(a, i, b, j)]


def _whole(_action: Action, facts: Facts) -> Hashable:
    return tuple(facts.items())


def _asked(action: Action, facts: Facts) -> Hashable:
    # An action without an input equals no other here; below, one without an output.
    return (*_sort(action, facts), facts.get(INPUT_NAMES.get(action.kind, ""), action.sequence))


def _answered(action: Action, facts: Facts) -> Hashable:
    return (*_sort(action, facts), facts.get(OUTPUT_NAMES.get(action.kind, ""), action.sequence))


def _sort(action: Action, facts: Facts) -> tuple[Hashable, ...]:
    return action.kind, facts.get("name")


_KEYS: tuple[Callable[[Action, Facts], Hashable], ...] = (_whole, _asked, _answered, _sort)


def _fill(a: Side, b: Side, level: int, in_a: tuple[int, int], in_b: tuple[int, int]) -> Pairs:
    """Return the pairs of a gap: by the key of this level, and between those by the next levels."""
    if level == len(_KEYS) or in_a[0] == in_a[1] or in_b[0] == in_b[1]:
        return []
    keys = [
        list(map(_KEYS[level], side.recording.actions[slice(*part)], side.facts[slice(*part)]))
        for side, part in ((a, in_a), (b, in_b))
    ]
    pairs: Pairs = []
    done_a, done_b = in_a[0], in_b[0]
    found = [(i + in_a[0], j + in_b[0]) for i, j in align(*keys)]
    for i, j in [*found, (in_a[1], in_b[1])]:
        pairs += _fill(a, b, level + 1, (done_a, i), (done_b, j))
        if i < in_a[1]:
            pairs.append((i, j))
        done_a, done_b = i + 1, j + 1
    return pairs


def _is_equal(a: Side, i: int, b: Side, j: int) -> bool:
    """Whether two actions have the same facts."""
    return a.facts[i] == b.facts[j] and a.messages[i] == b.messages[j]


def build_comparison(
    a: Side, b: Side, pairs: Pairs, changed: Sequence[ChangedAction]
) -> Comparison:
    """Build the comparison. ``changed``: an item for each pair that is not equal."""
    equal = [(i, j) for i, j in pairs if _is_equal(a, i, b, j)]
    prefix = 0
    while prefix < len(equal) and equal[prefix] == (prefix, prefix):
        prefix += 1
    whole = prefix == len(a.facts) == len(b.facts)
    paired_a, paired_b = {i for i, _ in pairs}, {j for _, j in pairs}
    actions_a, actions_b = a.recording.actions, b.recording.actions
    return Comparison(
        a.recording.session_id,
        b.recording.session_id,
        None if whole else prefix,
        tuple(action for i, action in enumerate(actions_a) if i not in paired_a),
        tuple(action for j, action in enumerate(actions_b) if j not in paired_b),
        tuple(changed),
        tuple((actions_a[i], actions_b[j]) for i, j in equal),
    )


def find_differences(view: View, a: Side, i: int, b: Side, j: int) -> tuple[Difference, ...]:
    """Return every field in which two actions of the same kind differ."""
    facts_a, facts_b = a.facts[i], b.facts[j]
    found = []
    for name in {**facts_a, **facts_b}:
        if facts_a.get(name) != facts_b.get(name):
            value_a, shown_a = _value(view, a, i, name)
            value_b, shown_b = _value(view, b, j, name)
            diff = response_diff if name == "response" else text_diff
            found.append(Difference(name, value_a, value_b, diff(shown_a, shown_b)))
    if a.messages[i] != b.messages[j]:
        count_a, text_a = _messages(view, a, i)
        count_b, text_b = _messages(view, b, j)
        found.append(Difference("messages", count_a, count_b, text_diff(text_a, text_b)))
    return tuple(found)


def _value(view: View, side: Side, place: int, name: str) -> tuple[Any, Any]:
    """Return a field of an action, and its text; a response as it was recorded."""
    action = side.recording.actions[place]
    if name == INPUT_NAMES.get(action.kind, "input"):
        return action.input, _text(view, action, action.input, name)
    if name == OUTPUT_NAMES.get(action.kind, "output"):
        return action.output, _text(view, action, action.output, name)
    value: Any = side.facts[place].get(name)
    if name == "metadata":
        value = own_metadata(action.metadata)
    elif name == "filters" and action.retrieval is not None:
        value = dict(action.retrieval.parameters)
    return value, value if isinstance(value, str) else plain_text(value)


def _text(view: View, action: Action, content: Content | None, name: str) -> str | bytes | None:
    try:
        if name == "arguments":
            return plain_text(read_arguments(view, action))
        data = read_text(view, content)
    except ContentNotFoundError:
        return "(erased)"
    if name == "response":
        return without_call_ids(data) if data else data
    return content_text(data)


def _messages(view: View, side: Side, place: int) -> tuple[int, str]:
    """Return how many messages an ask has, and all of them as text."""
    action = side.recording.actions[place]
    stored = side.recording.messages.get(action.index)
    try:
        messages = side.recording.read_messages(view, action)
    except ContentNotFoundError:
        return 0 if stored is None else stored.count, "(erased)"
    return len(messages), plain_text([drop_call_ids(message) for message in messages])
