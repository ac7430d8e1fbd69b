"""The pytest plugin: record an agent's calls the first time, serve them from then on.

It is a package beside the library, because pytest imports it before anything else. The first test
that uses the fixture imports the library itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from .failures import check_all_served, describe_missing, explain
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
    from that file, and nothing runs. :mod:`.names` describes the file names of tests in classes or
    with parameters. The function takes

    - ``name``, for a test that needs several recordings;
    - ``unserved``: "fail" (the default), or "allow" for a test that may leave recorded calls out.
    """
    mode: str = request.config.getoption("--recordings")
    node: pytest.Item = request.node
    folder = request.path.parent / FOLDER / request.path.stem

    def recording(
        name: str | None = None, *, unserved: Literal["fail", "allow"] = "fail"
    ) -> AbstractAsyncContextManager[ServedSession]:
        if unserved not in ("fail", "allow"):
            raise ValueError(f"unserved must be 'fail' or 'allow', not {unserved!r:.80}")
        path = folder / file_name(path_in_file(node), name)
        if mode != "all" and path.exists():
            return _serve(path, node, must_serve_all=unserved == "fail")
        if mode == "never":
            pytest.fail(describe_missing(path, node), pytrace=False)
        return _record(path)

    return recording


@asynccontextmanager
async def _serve(
    path: Path, node: pytest.Item, *, must_serve_all: bool
) -> AsyncIterator[ServedSession]:
    from memvid_async import open_store  # noqa: PLC0415 - see the top

    try:
        async with open_store(path, read_only=True) as store:
            (summary,) = await store.list_sessions()
            async with store.serve(summary.session_id, unserved="allow") as recorded:
                yield recorded
            if must_serve_all:
                check_all_served(recorded)
    except BaseException as error:
        explain(error, path, node)
        raise


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
