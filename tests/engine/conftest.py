"""What the engine's tests share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from memvid_async import open_store
from tests.support.disk import SimDisk, simulated_files


@pytest.fixture
def disk() -> Iterator[SimDisk]:
    """Put the stores of this process on a simulated disk; ask for it before ``make_store``."""
    disk = SimDisk()
    with simulated_files(disk):
        yield disk
        disk.heal()
        disk.let_go()


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """Return the path of an empty store that verifies when the test is over."""
    path = tmp_path / "shared.mva"
    async with open_store(path):
        pass
    yield path
    async with open_store(path, read_only=True) as store:
        report = await store.verify()
    assert report.ok, report.problems
