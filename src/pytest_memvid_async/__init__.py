"""The pytest plugin: record an agent's calls the first time, serve them from then on.

It is a package beside the library, because pytest imports it before anything else. The first test
that uses the fixture imports the library itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pytest

from .failures import check_all_served, describe_missing, explain
from .names import file_name, path_in_file
from .passing import leave_out_of
from .told_apart import find_chances

Recording = Callable[..., AbstractAsyncContextManager[Any]]

FOLDER = "recordings"
_NAME_CHARS = 200


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--recordings``."""
    parser.getgroup("memvid_async").addoption(
        "--recordings",
        choices=("once", "never", "all"),
        default="once",
        help="Record where memvid_recording has no file yet (once), never, or always (all).",
    )


@pytest.fixture
def memvid_recording_options() -> dict[str, Any]:
    """Override it in a ``conftest.py``: what every ``memvid_recording(…)`` of its tests takes."""
    return {}


@pytest.fixture
def memvid_recording(
    request: pytest.FixtureRequest, memvid_recording_options: dict[str, Any]
) -> Recording:
    """Return a function; its ``async with`` block yields a session with the calls of an agent.

    The first time, the calls run and are recorded in ``recordings/<module>/<test>.mva`` in the
    folder of the test's file, if the block ends without an error. From then on they are served
    from that file, and nothing runs. :mod:`.names` describes the file names of tests in classes or
    with parameters. The function takes

    - ``name``, for a test that needs several recordings;
    - ``unserved``: "raise" (the default), or "allow" for a test that may leave recorded calls out;
    - ``match``, ``errors`` and ``pace``, as :meth:`memvid_async.Store.serve` does. By default
      dates, ids and temporary folders are not compared, see :mod:`.passing`;
    - ``scrub``, as :class:`memvid_async.StoreConfig` does: what must not be recorded.
    """
    mode: str = request.config.getoption("--recordings")
    node: pytest.Item = request.node
    folder = request.path.parent / FOLDER / request.path.stem

    def recording(name: str | None = None, **options: Any) -> AbstractAsyncContextManager[Any]:
        path = folder / file_name(path_in_file(node), name)
        made = _Options(**{**memvid_recording_options, **options})
        if mode != "all" and path.exists():
            return _Served(_serve(path, node, made))
        if mode == "never":
            pytest.fail(describe_missing(path, node), pytrace=False)
        return _record(path, node, made)

    return recording


class _Options:
    """What the function of ``memvid_recording`` takes besides a name."""

    def __init__(
        self,
        *,
        unserved: Literal["raise", "allow"] = "raise",
        match: Any = None,
        errors: Mapping[str, type[Exception]] | None = None,
        scrub: Callable[[str, str, Any], Any] | None = None,
        pace: float | None = None,
    ) -> None:
        if unserved not in ("raise", "allow"):
            raise ValueError(f"unserved must be 'raise' or 'allow', not {unserved!r:.80}")
        self.must_serve_all = unserved == "raise"
        self.match = _without_passing if match is None else match
        self.errors = errors or {}
        self.scrub = scrub
        self.pace = pace


class _Served(AbstractAsyncContextManager[Any]):
    """The block of a served recording. What leaving it raises is shown at the line of the test."""

    def __init__(self, block: AbstractAsyncContextManager[Any]) -> None:
        self._block = block

    async def __aenter__(self) -> Any:
        __tracebackhide__ = True
        return await self._block.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        from memvid_async import ReplayDivergenceError  # noqa: PLC0415 - see the top

        __tracebackhide__ = True
        try:
            return await self._block.__aexit__(kind, error, traceback)
        except ReplayDivergenceError as raised:
            # Without the frame of contextlib, which pytest would show instead.
            raise raised.with_traceback(None)  # noqa: B904 - it has its cause


def _without_passing(_kind: str, _field: str, value: Any) -> Any:
    return leave_out_of(value)


@asynccontextmanager
async def _serve(path: Path, node: pytest.Item, options: _Options) -> AsyncIterator[Any]:
    from memvid_async import StoreConfig, open_store  # noqa: PLC0415 - see the top

    __tracebackhide__ = True
    # A call is compared as it would be recorded, so what was scrubbed then is scrubbed now.
    config = StoreConfig(scrub=options.scrub)
    try:
        async with open_store(path, config=config, read_only=True) as store:
            (summary,) = await store.list_sessions()
            async with store.serve(
                summary.session_id,
                match=options.match,
                errors=options.errors,
                unserved="allow",
                pace=options.pace,
            ) as recorded:
                yield recorded
            if options.must_serve_all:
                check_all_served(recorded)
    except BaseException as error:
        explain(error, path, node)
        raise


@asynccontextmanager
async def _record(path: Path, node: pytest.Item, options: _Options) -> AsyncIterator[Any]:
    from memvid_async import StoreConfig, open_store  # noqa: PLC0415 - see the top

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    config = StoreConfig(scrub=options.scrub)
    try:
        async with open_store(partial, config=config) as store:
            async with store.session(node.name[:_NAME_CHARS]) as recorder:
                yield recorder
            chances = await find_chances(store, recorder.session_id)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    for warning in chances:
        node.warn(warning)
