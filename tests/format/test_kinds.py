"""The numbers of events: those that are written, and those that are decided for later."""

import re
from pathlib import Path
from uuid import UUID

import cbor2
import pytest

from memvid_async.core.evolve import FIRST_OPTIONAL_KIND, evolve
from memvid_async.core.state import State
from memvid_async.events.event import Unknown
from memvid_async.format.codec import decode_events
from memvid_async.format.kinds import KNOWN

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format.md"
TIME, ID = 1_700_000_000_000_000_000, UUID(int=77)


@pytest.mark.parametrize("kind", [9, 60, FIRST_OPTIONAL_KIND - 1])
def test_an_event_of_a_kind_of_later_is_delivered_and_forbids_to_write(kind):
    row = [kind, 0, "fields", [None], b"", 5]
    for number in (0, 5):
        (event,) = decode_events(cbor2.dumps([TIME, number, *row]), 9, {5: ID}.get, None)
        assert event.payload == Unknown(kind, tuple(row[1:]))
        assert event.session == number
        assert evolve(State(), event).beyond


def test_every_kind_must_be_understood():
    assert max(KNOWN) < FIRST_OPTIONAL_KIND


def test_the_page_on_the_format_has_every_number():
    text = PAGE.read_text(encoding="utf-8")
    events = text[text.index("## Events") : text.index("## Stubs")]
    found = re.findall(r"^\| (\d+) \| ([^|]+) \|", events, re.MULTILINE)
    kinds = {int(number): name for number, name in found}
    assert kinds.keys() >= KNOWN
