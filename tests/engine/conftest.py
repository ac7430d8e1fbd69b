"""What the engine's tests share."""

from collections.abc import Iterator

import pytest

from tests.support.disk import SimDisk, simulated_files


@pytest.fixture
def disk() -> Iterator[SimDisk]:
    """Put the stores of this process on a simulated disk; ask for it before ``make_store``."""
    disk = SimDisk()
    with simulated_files(disk):
        yield disk
        disk.heal()
        disk.let_go()
