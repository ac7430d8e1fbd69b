"""Conversations of Pydantic AI's harness, in a collection. See :mod:`.pydantic_ai`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai_harness.step_persistence.conversations import (
    ConversationConflict,
    ConversationSummary,
    SavedConversation,
    conversation_text,
    ensure_inactive,
)

from .. import (
    Check,
    Collection,
    Delete,
    DeletePrefix,
    Put,
    Store,
    SyncStore,
    Value,
    VersionConflictError,
)
from .collection_bridge import Bridge, part
from .pydantic_steps import kept_messages, read_messages, without_run

_SUMMARY = TypeAdapter(ConversationSummary)
# What naming a conversation decides, beside those who go on with it.
_NAMED = (
    "title",
    "subtitle",
    "tags",
    "title_source",
    "naming_version",
    "named_revision",
    "naming_tokens",
)
_STALE = "the conversation was changed in another process; get it again, and go on from there"
_GONE = "the conversation was deleted, or never saved; begin another one"


class MemvidConversationStore:
    """Conversations with the methods of the harness's ``SqliteConversationStore``.

    ``store``: an open :class:`Store` (on its event loop) or :class:`SyncStore`; it is not closed.
    ``collection``: the collection's name, that of the :class:`MemvidStepStore` whose runs belong
    to the conversations: deleting one deletes its runs.

    Every change compares and sets: of two processes that go on from one revision, one succeeds and
    the other gets the harness's ``ConversationConflict``.
    """

    def __init__(self, store: Store | SyncStore, *, collection: str = "pydantic-ai") -> None:
        self._bridge = Bridge(store, collection)

    async def save(
        self, *, summary: ConversationSummary, messages: Sequence[ModelMessage]
    ) -> ConversationSummary:
        """Keep a conversation, if the summary's revision is the newest; return its new summary.

        :raises ConversationConflict: when it is not.
        """
        own = part(summary.id)
        refs, bodies = kept_messages(f"cm/{own}/", messages)
        text = conversation_text(messages)
        tokens = sum(one.usage.total_tokens for one in messages if isinstance(one, ModelResponse))
        updated = replace(
            summary,
            revision=summary.revision + 1,
            updated_at=datetime.now(UTC),
            message_count=len(messages),
            total_tokens=tokens,
        )

        async def save(c: Collection) -> ConversationSummary:
            while True:
                held, history = await c.get_many([f"c/{own}", f"ch/{own}"])
                before = None if held is None else _SUMMARY.validate_python(held.data)
                if (0 if before is None else before.revision) != summary.revision:
                    raise ConversationConflict(_GONE if before is None else _STALE)
                saved = updated if before is None else _named_as(updated, before)
                old = set() if history is None else set(history.data[0])
                steps: list[Any] = [_unchanged(f"c/{own}", held), _put(saved)]
                steps += [Put(key, body) for key, body in bodies.items() if key not in old]
                steps += [Delete(key) for key in old if key not in bodies]
                try:
                    await c.apply([*steps, Put(f"ch/{own}", [refs, text])])
                except VersionConflictError:
                    continue
                return saved

        return await self._bridge.run(save, fresh=True)

    async def get(self, *, conversation_id: str) -> SavedConversation:
        """Return a conversation.

        :raises LookupError: when it is not there.
        """
        own = part(conversation_id)

        async def get(c: Collection) -> tuple[Any, list[Any]]:
            held, history = await c.get_many([f"c/{own}", f"ch/{own}"])
            if held is None or history is None:
                raise LookupError(f"No saved session: {conversation_id}")
            return held.data, await read_messages(c, history.data[0])

        data, messages = await self._bridge.run(get, fresh=True)
        return SavedConversation(
            summary=_SUMMARY.validate_python(data),
            messages=ModelMessagesTypeAdapter.validate_python(messages),
        )

    async def listing(
        self, *, query: str = "", limit: int = 200, offset: int = 0, archived: bool | None = None
    ) -> list[ConversationSummary]:
        """Return summaries, the one that was changed last first. ``query``: of those that have this
        in their summary or in what was said, whatever its case. ``archived``: of these alone."""
        if limit < 1 or offset < 0:
            raise ValueError("limit must be at least 1, and offset at least 0")
        wanted = query.casefold()

        async def read(c: Collection) -> list[ConversationSummary]:
            texts = {}
            if wanted:
                texts = {value.key[3:]: value.data[1] async for value in c.scan("ch/")}
            found = [(value.key[2:], value.data) async for value in c.scan("c/")]
            summaries = [(own, _SUMMARY.validate_python(data)) for own, data in found]
            return [
                one
                for own, one in summaries
                if wanted in (texts.get(own, "") + _SUMMARY.dump_json(one).decode()).casefold()
            ]

        listed = await self._bridge.run(read, fresh=True)
        if archived is not None:
            listed = [one for one in listed if (_archived_at(one) is not None) == archived]
        listed.sort(key=lambda one: one.id)
        listed.sort(key=lambda one: one.updated_at, reverse=True)
        return listed[offset : offset + limit]

    async def name(
        self,
        *,
        source: ConversationSummary,
        title: str,
        subtitle: str = "",
        tags: tuple[str, ...] = (),
        manual: bool = False,
        tokens: int = 0,
    ) -> bool:
        """Name a conversation, if neither it nor its name was changed since ``source``; return
        whether it was. ``tokens`` that this took are counted in any case. A name that a person
        chose (``manual``) is replaced by such a one only."""
        is_named = False

        def change(now: ConversationSummary) -> ConversationSummary:
            nonlocal is_named
            now = replace(now, naming_tokens=now.naming_tokens + tokens)
            same = (now.revision, now.naming_version) == (source.revision, source.naming_version)
            is_named = same and (manual or now.title_source != "user")
            if not is_named:
                return now
            return replace(
                now,
                title=title,
                subtitle=subtitle,
                tags=tags,
                title_source="user" if manual else "generated",
                naming_version=now.naming_version + 1,
                named_revision=now.revision,
            )

        return await self._changed(source.id, change) is not None and is_named

    async def set_archived(self, *, conversation_id: str, archived: bool) -> ConversationSummary:
        """Archive a conversation, or take it back; the first time is kept. Return its summary.

        :raises LookupError: when it is not there.
        """

        def change(now: ConversationSummary) -> ConversationSummary:
            if archived == (_archived_at(now) is not None):
                return now
            return replace(now, archived_at=datetime.now(UTC) if archived else None)

        changed = await self._changed(conversation_id, change)
        if changed is None:
            raise LookupError(f"No saved session: {conversation_id}")
        return changed

    async def _changed(
        self, conversation_id: str, change: Callable[[ConversationSummary], ConversationSummary]
    ) -> ConversationSummary | None:
        """Change a summary, and return it; None when it is not there."""
        key = f"c/{part(conversation_id)}"

        async def set_it(c: Collection) -> ConversationSummary | None:
            while (held := await c.get(key)) is not None:
                now = _SUMMARY.validate_python(held.data)
                changed = change(now)
                if changed == now:
                    return now
                try:
                    await c.apply([_unchanged(key, held), _put(changed)])
                except VersionConflictError:
                    continue
                return changed
            return None

        return await self._bridge.run(set_it, fresh=True)

    async def delete(self, *, source: ConversationSummary) -> None:
        """Delete a conversation with its runs. ``compact()`` erases the bytes.

        :raises ConversationConflict: when it was changed since ``source``, or is used by a process.
        """
        ensure_inactive(source)
        own = part(source.id)

        async def delete(c: Collection) -> None:
            while True:
                held = await c.get(f"c/{own}")
                if held is None or _SUMMARY.validate_python(held.data).revision != source.revision:
                    raise ConversationConflict(_GONE if held is None else _STALE)
                runs = c.scan("r/", where={"conversation": source.id})
                gone = [step async for run in runs for step in without_run(run.key[2:])]
                keys: list[Any] = [
                    Delete(f"c/{own}"),
                    Delete(f"ch/{own}"),
                    DeletePrefix(f"cm/{own}/"),
                ]
                try:
                    await c.apply([_unchanged(f"c/{own}", held), *keys, *gone])
                except VersionConflictError:
                    continue
                return

        await self._bridge.run(delete, fresh=True)


def _put(summary: ConversationSummary) -> Put:
    return Put(f"c/{part(summary.id)}", _SUMMARY.dump_python(summary, mode="json"))


def _unchanged(key: str, held: Value | None) -> Check:
    return Check(key, 0 if held is None else held.version)


def _archived_at(summary: ConversationSummary) -> datetime | None:
    # Earlier versions archive nothing.
    return getattr(summary, "archived_at", None)


def _named_as(summary: ConversationSummary, before: ConversationSummary) -> ConversationSummary:
    """Return a summary with the name that the conversation has; what goes on is not archived."""
    kept = {name: getattr(before, name) for name in _NAMED}
    if "archived_at" in {one.name for one in fields(summary)}:
        kept["archived_at"] = None
    return replace(summary, **kept)
