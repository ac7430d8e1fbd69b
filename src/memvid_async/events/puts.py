"""Events of puts of very many frames, made when they are asked for.

Python's garbage collector looks at every object that lives for a while, and at all there are when
new ones have become many. The three objects of an event that puts a text, for each of thousands,
have it do so in the middle of a put, and nothing else goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import overload

from .content import Content
from .event import Event
from .frames import FramePut


class LazyEvents(Sequence[Event]):
    """Events of which each is made when it is asked for."""

    def _at(self, place: int) -> Event:
        raise NotImplementedError

    @overload
    def __getitem__(self, place: int) -> Event: ...
    @overload
    def __getitem__(self, place: slice) -> list[Event]: ...
    def __getitem__(self, place: int | slice) -> Event | list[Event]:
        if isinstance(place, slice):
            return [self._at(one) for one in range(*place.indices(len(self)))]
        return self._at(range(len(self))[place])


class TextPuts(LazyEvents):
    """The events that put frames of text and nothing else into the memory that all share.

    ``sequence`` and ``frame_id``: those of the first.
    """

    __slots__ = ("frame_id", "sequence", "texts", "time_ns")

    def __init__(self, sequence: int, time_ns: int, frame_id: int, texts: Sequence[str]) -> None:
        self.sequence = sequence
        self.time_ns = time_ns
        self.frame_id = frame_id
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def _at(self, place: int) -> Event:
        payload = FramePut(self.frame_id + place, Content(self.texts[place]))
        return Event(self.sequence + place, self.time_ns, None, payload)

    @property
    def last_sequence(self) -> int:
        """The sequence of the last of them."""
        return self.sequence + len(self.texts) - 1


class Joined(LazyEvents):
    """Several sequences of events, as one."""

    __slots__ = ("parts",)

    def __init__(self, parts: Iterable[Sequence[Event]]) -> None:
        self.parts = list(parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Event]:
        return chain.from_iterable(self.parts)

    def _at(self, place: int) -> Event:
        for part in self.parts:
            if place < len(part):
                return part[place]
            place -= len(part)
        raise IndexError(place)


def joined(parts: Iterable[Sequence[Event]]) -> Sequence[Event]:
    """Events in parts, as one; a list where all of them are there anyway."""
    given = [part for part in parts if part]
    if any(isinstance(part, LazyEvents) for part in given):
        return Joined(given)
    return [event for part in given for event in part]


def parts_of(events: Sequence[Event]) -> list[Sequence[Event]]:
    """What :class:`Joined` events are made of; else the events themselves."""
    return events.parts if isinstance(events, Joined) else [events]


def kept_events(events: LazyEvents) -> list[Event]:
    """Those events that are no :class:`TextPuts`."""
    parts = (part for part in parts_of(events) if not isinstance(part, TextPuts))
    return [event for part in parts for event in part]
