"""What the tests open is closed after them: from Python 3.13 on, it warns when it is not."""

import pytest

from memvid_async.search.search_index import SearchIndex
from memvid_async.search.snippets import Snippets


@pytest.fixture(autouse=True)
def closed_afterwards(monkeypatch):
    """Close each index, and what makes snippets, that was made during a test."""
    made = []
    for kind in (SearchIndex, Snippets):

        def make(self, *args, really=kind.__init__, **kwargs):
            really(self, *args, **kwargs)
            made.append(self)

        monkeypatch.setattr(kind, "__init__", make)
    yield
    for one in made:
        one.close()
