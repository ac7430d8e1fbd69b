"""docs/format.cddl describes every payload that is written, and nothing but those."""

import asyncio
import tempfile
from pathlib import Path

import cbor2
import pytest
from cddl_verifier import Validator
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.file.journal import Journal
from memvid_async.format.rows import decode_rows
from memvid_async.format.segment import SegmentKind
from memvid_async.storage import RamStorage
from scripts.make_golden import FOLDER
from tests.support.frame_plans import HISTORIES, Life, eager_saving
from tests.support.naive import Naive, command, fixed_config
from tests.support.plans import PLANS, examples, small_tables
from tests.support.segments import segments_of

DESCRIPTION = Validator(Path(__file__).resolve().parents[2] / "docs" / "format.cddl")
RULES = {kind: kind.name.lower() for kind in SegmentKind}
GOLDEN = sorted(path.name for path in FOLDER.glob("v2*.mva"))


def is_described(kind, payload):
    return DESCRIPTION.validate(bytes(payload), root_type=RULES[kind]).valid


def check(data):
    """Hold each payload of a file against the description of its kind."""
    for segment in segments_of(data):
        result = DESCRIPTION.validate(bytes(segment.payload), root_type=RULES[segment.kind])
        assert result.valid, (segment.kind, cbor2.loads(segment.payload), result.diagnostics)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_files_are_described(name):
    check((FOLDER / name).read_bytes())


@given(st.lists(PLANS, min_size=1, max_size=30))
@examples(0.3)
def test_what_any_sessions_write_is_described(plans):
    naive, storage = Naive(), RamStorage()
    with small_tables():
        journal = Journal.open(storage, fixed_config())
        for at, plan in enumerate(plans):
            op = plan.resolve(naive)
            naive.apply(op, 1000 * at)
            journal.commit([command(op)])
        journal.compact(lambda *_: None)
        journal.close()
    check(bytes(storage.data))


@given(HISTORIES)
@examples(0.2)
def test_what_any_memory_writes_is_described(history):
    async def live():
        with tempfile.TemporaryDirectory() as folder, eager_saving(), small_tables():
            life = Life(Path(folder))
            store = await life.run(history)
            await store.aclose()
            return life.path.read_bytes()

    check(asyncio.run(live()))


def places(value, at=()):
    """Every place in nested arrays."""
    yield at
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from places(item, (*at, number))


def with_item(value, at, item):
    """The value with another item at a place."""
    if not at:
        return item
    first, *rest = at
    return [*value[:first], with_item(value[first], rest, item), *value[first + 1 :]]


def golden_payloads():
    """A payload of each kind of segment, and of each kind of event."""
    found = {}
    for name in GOLDEN:
        for segment in segments_of((FOLDER / name).read_bytes()):
            kinds = [None]
            if segment.kind == SegmentKind.EVENTS:
                kinds = [row[0] for row in decode_rows(segment.payload)[2]]
            for kind in kinds:
                found.setdefault((segment.kind, kind), segment.payload)
    return found


PAYLOADS = golden_payloads()
KINDS = {event for _, event in PAYLOADS if event is not None}


@pytest.mark.parametrize(("kind", "event"), PAYLOADS)
def test_an_item_that_is_something_else_is_refused(kind, event):
    """Nothing in a payload is a map: what maps there are lie in bytes."""
    value = cbor2.loads(PAYLOADS[kind, event])
    for at in places(value):
        # An event of a kind that may be unknown has fields of any kind.
        if not (event is not None and event >= 128 and at and at[0] > 2):
            assert not is_described(kind, cbor2.dumps(with_item(value, at, {}))), at


@pytest.mark.parametrize("number", sorted(set(range(128)) - KINDS))
def test_a_kind_of_event_that_there_is_not_is_refused(number):
    assert is_described(SegmentKind.EVENTS, cbor2.dumps([1, 0, 128, "x"]))
    assert not is_described(SegmentKind.EVENTS, cbor2.dumps([1, 0, number, "x"]))
    assert not is_described(SegmentKind.EVENTS, cbor2.dumps([1, 0, number]))


@pytest.mark.parametrize(("kind", "event"), PAYLOADS)
def test_a_payload_cut_short_or_with_more_behind_is_refused(kind, event):
    payload = PAYLOADS[kind, event]
    assert not is_described(kind, payload[:-1])
    assert not is_described(kind, payload + b"\0")
