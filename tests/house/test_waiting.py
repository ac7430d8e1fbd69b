"""Tests wait for what happens, and for no time to pass."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

# Files that may call sleep, with the reason.
MAY_SLEEP = {
    "engine/test_followers.py": "a pause between events, so that a follower is idle at times",
    "house/typing_example.py": "the call of a session that has this name",
    "recording/test_tools.py": "the call of a session that has this name",
    "engine/test_loop_latency.py": "the timer whose lateness is measured",
    "memory/test_frame_input.py": "an awaitable that returns a value",
    "memory/test_frame_sessions.py": "an awaitable that returns a value",
    "support/agents.py": "seconds of a loop with a time of its own",
    "support/loops.py": "one turn of the loop",
}


def sleeps(path):
    """Whether a file calls something named sleep."""
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "sleep"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_no_test_sleeps_to_wait():
    found = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py") if sleeps(path)}
    assert {name for name in found if not name.startswith("torture/")} == set(MAY_SLEEP)
