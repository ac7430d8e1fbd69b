"""Holding the projections that are saved in a log against its events, which are folded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from ..core.reports import Problem, SavedProjection
from ..engine.event_log import View
from ..errors import CorruptFileError
from ..search import DamagedSearchIndexError, KeyIndex, OtherReleaseError, SearchIndex
from ..search.schema import TOKENIZERS
from .folded import MEMORY, FoldedMemory
from .folded_keys import COLLECTIONS, FoldedKeys

# Both return the hash of an index: as it is saved, and as its events fold, up to the same one.
_Hashes = tuple[Callable[[View, SavedProjection], bytes], Callable[[View, int], bytes]]


def check_saved(view: View) -> Iterator[Problem]:
    """Iterate over what is wrong with the saved projections of a view.

    One that another release made is left alone: this one does not use it, and folds the events.
    """
    if view.state.beyond:
        # A newer release wrote events that this one does not know.
        return
    for name, hashes in _CHECKED.items():
        at = 0
        try:
            saved = view.saved_projection(name, view.state.last_sequence)
            if saved is not None:
                at = saved.at
                yield from _check(view, name, saved, hashes)
        except CorruptFileError as error:
            yield Problem(error.offset, str(error))
        except ValueError as error:
            yield Problem(at, f"the saved projection {name!r} cannot be read: {error}")


def _check(view: View, name: str, saved: SavedProjection, hashes: _Hashes) -> Iterator[Problem]:
    hash_saved, hash_folded = hashes
    try:
        found = hash_saved(view, saved)
    except OtherReleaseError:
        return
    except DamagedSearchIndexError as error:
        raise ValueError(str(error)) from error
    if found != hash_folded(view, saved.through):
        yield Problem(saved.at, f"the saved projection {name!r} is not what the events fold to")


def _saved_memory(view: View, saved: SavedProjection) -> bytes:
    language = view.state.memory.analyser or "english"
    if language not in TOKENIZERS:
        raise OtherReleaseError(f"this release knows no analyser {language!r:.80}")
    with closing(SearchIndex(lambda *_: "", language=language)) as index:
        index.load(saved.page_count, saved.pages.items())
        return index.digest()


def _folded_memory(view: View, through: int) -> bytes:
    with closing(FoldedMemory()) as memory:
        memory.start_again(view)
        return memory.catch_up(view, through).digest()


def _saved_keys(_view: View, saved: SavedProjection) -> bytes:
    with closing(KeyIndex()) as index:
        index.load(saved.page_count, saved.pages.items())
        return index.digest()


def _folded_keys(view: View, through: int) -> bytes:
    with closing(FoldedKeys(through)) as keys:
        keys.start_again(view)
        return keys.catch_up(view).digest()


_CHECKED: dict[str, _Hashes] = {
    MEMORY: (_saved_memory, _folded_memory),
    COLLECTIONS: (_saved_keys, _folded_keys),
}
