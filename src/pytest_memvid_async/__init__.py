"""The pytest plugin: record an agent's calls the first time, serve them from then on.

It stands beside the library and not in it, as pytest imports it before anything else: the library
itself is imported by the first test that asks for the fixture.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from memvid_async import ServedSession

Recording = Callable[..., "AbstractAsyncContextManager[ServedSession]"]

FOLDER = "recordings"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--recordings``."""
    parser.getgroup("memvid_async").addoption(
        "--recordings",
        choices=("once", "never", "all"),
        default="once",
        help="Record what memvid_recording has no file for (once), nothing (never), or all anew.",
    )


@pytest.fixture
def memvid_recording(request: pytest.FixtureRequest) -> Recording:
    """A function that gives a :class:`memvid_async.ServedSession` for an ``async with`` block.

    The first time, its calls run for real and are recorded in ``recordings/<module>/<test>.mva``
    beside the test's file, if the block is left without an error. From then on they are served
    from there, and nothing runs. ``name``: for a test that needs several recordings.
    """
    mode: str = request.config.getoption("--recordings")
    test = re.sub(r"[^\w.-]+", "-", request.node.name)[:120].strip("-")
    folder = request.path.parent / FOLDER / request.path.stem

    def recording(name: str | None = None) -> AbstractAsyncContextManager[ServedSession]:
        path = folder / (f"{test}.mva" if name is None else f"{test}.{name}.mva")
        if mode != "all" and path.exists():
            return _serve(path)
        if mode == "never":
            shown = os.path.relpath(path)
            pytest.fail(f"there is no recording {shown}; run once with --recordings=once")
        return _record(path)

    return recording


@asynccontextmanager
async def _serve(path: Path) -> AsyncIterator[ServedSession]:
    from memvid_async import open_store  # noqa: PLC0415 - see the top

    async with open_store(path, read_only=True) as store:
        (summary,) = await store.list_sessions()
        async with store.serve(summary.session_id) as recorded:
            yield recorded


@asynccontextmanager
async def _record(path: Path) -> AsyncIterator[ServedSession]:
    from memvid_async import open_store  # noqa: PLC0415 - see the top

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        async with open_store(partial) as store, store.serve(None, missing="run") as recorded:
            yield recorded
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
