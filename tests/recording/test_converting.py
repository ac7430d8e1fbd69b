"""What came after an effect is recorded whatever it is, converted and marked as docs say."""

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import uuid
from typing import NamedTuple

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import Conversion, Generated, Limits, StoreConfig
from memvid_async.recording.converting import convert_error, convert_output, whole_text
from tests.support.plans import examples

OUTPUT, JSON, CUT = Conversion.OUTPUT, Conversion.OUTPUT_JSON, Conversion.OUTPUT_CUT
ERROR, ERROR_CUT = Conversion.ERROR, Conversion.ERROR_CUT


class Colour(enum.Enum):
    RED = "red"
    BOTH = ("red", {"blue"})


class Word(enum.StrEnum):
    YES = "yes"


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: object
    y: object


@dataclasses.dataclass
class Data:
    a: object
    b: object = None


@attrs.frozen
class Fields:
    a: object


class Model:
    """What pydantic's models have."""

    def __init__(self, dumped):
        self.dumped = dumped

    def model_dump(self):
        if isinstance(self.dumped, Exception):
            raise self.dumped
        return self.dumped

    def __repr__(self):
        return "Model()"


class Silent:
    """Raises an error whatever is asked of it."""

    def __repr__(self):
        raise ZeroDivisionError

    def __getattribute__(self, name):
        raise ZeroDivisionError


class UnprintableError(Exception):
    def __str__(self):
        raise ZeroDivisionError


class Loud(str):
    """A text that overrides what it can."""

    __slots__ = ()

    def isascii(self):
        raise ZeroDivisionError

    __len__ = encode = __str__ = __format__ = isascii


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def released():
    view = memoryview(b"x")
    view.release()
    return view


ENDLESS = []
ENDLESS.append(ENDLESS)
DAY = dt.date(2026, 11, 28)

