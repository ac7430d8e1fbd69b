"""Events of collections and idempotency keys to bytes and back; other rows are a ValueError."""

from contextlib import suppress
from uuid import UUID

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    CollectionChanged,
    CollectionCreated,
    Event,
    KeyDeleted,
    KeyPut,
    KeyRenewed,
    KeyUsed,
    ListChanged,
    PrefixDeleted,
)
from memvid_async.core.collections_state import NO_COLLECTIONS, fold_collections
from memvid_async.core.recent_keys import NO_KEY, KeyFacts, RecentKeys
from memvid_async.file.living_keys import LivingKeys
from memvid_async.format.codec import decode_events, encode_events
from memvid_async.format.keyed_rows import keyed_row, read_keyed_row
from tests.support.hostile import WRONG_FIELDS
from tests.support.plans import COUNTS, TEXTS, examples

TIME, ID = 1_700_000_000_000_000_000, UUID(int=7)
CBOR = st.binary(max_size=9)
CHANGES = st.one_of(
    st.builds(KeyPut, TEXTS, CBOR, st.none() | CBOR, st.none() | st.integers(-(2**63), 2**63 - 1)),
    st.builds(
        KeyPut,
        TEXTS,
        CBOR,
        st.none() | CBOR,
        st.none() | st.integers(-(2**63), 2**63 - 1),
        TEXTS,
        st.lists(CBOR, min_size=1).map(tuple),
    ),
    st.builds(KeyRenewed, TEXTS, COUNTS, st.integers(-(2**63), 2**63 - 1)),
    st.builds(KeyDeleted, TEXTS),
    st.builds(PrefixDeleted, TEXTS),
    st.builds(ListChanged, TEXTS, COUNTS, st.none() | COUNTS, st.lists(CBOR).map(tuple)),
)
HASHES = st.binary(min_size=16, max_size=16)
PAYLOADS = st.one_of(
    st.builds(CollectionCreated, TEXTS),
    st.builds(CollectionChanged, COUNTS, st.lists(CHANGES, min_size=1, max_size=30).map(tuple)),
    st.builds(KeyUsed, HASHES, HASHES, COUNTS),
)


@given(st.lists(PAYLOADS, min_size=1, max_size=4), st.booleans())
@examples(3)
def test_what_is_encoded_comes_back(payloads, in_session):
    events = []
    for sequence, payload in enumerate(payloads, 5):
        own = in_session and isinstance(payload, KeyUsed)
        events.append(Event(sequence, TIME, ID if own else None, payload, 3 if own else 0))
    if events[-1].session != (3 if in_session else 0):
        return
    data = encode_events(events)
    assert decode_events(data, 5, {3: ID}.get, None) == events
    # Of a session that is gone, what a key was used for is of no session.
    assert [event.session for event in decode_events(data, 5, {}.get, None)] == [0] * len(events)


GOOD = [
    [40, "name", None],
    [
        41,
        3,
        [0, "key", b"\x01", b"\xa0", 5],
        [0, "key", b"\x01", None, None, ["model", b"\0\0\x80?"]],
        [4, "key", 3, 6],
        [1, "key"],
        [2, ""],
        [3, "l", None, None, 0, 2, b"\1"],
    ],
    [42, bytes(16), bytes(16), 9],
]


def variants(row):
    """The row with each field, and each field inside a field, wrong or missing."""
    for at, field in enumerate(row[1:], 1):
        yield row[:at]
        yield from ([*row[:at], wrong, *row[at + 1 :]] for wrong in WRONG_FIELDS)
        if isinstance(field, list):
            for inside in variants(["", *field]):
                yield [*row[:at], inside[1:], *row[at + 1 :]]


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row[0])
def test_any_field_may_be_wrong_or_missing(row):
    read_keyed_row(row)
    assert keyed_row(read_keyed_row(row)) == row
    read_keyed_row([*row, "later"] if row[0] != 41 else row)
    for changed in variants(row):
        with suppress(TypeError, IndexError, ValueError):
            found = read_keyed_row(changed)
            assert read_keyed_row(keyed_row(found)) == found
        with suppress(ValueError):
            decode_events(cbor2.dumps([TIME, 0, *changed]), 5, {}.get, None)


def changed(sequence, *changes, collection=1):
    return Event(sequence, TIME, None, CollectionChanged(collection, changes))


def test_a_fold_passes_over_what_fits_nothing():
    created = Event(1, TIME, None, CollectionCreated("c"))
    again = Event(2, TIME, None, CollectionCreated("c"))
    folded = fold_collections(fold_collections(NO_COLLECTIONS, created), again)
    assert folded.find("c").number == 1
    assert len(folded.by_number) == 1
    assert fold_collections(folded, changed(3, KeyPut("k", b"\1"), collection=9)) is folded
    folded = fold_collections(folded, changed(3, KeyPut("k", b"\1")))
    assert (folded.find("c").has_values, folded.find("c").has_lists) == (True, False)


def test_recent_keys_say_what_changed_after_the_floor():
    recent = RecentKeys(4)
    assert (recent.floor, recent.get(1, "a")) == (4, None)
    recent.note(changed(5, KeyPut("a", b"\1"), KeyPut("b/1", b"\1", None, 9)))
    recent.note(changed(6, ListChanged("l"), KeyDeleted("a")))
    recent.note(changed(7, PrefixDeleted("b/"), KeyPut("b/2", b"\1")))
    assert recent.get(1, "a") == NO_KEY
    assert recent.get(1, "b/1") == recent.get(1, "b/never") == NO_KEY
    assert recent.get(1, "b/2") == KeyFacts(7)
    assert recent.get(1, "l") == KeyFacts(6, is_list=True)
    assert recent.get(2, "a") is None
    assert KeyFacts(5, expires_ns=9).at(9) == NO_KEY
    assert KeyFacts(5, expires_ns=9).at(8).version == 5


def test_recent_keys_are_bounded_and_the_floor_rises(monkeypatch):
    monkeypatch.setattr("memvid_async.core.recent_keys.MOST_KEYS", 3)
    recent = RecentKeys()
    for sequence in range(1, 20):
        recent.note(changed(sequence, KeyPut(f"{sequence}", b"\1")))
        assert recent.get(1, f"{sequence}") == KeyFacts(sequence)
    assert recent.floor == 15
    assert recent.get(1, "15") is None
    assert recent.get(1, "16") == KeyFacts(16)


def test_a_compaction_leaves_the_items_of_a_list_where_they_are():
    rows = [
        [41, 1, [3, "l", None, None, 0, None, b"a", b"b", b"c"]],
        [41, 1, [3, "l", None, None, 1, 9, b"d"]],
        [41, 1, [3, "l", None, None, 0, 2]],
        [41, 1, [2, "other"]],
    ]
    living = LivingKeys(TIME)
    for sequence, row in enumerate(rows, 1):
        living.note(row, sequence)
    # Of a, b, c and d it has b and c, and its version is that of the third event.
    assert [living.left(row, sequence) for sequence, row in enumerate(rows, 1)] == [
        [41, 1, [3, "l", None, None, 0, None, b"b", b"c"]],
        [0],
        [41, 1, [3, "l", None, None, 0, 2]],
        [0],
    ]
