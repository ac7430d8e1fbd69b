"""Names of files beside a store: never too long, never one for two."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import open_store, recover
from memvid_async.storage.beside import beside

NAMES = st.text(st.characters(blacklist_characters="/\0", codec="utf-8"), min_size=1).map(
    lambda text: os.fsdecode(os.fsencode(text * 40)[:255].decode("utf-8", "ignore").encode())
)


def test_a_short_name_is_kept():
    assert beside(Path("/a/b.mva"), ".compact") == Path("/a/b.mva.compact")


@given(NAMES.filter(lambda name: name not in (".", "..")))
def test_a_name_is_at_most_255_bytes_and_ends_in_its_suffix(name):
    made = beside(Path("/a") / name, ".compact")
    assert made.parent == Path("/a")
    assert made.name.endswith(".compact")
    assert len(os.fsencode(made.name)) <= 255


def test_long_names_that_differ_at_their_end_stay_different():
    names = {beside(Path("/a") / f"{'n' * 253}{end}", ".compact") for end in ("ab", "ac", "a", "")}
    assert len(names) == 4


def test_bytes_that_are_no_text_are_kept_apart():
    names = {beside(Path(os.fsdecode(b"/a/" + b"\xff" * 250 + end)), ".x") for end in (b"a", b"b")}
    assert len(names) == 2
    assert all(len(os.fsencode(name.name)) <= 255 for name in names)


@pytest.mark.parametrize("name", ["n" * 251 + ".mva", "名" * 83 + ".mva"])
async def test_a_store_with_the_longest_name_works(tmp_path, name):
    path = tmp_path / name
    async with open_store(path) as store:
        await store.put("a thing")
        await store.compact()
        await store.put("another thing")
        assert (await store.compact()).bytes_after > 0
        assert len((await store.find("thing")).hits) == 2
    recovered = tmp_path / f"r{name[1:]}"
    await recover(path, recovered)
    assert set(tmp_path.iterdir()) == {path, recovered}
