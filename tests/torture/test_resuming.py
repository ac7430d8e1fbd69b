"""Agents that are killed and resumed, in short; `nox -s torture` kills 2,000."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.depth import RESUMED_EVERY, RESUMED_KILLS

ROOT = Path(__file__).resolve().parents[2]


def resuming(*options):
    command = [sys.executable, "-W", "error", "-m", "tests.torture.resuming"]
    return subprocess.run(
        [*command, *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_agent_that_is_killed_does_nothing_twice_that_was_not_reported(capsys):
    done = resuming("--kills", RESUMED_KILLS, "--every", RESUMED_EVERY)
    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) kills", done.stdout)[1]) >= RESUMED_KILLS


@pytest.mark.parametrize(
    ("broken", "found"),
    [("late start", r"happened \d times, and may 1"), ("silent retry", "was tried 2 times")],
)
def test_a_rule_that_does_not_hold_is_found(broken, found, tmp_path):
    done = resuming("--kills", 0, "--broken", broken, "--seed", 1, "--folder", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(found, done.stdout)
