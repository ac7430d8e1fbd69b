"""Collections as dicts and lists: a part of the naive store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2
from attrs import define

from memvid_async import KeyDeleted, KeyPut, ListChanged, PrefixDeleted
from memvid_async.core import commands


@define
class Held:
    """What a key holds: a value, or items, each with the event that brought it. ``last``: the event
    that changed it last."""

    last: int
    value: bytes | None = None
    items: list[tuple[int, bytes]] | None = None

    def answer(self) -> Any:
        """As ``asking.py`` tells it."""
        if self.items is None:
            return cbor2.loads(self.value or b"\xf6"), self.last
        return [cbor2.loads(item) for _, item in self.items], self.last


class NaiveKeys:
    """All collections: the number of each, and what each key holds."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._held: dict[tuple[int, str], Held] = {}

    def change(self, op: commands.ChangeCollection, note: Callable[..., int]) -> int:
        """Change a collection; ``note`` adds an event. Its sequence."""
        if op.name not in self.numbers:
            self.numbers[op.name] = note(0, "collection", op.name)
        number = self.numbers[op.name]
        sequence = note(0, "keys", number)
        for change in op.changes:
            if isinstance(change, PrefixDeleted):
                self._held = {
                    place: held
                    for place, held in self._held.items()
                    if place[0] != number or not place[1].startswith(change.prefix)
                }
                continue
            place = number, change.key
            before = self._held.pop(place, None)
            if isinstance(change, KeyPut):
                self._held[place] = Held(sequence, change.data)
            elif isinstance(change, ListChanged):
                items = (before.items if before is not None else None) or []
                end = None if change.count is None else change.first + change.count
                new = [(sequence, item) for item in change.items]
                self._held[place] = Held(sequence, None, items[change.first : end] + new)
            else:
                assert isinstance(change, KeyDeleted)
        return sequence

    def is_left(self, sequence: int) -> bool:
        """Whether a compaction leaves anything of an event."""
        return any(
            held.last == sequence or any(by == sequence for by, _ in held.items or ())
            for held in self._held.values()
        )

    def answers(self) -> dict[tuple[Any, ...], Any]:
        """What every collection holds."""
        return {
            ("keys", name): {
                key: held.answer() for (owner, key), held in self._held.items() if owner == number
            }
            for name, number in self.numbers.items()
        }
