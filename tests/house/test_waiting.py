"""Tests wait for what happens, and for no time to pass."""

import ast
import functools
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

# Files that may call sleep, with the reason.
MAY_SLEEP = {
    "engine/test_followers.py": "a pause between events, so that a follower is idle at times",
    "house/typing_example.py": "the call of a session that has this name",
    "recording/test_timeouts.py": "the call of a session that has this name, refused",
    "recording/test_tools.py": "the call of a session that has this name",
    "engine/test_loop_latency.py": "the timer whose lateness is measured",
    "memory/test_frame_input.py": "an awaitable that returns a value",
    "memory/test_frame_sessions.py": "an awaitable that returns a value",
    "support/agents.py": "seconds of a loop with a time of its own",
    "support/nats_server.py": "a look for the file by which a server says that it has started",
    "support/loops.py": "one turn of the loop",
}


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def sleeps(path):
    """Whether a file calls something named sleep."""
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "sleep"
        for node in ast.walk(parsed(path))
    )


# What bounds the time of something: the place of the bound among the arguments. ``timeout=`` bounds
# a child process, where it is not a parameter of ours.
BOUNDS = {"asyncio.timeout": 0, "fail_after": 0, "mark.timeout": 0, "wait_for": 1}


def short_bounds(path, least):
    """The lines of a file that bound how long something may take, to less than ``least`` s."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            place = next((BOUNDS[one] for one in BOUNDS if f".{name}".endswith(f".{one}")), None)
            given = [] if place is None else node.args[place : place + 1]
            if name.startswith("subprocess.") or name.endswith((".communicate", ".join")):
                given = [word.value for word in node.keywords if word.arg == "timeout"]
            seconds = [one.value for one in given if isinstance(one, ast.Constant)]
            if any(0 < value < least for value in seconds):
                yield node.lineno


def test_no_test_says_how_long_something_may_take(request):
    """What hangs is ended by the one bound on every test: a busy machine takes as long as it does.
    A bound of a test's own would end what only is slow, and with it, in a fixture or a block, the
    loop that all later tests run on."""
    least = float(request.config.getini("timeout"))
    found = {
        path.relative_to(TESTS).as_posix(): lines
        for path in TESTS.rglob("*.py")
        if (lines := list(short_bounds(path, least)))
    }
    assert {name: lines for name, lines in found.items() if not name.startswith("torture/")} == {}


def test_no_test_sleeps_to_wait():
    found = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py") if sleeps(path)}
    assert {name for name in found if not name.startswith("torture/")} == set(MAY_SLEEP)
