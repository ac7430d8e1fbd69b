"""The methods of a store that read what an action holds: contents, messages, contexts, chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from ..engine.engine import Engine
from ..engine.event_log import View
from ..engine.reading import PartReader, decode_arguments, read_messages, read_new_messages
from ..errors import InvalidValueError
from ..events.calls import ActionStarted
from ..events.content import Content
from ..events.details import WITH_ARGUMENTS, ActionKind
from ..events.event import Action
from ..events.frames import Context
from ..events.prompts import split_text
from ..events.values import as_list, decode_value
from ..memory.past import context_of
from ..memory.why import Why, why_of

# A content is streamed in pieces of at most this many bytes, or in the parts in which it was put.
_PIECE_BYTES = 1024 * 1024
_WITH_FRAMES = (ActionKind.ASK, ActionKind.FIND)


class Contents:
    """The methods of a store that read what its actions hold."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._read = engine.read

    async def read_content(self, content: Content) -> bytes:
        """Return the bytes of an action's input or output, or of a frame; text as UTF-8.

        :raises ContentNotFoundError: when the content is not in this file.
        :raises CorruptFileError: when it is damaged.
        """
        return await self._read(_data, _content(content))

    async def stream_content(self, content: Content) -> AsyncIterator[bytes]:
        """Yield the bytes of a content piece by piece.

        A content that was put as a stream is read 1 MiB at a time.

        :raises ContentNotFoundError, CorruptFileError: as for :meth:`read_content`; after the last
            piece, when the content does not match its digest.
        """
        stored = _content(content).stored
        if stored is None or not stored.parts:
            data = await self._read(_data, content)
            for at in range(0, len(data), _PIECE_BYTES):
                yield data[at : at + _PIECE_BYTES]
            return
        parts = PartReader(content, stored)
        for place in range(parts.count):
            yield await self._read(parts.read, place)
        parts.check()

    async def read_arguments(self, action: Action | ActionStarted) -> Any:
        """Return the arguments of a tool call, or the input of a step, decoded; also of one in
        flight.

        :raises InvalidValueError: when the action has none.
        :raises ContentNotFoundError, CorruptFileError: as for :meth:`read_content`.
        """
        if not isinstance(action, ActionStarted):
            _action(action)
        if action.kind not in WITH_ARGUMENTS or action.input is None:
            raise InvalidValueError(f"a {action.kind} has no arguments")
        data = action.input.data
        if isinstance(data, bytes):
            # What is small is with its action. Damage is reported by reading, below.
            self._engine.check_open()
            self._engine.home.check_task()
            with suppress(ValueError):
                return decode_value(data)
        return await self._read(decode_arguments, action)

    async def read_messages(self, action: Action) -> list[Any]:
        """Return the messages of an ask as they were passed; an empty list when there were none.

        :raises ContentNotFoundError, CorruptFileError: as for :meth:`read_content`.
        """
        if not getattr(_action(action).details, "message_count", 0):
            return []
        return await self._read(read_messages, action)

    async def read_new_messages(self, actions: Iterable[Action]) -> list[list[Any]]:
        """Return for each ask its messages in order, those that an earlier ask of its session has
        not repeated: a :class:`MessageRun` says which those are.

        An empty list for an action without messages. A chat that grows with each ask is read in
        the time that its messages take once.

        :raises ContentNotFoundError, CorruptFileError: as for :meth:`read_content`.
        """
        given = [_action(action) for action in as_list(actions, "actions must be a list")]
        asks = [one for one in given if getattr(one.details, "message_count", 0)]
        read = iter(await self._read(read_new_messages, asks))
        return [next(read) if getattr(one.details, "message_count", 0) else [] for one in given]

    async def read_context(self, action: Action) -> Context:
        """Return what a ``find`` or an ``ask`` of the store retrieved, as it was then.

        The text of a frame that was erased since is None.

        :raises InvalidValueError: when the action retrieved nothing from this file's memory.
        :raises CorruptFileError: when it is damaged.
        """
        if _action(action).retrieval is None:
            raise InvalidValueError(f"the {action.kind} did not search the store's memory")
        return await self._read(context_of, action)

    async def why(self, action: Action) -> Why:
        """Return what an ask or a find was given from the memory: each frame with its body as it
        was, who put that, and the later asks that were given the same frame.

        It reads all events after the action.

        :raises InvalidValueError: when the action is another kind.
        :raises CorruptFileError: when it cannot be read.
        """
        if _action(action).kind not in _WITH_FRAMES:
            raise InvalidValueError(f"a {action.kind} was given no frames; ask why of an ask")
        return await self._read(why_of, action)

    async def read_chunks(self, action: Action) -> list[str] | list[bytes]:
        """Return the reply to an ask in its chunks, in bytes if it came in bytes.

        A reply that was recorded whole is one chunk.

        :raises InvalidValueError: when the action is not an ask.
        :raises ContentNotFoundError, CorruptFileError: as for :meth:`read_content`.
        """
        if _action(action).kind is not ActionKind.ASK:
            raise InvalidValueError(f"a {action.kind} has no reply")
        if action.output is None:
            return []
        text = await self._read(_value, _content(action.output))
        lengths = () if action.reply is None else action.reply.chunks
        return split_text(text, lengths)


def _data(view: View, content: Content) -> bytes:
    return view.data(content)


def _value(view: View, content: Content) -> str | bytes:
    return view.value(content)


def _content(value: object) -> Content:
    if not isinstance(value, Content):
        raise InvalidValueError(f"content must be a Content, not {type(value).__name__}")
    return value


def _action(value: object) -> Action:
    if not isinstance(value, Action):
        raise InvalidValueError(f"action must be an Action, not {type(value).__name__}")
    return value
