"""Writers, subscribers, finds and compactions on one file for a moment."""

import sys

import pytest

from scripts.load import SUBSCRIBERS, faults, run


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted as Linux shows them")
async def test_writers_subscribers_finds_and_compactions_beside_each_other(tmp_path):
    found = await run(tmp_path / "load.mva", 2.0, writers=2, every=0.5)
    assert found["verified"]
    assert len(found["subscribers"]) == SUBSCRIBERS
    assert all(missing == 0 for _, missing in found["subscribers"])
    assert {"put", "find", "record_ask", "sync"} <= set(found["longest"])
    # Times are for the script: a machine that is busy makes each call longer than its sync.
    grown = [fault for fault in faults(found) if fault.startswith("descriptors")]
    assert not grown


def test_what_is_wrong_with_figures_is_said():
    fine = {
        "longest": {"sync": 50.0, "put": 900.0},
        "settled": [{"descriptors": 9, "kib": 40_000}],
        "ended": [{"descriptors": 9, "kib": 41_000}],
        "sizes": [1, 5, 5, 6],
        "subscribers": [(7, 0)],
        "verified": True,
    }
    assert faults(fine) == []
    for change in (
        {"longest": {"sync": 50.0, "put": 1100.0}},
        {"ended": [{"descriptors": 19, "kib": 41_000}]},
        {"ended": [{"descriptors": 9, "kib": 90_000}]},
        {"sizes": [1, 5, 5, 9]},
        {"subscribers": [(7, 1)]},
        {"verified": False},
    ):
        assert len(faults({**fine, **change})) == 1
