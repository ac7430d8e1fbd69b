"""Arrays, and scalars of other libraries, wherever a value is passed: taken, or refused by name."""

import asyncio
import functools
import inspect

import pytest

from memvid_async import (
    ActionKind,
    Check,
    Collection,
    Delete,
    DeletePrefix,
    Generated,
    InvalidValueError,
    Limits,
    MemvidAsyncError,
    Prompt,
    Put,
    RecordingConfig,
    SessionRecorder,
    Store,
    StoreConfig,
    StoreView,
    SyncStore,
    WhatIf,
)
from memvid_async.events.values import as_plain

np = pytest.importorskip("numpy")


class Series:
    """What pandas has: an array with an index, whose truth is ambiguous."""

    def __init__(self, values):
        self.values = np.array(values)

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __bool__(self):
        raise ValueError("The truth value of a Series is ambiguous.")

    def __eq__(self, other):
        return Series(self.values == other)

    __hash__ = None

    def __iter__(self):
        return iter(self.values)

    def __len__(self):
        return len(self.values)

    def tolist(self):
        return self.values.tolist()


class Ambiguous:
    """Compared with anything, it has no truth value, as a table of pandas."""

    __hash__ = None

    def __eq__(self, other):
        return np.array([True, False])


ODD = [
    Ambiguous(),
    np.array(["a", "b"]),
    np.array([1, 2]),
    np.array([1.5, 2.5]),
    np.array([]),
    np.int64(1),
    np.float32(0.5),
    np.bool_(True),
    np.str_("a"),
    Series([1, 2]),
    Series(["a", "b"]),
]

# Arguments that each call needs besides the one that is tried. "s": an ended session's id.
NEEDED = {
    "ask": {"question": "q", "generate": lambda prompt: "yes"},
    "context": {"question": "q"},
    "compare": {"session_a": "s", "session_b": "s"},
    "audit": {"session_id": "s", "generate": {"m": lambda prompt: "yes"}},
    "fork": {"session_id": "s"},
    "replay": {"session_id": "s"},
    "serve": {"session_id": "s"},
    "get_session": {"session_id": "s"},
    "get_summary": {"session_id": "s"},
    "delete_session": {"session_id": "s"},
    "resume_session": {"session_id": "s"},
    "annotate_session": {"session_id": "s", "metadata": {}},
    "annotate": {"metadata": {}},
    "rename": {"name": "n"},
    "rename_session": {"session_id": "s", "name": "n"},
    "record_ask": {"query": "q", "provider": "p", "model": "m", "response": "r"},
    "record_find": {"query": "q", "mode": "m", "result_count": 0, "result_frames": []},
    "record_put": {"frame_id": 0, "data": "x"},
    "record_put_many": {"frame_ids": [0]},
    "record_update": {"frame_id": 0, "data": "x"},
    "record_delete": {"frame_id": 0},
    "record_tool_call": {"name": "t", "arguments": {}},
    "put": {"content": "x"},
    "put_many": {"items": ["x"]},
    "update": {"frame_id": 0},
    "delete": {"frame_id": 0},
    "get": {"frame_id": 0},
    "find": {"query": "x"},
    "collection": {"name": "c"},
    "set_embedding_model": {"model": "m", "embed": lambda texts: [[1.0]] * len(texts)},
    **{key: {"content": "c"} for key in ("read_content", "stream_content")},
    **{f"read_{what}": {"action": "a"} for what in ("arguments", "chunks", "context", "messages")},
    "call_tool": {"name": "t", "arguments": {}, "run": lambda **_: "r"},
    **{name: {"asked": "q", "generate": lambda prompt: "yes"} for name in ("call_model",)},
    "step": {"name": "n"},
    "record_step": {"name": "n"},
    "record_start": {"kind": ActionKind.TOOL_CALL, "name": "t"},
    "timeout": {"seconds": 9},
    "why": {"action": "a"},
    "read_new_messages": {"actions": []},
    "once": {"name": "n", "make": lambda: 1},
    "Collection.find": {"query": "q"},
    "Collection.get": {"key": "k"},
    "Collection.get_many": {"keys": ["k"]},
    "Collection.put": {"key": "k", "data": 1},
    "Collection.delete": {"key": "k"},
    "Collection.apply": {"steps": [Put("k", 1)]},
    "Collection.append": {"key": "l", "items": [1]},
    "Collection.items": {"key": "l"},
    "Collection.tail": {"key": "l", "limit": 1},
    "Collection.pop": {"key": "l"},
    "Collection.prefixes": {"depth": 1},
    "Collection.write_list": {"key": "l", "items": [1]},
}
_FIELDS = ["title", "uri", "media_type", "tags", "metadata", "embedding", "embedding_model"]
_FILTERS = ["tags", "uri", "title", "media_type", "metadata", "since_ns", "until_ns"]
KEYWORDS = {
    "put": _FIELDS,
    "update": _FIELDS,
    **dict.fromkeys(("find", "frames", "ask", "context"), _FILTERS),
}
# They take nothing, or end what is tried.
PASSED_OVER = {
    *("aclose", "sync", "refresh", "start_session_if_none", "end_session", "report", "statistics"),
    *("create_checkpoint", "compact", "close", "of", "open", "submit", "sleep"),
    # It takes what call_model takes, and is made by the same function.
    "stream_model",
}
KINDS = (Store, SessionRecorder, StoreView, Collection, SyncStore)
CALLS = [
    (kind, name)
    for kind in KINDS
    for name in sorted(dir(kind))
    if not name.startswith("_") and callable(getattr(kind, name)) and name not in PASSED_OVER
]


