"""The store for synchronous code offers what the asyncio store does, argument for argument."""

import inspect

import pytest

import memvid_async

PAIRS = {
    "Collection": "SyncCollection",
    "CollectionReader": "SyncCollectionReader",
    "Replay": "SyncReplay",
    "ServedSession": "SyncServedSession",
    "StoreSession": "SyncSession",
    "Store": "SyncStore",
    "StoreView": "SyncStoreView",
    "Subscription": "SyncSubscription",
}
RENAMED = {"aclose": "close"}
# A timeout cancels what is inside, and a thread cannot be cancelled.
ONLY_ASYNC = {"StoreSession": {"timeout"}, "ServedSession": {"timeout"}}
ONLY_SYNC = {"SyncStore": {"open", "of", "submit"}}


def surface(thing):
    """The public members of a class, with the parameters of those that are called."""
    found = {}
    for name in dir(thing):
        if not name.startswith("_") and name not in vars(object):
            member = inspect.getattr_static(thing, name)
            value = getattr(thing, name)
            parameters = None
            if not isinstance(member, property) and callable(value):
                parameters = list(inspect.signature(value).parameters.values())
            found[RENAMED.get(name, name)] = parameters
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_it_offers_what_the_asyncio_one_does(name):
    theirs = surface(getattr(memvid_async, name))
    ours = surface(getattr(memvid_async, PAIRS[name]))
    # An attribute that __init__ sets is not in the class.
    extra = ours.keys() - theirs.keys() - ONLY_SYNC.get(PAIRS[name], set()) - {"last_sequence"}
    for member in ONLY_ASYNC.get(name, ()):
        del theirs[member]
    missing = sorted(theirs.keys() - ours.keys())
    assert not missing, f"add them to {PAIRS[name]} in store/sync_store.py: {missing}"
    assert not extra
    for member, parameters in theirs.items():
        assert [p.name for p in parameters or ()] == [p.name for p in ours[member] or ()], member
        assert [p.kind for p in parameters or ()] == [p.kind for p in ours[member] or ()], member


def test_every_asyncio_object_has_a_synchronous_one():
    """An object is asyncio's when one of its methods is, or its block or its iteration."""
    asyncs = set()
    for name in memvid_async.__all__:
        thing = getattr(memvid_async, name)
        if inspect.isclass(thing):
            members = [getattr(thing, member, None) for member in dir(thing)]
            if any(inspect.iscoroutinefunction(member) for member in members):
                asyncs.add(name)
    # open_store's object is SyncStore.open() itself; a store's sessions are StoreSessions.
    assert asyncs - {"OpenStore", "SessionRecorder"} == set(PAIRS)
