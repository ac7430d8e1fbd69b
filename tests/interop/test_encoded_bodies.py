"""Bodies of responses that a server has compressed."""

import gzip

import pytest

from memvid_async.interop.http_library import decoded

httpx2 = pytest.importorskip("httpx2")

HEADERS = [("content-encoding", "gzip"), ("content-type", "application/json")]


def test_a_body_is_read_without_its_encoding():
    text = b'{"choices": []}' * 1_000
    assert decoded(httpx2, HEADERS, gzip.compress(text), len(text)) == text


def test_of_a_body_that_becomes_very_large_only_its_beginning_is_read():
    """A thousandth of it is the longest that is taken at once."""
    small = gzip.compress(bytes(64 * 2**20))
    assert 2**20 <= len(decoded(httpx2, HEADERS, small, 2**20)) < 6 * 2**20