async def tried(call):
    """Make a call to its end, whatever it returns."""
    answer = call()
    if inspect.isawaitable(answer):
        answer = await answer
    if hasattr(answer, "__aenter__"):
        async with answer:
            return
    if hasattr(answer, "__anext__"):
        async for _ in answer:
            break


def tried_in_a_thread(call):
    """Make a call of a store for synchronous code to its end."""
    answer = call()
    if hasattr(answer, "__enter__"):
        with answer:
            return
    if hasattr(answer, "__next__"):
        next(answer, None)


@pytest.fixture
async def subjects(make_store):
    """An object of each kind whose calls are tried, and what calls of it need."""
    store = await make_store()
    await store.put("a frame")
    async with store.session() as ended:
        action = await ended.record_ask("q", response="r", messages=[{"role": "user"}])
    async with store.session() as session:
        await store.start_session()
        yield {
            Store: store,
            SessionRecorder: session,
            StoreView: await store.at(sequence=store.last_sequence),
            Collection: store.collection("c"),
            SyncStore: SyncStore.of(store),
            "s": ended.session_id,
            "a": action,
            "c": action.input,
        }


def needed_by(kind, name, subjects):
    """The arguments that a call needs."""
    own = NEEDED.get(f"{kind.__name__}.{name}")
    needed = NEEDED.get(name, {}) if own is None and kind is not Collection else own or {}
    return {
        key: subjects[value] if isinstance(value, str) and value in ("s", "a", "c") else value
        for key, value in needed.items()
    }


@pytest.mark.parametrize(("kind", "name"), CALLS, ids=lambda one: getattr(one, "__name__", one))
async def test_an_array_like_is_taken_or_refused_by_name(subjects, kind, name):
    method = getattr(subjects[kind], name)
    needed = needed_by(kind, name, subjects)
    parameters = [
        one
        for one in inspect.signature(getattr(kind, name)).parameters.values()
        if one.name != "self" and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]
    missing = {one.name for one in parameters if one.default is one.empty} - {*needed}
    assert not missing, f"say in NEEDED what {kind.__name__}.{name} needs: {missing}"
    keywords = KEYWORDS.get(name, []) if kind is not Collection else []
    for parameter in dict.fromkeys([*(one.name for one in parameters), *keywords]):
        for odd in ODD if kind is not SyncStore else ODD[:3] + ODD[-2:]:
            call = functools.partial(method, **{**needed, parameter: odd})
            try:
                if kind is SyncStore:
                    await asyncio.to_thread(tried_in_a_thread, call)
                else:
                    await tried(call)
            except (MemvidAsyncError, TypeError):
                continue
            except ValueError as error:
                pytest.fail(f"{name}({parameter}={odd!r}): {error!r}")


