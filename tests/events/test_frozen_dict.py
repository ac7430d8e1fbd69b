"""What is recorded stays as it is."""

import copy
import json
import pickle

import pytest

from memvid_async.events.frozen_dict import FrozenDict

GIVEN = {"a": 1, "deep": {"list": [1, None, b"x"]}}


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept.__setitem__("a", 2),
        lambda kept: kept.__delitem__("a"),
        lambda kept: kept.__ior__({"b": 2}),
        lambda kept: kept.clear(),
        lambda kept: kept.pop("a"),
        lambda kept: kept.popitem(),
        lambda kept: kept.setdefault("b", 2),
        lambda kept: kept.update(b=2),
    ],
)
def test_nobody_changes_it(change):
    kept = FrozenDict(GIVEN)
    with pytest.raises(TypeError, match="cannot be changed"):
        change(kept)
    assert kept == GIVEN
    assert not hasattr(kept, "__dict__")


def test_it_is_a_dict_to_everybody_else():
    kept = FrozenDict(GIVEN)
    assert kept == GIVEN
    assert repr(kept) == repr(GIVEN)
    assert json.dumps(FrozenDict(a=[1])) == '{"a": [1]}'
    assert kept | {"b": 2} == {**GIVEN, "b": 2}
    for again in (copy.copy(kept), copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert (type(again), again) == (FrozenDict, GIVEN)
