"""The kill torture, in short; `nox -s torture` runs it in full."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.depth import TORTURE_KILLS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(900)
def test_nothing_acked_is_lost_through_many_kills(capsys):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.torture", "--kills", f"{TORTURE_KILLS}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) kills", done.stdout)[1]) >= TORTURE_KILLS
