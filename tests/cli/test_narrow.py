"""What a terminal has no room for: columns give way by what they matter, and names stay whole."""

from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from memvid_async.cli.columns import print_table
from memvid_async.cli.render import print_event

NAMES = ("session", "name", "started", "lasted", "failed")
ROWS = [["2708c385", "a trip to Oslo", "2026-11-29 09:24:50", "220.8 ms", "1"]]


def printed(width, show):
    written = StringIO()
    console = Console(file=written, force_terminal=True, color_system=None, width=width)
    show(console)
    return written.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "columns"),
    [(80, NAMES), (60, NAMES[:3] + NAMES[4:]), (40, ("session", "name", "failed"))],
)
def test_columns_give_way_in_their_order(width, columns):
    lines = printed(
        width,
        lambda console: print_table(console, NAMES, ROWS, folded=1, less=("lasted", "started")),
    )
    assert tuple(lines[0].split()) == columns
    assert len(lines) == 2
    assert "2708c385" in lines[1]
    assert "a trip to Oslo" in lines[1]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_an_event_has_one_line(width):
    payload = {"key": "کت؟ 🧥" * 80}
    event = {
        "sequence": 7, "time_ns": 0, "session_id": None, "type": "session_ended", "payload": payload
    }  # fmt: skip
    (line,) = printed(width, lambda console: print_event(console, event))
    assert "session_ended" in line
    assert cell_len(line) <= width
