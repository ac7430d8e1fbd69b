"""A run of changes of a persistent map: the same map as a dict would be, and one link for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.core.map_draft import MapDraft, settled_map
from memvid_async.core.persistent_map import PersistentMap

KEYS = st.integers(0, 5)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.integers(0, 9)), max_size=12)


@given(st.dictionaries(KEYS, st.integers(0, 9)), CHANGES)
def test_a_draft_is_as_a_dict_after_every_change_and_settled(items, changes):
    base, wanted = PersistentMap(items), dict(items)
    draft = MapDraft(base)
    for key, value in changes:
        if value is not None:
            wanted[key] = value
            assert draft.set(key, value) is draft
        elif key in wanted:
            del wanted[key]
            assert draft.delete(key) is draft
        else:
            with pytest.raises(KeyError):
                draft.delete(key)
        assert {k: draft.get(k) for k in range(6) if k in draft} == wanted
        assert draft.get(key) == wanted.get(key)
        assert (dict(draft.items()), len(draft)) == (wanted, len(wanted))
        assert sorted(draft.key_list()) == sorted(wanted)
        assert dict(base.items()) == items
    settled = settled_map(draft)
    assert type(settled) is PersistentMap
    assert (dict(settled.items()), len(settled)) == (wanted, len(wanted))
    assert dict(base.items()) == items


def test_a_map_that_is_no_draft_is_settled():
    base = PersistentMap({1: 2})
    assert settled_map(base) is base
    assert settled_map(MapDraft(base)) is base
