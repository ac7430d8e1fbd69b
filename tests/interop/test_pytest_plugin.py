"""The pytest fixture: records the first time, serves from then on, and is in nobody's way."""

import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_memvid_async.names import file_name, path_in_file

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

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
    return str(await recorded.call_model(f"Is it nice in {city}?", model))

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


LONG = """
import asyncio, os

def test_long(memvid_recording):
    async def main():
        value = os.environ.get("OTHER", "y")
        async with memvid_recording() as recorded:
            lines = "\\n".join(f"{value} {n}" for n in range(200))
            await recorded.call_model(lines, lambda prompt: "fine")
    asyncio.run(main())
"""

LEAVES_OUT = """
import asyncio, os
import pytest

async def agent(recorded):
    await recorded.call_tool("first", {}, lambda: 1)
    if "FEWER" not in os.environ:
        await recorded.call_tool("second", {}, lambda: 2)

def test_all(memvid_recording):
    async def main():
        async with memvid_recording() as recorded:
            await agent(recorded)
    asyncio.run(main())

def test_fewer(memvid_recording):
    async def main():
        async with memvid_recording(unserved="allow") as recorded:
            await agent(recorded)
    asyncio.run(main())

def test_its_own_failure_comes_first(memvid_recording):
    async def main():
        async with memvid_recording() as recorded:
            await agent(recorded)
            assert "FEWER" not in os.environ, "its own failure"
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
        # Where CI is set, pytest shortens nothing.
        env={**os.environ, "CI": "", **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
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
    made = recordings(project)
    assert [one[: -len("-0123456789abcdef.mva")] for one in made] == [
        "test_agent-New-York-.again",
        "test_agent-New-York",
        "test_agent-Rome-.again",
        "test_agent-Rome",
    ]
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
    (made,) = [name for name in recordings(project) if "again" not in name]
    assert f"recordings/test_mine/{made}" in output
    command = "pytest 'test_mine.py::test_agent[Rome]' --recordings=all"
    assert command in output
    assert "src/memvid_async" not in output, "the library's own frames are noise"
    assert "recorded.call_tool" in output
    assert len(output.splitlines()) < 90, "it fits a screen or two, pytest's own lines included"


def test_a_long_difference_is_cut(tmp_path):
    (tmp_path / "test_mine.py").write_text(LONG, encoding="utf-8")
    run(tmp_path)
    output = run(tmp_path, status=1, OTHER="x")
    assert "more lines; error.differences has all" in output
    assert len(output.splitlines()) < 120


def test_recorded_calls_that_nobody_asks_for_fail_the_test(tmp_path):
    (tmp_path / "test_mine.py").write_text(LEAVES_OUT, encoding="utf-8")
    assert "3 passed" in run(tmp_path)
    output = run(tmp_path, status=1, FEWER="1")
    assert "2 failed, 1 passed" in output
    assert "AssertionError: its own failure" in output
    assert output.count("not asked for") == 1
    assert "pytest_memvid_async" not in output, "none of our frames"
    assert "contextlib" not in output
    assert "action 1, tool_call 'second'" in output
    assert "unserved='allow'" in output
    assert "--recordings=all" in output


OPTIONS = """
import asyncio, datetime, os, uuid
import pytest

def log(at, run, city):
    return "logged"

def fails():
    raise LookupError("no such city")

async def agent(recorded, city):
    now = {"at": str(datetime.datetime.now()), "run": str(uuid.uuid4()), "city": city}
    assert await recorded.call_tool("log", now, log) == "logged"
    try:
        await recorded.call_tool("fails", {}, fails)
    except LookupError as error:
        return str(error)

def test_dates_and_ids_are_not_compared(memvid_recording):
    async def main():
        async with memvid_recording() as recorded:
            city = os.environ.get("OTHER", "Rome")
            assert "no such city" in await agent(recorded, city)
    asyncio.run(main())

def test_it_says_what_is_compared(memvid_recording):
    async def main():
        async with memvid_recording(match=["name"]) as recorded:
            await agent(recorded, str(uuid.uuid4().int))
    asyncio.run(main())
"""

CONFTEST = """
import pytest

def scrub(kind, field, value):
    return value.replace("Rome", "<city>") if isinstance(value, str) else value

@pytest.fixture
def memvid_recording_options():
    return {"scrub": scrub}
