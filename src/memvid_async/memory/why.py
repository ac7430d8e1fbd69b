"""Why an answer is what it is: the frames it was given, where they came from, what they led to."""

from __future__ import annotations

from attrs import field, frozen

from ..engine.event_log import View
from ..engine.finding_actions import ActionQuery, find_actions
from ..events.content import Content
from ..events.details import ActionKind
from ..events.event import Action, ActionRecorded
from ..events.frames import Version
from ..events.printing import counted


@frozen
class WhyFrame:
    """A frame that an answer was given."""

    frame_id: int
    """The frame."""
    score: float | None
    """Its score in the search; None where somebody else searched."""
    sequence: int | None
    """The sequence of the event that held its body then; None where that is not known, as in what
    was recorded of somebody else's search."""
    content: Content | None
    """Its body then; None where that is not known, or was erased."""
    put_by: Action | None
    """The put or update that this body is from; None where no session recorded that."""
    put_ns: int | None
    """When it got this body, in nanoseconds since the Unix epoch; None where that is not known."""
    later: tuple[Action, ...] = field(repr=counted("action"))
    """The asks after this one that were given the same frame, whatever its body was by then, in
    order."""


@frozen
class Why:
    """What an answer was made of."""

    action: Action
    """The ask, or the find."""
    frames: tuple[WhyFrame, ...] = field(repr=counted("frame"))
    """The frames that it was given, best first."""


def why_of(view: View, action: Action) -> Why:
    """Return what an action was made of. It reads all events after the action."""
    retrieval = action.retrieval
    versions: tuple[Version | None, ...] = () if retrieval is None else retrieval.versions
    scores = () if retrieval is None else retrieval.scores
    origins = _Origins(view)
    found = []
    for place, frame_id in enumerate(action.affected_frames):
        version = versions[place] if place < len(versions) else None
        score = scores[place] if place < len(scores) else None
        found.append((frame_id, version, score))
    later = _later(view, action, [(frame_id, version) for frame_id, version, _ in found])
    frames = []
    for (frame_id, version, score), uses in zip(found, later, strict=True):
        if version is None:
            frames.append(WhyFrame(frame_id, score, None, None, None, None, tuple(uses)))
            continue
        # First what says so where there is no such event: any file may name any.
        content = view.frame_content_of(version)
        origin = origins.of(version)
        frames.append(
            WhyFrame(
                frame_id, score, version[0], content, origin.action, origin.time_ns, tuple(uses)
            )
        )
    return Why(action, tuple(frames))


def _later(
    view: View,
    action: Action,
    frames: list[tuple[int, Version | None]],
) -> list[list[Action]]:
    """Return for each frame the asks after an action that were given it."""
    uses: list[list[Action]] = [[] for _ in frames]
    places = {frame_id: place for place, (frame_id, _) in enumerate(frames)}
    query = ActionQuery(kind=ActionKind.ASK, after=action.sequence)
    for ask in (one for some in find_actions(view, query) for one in some):
        for at, frame_id in enumerate(ask.affected_frames):
            place = places.get(frame_id)
            if place is None:
                continue
            versions = () if ask.retrieval is None else ask.retrieval.versions
            version = versions[at] if at < len(versions) else None
            # An id is used once, in all forks together; but frames of somebody else's memory have
            # ids of their own.
            if (frames[place][1] is None) == (version is None):
                uses[place].append(ask)
    return uses


@frozen
class _Origin:
    """The event that holds bodies of frames."""

    time_ns: int
    action: Action | None
    """The action of the command that did it; None where no session recorded it."""


class _Origins:
    """Where bodies of frames came from; each command is read once."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._read: dict[int, _Origin] = {}

    def of(self, version: Version) -> _Origin:
        sequence = version[0]
        if sequence not in self._read:
            command = self._view.commands_after(sequence - 1, 1)[0]
            (changed,) = (event for event in command if event.sequence == sequence)
            actions = (
                event.payload.action
                for event in command
                if event.sequence > sequence and isinstance(event.payload, ActionRecorded)
            )
            self._read[sequence] = _Origin(changed.time_ns, next(actions, None))
        return self._read[sequence]
