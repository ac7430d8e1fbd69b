"""Moving a memory to another embedding model: every text is embedded again.

The embeddings are stored batch by batch, as events that change nothing yet; one last event puts
them in use. What was put in the meantime is embedded too, before that. So finds have all embeddings
of the old model, or all of the new one, and a crash on the way leaves the old one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from ..config import StoreConfig
from ..core.commands import AddEmbeddings, SetEmbeddingModel
from ..engine.engine import Engine
from ..engine.event_log import View
from ..errors import InvalidValueError
from ..events.embeddings import NewEmbedding
from ..events.frames import FrameDeleted, FrameErased, FramePut, FramesPut, FrameUpdated
from ..events.pace import unhurried
from ..recording.command_intake import CommandIntake
from .change_gate import ChangeGate
from .embedder import embed
from .folded import read_text
from .prepare_frames import prepare_embedding

# A batch is full at this many texts, or at this many characters. An event has about this many bytes
# of embeddings at most.
_TEXTS = 64
_CHARS = 256 * 1024
_EVENT_BYTES = 1024 * 1024
# After this many rounds, changes of this process wait for what is left.
_ROUNDS = 2

Progress = Callable[[int, int], None]
# A frame's id, and a version of it: sequence and place.
_Frame = tuple[int, int, int]


class Move:
    """One move of a memory to the embedder and the model of a configuration."""

    def __init__(
        self,
        engine: Engine,
        intake: CommandIntake,
        config: StoreConfig,
        progress: Progress | None,
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._config = config
        self._progress = progress
        self._begin(-1)

    def _begin(self, generation: int) -> None:
        self._generation = generation
        self._move = self._dimension = self._done = self._total = 0
        # The last event whose texts were embedded.
        self._through = 0
        self._types: dict[int, str | None] = {}
        self._digest = hashlib.blake2b(digest_size=32)

    async def run(self, gate: ChangeGate, use: Callable[[StoreConfig], None]) -> int:
        """Make all embeddings and put them in use; return how many there are.

        ``use`` is called with the configuration before another change of this process goes on.
        """
        for _ in range(_ROUNDS):
            await self._embed_new()
        async with gate.alone():
            while True:
                view = await self._embed_new()
                model = self._config.embedding_model
                assert model is not None
                command = SetEmbeddingModel(
                    model,
                    self._dimension,
                    self._move,
                    self._digest.digest(),
                    view.state.memory.hashes(),
                    self._generation,
                )
                if await self._intake.submit(command) is not None:
                    use(self._config)
                    return self._done

    async def _embed_new(self) -> View:
        """Embed the texts that are new since the last round, up to the view that is returned."""
        view = await self._engine.fresh_view()
        if view.state.generation != self._generation:
            # A compaction erased what nobody used yet.
            self._begin(view.state.generation)
        reads = self._engine.reads
        frames = await reads.run(self._frames, view)
        self._total += len(frames)
        batches = self._batches(view, frames)
        while batch := await reads.run(next, batches, None):
            await self._embed(*batch)
        self._through = view.state.last_sequence
        return view

    async def _embed(self, frames: list[_Frame], texts: list[str], seen: int) -> None:
        if texts:
            vectors = await embed(self._config.embedder, texts)
            made = [
                NewEmbedding(*frame, self._checked(vector))
                for frame, vector in zip(frames, vectors, strict=True)
            ]
            step = max(1, _EVENT_BYTES // (4 * self._dimension))
            for at in range(0, len(made), step):
                part = tuple(made[at : at + step])
                size = sum(len(one.vector) for one in part)
                self._move = await self._intake.submit(AddEmbeddings(self._move, part), size)
                for one in part:
                    self._digest.update(one.vector)
        self._done += len(texts)
        self._total -= seen - len(texts)
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _checked(self, value: Any) -> bytes:
        vector = prepare_embedding(value, self._config.limits)
        if vector is None:
            raise InvalidValueError("the embedder returned None for a text")
        self._dimension = self._dimension or len(vector) // 4
        if len(vector) != 4 * self._dimension:
            raise InvalidValueError(
                f"the embedder returned embeddings of {self._dimension} and of "
                f"{len(vector) // 4} dimensions"
            )
        return vector

    # In the thread that reads.

    def _frames(self, view: View) -> list[tuple[_Frame, int]]:
        """Return the versions of frames that are new in the view, each with its hint.

        Where no session has a memory of its own, versions that were replaced are left out.
        """
        found: dict[Any, tuple[_Frame, int]] = {}
        forked = bool(view.state.memory.branches)
        for event, hint in unhurried(view.memory_events(self._through, view.state.last_sequence)):
            payload, sequence = event.payload, event.sequence
            if isinstance(payload, FramesPut):
                for place, kept in enumerate(unhurried(payload.kept)):
                    frame = (payload.frame_id + place, sequence, place)
                    if not isinstance(kept, FrameErased):
                        found[frame if forked else frame[0]] = frame, hint
                    if isinstance(kept, FramePut):
                        self._types[frame[0]] = kept.media_type
            elif isinstance(payload, FrameUpdated):
                changes, frame = payload.changes, (payload.frame_id, sequence, 0)
                if "media_type" in changes:
                    self._types[frame[0]] = changes["media_type"]
                if changes.get("content") is not None:
                    found[frame if forked else frame[0]] = frame, hint
            elif isinstance(payload, FrameDeleted) and not forked:
                found.pop(payload.frame_id, None)
        return list(found.values())

    def _batches(
        self, view: View, frames: list[tuple[_Frame, int]]
    ) -> Iterator[tuple[list[_Frame], list[str], int]]:
        """Iterate over batches: frames with a text, their texts, and how many were looked at."""
        some: list[_Frame] = []
        texts: list[str] = []
        seen = size = 0
        for frame, hint in unhurried(frames):
            content = view.frame_content(hint, frame[1:])
            text = read_text(view, content, self._types.get(frame[0]))
            seen += 1
            if text:
                some.append(frame)
                texts.append(text)
                size += len(text)
            if len(texts) == _TEXTS or size >= _CHARS:
                yield some, texts, seen
                some, texts, seen, size = [], [], 0, 0
        if seen:
            yield some, texts, seen
