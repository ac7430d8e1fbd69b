"""The pytest fixture: records the first time, serves from then on, and is in nobody's way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

# Other plugins would be loaded for nothing, and some take long.
ENVIRONMENT = {"PYTHONPATH": str(SOURCE), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

AGENT = """
import asyncio, os
import pytest

async def weather(city):
    with open("ran", "a") as log:
        log.write(city + "\\n")
    if city == "Atlantis":
        raise LookupError("no such city")
    return {"city": city, "sun": True}

async def model(prompt):
    with open("ran", "a") as log:
        log.write(prompt.question + "\\n")
    return prompt.question.upper()

async def agent(recorded, city):
    report = await recorded.call_tool("weather", {"city": city}, weather)
    assert report == {"city": city, "sun": True}
    return await recorded.ask(f"Is it nice in {city}?", generate=model)

@pytest.mark.parametrize("city", ["Rome", "New York"])
def test_agent(memvid_recording, city):
    async def main():
        async with memvid_recording() as recorded:
            asked = city if "OTHER" not in os.environ else os.environ["OTHER"]
            assert await agent(recorded, asked) == f"IS IT NICE IN {asked.upper()}?"
        async with memvid_recording("again") as recorded:
            await agent(recorded, city)
    asyncio.run(main())
"""


def run(folder, *arguments, status=0, **environment):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "pytest_memvid_async",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "-q", "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path):
    (tmp_path / "test_mine.py").write_text(AGENT, encoding="utf-8")
    return tmp_path


def ran(project):
    log = project / "ran"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def recordings(project):
    return sorted(path.name for path in project.glob("recordings/test_mine/*"))


def test_it_records_once_and_serves_from_then_on(project):
    assert "no recording" in run(project, "--recordings=never", status=1)
    assert ran(project) == []
    assert "2 passed" in run(project)
    assert len(ran(project)) == 8
    assert recordings(project) == sorted(
        [
            "test_agent-Rome.again.mva",
            "test_agent-Rome.mva",
            "test_agent-New-York.again.mva",
            "test_agent-New-York.mva",
        ]
    )
    assert "2 passed" in run(project)
    assert "2 passed" in run(project, "--recordings=never")
    assert ran(project) == []
    assert "2 passed" in run(project, "--recordings=all", "-k", "Rome or York")
    assert len(ran(project)) == 8


def test_an_agent_that_changed_fails_with_the_difference(project):
    run(project, "-k", "Rome")
    ran(project)
    output = run(project, "-k", "Rome", status=1, OTHER="Oslo")
    assert "ReplayDivergenceError" in output
    assert "Oslo" in output
    assert ran(project) == []


def test_a_failed_first_run_leaves_no_recording(project):
    run(project, "-k", "Rome", status=1, OTHER="Atlantis")
    assert recordings(project) == []


def test_the_plugin_does_not_import_the_library():
    code = "import pytest_memvid_async, sys; assert 'memvid_async' not in sys.modules"
    environment = {**os.environ, **ENVIRONMENT}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=True)


def test_a_project_that_does_not_use_it_does_not_import_the_library(tmp_path):
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_it():\n    assert 'memvid_async' not in sys.modules\n"
    )
    assert "1 passed" in run(tmp_path)
