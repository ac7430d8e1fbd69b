"""What the tests of damaged and hostile files share."""

from collections.abc import Iterator

import pytest

from tests.support.plans import small_tables
from tests.support.reference import Reference, reference


@pytest.fixture
def low_bounds() -> Iterator[None]:
    """Set bounds so low that the few KiB of a reference hold chunks, pages, marks and TOCs."""
    with small_tables(toc=2700):
        yield


@pytest.fixture(params=["small", "rich"])
def sound(request: pytest.FixtureRequest, low_bounds: None) -> Reference:
    """Return each reference: a sound file, and what it holds."""
    return reference(request.param)
