"""Errors say what was missed, and survive a pickle and a copy."""

import copy
import inspect
import pickle
import uuid

import pytest

import memvid_async
from memvid_async import (
    Action,
    ActionKind,
    CheckpointNotFoundError,
    ContentNotFoundError,
    CorruptFileError,
    Difference,
    FrameNotFoundError,
    LimitExceededError,
    MemvidAsyncError,
    RecordedCallError,
    ReplayDivergenceError,
    SessionEndedError,
    SessionNotFoundError,
    StoreLockedError,
    UncertainCall,
    UncertainCallError,
    Value,
    VersionConflictError,
    open_store,
)
from memvid_async import ToolCallDetails as Tool

ONE = uuid.UUID(int=1)
UNCERTAIN = UncertainCall("k:1", ActionKind.TOOL_CALL, "t", {}, None, 0, 1, ())
CALL = Action(0, 2, 0, ActionKind.TOOL_CALL, Tool("search"), None, None, (), 0.0, error="no")
MADE = [
    (SessionEndedError(ONE), {"session_id": ONE}),
    (SessionEndedError(), {"session_id": None}),
    (SessionNotFoundError(ONE), {"session_id": ONE}),
    (CheckpointNotFoundError(ONE, 7), {"session_id": ONE, "checkpoint_id": 7}),
    (FrameNotFoundError(7), {"frame_id": 7}),
    (ContentNotFoundError("gone", b"d" * 32), {"digest": b"d" * 32}),
    (LimitExceededError("top_k", 7, 5), {"limit": "top_k", "value": 7}),
    (
        ReplayDivergenceError("other", CALL, [Difference("name", "a", "b", "- a\n+ b")]),
        {"nearest": CALL, "differences": (Difference("name", "a", "b", "- a\n+ b"),)},
    ),
    (
        VersionConflictError("a/1", 3, 7, Value("a/1", [1], version=7)),
        {"key": "a/1", "expected": 3, "version": 7, "value": Value("a/1", [1], version=7)},
    ),
    (RecordedCallError(CALL), {"action": CALL}),
    (UncertainCallError([UNCERTAIN]), {"calls": (UNCERTAIN,), "key": "k:1"}),
    (CorruptFileError(64, "torn"), {"offset": 64}),
    (StoreLockedError(7, 0.5), {"pid": 7}),
]
ERRORS = [
    thing
    for name in memvid_async.__all__
    if isinstance(thing := getattr(memvid_async, name), type)
    and issubclass(thing, MemvidAsyncError)
]
PLAIN = [kind("what happened") for kind in ERRORS if "__init__" not in vars(kind)]


def copies(error):
    yield copy.copy(error)
    yield copy.deepcopy(error)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(error, protocol))


def test_every_error_is_made_here():
    assert {type(error) for error, _ in MADE} | {type(error) for error in PLAIN} == set(ERRORS)


@pytest.mark.parametrize(
    ("error", "fields"),
    [*MADE, *((error, {}) for error in PLAIN)],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else "",
)
def test_a_copy_says_the_same(error, fields):
    assert {name: getattr(error, name) for name in fields} == fields
    error.add_note("in item 3")
    for again in copies(error):
        assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
        assert {name: getattr(again, name) for name in fields} == fields
        assert again.__notes__ == ["in item 3"]
    del error.__notes__


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_what_an_error_holds_is_declared(kind):
    if "__init__" in vars(kind):
        source = inspect.getsource(kind.__init__)
        held = {
            line.split()[0] for line in source.splitlines() if " = " in line and "self." in line
        }
        assert held == {f"self.{name}" for name in kind.__annotations__}


async def test_what_is_missed_is_named(tmp_path):
    async with open_store(tmp_path / "s.mva") as store:
        async with store.session() as recorder:
            action = await recorder.record_put(1, "x" * 5_000)
        known = recorder.session_id
        for missed in (store.get_session(ONE), store.delete_session(ONE), store.fork(ONE)):
            with pytest.raises(SessionNotFoundError) as no_session:
                await missed
            assert no_session.value.session_id == ONE
        for missed in (
            store.at(session_id=known, checkpoint_id=7),
            store.fork(known, checkpoint_id=7),
            store.replay(known, checkpoint_id=7).report(),
        ):
            with pytest.raises(CheckpointNotFoundError) as no_checkpoint:
                await missed
            found = no_checkpoint.value
            assert (found.session_id, found.checkpoint_id) == (known, 7)
        for missed in (store.get(7), store.update(7, "new"), store.delete(7)):
            with pytest.raises(FrameNotFoundError) as no_frame:
                await missed
            assert no_frame.value.frame_id == 7
    async with open_store(tmp_path / "other.mva") as other:
        with pytest.raises(ContentNotFoundError) as no_content:
            await other.read_content(action.input)
        assert no_content.value.digest == action.input.digest