@pytest.mark.parametrize(
    "odd", [np.array(5), np.ma.masked, 7, None, "ab", b"ab", {"a": 1}], ids=repr
)
async def test_what_is_not_a_list_is_refused_by_name(subjects, odd):
    """An array without a dimension has ``__iter__``, and text and maps have items, of a kind."""
    store, keys = subjects[Store], subjects[Collection]
    lists = {
        "items": [
            lambda: store.put_many(odd),
            lambda: keys.append("l", odd),
            lambda: keys.write_list("l", odd),
        ],
        "keys": [lambda: keys.get_many(odd)],
        "steps": [lambda: keys.apply(odd)],
        "actions": [lambda: store.read_new_messages(odd)],
    }
    if odd is not None:
        lists["match"] = [lambda: tried(lambda: store.serve(subjects["s"], match=odd))]
    for name, calls in lists.items():
        for call in calls:
            with pytest.raises(InvalidValueError, match=name):
                await call()


MADE = {
    StoreConfig: {},
    RecordingConfig: {},
    Limits: {},
    Generated: {"text": "t"},
    Prompt: {"question": "q"},
    WhatIf: {},
    Put: {"key": "k", "data": 1},
    Delete: {"key": "k"},
    DeletePrefix: {"prefix": "p"},
    Check: {"key": "k", "version": 0},
}


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
async def test_a_value_takes_an_array_like_or_refuses_it_by_name(make_store, kind):
    """It may also be refused where it is used."""
    store = await make_store()
    await store.put("a frame")
    async with store.session() as session:
        await store.find("a")

    async def use(value):
        if kind is WhatIf:
            await store.replay(session.session_id, what_if=value).report()
        elif kind in (Put, Delete, DeletePrefix, Check):
            await store.collection("c").apply([value])
        elif kind is Generated:
            await store.ask("a", generate=lambda _: value)
        elif kind is Prompt:
            str(value)

    for name in inspect.signature(kind).parameters:
        for odd in ODD:
            try:
                await use(kind(**{**MADE[kind], name: odd}))
            except (MemvidAsyncError, TypeError):
                continue
            except ValueError as error:
                pytest.fail(f"{kind.__name__}({name}={odd!r}): {error!r}")


async def test_arrays_are_taken_where_a_sequence_or_a_number_is(make_store):
    store = await make_store()
    frame_id = await store.put("a", tags=np.array(["x", "y"]), embedding=np.array([1.0, 2.0]))
    frame = await store.get(frame_id)
    assert frame.tags == ("x", "y")
    hits = (await store.find("a", tags=np.array(["x"]), since_ns=np.int64(0))).hits
    assert [hit.frame_id for hit in hits] == [frame_id]
    async with store.session() as session:
        action = await session.record_find(
            "q", mode="m", result_count=2, result_frames=np.array([3, 4])
        )
        assert action.affected_frames == (3, 4)
        assert {type(one) for one in action.affected_frames} == {int}
        asked = await session.record_ask(
            "q", response="r", duration_ms=np.float32(0.5), retrieved_frames=Series([5])
        )
        assert asked.affected_frames == (5,)
        assert type(asked.duration_ms) is float


def test_what_is_plain_stays_the_same_object():
    for value in (1, 1.5, "a", b"a", [1], (1,), {}, None, range(3), object()):
        assert as_plain(value) is value
