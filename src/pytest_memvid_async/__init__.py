"""The pytest plugin: record an agent's calls the first time, serve them from then on.

It is a package beside the library, because pytest imports it before anything else. The first test
that uses the fixture imports the library itself.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .names import file_name, path_in_file

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
        help="Record where memvid_recording has no file yet (once), never, or always (all).",
    )


@pytest.fixture
def memvid_recording(request: pytest.FixtureRequest) -> Recording:
    """Return a function; its ``async with`` block yields a :class:`memvid_async.ServedSession`.

    The first time, the calls run and are recorded in ``recordings/<module>/<test>.mva`` in the
    folder of the test's file, if the block ends without an error. From then on they are served
    from that file, and nothing runs. The function takes a ``name`` for a test that needs several
    recordings. :mod:`.names` describes the file names of tests in classes or with parameters.
    """
    mode: str = request.config.getoption("--recordings")
    test = path_in_file(request.node)
    folder = request.path.parent / FOLDER / request.path.stem

    def recording(name: str | None = None) -> AbstractAsyncContextManager[ServedSession]:
        path = folder / file_name(test, name)
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
