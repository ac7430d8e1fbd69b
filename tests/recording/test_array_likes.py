"""Arrays, and scalars of other libraries, wherever a value is passed: taken, or refused by name."""

import asyncio
import inspect

import pytest

from memvid_async import MemvidAsyncError, Store
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


ODD = [
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

# Arguments that each call needs besides the one that is tried.
NEEDED = {
    "ask": {"question": "q", "generate": lambda prompt: "yes"},
    "at": {},
    "compare": {"session_a": "s", "session_b": "s"},
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
}
KEYWORDS = {
    "put": ["title", "uri", "media_type", "tags", "metadata", "embedding", "embedding_model"],
    "update": ["title", "uri", "media_type", "tags", "metadata", "embedding", "embedding_model"],
    "find": ["tags", "uri", "title", "media_type", "metadata", "since_ns", "until_ns"],
    "frames": ["tags", "uri", "title", "media_type", "metadata", "since_ns", "until_ns"],
    "ask": ["tags", "uri", "title", "media_type", "metadata", "since_ns", "until_ns"],
}
CALLS = sorted(
    name
    for name, value in vars(Store).items()
    if not name.startswith("_") and not isinstance(value, property)
    if name not in {"aclose", "sync", "refresh", "start_session_if_none", "end_session"}
)


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


@pytest.mark.parametrize("name", CALLS)
async def test_an_array_like_is_taken_or_refused_by_name(make_store, name):
    store = await make_store()
    await store.put("a frame")
    async with store.session() as session:
        pass
    method = getattr(store, name)
    needed = {
        key: session.session_id if value == "s" else value
        for key, value in NEEDED.get(name, {}).items()
    }
    signature = inspect.signature(getattr(Store, name))
    names = [
        one.name
        for one in signature.parameters.values()
        if one.name != "self" and one.kind is not one.VAR_KEYWORD
    ]
    await store.start_session()
    for parameter in dict.fromkeys([*names, *KEYWORDS.get(name, [])]):
        for odd in ODD:
            arguments = {**needed, parameter: odd}
            try:
                async with asyncio.timeout(20):
                    await tried(lambda arguments=arguments: method(**arguments))
            except (MemvidAsyncError, TypeError):
                continue
            except ValueError as error:
                pytest.fail(f"{name}({parameter}={odd!r}): {error!r}")


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