"""


def test_what_passes_is_left_out_and_the_original_exception_comes_back(tmp_path):
    (tmp_path / "test_mine.py").write_text(OPTIONS, encoding="utf-8")
    assert "2 passed" in run(tmp_path)
    assert "2 passed" in run(tmp_path, "--recordings=never")
    output = run(tmp_path, "--recordings=never", status=1, OTHER="Oslo")
    assert "1 failed, 1 passed" in output
    assert '+  "city": "Oslo"' in output


def test_a_projects_own_options_hold_for_all_its_recordings(tmp_path):
    (tmp_path / "test_mine.py").write_text(OPTIONS, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    run(tmp_path)
    for recording in tmp_path.glob("recordings/test_mine/*"):
        assert b"Rome" not in recording.read_bytes()
    assert "2 passed" in run(tmp_path, "--recordings=never")


GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]


def git(folder, *arguments):
    done = subprocess.run(
        [*GIT, *arguments],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, "GIT_CONFIG_GLOBAL": os.devnull, "PAGER": "cat"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_git_shows_what_changed_in_a_recording(project):
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    (attributes,) = re.findall(r"^\*\.mva .*$", page, re.MULTILINE)
    (program,) = re.findall(r"^git config diff\.memvid\.textconv '(.*)'$", page, re.MULTILINE)
    run(project, "-k", "Rome")
    git(project, "init", "--quiet")
    (project / ".gitattributes").write_text(attributes + "\n")
    git(project, "config", "diff.memvid.textconv", program.replace("python", sys.executable, 1))
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "recorded")

    # After another test the tasks have other numbers.
    order = [f"test_mine.py::test_agent[{city}]" for city in ("New York", "Rome")]
    run(project, *order, "--recordings=all")
    assert git(project, "diff", "--", "*.mva") == "", "times and ids are no difference"
    changed = AGENT.replace('"sun": True', '"sun": False')
    (project / "test_mine.py").write_text(changed, encoding="utf-8")
    run(project, "-k", "Rome", "--recordings=all")
    lines = git(project, "diff", "--", "*.mva").splitlines()
    assert [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        '-     "sun": true',
        '+     "sun": false',
        '-     "sun": true',
        '+     "sun": false',
    ]


def test_a_file_that_is_no_recording_has_no_text(tmp_path):
    (tmp_path / "a.mva").write_text("something else")
    command = [sys.executable, "-m", "pytest_memvid_async", "a.mva"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("a.mva: ")


def test_a_failed_first_run_leaves_no_recording(project):
    run(project, "-k", "Rome", status=1, OTHER="Atlantis")
    assert recordings(project) == []


def test_the_plugin_does_not_import_the_library():
    code = "import pytest_memvid_async, sys; assert 'memvid_async' not in sys.modules"
    environment = {**os.environ, **ENVIRONMENT}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_project_that_does_not_use_it_does_not_import_the_library(tmp_path):
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_it():\n    assert 'memvid_async' not in sys.modules\n"
    )
    assert "1 passed" in run(tmp_path)


# Each pair, triple, … is of tests whose names a mapping with loss would take for one.
ALIKE = """
import asyncio
import pytest

def recorded(recording, value):
    async def main():
        async with recording() as calls:
            assert await calls.call_tool("tool", {}, lambda: value) == value
    asyncio.run(main())

class TestRome:
    def test_weather(self, memvid_recording):
        recorded(memvid_recording, "Rome")

class TestOslo:
    def test_weather(self, memvid_recording):
        recorded(memvid_recording, "Oslo")

    class TestDeep:
        def test_weather(self, memvid_recording):
            recorded(memvid_recording, "deep")

def test_weather(memvid_recording):
    recorded(memvid_recording, "plain")

def TEST_weather(memvid_recording):
    recorded(memvid_recording, "loud")

@pytest.mark.parametrize("value", ["+1", "1", "a/b", "a b", "A b", "", "..", "con", "x.mva"])
def test_value(memvid_recording, value):
    recorded(memvid_recording, value)

@pytest.mark.parametrize("value", [1, 2], ids=["x" * 300 + "1", "x" * 300 + "2"])
def test_long(memvid_recording, value):
    recorded(memvid_recording, value)

def test_%s(memvid_recording):
    recorded(memvid_recording, "far")
""" % ("天気" * 80)


def test_tests_with_names_alike_have_recordings_of_their_own(tmp_path):
    (tmp_path / "test_mine.py").write_text(ALIKE, encoding="utf-8")
    both = ("-o", "python_functions=test TEST")
    assert "17 passed" in run(tmp_path, *both)
    assert "17 passed" in run(tmp_path, *both, "--recordings=never")
    assert len(recordings(tmp_path)) == 17
    assert "test_weather.mva" in recordings(tmp_path)


PARTS = [
    "a",
    "A",
    "a.b",
    "b",
    "",
    ".",
    "..",
    "a ",
    "a.",
    "-",
    "con",
    "CON",
    "con.b",
    "ä",
    "a\u0308",
]
PARTS += [
    "\u017f",
    "s",
    "\u0131",
    "i",
    "İ",
    "x" * 90,
    "x" * 91,
    "天" * 250,
    "\ud800",
    "nul",
    "com1",
    "a/b",
    "a\\b",
]


def test_no_file_system_takes_two_names_for_one():
    whose = {}
    for test in [[one] for one in PARTS] + [[one, two] for one in PARTS for two in PARTS]:
        for name in (None, *PARTS):
            made = file_name(test, name)
            assert made.isascii()
            assert len(made) < 200, "the library adds suffixes"
            assert not set(made) & set('<>:"/\\|?*')
            assert made[0] not in "-. "
            assert made.split(".")[0].lower() not in {"con", "nul", "com1"}
            folded = unicodedata.normalize("NFKD", made).casefold()
            assert whose.setdefault(folded, (test, name)) == (test, name)


def test_the_names_are_the_same_on_every_machine():
    assert file_name(["test_weather"], None) == "test_weather.mva"
    assert file_name(["test_weather"], "again") == "test_weather.again.mva"
    assert file_name(["TestRome", "test_weather"], None) == (
        "TestRome.test_weather-cc1d18876c10937a.mva"
    )


@pytest.mark.parametrize(
    ("name", "backend", "wanted"),
    [
        ("test_a[asyncio]", "asyncio", "test_a"),
        ("test_a[asyncio-x-y]", "asyncio", "test_a[x-y]"),
        ("test_a[asyncio]", None, "test_a[asyncio]"),
        ("test_a[asyncio+uvloop]", ("asyncio", {"use_uvloop": True}), "test_a[asyncio+uvloop]"),
        ("test_a[trio-x]", "trio", "test_a[trio-x]"),
    ],
)
def test_who_runs_a_test_is_not_in_its_name(name, backend, wanted):
    node = SimpleNamespace(name=name, callspec=SimpleNamespace(params={"anyio_backend": backend}))
    node.listchain = lambda: [node]
    assert path_in_file(node) == [wanted]
