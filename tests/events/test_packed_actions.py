"""The actions of a long session are a tuple like any other, of which the collector sees nothing."""

import copy
import gc
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import Action, ActionKind, Content
from memvid_async.events.details import AskDetails
from memvid_async.events.packed_actions import MANY, ActionList, PackedActions
from tests.support.plans import TEXTS, examples


def an_action(index, text="q"):
    details = AskDetails("p", None, (), 0)
    return Action(index, index + 2, 5, ActionKind.ASK, details, Content(text), None, (1,), 1.5)


def listed(actions, count=MANY):
    found = ActionList(count)
    for action in actions:
        found.append(action)
    return found.whole()


FEW = [an_action(0), an_action(1, "é"), an_action(0)]
LOOKS = {
    "length": len,
    "items": list,
    "backwards": lambda all_: list(reversed(all_)),
    "one": lambda all_: (all_[0], all_[-1]),
    "slices": lambda all_: (all_[1:], all_[::-1], all_[5:]),
    "unpacked": lambda all_: [*all_],
    "equality": lambda all_: (all_ == tuple(FEW), tuple(FEW) == all_, all_ != (), all_ == FEW),
    "hash": lambda all_: hash(all_[:0]),
    "in": lambda all_: (FEW[1] in all_, an_action(9) in all_),
    "count and index": lambda all_: (all_.count(FEW[0]), all_.index(FEW[1]), all_.index(FEW[0], 1)),
    "sums": lambda all_: (all_ + (1,), (1,) + all_, all_ + all_, all_ * 2),  # noqa: RUF005
    "repr": repr,
    "truth": bool,
    "copies": lambda all_: (copy.copy(all_), copy.deepcopy(all_), pickle.loads(pickle.dumps(all_))),
    "order": lambda all_: sorted(all_, key=lambda one: one.sequence),
    "is a tuple": lambda all_: isinstance(all_, tuple),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_packed_actions_look_like_a_tuple(look):
    assert look(listed(FEW)) == look(tuple(FEW))


def test_what_is_not_there_is_an_error():
    packed = listed(FEW)
    for wrong in (lambda: packed[3], lambda: packed["1"], lambda: packed.index(an_action(9))):
        with pytest.raises((IndexError, TypeError, ValueError)):
            wrong()


@given(st.lists(st.builds(an_action, st.integers(0, 2**40), TEXTS), max_size=5), st.data())
@examples(0.5)
def test_any_place_of_packed_actions_is_that_of_the_tuple(actions, data):
    packed, whole = listed(actions), tuple(actions)
    assert type(packed) is PackedActions
    key = data.draw(st.slices(len(whole)))
    assert packed[key] == whole[key]
    assert packed == whole
    assert list(packed) == actions


def test_few_actions_stay_as_they_are():
    assert type(listed(FEW, MANY - 1)) is tuple


def test_the_collector_visits_no_packed_action():
    actions = listed(map(an_action, range(100)))
    assert not any(type(one) is Action for one in gc.get_referents(actions))