TABLE = {
    "nothing": (None, None, 0),
    "text": ("text", "text", 0),
    "bytes": (b"\xff", b"\xff", 0),
    "half a pair": ("a\ud83d", "a\ufffd", OUTPUT),
    "two halves": ("\ud83d\ude00\ude00", "\U0001f600\ufffd", OUTPUT),
    "a bytearray": (bytearray(b"\xff"), b"\xff", OUTPUT),
    "every other byte": (memoryview(b"abcd")[::2], b"ac", OUTPUT),
    "a kind of text": (Loud("text"), "text", OUTPUT),
    "a text of an enum": (Word.YES, "yes", OUTPUT),
    "a number of an enum": (Level.HIGH, "3", OUTPUT | JSON),
    "a member": (Colour.RED, "red", OUTPUT),
    "a member of more": (Colour.BOTH, '["red", ["blue"]]', OUTPUT | JSON),
    "a number": (7, "7", OUTPUT | JSON),
    "true": (True, "true", OUTPUT | JSON),
    "a large number": (2**70, str(2**70), OUTPUT | JSON),
    "too large to print": (1 << 20_000, hex(1 << 20_000), OUTPUT),
    "a float": (0.5, "0.5", OUTPUT | JSON),
    "no number": (float("nan"), "NaN", OUTPUT),
    "no end": ([float("inf"), -float("inf")], '["Infinity", "-Infinity"]', OUTPUT | JSON),
    "a UUID": (uuid.UUID(int=5), str(uuid.UUID(int=5)), OUTPUT),
    "a decimal": (decimal.Decimal("1.50"), "1.50", OUTPUT),
    "a path": (pathlib.PurePosixPath("/a/b"), "/a/b", OUTPUT),
    "a day": (DAY, "2026-11-28", OUTPUT),
    "a moment": (
        dt.datetime(2026, 11, 28, 9, 5, tzinfo=dt.UTC),
        "2026-11-28T09:05:00+00:00",
        OUTPUT,
    ),
    "an exception": (OSError("no disk"), "OSError: no disk", OUTPUT),
    "a mute exception": (UnprintableError(), "UnprintableError", OUTPUT),
    "a class": (int, "<class 'int'>", OUTPUT),
    "a dict in order": ({"b": 1, "a": [None, "é"]}, '{"b": 1, "a": [null, "é"]}', OUTPUT | JSON),
    "other keys": ({1: "a", None: "b", DAY: "c"}, '{"1": "a", "null": "b", "2026-11-28": "c"}',
                   OUTPUT | JSON),
    "keys of one name": ({1: "a", "1": "b"}, '[["1", "a"], ["1", "b"]]', OUTPUT | JSON),
    "bytes in it": ({"a": b"b", "c": b"\xff"}, '{"a": "b", "c": "/w=="}', OUTPUT | JSON),
    "half a pair in it": (["\ud83d"], '["\ufffd"]', OUTPUT | JSON),
    "a tuple": ((1, (2,)), "[1, [2]]", OUTPUT | JSON),
    "a set": ({3, 1, 2}, "[1, 2, 3]", OUTPUT | JSON),
    "a deque": (collections.deque([1]), "[1]", OUTPUT | JSON),
    "keys": ({"x": 1}.keys(), '["x"]', OUTPUT | JSON),
    "a range": (range(3), "[0, 1, 2]", OUTPUT | JSON),
    "a named tuple": (Point(1, DAY), '{"x": 1, "y": "2026-11-28"}', OUTPUT | JSON),
    "a dataclass": (Data(Data(1)), '{"a": {"a": 1, "b": null}, "b": null}', OUTPUT | JSON),
    "an attrs object": (Fields({1}), '{"a": [1]}', OUTPUT | JSON),
    "a model": (Model({"day": DAY}), '{"day": "2026-11-28"}', OUTPUT | JSON),
    "a model of a root": (Model("root"), "root", OUTPUT),
    "a model that fails": (Model(OSError()), "Model()", OUTPUT),
    "an array": (array.array("i", [1, 2]), "[1, 2]", OUTPUT | JSON),
    "an object that raises": (Silent(), "<Silent>", OUTPUT),
    "what raises, in a list": ([Silent(), 1], '["<Silent>", 1]', OUTPUT | JSON),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_every_value_is_converted_as_documented(name):
    value, data, conversion = TABLE[name]
    converted = convert_output(value, 100_000)
    assert converted == (data, conversion)
    assert type(converted.data) is type(data)
    if conversion & JSON:
        json.loads(converted.data)


BOTTOMLESS = [ENDLESS, nested(100), nested(100_000), released(), range(10**15)]


@pytest.mark.parametrize("value", BOTTOMLESS, ids=range(5))
def test_a_value_without_end_has_one(value):
    data, conversion = convert_output(value, 5000)
    assert conversion & OUTPUT
    assert 0 < len(data) <= 5000


def test_arrays_of_numpy_are_lists_unless_they_are_very_large():
    np = pytest.importorskip("numpy")
    assert convert_output(np.arange(3), 100) == ("[0, 1, 2]", OUTPUT | JSON)
    assert convert_output(np.float32(0.5), 100) == ("0.5", OUTPUT | JSON)
    assert convert_output(np.str_("a"), 100) == ("a", OUTPUT)
    data, conversion = convert_output(np.zeros((1000, 1000)), 10_000)
    assert (conversion, data.startswith("[[0., 0.")) == (OUTPUT, False) or "..." in data


def test_a_model_of_pydantic_is_its_fields():
    pydantic = pytest.importorskip("pydantic")
    kind = pydantic.create_model("Trip", day=(dt.date, ...), stops=(list[str], []))
    assert convert_output(kind(day=DAY, stops=["a"]), 100) == (
        '{"day": "2026-11-28", "stops": ["a"]}',
        OUTPUT | JSON,
    )


TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)
# Hypothesis looks at what it draws.
DRAWN = [name for name in TABLE if "raises" not in name]
LEAVES = st.one_of(
    st.sampled_from(DRAWN).map(lambda name: TABLE[name][0]),
    st.integers(0, len(BOTTOMLESS) - 1).map(lambda at: BOTTOMLESS[at]),
    st.sampled_from([object, print, iter("ab"), 1j]),
    TEXTS, TEXTS.map(Loud), st.binary(max_size=20), st.integers(), st.floats(), st.decimals(),
    st.datetimes(), st.timedeltas(), st.uuids(), TEXTS.map(ValueError),
)  # fmt: skip
HASHABLE = st.one_of(TEXTS, st.integers(), st.none(), st.binary(max_size=5), st.dates())
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
        st.builds(Data, inner, inner), st.builds(Fields, inner), st.builds(Model, inner),
    ),
    max_leaves=8,
)  # fmt: skip


