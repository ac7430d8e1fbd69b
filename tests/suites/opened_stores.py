"""The files that a framework's tests open: one folder for all, and each is sound at the end."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from memvid_async import SyncStore

_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)
_STORES: dict[Path, SyncStore] = {}
_NUMBERS = count()


def path_of(name: object) -> Path:
    """Return where our file is for one that a test names; a new one where it names none."""
    named = None if name in (None, ":memory:") else str(name).replace("/", "_")
    return Path(_FOLDER.name) / f"{named or next(_NUMBERS)}.mva"


def opened(name: object = None) -> SyncStore:
    """Return the open store for a file or a folder that a test names; a new one for None."""
    path = path_of(name)
    if path not in _STORES:
        _STORES[path] = SyncStore.open(path)
    return _STORES[path]


def leave_out(config: pytest.Config, items: list[pytest.Item], out: list[pytest.Item]) -> None:
    """Run without these tests, and count them."""
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


@pytest.fixture(autouse=True)
def closed_stores() -> Iterator[None]:
    """Close what a test opened, and demand that it is sound."""
    yield
    while _STORES:
        _, store = _STORES.popitem()
        with store:
            assert store.verify().ok
