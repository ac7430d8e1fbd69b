"""The collections, folded from the log into an index of keys: live, or as they were at one moment.

It is synchronous and used by one thread at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

from ..engine.event_log import Folded, View
from ..errors import CorruptFileError, MemvidAsyncError
from ..events.content import EMPTY
from ..events.event import Event
from ..events.frozen_dict import FrozenDict
from ..events.keyed import (
    CollectionChanged,
    KeyDeleted,
    KeyPut,
    KeyRenewed,
    ListChanged,
    PrefixDeleted,
    Value,
)
from ..events.pace import unhurried
from ..events.values import decode_value
from ..search import Change, DamagedSearchIndexError, KeptItem, KeptKey, KeyIndex
from ..search.conditions import as_json
from .folded import Due
from .key_vectors import FoundValue, KeyVectors

COLLECTIONS = "collections"
# A save is due when this many changes were folded since the last one, or this part of all keys
# (1/16) where that is more: they may be anywhere, and change a page each. On closing a smaller part
# will do, which the next opener need not fold then.
_SAVE_CHANGES, _SAVE_PART, _CLOSING_PART = 512, 16, 256
# When this many times the pages of the index were saved, the next save is whole.
_MOST_SAVED = 3
_NOT_FOLDABLE = (DamagedSearchIndexError, KeyError, ValueError)


def item_hash(item: bytes) -> bytes:
    """Return the hash by which equal items of a list are found: BLAKE2b-128 of the CBOR."""
    return hashlib.blake2b(item, digest_size=16).digest()


class FoldedKeys:
    """The keys of all collections up to the last event asked for.

    ``until``: the last event that counts.
    """

    def __init__(self, until: int = 2**63) -> None:
        self._until = until
        self._view: View | None = None
        self._index: KeyIndex | None = None
        self._through = 0
        self._hint: int | None = None
        self._unsaved = self._saved_at = self._saved_pages = 0
        self._part = _SAVE_PART
        # By collection and model.
        self._vectors: dict[tuple[int, str], KeyVectors] = {}

    @property
    def is_open(self) -> bool:
        """Whether it has folded anything yet."""
        return self._index is not None

    @property
    def most_unsaved(self) -> int:
        """How many bytes may be put while a save goes on."""
        return 2**62

    def close(self) -> None:
        """Close the index, and release its memory."""
        if self._index is not None:
            self._index.close()
            self._index = None
        self._vectors.clear()

    def leave(self, view: View) -> None:
        """Close the index if it was folded from another file than the view's."""
        if self._view is not None and self._view.edition is not view.edition:
            self.close()
            self._view = None

    # Folding.

    def catch_up(self, view: View) -> KeyIndex:
        """Fold the events of the view that the index does not have yet.

        :raises CorruptFileError: when the log is damaged.
        """
        if self._index is None or self._view is None or self._view.edition is not view.edition:
            self._restart(view, load=True)
        if self._view is None or self._view.state.last_sequence <= view.state.last_sequence:
            self._view = view
        try:
            if self._saved_at:
                with suppress(*_NOT_FOLDABLE):
                    return self._fold(view)
                # A saved index may load and still be wrong. Then the events are folded again.
                self._restart(view, load=False)
            return self._fold(view)
        except _NOT_FOLDABLE as error:
            self.close()
            raise view.damage(max(1, self._through), f"the keys do not fold: {error}") from None
        except BaseException:
            # A part of it may be in the index: the next call starts again.
            self.close()
            raise

    def start_again(self, view: View) -> None:
        """Let the next call fold all events again."""
        self._restart(view, load=False)

    def _restart(self, view: View, *, load: bool) -> None:
        self.close()
        self._view, self._index = view, KeyIndex()
        self._through = self._unsaved = self._saved_at = self._saved_pages = 0
        self._hint = None
        if load:
            self._load(view, self._index, min(view.state.last_sequence, self._until))

    def _load(self, view: View, index: KeyIndex, until: int) -> None:
        try:
            saved = view.saved_projection(COLLECTIONS, until)
            if saved is None:
                return
            index.load(saved.page_count, saved.pages.items())
        except (CorruptFileError, ValueError, OSError):
            # The index can be made again from the events.
            index.clear()
            return
        if index.through > until:
            index.clear()
            return
        self._saved_at, self._through = saved.at, index.through
        self._saved_pages = len(saved.pages)

    def _fold(self, view: View) -> KeyIndex:
        index = self._index
        assert index is not None
        last = min(view.state.last_sequence, self._until)
        if self._through < last:
            hint = self._hint
            found = view.collection_events(self._through, last, hint)
            # Of each collection whether any of its keys may hold a list.
            has_lists = {n: info.has_lists for n, info in view.state.collections.by_number.items()}
            for event, hint in unhurried(found):
                payload = event.payload
                if isinstance(payload, CollectionChanged):
                    holds = has_lists.get(payload.collection, True)
                    self._take_in(index, event, payload, hint, has_lists=holds)
            index.put_waiting()
            self._through = index.through = last
            # Before the end of a view, the last command may have more events.
            self._hint = hint if last == view.state.last_sequence else None
        return index

    def _take_in(
        self,
        index: KeyIndex,
        event: Event,
        payload: CollectionChanged,
        hint: int,
        *,
        has_lists: bool,
    ) -> None:
        number = payload.collection
        for place, change in enumerate(payload.changes):
            at = Change(event.sequence, event.time_ns, hint, place)
            if isinstance(change, KeyPut):
                if has_lists:
                    index.drop_list(number, change.key)
                searched = None if change.metadata is None else _searched(change.metadata)
                index.put(number, change.key, at, change.expires_ns, searched)
            elif isinstance(change, ListChanged):
                hashes = list(map(item_hash, change.items))
                index.change_list(number, change.key, at, change.first, change.count, hashes)
            elif isinstance(change, KeyRenewed):
                index.renew(number, change.key, change.expires_ns)
            elif isinstance(change, PrefixDeleted):
                index.delete_prefix(number, change.prefix)
            else:
                assert isinstance(change, KeyDeleted)
                index.delete(number, change.key)
        self._unsaved += len(payload.changes)

    # Reading.

    def value(self, kept: KeptKey) -> Value:
        """Return what a key holds, from what the index keeps of it; of a list all items."""
        assert self._view is not None
        assert self._index is not None
        data: Any
        metadata: Mapping[str, Any] = EMPTY
        if kept.list is not None:
            data = self.items(self._index.items(kept.list))
        else:
            change = self._view.key_change(kept.hint, kept.version, kept.place)
            if not isinstance(change, KeyPut) or change.key != kept.key:
                raise CorruptFileError(kept.hint, f"key {kept.key!r:.80} is not there")
            data = _decoded(kept.hint, change.data)
            if change.metadata is not None:
                metadata = FrozenDict(_decoded(kept.hint, change.metadata))
        return Value(kept.key, data, metadata, kept.version, kept.time_ns, kept.expires_ns)

    def items(self, kept: Sequence[KeptItem]) -> list[Any]:
        """Return items of a list, from what the index keeps of them."""
        assert self._view is not None
        found = []
        for (sequence, hint, place), run in groupby(kept, lambda item: item[:3]):
            change = self._view.key_change(hint, sequence, place)
            items = change.items if isinstance(change, ListChanged) else ()
            for one in run:
                if one.item >= len(items):
                    raise CorruptFileError(hint, "an item of a list is not there")
                found.append(_decoded(hint, items[one.item]))
        return found

    def nearest(
        self, number: int, model: str, query: bytes, limit: int, kept: Sequence[KeptKey]
    ) -> list[FoundValue]:
        """Return those of these keys of a collection whose embeddings by this model are nearest to
        that of a query, with their values."""
        assert self._view is not None
        view = self._view

        def read(one: KeptKey) -> tuple[bytes, ...]:
            change = view.key_change(one.hint, one.version, one.place)
            fits = isinstance(change, KeyPut) and change.embedding_model == model
            return change.embeddings if fits else ()  # type: ignore[union-attr]

        vectors = self._vectors.get((number, model))
        if vectors is None or vectors.dimension * 4 != len(query) or vectors.is_full:
            vectors = self._vectors[number, model] = KeyVectors(len(query) // 4)
        found = vectors.nearest(query, limit, [one for one in kept if one.list is None], read)
        return [FoundValue(self.value(one), score) for one, score in found]

    # Saving.

    def expect_closing(self) -> None:
        """Let a save be due for less, as it is the last one."""
        self._part = max(self._part, _CLOSING_PART)

    def due(self, view: View) -> Due | None:
        """Return what :meth:`EventLog.save_projection` takes; None while too little is new."""
        index = self.catch_up(view)
        if self._unsaved < _SAVE_CHANGES or self._unsaved < index.count // self._part:
            return None
        if self._saved_pages > _MOST_SAVED * index.page_count:
            self._saved_at = self._saved_pages = 0
        if not self._saved_at:
            index.forget_saved()
        try:
            dump = index.dump()
        except OSError:
            # The saved index is only a cache, and the next change tries again.
            return None
        self._unsaved = 0
        self._saved_pages += len(dump.pages)
        edition = view.edition
        return COLLECTIONS, edition, self._saved_at, self._through, dump.page_count, dump.pages

    def rest(self) -> None:
        """Release what saving needs, because no save will follow soon."""
        if self._index is not None:
            self._index.rest()

    def saved(self, at: int) -> None:
        """Note where the last dump was saved; 0: it was not, and the next one will be whole."""
        self._saved_at = at
        if not at:
            self._saved_pages = 0


def fold_keys(view: View) -> Folded | None:
    """Fold the keys of a view, and return their index as it is saved. None while it is small, or
    where it cannot be folded."""
    folded = FoldedKeys()
    try:
        due = folded.due(view)
    except MemvidAsyncError:
        return None
    finally:
        folded.close()
    return None if due is None else (COLLECTIONS, *due[3:])


def _searched(encoded: bytes) -> str:
    """Return the metadata of a value as the index has it."""
    metadata = decode_value(encoded)
    if not isinstance(metadata, dict):
        raise ValueError("metadata is not a map")  # noqa: TRY004 - it does not fold
    return as_json(metadata)


def _decoded(hint: int, data: bytes) -> Any:
    try:
        return decode_value(data)
    except ValueError as error:
        raise CorruptFileError(hint, str(error)) from None