def raw(data):
    return data.encode() if isinstance(data, str) else data


@given(ANYTHING, st.integers(0, 120))
@examples(10)
def test_anything_is_converted_within_its_limit(value, most):
    data, conversion = convert_output(value, most)
    whole, unlimited = convert_output(value, 10**6)
    if value is None:
        assert (data, conversion) == (None, 0)
        return
    # Its UTF-8 exists, and fits.
    assert len(raw(data)) <= most
    assert bool(conversion & CUT) == (len(raw(whole)) > most)
    if not conversion & CUT:
        assert (data, conversion) == (whole, unlimited)
    assert bool(conversion & OUTPUT) == (type(value) not in (str, bytes) or raw_differs(value))
    if conversion & JSON:
        json.loads(data)


def raw_differs(value):
    return isinstance(value, str) and whole_text(value) != value


@given(ANYTHING, st.integers(1, 40))
@examples(4)
def test_any_error_is_a_text_within_its_limit(value, most):
    text, conversion = convert_error(value, most)
    if value is None:
        return
    assert len(text.encode()) >= len(text) <= most
    changed = type(value) is not str or raw_differs(value)
    assert bool(conversion & ERROR) == changed
    assert not conversion & ~(ERROR | ERROR_CUT)
    if type(value) is str:
        assert bool(conversion & ERROR_CUT) == (len(whole_text(value)) > most)


class Recorded:
    """Records values by every path, and looks at what the file has after a reopening."""

    def __init__(self, make_store):
        self._make_store = make_store

    async def of(self, values, limits):
        config = StoreConfig(limits=limits)
        store = await self._make_store(config=config)
        async with store.session() as session:
            for value in values:

                async def stream(_, value=value):
                    yield "first "
                    yield value

                await session.record_ask("q", response=value, input_tokens=1)
                await session.record_tool_call("t", arguments={}, result=value)
                await session.record_find(
                    "q", mode="m", result_count=0, result_frames=(), error=value
                )
                answers = [
                    await store.ask("q", generate=lambda _, value=value: value),
                    await store.ask("q", generate=lambda _, value=value: Generated(value)),
                    await store.ask("q", generate=stream),
                ]
                for answer in answers:
                    assert isinstance(answer.text, (str, bytes))
        await store.aclose()
        store = await self._make_store(config=config)
        actions = (await store.get_session(session.session_id)).actions
        each = len(actions) // max(1, len(values))
        for at, value in enumerate(values):
            yield (
                value,
                [
                    (
                        None if one.output is None else await store.read_content(one.output),
                        one.error,
                        one.conversion,
                    )
                    for one in actions[each * at : each * (at + 1)]
                ],
            )
        assert (await store.verify()).ok
        await store.aclose()


async def test_every_path_records_every_value_and_marks_it(make_store):
    values = [value for value, _, _ in TABLE.values()]
    values += [ENDLESS, nested(1000), released(), "x" * 5000, ["y" * 5000], "z\ud83d" * 3000]
    limits = Limits(content_bytes=4000, error_chars=100)
    checked = 0
    async for value, recorded in Recorded(make_store).of(values, limits):
        data, conversion = convert_output(value, limits.content_bytes)
        expected = None if data is None else raw(data)
        for output, error, marks in recorded[:2] + recorded[3:5]:
            assert (output, error, marks) == (expected, None, conversion)
        text, conversion = convert_error(value, limits.error_chars)
        assert recorded[2] == (None, text, conversion)
        assert recorded[5][0].startswith(b"first ")
        checked += 1
    assert checked == len(values)
