"""The part of a store with its memory: put, update, delete, get, find and ask.

Inside a session, each of them also records its action.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

import anyio
from attrs import evolve

from ..config import Embedder, StoreConfig
from ..core.commands import ChangeMemory, NewFrame
from ..engine.engine import Engine
from ..errors import InvalidValueError
from ..events.content import Content
from ..events.details import ActionKind
from ..events.event import Action
from ..events.frames import FindResult, SearchMode
from ..events.prompts import Prompt
from ..events.values import LARGE, as_list
from ..recording.action_draft import NO_MESSAGES, ActionDraft, new_draft
from ..recording.callables import check_fits
from ..recording.command_intake import CommandIntake
from ..recording.prepare_values import (
    prepare_content,
    prepare_count,
    prepare_field,
    prepare_flag,
    prepare_messages,
    prepare_metadata,
    prepare_name,
    prepare_progress,
    rough_size,
)
from ..recording.recorded_in import InForce, RecordedIn
from ..recording.replies import GrowingReply, Model, check_model
from ..recording.scrubbing import limits_for
from ..recording.store_recorder import warn_unrecorded
from .answer import Answer
from .body_text import text_of
from .change_gate import ChangeGate
from .embedder import embed
from .folded import Lineage, lineage_of
from .frame_reader import FrameReader
from .keywords import UNCHANGED, AskFilters, FrameFields, FrameFilters, FrameItem, Unchanged
from .prepare_frames import prepare_embedding, prepare_fields, prepare_frames_many
from .put_once import put_once
from .re_embedding import Move
from .recall import Recall, Searched
from .store_stream import store_stream

_SMALL_COMMAND_BYTES = 256
_LOST = (
    "this is not recorded: sessions are open, but the call's context knows none of them, as in a "
    "thread of an executor; run it there with contextvars.copy_context().run"
)


class FrameStore(FrameReader):
    """The part of a store that changes its memory and asks it.

    ``recorded_in``: where what is done is recorded; by default, in the session in force. ``gate``:
    that of all changes of this memory.
    """

    def __init__(
        self,
        engine: Engine,
        intake: CommandIntake,
        recall: Recall,
        config: StoreConfig,
        recorded_in: RecordedIn | None = None,
        gate: ChangeGate | None = None,
    ) -> None:
        super().__init__(recall, config, self._lineage_in_force)
        self._engine = engine
        self._intake = intake
        self._reads = engine.reads
        self._recorded_in = recorded_in or InForce(intake)
        self._gate = gate or ChangeGate()

    def recorded_by(self, recorded_in: RecordedIn) -> FrameStore:
        """Return this memory for one call, which is recorded there."""
        config, gate = self._config, self._gate
        return FrameStore(self._engine, self._intake, self._recall, config, recorded_in, gate)

    async def _lineage_in_force(self) -> Lineage:
        """Return the memories that the session in force sees, with all that was acked so far."""
        self._engine.watch()
        view = await self._engine.fresh_view()
        session = view.state.in_force(self._recorded_in.session)
        if session is None and self._recorded_in.is_lost:
            warn_unrecorded(_LOST)
        return lineage_of(view.state, session.info.number if session is not None else 0)

    # Changing it.

    async def put(
        self,
        content: str | bytes | AsyncIterable[bytes],
        *,
        title: str | None = None,
        uri: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        media_type: str | None = None,
        embedding: Iterable[float] | None = None,
        embedding_model: str | None = None,
        replace: bool = False,
        key: str | None = None,
    ) -> int:
        """Put a frame into the memory, and return its id: 1, 2, 3 … in the order of the log.

        Text is searched, and so are bytes of a ``media_type`` that is text. A stream of bytes is
        stored in parts as it comes; its first 16 MiB are searched. ``embedding``: numbers; without
        them ``StoreConfig.embedder`` is called, if there is one. ``replace``: delete every frame
        that has this ``uri``, in the same step. ``key``: a put with the same key again adds nothing
        and returns the first one's id; with another content it is refused. The frame is durable
        when this returns (see :class:`Durability`).

        :raises InvalidValueError, LimitExceededError: when it cannot be recorded; nothing was put.
        """
        fields = {
            "title": title,
            "uri": uri,
            "metadata": metadata,
            "tags": tags,
            "media_type": media_type,
            "embedding": embedding,
            "embedding_model": embedding_model,
        }
        fields = {name: value for name, value in fields.items() if value is not None}
        if replace is not False and prepare_flag(replace, "replace") and uri is None:
            raise InvalidValueError("replace=True replaces what has a uri; pass the uri too")
        if isinstance(content, AsyncIterable):
            kept: Any = await self._stream(content)
        else:
            kept = content
        item = {"content": kept, **fields}
        ids = await self._put([item], ActionKind.PUT, uri if replace else None, key)
        return ids[0]

    async def put_many(self, items: Iterable[str | bytes | FrameItem]) -> list[int]:
        """Put several frames, all of them or none, and return their ids.

        An item is a frame's content, or a map of ``content`` and other arguments of :meth:`put`.

        :raises InvalidValueError, LimitExceededError: when an item cannot be recorded; nothing was
            put, and a note of the error says which of several items it is.
        """
        most = self._config.limits.frames
        some = as_list(items, "items must be a list of contents or of maps", most)
        return await self._put(some, ActionKind.PUT_MANY) if some else []

    async def _put(
        self,
        items: list[Any],
        kind: ActionKind,
        replaced: str | None = None,
        key: str | None = None,
    ) -> list[int]:
        started, limits = time.perf_counter(), limits_for(kind, self._config.limits)
        if len(items) == 1 and rough_size(items[0]) < LARGE:
            frames, size = prepare_frames_many(items, limits)
        else:
            frames, size = await self._reads.run(prepare_frames_many, items, limits)
        async with self._gate.alone() if replaced is not None else self._gate:
            if self._config.embedder is not None:
                frames = await self._embedded(frames)
            await self._recall.wait_for_room(size)
            command = self._change(kind, frames=frames, started=started)
            size += 512 * len(items)
            if replaced is None:
                ids = await put_once(self._intake, self._recorded_in, command, size, key)
            else:
                ids = await self._replace(command, size, replaced, key)
        self._recall.note_put(size)
        return ids

    async def _replace(
        self, command: ChangeMemory, size: int, uri: str, key: str | None
    ) -> list[int]:
        """Put a frame, delete all that have this URI, and return its id."""
        while True:
            found, memory_hash = await self._recall.with_uri(await self._lineage(), uri)
            command = command._replace(replaced=found, memory_hash=memory_hash)
            ids = await put_once(self._intake, self._recorded_in, command, size, key)
            if ids:
                return ids

    async def _embedded(self, prepared: tuple[NewFrame | str, ...]) -> tuple[NewFrame, ...]:
        frames = tuple(NewFrame(one) if isinstance(one, str) else one for one in prepared)
        texts = {}
        for i, frame in enumerate(frames):
            data = getattr(frame.content, "data", frame.content)
            text = text_of(data, frame.media_type) if isinstance(data, (str, bytes)) else ""
            if text and frame.embedding is None:
                texts[i] = text
        if not texts:
            return frames
        made, vectors = list(frames), await embed(self._config.embedder, list(texts.values()))
        for i, vector in zip(texts, vectors, strict=True):
            made[i] = evolve(
                frames[i],
                embedding=prepare_embedding(vector, self._config.limits),
                embedding_model=self._config.embedding_model,
            )
        return tuple(made)

    async def _stream(self, chunks: AsyncIterable[bytes]) -> bytes | Content:
        return await store_stream(self._intake, self._reads, self._config.limits, chunks)

    async def update(
        self,
        frame_id: int,
        content: str | bytes | AsyncIterable[bytes] | Unchanged = UNCHANGED,
        **fields: Unpack[FrameFields],
    ) -> None:
        """Change a frame's content or any field that :meth:`put` takes; the others stay.

        :raises FrameNotFoundError: when there is no frame with this id.
        :raises InvalidValueError, LimitExceededError: when a value cannot be recorded; nothing was
            changed.
        """
        started, limits = time.perf_counter(), limits_for("update", self._config.limits)
        size = 512 + rough_size(fields)
        if size < LARGE:
            changes = prepare_fields(fields, limits)
        else:
            changes = await self._reads.run(prepare_fields, fields, limits)
        if content is not UNCHANGED:
            size += rough_size(content)
            if isinstance(content, AsyncIterable):
                content = await self._stream(content)  # type: ignore[assignment]
            if isinstance(content, Content):
                changes["content"] = content
            else:
                changes["content"] = await self._reads.run(
                    prepare_content, content, "content", limits
                )
            if changes["content"] is None:
                raise InvalidValueError("content must be str, bytes or a stream of bytes")
        if not changes:
            raise InvalidValueError("an update needs content or a field to change")
        async with self._gate:
            if "content" in changes and "embedding" not in changes:
                await self._embed_again(changes)
            command = self._change(
                ActionKind.UPDATE, frame_id=frame_id, changes=changes, started=started
            )
            await self._recorded_in.change(command, size)

    async def _embed_again(self, changes: dict[str, Any]) -> None:
        """Make a new embedding for a new text, or drop the old one."""
        changes["embedding"] = changes["embedding_model"] = None
        frame = NewFrame(changes["content"], media_type=changes.get("media_type"))
        if self._config.embedder is not None:
            (frame,) = await self._embedded((frame,))
        changes |= {"embedding": frame.embedding, "embedding_model": frame.embedding_model}

    async def set_embedding_model(
        self,
        model: str,
        embed: Embedder,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Move the memory to another embedding model, and return how many frames it embedded.

        ``embed`` is called with lists of texts, as ``StoreConfig.embedder`` is, and takes the place
        of that in this store. Every text in the memory is embedded again, batch by batch;
        ``progress`` is called with how many are done and how many there are. Until the last one is
        durable, finds have the model before, also after a crash. Then they have this one, in every
        process; an embedding of any other is refused. Only texts have an embedding
        afterwards. A view of an earlier moment has the embeddings of then.

        :raises InvalidValueError: when ``embed`` returns what cannot be recorded; nothing changed.
        """
        model = prepare_field(model, "model", "title_chars", self._config.limits)
        if not callable(embed):
            raise InvalidValueError("embed must be callable")
        check_fits(embed, "embed is called with a list of texts", ([],))
        prepare_progress(progress)
        # In a read-only store it is refused before a text is embedded.
        await self._engine.sync()
        config = evolve(self._config, embedder=embed, embedding_model=model)
        move = Move(self._engine, self._intake, config, progress)
        return await move.run(self._gate, self._use)

    def _use(self, config: StoreConfig) -> None:
        self._config = config

    async def delete(self, frame_id: int) -> None:
        """Delete a frame. It is hidden at once; ``compact()`` erases its bytes.

        :raises FrameNotFoundError: when there is no frame with this id.
        """
        command = self._change(ActionKind.DELETE, frame_id=frame_id, started=time.perf_counter())
        await self._recorded_in.change(command, _SMALL_COMMAND_BYTES)

    def _change(
        self,
        kind: ActionKind,
        *,
        started: float,
        frames: tuple[NewFrame | str, ...] = (),
        frame_id: int = 0,
        changes: Mapping[str, Any] | None = None,
    ) -> ChangeMemory:
        if not frames:
            prepare_count(frame_id, "a frame id")
        if self._recorded_in.is_lost and self._engine.view.state.ambient is None:
            warn_unrecorded(_LOST)
        return ChangeMemory(
            self._recorded_in.session,
            kind,
            self._config.language,
            frames,
            frame_id,
            changes or {},
            round((time.perf_counter() - started) * 1000, 3),
            self._intake.task_name(),
            {},
        )

    # Asking it.

    async def find(
        self,
        query: str | None,
        *,
        top_k: int = 10,
        mode: SearchMode = "lexical",
        embedding: Iterable[float] | None = None,
        embedding_model: str | None = None,
        syntax: bool = True,
        task: str | None = None,
        **filters: Unpack[FrameFilters],
    ) -> FindResult:
        """Search the memory. Hits come best first, equal scores by id.

        ``mode``: ``lexical`` (by any of the words; ``"…"`` is required, ``-word`` is excluded,
        ``word*`` is a prefix, ``title:word`` looks in one field), ``semantic`` (the nearest
        embeddings by cosine) or ``hybrid``. ``syntax``: False takes the whole query for plain text,
        as for what others wrote. Filters: see :class:`FrameFilters`.

        :raises InvalidValueError: when the mode needs a query or an embedding that is missing, or
            the embedding does not fit those of the memory.
        :raises LimitExceededError: when the query or ``top_k`` is above its limit.
        """
        searched = await self.searched(
            query, top_k, mode, embedding, embedding_model, filters, syntax=syntax
        )
        draft = new_draft(
            ActionDraft,
            kind=ActionKind.FIND,
            detail=(mode, len(searched.result.hits)),
            input=query or "",
            duration_ms=searched.result.duration_ms,
            task=task,
        )
        await self._record(draft, searched, None)
        return searched.result

    async def _record(
        self, draft: ActionDraft, searched: Searched, error: BaseException | None
    ) -> Action | None:
        """Record an action that searched; None where no session is in force."""
        session, engine = self._recorded_in.session, self._engine
        if engine.writer is None or engine.view.state.in_force(session) is None:
            return None
        whole = draft._replace(
            frames=tuple(hit.frame_id for hit in searched.result.hits),
            retrieval=searched.retrieval,
        )
        return await self._recorded_in.record(whole, error)

    async def ask(
        self,
        question: str,
        *,
        generate: Model,
        provider: str | None = None,
        model: str | None = None,
        top_k: int = 5,
        mode: SearchMode = "lexical",
        embedding: Iterable[float] | None = None,
        embedding_model: str | None = None,
        syntax: bool = True,
        messages: Sequence[Any] = (),
        metadata: Mapping[str, Any] | None = None,
        task: str | None = None,
        frame_metadata: Mapping[str, Any] | None = None,
        **filters: Unpack[AskFilters],
    ) -> Answer:
        """Search the memory, let a model answer from what was found, and record both.

        ``generate(prompt)`` is called with a :class:`Prompt` and returns the reply: str, bytes, a
        :class:`Generated`, or an async iterator of them, chunk by chunk. It may be async; if it is
        not, it runs in a thread. An error that it raises is recorded as the action's, with the
        chunks so far, and raised again; a reply is never refused. ``provider`` and ``model``: their
        names, if any. Filters and ``syntax`` are as for :meth:`find`, except that ``metadata`` is
        the action's and ``frame_metadata`` filters the frames.

        :raises TypeError: when ``generate`` does not take one argument; nothing was searched.
        :raises InvalidValueError, LimitExceededError: for an argument; nothing was searched.
        """
        started = time.perf_counter()
        await self._check_ask(generate, provider, model, task, metadata, messages)
        messages = list(messages)  # the caller may change its own while the model answers
        wanted = FrameFilters(**filters, metadata=frame_metadata)
        how: Any = (question, top_k, mode, embedding, embedding_model, wanted)
        searched = await self.searched(*how, syntax=syntax, texts=True)
        growing = GrowingReply(self._config.limits.content_bytes)
        async with self._recorded_in.asking():
            prompt = Prompt(question, searched.context, messages)
            error = await growing.try_to_read(generate, prompt)
        duration_ms = round((time.perf_counter() - started) * 1000, 3)
        # A cancelled ask is recorded too, with the reply so far.
        with anyio.CancelScope(shield=isinstance(error, asyncio.CancelledError)):
            draft = new_draft(
                ActionDraft,
                kind=ActionKind.ASK,
                detail=(provider, model),
                input=question,
                duration_ms=duration_ms,
                task=task,
                metadata=metadata,
                messages=messages,
                **growing.outcome,
            )
            action = await self._record(draft, searched, error)
        if error is not None:
            raise error
        found = searched.result.hits, searched.context
        return Answer(growing.text, *found, action, duration_ms, **growing.counts)

    async def _check_ask(
        self,
        generate: Model,
        provider: str | None,
        model: str | None,
        task: str | None,
        metadata: Any,
        messages: Any,
    ) -> None:
        """Refuse what cannot be called or recorded, before a model is asked."""
        check_model(generate)
        limits = self._config.limits
        for value, what in ((provider, "provider"), (model, "model")):
            if value is not None:
                prepare_name(value, what, limits)
        if task is not None:
            self._intake.check_task(task)
        prepare_metadata(metadata, limits)
        if messages is not NO_MESSAGES:
            await self._reads.run(prepare_messages, messages, limits)
