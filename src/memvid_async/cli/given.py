"""What an export has written already, and refers to instead of writing it again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from .. import Action, MessageRun, Store
from ..view.documents import Document, new_messages

# What is shorter is given again.
_SHORT = 30
_READ_TOGETHER = 250
# What was recorded under these keys is somebody else's: it is left as it is.
_THEIRS = ("metadata", "arguments", "messages")


@define
class Given:
    """What an export of some actions has given so far."""

    store: Store
    actions: Sequence[Action]
    _messages: dict[int, list[Any]] = field(factory=dict)
    _read: int = 0
    _texts: dict[bytes, tuple[int, str]] = field(factory=dict)
    _starts: dict[int, str | None] = field(factory=dict)

    async def messages(self, sequence: int) -> list[Any] | None:
        """Return the messages of the action with a sequence: those that an earlier one has as
        ``{"$earlier": {"index", "first", "count"}}``. None for an action of somebody else."""
        while sequence not in self._messages and self._read < len(self.actions):
            some = self.actions[self._read : self._read + _READ_TOGETHER]
            self._read += len(some)
            for action, messages in zip(some, await new_messages(self.store, some), strict=True):
                self._messages[action.sequence] = [_told(message) for message in messages]
        return self._messages.pop(sequence, None)

    def line_of(self, document: Document) -> Document:
        """Return the document of an event without what it, or an earlier one, has already: a text
        is replaced by ``given_in``, the sequence of the event that has it, and a message's by
        ``{"$given": {"sequence", "field"}}``. What is null or empty is left out."""
        payload, sequence = document["payload"], document["sequence"]
        made = payload.get("action", payload)
        self._refer_call(made, document)
        self._refer(payload, sequence)
        for message in made.get("messages") or ():
            self._refer_message(message, sequence)
        return {**document, "payload": _filled(payload)}

    def _refer_call(self, made: Document, document: Document) -> None:
        """Leave out of an action what the line of its start has, and of both their own time."""
        content = made.get("input")
        if "start_sequence" not in made:
            return
        for name in ("time_ns", "started_ns"):
            if made.get(name) == document["time_ns"]:
                del made[name]
        if content is None:
            return
        start, digest = made["start_sequence"], content["digest"]
        if start == document["sequence"]:
            self._starts[start] = None if content.get("is_erased") else digest
        elif self._starts.pop(start, None) == digest:
            made.pop("started_ns", None)
            made.pop("arguments", None)
            made["input"] = {"given_in": start}
        if made.get("arguments") is not None:
            # The same in CBOR.
            for name in ("base64", "text", "preview"):
                content.pop(name, None)

    def _refer(self, value: Any, sequence: int, field: str | None = None) -> None:
        """Replace each text in a value that an earlier event has. Beside a whole text there is no
        preview of it. ``field``: the name of the value."""
        if isinstance(value, list):
            for item in value:
                self._refer(item, sequence, field)
        elif isinstance(value, dict):
            for name in ("text", "base64"):
                if isinstance(value.get(name), str) and ("digest" in value or "score" in value):
                    # It begins the text that stands beside it, or where ``given_in`` leads to.
                    value.pop("preview", None)
                    before = self._first(value[name], sequence, field)
                    if before is not None and before[0] != sequence:
                        del value[name]
                        value["given_in"] = before[0]
            for name, item in value.items():
                if name not in _THEIRS:
                    self._refer(item, sequence, name)

    def _refer_message(self, message: Any, sequence: int) -> None:
        text = message.get("content") if isinstance(message, dict) else None
        if isinstance(text, str):
            before = self._first(text, sequence, None)
            if before is not None and before[1] in ("input", "output"):
                given = {"sequence": before[0], "field": before[1]}
                message["content"] = {"$given": given}

    def _first(self, text: str, sequence: int, field: str | None) -> tuple[int, str] | None:
        """Return the event that has a text, and in which field; None for a short text, and for a
        new one, which ``field`` of the event with ``sequence`` has from now on."""
        if len(text) < _SHORT:
            return None
        data = text.encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(data, digest_size=16).digest()
        before = self._texts.get(key)
        if before is None and field is not None:
            self._texts[key] = sequence, field
        return before


def _filled(value: Any) -> Any:
    """Return a value of ours without what is null or empty in it."""
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if not isinstance(value, dict):
        return value
    filled = {
        name: item if name in _THEIRS else _filled(item)
        for name, item in value.items()
        if item is not None
    }
    return {
        name: item
        for name, item in filled.items()
        if name == "arguments" or not isinstance(item, (list, dict)) or item
    }


def _told(message: Any) -> Any:
    if isinstance(message, MessageRun):
        run = {"index": message.index, "first": message.first, "count": message.count}
        return {"$earlier": run}
    return message
