"""What an export has written already, and refers to instead of writing it again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from .. import Action, MessageRun, Store
from ..view.documents import Document, new_messages

# What is shorter is given again.
_SHORT = 120
_READ_TOGETHER = 250


@define
class Given:
    """What an export of some actions has given so far."""

    store: Store
    actions: Sequence[Action]
    _messages: dict[int, list[Any]] = field(factory=dict)
    _read: int = 0
    _texts: dict[str, int] = field(factory=dict)

    async def messages(self, sequence: int) -> list[Any] | None:
        """Return the messages of the action with a sequence: those that an earlier one has as
        ``{"$earlier": {"index", "first", "count"}}``. None for an action of somebody else."""
        while sequence not in self._messages and self._read < len(self.actions):
            some = self.actions[self._read : self._read + _READ_TOGETHER]
            self._read += len(some)
            for action, messages in zip(some, await new_messages(self.store, some), strict=True):
                self._messages[action.sequence] = [_told(message) for message in messages]
        return self._messages.pop(sequence, None)

    def refer(self, value: Any, sequence: int) -> None:
        """Replace each text in the document of an event that an earlier one has by ``given_in``,
        the sequence of that. Beside a whole text there is no preview of it."""
        if isinstance(value, list):
            for item in value:
                self.refer(item, sequence)
        elif isinstance(value, dict):
            for name in ("text", "base64"):
                if isinstance(value.get(name), str) and ("digest" in value or "score" in value):
                    self._refer_text(value, name, sequence)
            for name, item in value.items():
                if name not in ("metadata", "arguments", "messages"):
                    self.refer(item, sequence)

    def _refer_text(self, document: Document, name: str, sequence: int) -> None:
        text = document[name]
        # It begins the text that stands beside it, or where ``given_in`` leads to.
        document.pop("preview", None)
        if len(text) < _SHORT:
            return
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        before = self._texts.setdefault(key, sequence)
        if before != sequence:
            del document[name]
            document["given_in"] = before


def _told(message: Any) -> Any:
    if isinstance(message, MessageRun):
        run = {"index": message.index, "first": message.first, "count": message.count}
        return {"$earlier": run}
    return message
