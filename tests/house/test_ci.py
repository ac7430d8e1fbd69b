"""What CI runs: lint, types, docs and packages, then the README's test command, whatever failed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from scripts.check_wheels import read_extras
from tests.house.test_house import section_commands

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STAND_IN = "echo 'it is' run && pwd && exit $TESTS"


@pytest.fixture
def copy(tmp_path):
    """A folder with the script; the programs in it only say what they were given."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    (command,) = section_commands(README, "Test it")
    (tmp_path / "README.md").write_text(README.replace(command, STAND_IN), encoding="utf-8")
    for name in ("python3", "pip", "nox"):
        program = tmp_path / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@"; exit ${name.upper()}\n')
        program.chmod(0o755)
    return tmp_path


def run(copy, **statuses):
    """Run the script; each program ends with the status that is named after it, else with 0."""
    path = f"{copy}/.venv/bin{os.pathsep}{os.environ['PATH']}"
    exits = dict.fromkeys(("PYTHON3", "PIP", "NOX", "TESTS"), "0")
    environment = {"PATH": path, **exits, **statuses}
    return subprocess.run(
        ["sh", f"{copy}/.ci/run"], capture_output=True, text=True, check=False, env=environment
    )


def test_ci_runs_the_checks_and_then_the_readme_test_command(copy):
    done = run(copy)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("nox ")] == [
        "nox --sessions lint types docs wheel"
    ]
    assert lines[-3:] == [f"+ {STAND_IN}", "it is run", str(copy)]


@pytest.mark.parametrize("part", ["PYTHON3", "PIP", "NOX", "TESTS"])
def test_ci_fails_where_a_part_fails_and_runs_the_tests_all_the_same(copy, part):
    done = run(copy, **{part: "3"})
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == ["it is run", str(copy)]


def test_ci_installs_what_every_adapter_needs_before_the_tests(copy):
    """Without its framework an adapter's tests skip, and nobody would know."""
    lines = run(copy).stdout.splitlines()
    (install,) = (at for at, line in enumerate(lines) if line.startswith("pip") and "frame" in line)
    assert install > lines.index("nox --sessions lint types docs wheel")
    (installed,) = re.findall(r"\.\[([\w,-]+)\]", lines[install])
    extras = read_extras(ROOT / "pyproject.toml")
    here = {line for name in ("cli", "test", *installed.split(",")) for line in extras[name]}
    pages = list((ROOT / "docs" / "integrations").glob("*.md"))
    texts = "".join(page.read_text("utf-8") for page in pages)
    named = re.findall(r"^pip install 'memvid-async\[([\w,-]+)\]'$", texts, re.MULTILINE)
    assert len(named) == len(pages) - 1, "every page but suites.md begins with its extra"
    for extra in {name for names in named for name in names.split(",")}:
        assert set(extras[extra]) <= here, extra


def test_ci_can_be_executed():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111 == 0o111
