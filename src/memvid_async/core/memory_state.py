"""What is needed of the memory to decide a command.

That is how many frames there are, which are gone, and a digest of everything that happened to them.
The frames themselves are not needed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..events.content import content_digest
from ..events.decided import AnyEvent
from ..events.digests import memory_digest
from ..events.embeddings import EmbeddingModelSet, EmbeddingsMade
from ..events.frames import (
    FrameDeleted,
    FramesPut,
    MemoryConfigured,
)
from .persistent_map import PersistentMap

EMPTY_MEMORY_HASH = content_digest(b"")
NO_FRAMES: PersistentMap[int, int] = PersistentMap()


class Branch(NamedTuple):
    """The memory of a forked session: its parent's up to the fork, and its own changes since."""

    parent: int
    """The number of the memory that it continues; 0 for the one that all sessions share."""
    base_sequence: int
    """The last event of the parent that counts."""
    base_frame: int
    """The last frame id that was assigned before the fork."""
    frame_count: int
    memory_hash: bytes
    gone: PersistentMap[int, int] = NO_FRAMES
    """The frames deleted in it, each with the sequence of its deletion."""


class MemoryState(NamedTuple):
    """The memory that all sessions share, and its branches by number.

    ``last_frame``: the last frame id that was assigned in any of them. ``gone``: the frames deleted
    in the shared memory, each with the sequence of its deletion. ``owners``: of each frame that was
    put in a branch, that branch. ``analyser``: None until the first frame. ``dimension``: 0 until
    the first embedding.
    """

    last_frame: int = 0
    frame_count: int = 0
    memory_hash: bytes = EMPTY_MEMORY_HASH
    analyser: str | None = None
    embedding_model: str | None = None
    dimension: int = 0
    gone: PersistentMap[int, int] = NO_FRAMES
    owners: PersistentMap[int, int] = NO_FRAMES
    branches: PersistentMap[int, Branch] = PersistentMap()

    def summary(self, branch: int) -> tuple[int, bytes]:
        """Return how many frames a memory holds, and its hash."""
        found = self.branches.get(branch) if branch else None
        if found is not None:
            return found.frame_count, found.memory_hash
        return self.frame_count, self.memory_hash

    def hashes(self) -> tuple[bytes, ...]:
        """Return the hash of each memory, the shared one first. They change with any of them."""
        branches = sorted(self.branches.items())
        return (self.memory_hash, *(branch.memory_hash for _, branch in branches))

    def lineage(self, branch: int) -> list[tuple[int, int, int]]:
        """Return the memories that a branch consists of, its own first and the shared one last.

        Each is a number, with the last sequence and the last frame id of it that count.
        """
        chain, sequence, frame = [], 2**63, 2**63
        while branch:
            chain.append((branch, sequence, frame))
            found = self.branches[branch]
            sequence, frame = min(sequence, found.base_sequence), min(frame, found.base_frame)
            branch = found.parent
        return [*chain, (0, sequence, frame)]

    def holds(self, frame_id: int, branch: int) -> bool:
        """Whether the memory of a branch (0: the shared one) has this frame."""
        owner = self.owners.get(frame_id, 0)
        held = False
        for number, until, last in self.lineage(branch):
            gone = self.branches[number].gone if number else self.gone
            if frame_id in gone and gone[frame_id] <= until:
                return False
            held = held or (number == owner and 0 < frame_id <= min(last, self.last_frame))
        return held


def fold_memory(memory: MemoryState, event: AnyEvent) -> MemoryState:
    """Return the memory after an event that changes it; for an unknown branch only ids change."""
    payload: Any = event.payload
    if isinstance(payload, EmbeddingsMade):
        # Nobody uses them yet.
        return memory
    digest = memory_digest(payload)
    if isinstance(payload, FramesPut):
        return _put(memory, payload, digest)
    if isinstance(payload, MemoryConfigured):
        memory = memory._replace(memory_hash=content_digest(memory.memory_hash + digest))
        if memory.analyser is None:
            memory = memory._replace(analyser=payload.analyser)
        if not memory.dimension:
            model, dimension = payload.embedding_model, payload.dimension
            memory = memory._replace(embedding_model=model, dimension=dimension)
        return memory
    if isinstance(payload, EmbeddingModelSet):
        hashed = content_digest(memory.memory_hash + digest)
        model, dimension = payload.model, payload.dimension
        return memory._replace(memory_hash=hashed, embedding_model=model, dimension=dimension)
    frame_id, number = payload.frame_id, payload.branch
    part = memory.branches.get(number) if number else memory
    if part is None:
        return memory
    gone, count = part.gone, part.frame_count
    if isinstance(payload, FrameDeleted):
        gone, count = gone.set(frame_id, event.sequence), max(0, count - 1)
    hashed = content_digest(part.memory_hash + digest)
    if isinstance(part, Branch):
        part = part._replace(frame_count=count, memory_hash=hashed, gone=gone)
        return memory._replace(branches=memory.branches.set(number, part))
    return memory._replace(frame_count=count, memory_hash=hashed, gone=gone)


def _put(memory: MemoryState, put: FramesPut, digest: bytes) -> MemoryState:
    number, added = put.branch, len(put.kept)
    last = max(memory.last_frame, put.frame_id + added - 1)
    if not number:
        # The hot path. ``_replace`` would take three times as long.
        hashed = content_digest(memory.memory_hash + digest)
        return MemoryState(last, memory.frame_count + added, hashed, *memory[3:])
    owners = memory.owners.changed(dict.fromkeys(put.frame_ids, number))
    memory = memory._replace(last_frame=last, owners=owners)
    branch = memory.branches.get(number)
    if branch is None:
        return memory
    hashed = content_digest(branch.memory_hash + digest)
    branch = branch._replace(frame_count=branch.frame_count + added, memory_hash=hashed)
    return memory._replace(branches=memory.branches.set(number, branch))
