"""What comes after an effect is recorded whatever it is: no value of it is refused."""

import asyncio
import datetime as dt
import decimal
import enum
import math
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import Conversion, Durability, Generated, StoreConfig, open_store

MOST = 2**63 - 1


class Odd:
    """An object of which little can be asked."""

    def __eq__(self, other):
        raise RuntimeError("eq")

    __hash__ = None

    def __len__(self):
        raise RuntimeError("len")

    def __iter__(self):
        raise RuntimeError("iter")

    def __bool__(self):
        raise RuntimeError("bool")


class Colour(enum.Enum):
    RED = object()


SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -1, 2**70, -(2**70), 0, MOST]),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.binary(max_size=5),
    st.decimals(),
    st.sampled_from([Colour.RED, uuid.UUID(int=1), dt.date(2026, 1, 2), 1j, Odd(), object]),
    st.builds(ValueError, st.text(max_size=3)),
)
ODD = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
        st.tuples(inner),
    ),
    max_leaves=4,
)


def wanted(name, value):
    """Return what is kept of a count, said in another way than the code does."""
    if isinstance(value, bool) or not isinstance(value, (int, float, decimal.Decimal)):
        return None
    if isinstance(value, decimal.Decimal) and not value.is_finite():
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if name == "cost_usd":
        return float(value) if 0 <= value <= 9_000_000 else None
    return int(value) if 0 <= value <= MOST and value == int(value) else None


def check(action, counts):
    kept = {name: wanted(name, value) for name, value in counts.items()}
    usage = action.usage
    for name, value in kept.items():
        found = None if usage is None else getattr(usage, name)
        assert found == (value if name != "cost_usd" or value is None else pytest.approx(value))
    left_out = any(kept[name] is None and counts[name] is not None for name in kept)
    assert bool(action.conversion & Conversion.COUNT) == left_out


COUNTS = st.fixed_dictionaries(
    dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens", "cost_usd"), ODD)
)


async def record(path, output, error, counts):
    config = StoreConfig(durability=Durability.BUFFERED)
    async with open_store(path, config=config) as store:
        async with store.session() as session:
            await session.record_ask("q", response=output, error=error, **counts)
            await session.record_tool_call("t", arguments={}, result=output, error=error)
            await session.call_tool("t", {}, lambda: output)

            async def generate(_):
                yield Generated(output, **counts)
                yield ""

            reply = await session.call_model("q", generate)
            answer = await session.ask("q", generate=lambda _: Generated(output, **counts))
        told, _, _, *asked = (await store.get_session(session.session_id)).actions
    for action in (told, *asked):
        check(action, counts)
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        assert getattr(reply, name) == getattr(answer, name) == wanted(name, counts[name])


@given(ODD, ODD, COUNTS)
def test_no_value_is_refused_after_its_effect(output, error, counts):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(record(Path(folder) / "a.mva", output, error, counts))


def test_counts_that_add_to_too_much_are_those_before(tmp_path):
    counts = {"input_tokens": MOST, "output_tokens": 3.0, "cached_tokens": -1, "cost_usd": True}

    async def main():
        async with open_store(tmp_path / "a.mva") as store, store.session() as session:

            async def generate(_):
                yield Generated("a", **counts)
                yield Generated("b", input_tokens=1, output_tokens=2)

            reply = await session.call_model("q", generate)
            return reply, (await store.get_session(session.session_id)).actions[0]

    reply, action = asyncio.run(main())
    assert (reply.input_tokens, reply.output_tokens) == (MOST, 5)
    assert (reply.cached_tokens, reply.cost_usd) == (None, None)
    assert action.conversion & Conversion.COUNT
