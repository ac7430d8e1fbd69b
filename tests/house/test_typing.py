"""mypy and pyright accept a file of right calls, and refuse every line of a file of wrong ones."""

import ast
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import memvid_async

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RIGHT, WRONG = HERE / "typing_example.py", HERE / "typing_wrong.py"


def mypy_problems():
    """The lines of each file that mypy refuses."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--no-error-summary"]
    done = subprocess.run(
        [*command, str(RIGHT), str(WRONG)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    for line in done.stdout.splitlines():
        if match := re.match(r"(.+?):(\d+): error: (.*)", line):
            yield Path(match[1]).name, int(match[2]), match[3]


def pyright_problems():
    """The lines of each file that pyright refuses."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, str(RIGHT), str(WRONG)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        if found["severity"] == "error":
            line = found["range"]["start"]["line"] + 1
            yield Path(found["file"]).name, line, found["message"]


CHECKERS = {"mypy": mypy_problems, "pyright": pyright_problems}


@pytest.fixture(scope="module", params=CHECKERS)
def problems(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed; the extra `types` has it")
    return list(CHECKERS[request.param]())


# The first run of a checker reads all its own stubs.
@pytest.mark.timeout(300)
def test_right_calls_are_accepted(problems):
    assert [problem for problem in problems if problem[0] == RIGHT.name] == []


@pytest.mark.timeout(300)
def test_every_wrong_call_is_refused_on_its_line(problems):
    refused = {line for name, line, _ in problems if name == WRONG.name}
    lines = WRONG.read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# wrong: " in line}
    assert len(wrong) >= 20
    assert refused == wrong


def public_calls():
    """The names of all public functions, classes that are made by a caller, and methods."""
    for name in memvid_async.__all__:
        thing = getattr(memvid_async, name)
        if inspect.isfunction(thing):
            yield name
        elif inspect.isclass(thing):
            # What a dict or an exception has is Python's own.
            python = {base for base in thing.__mro__ if base.__module__ == "builtins"}
            for member in set(dir(thing)) - set().union(*map(dir, python)):
                static = inspect.getattr_static(thing, member)
                is_ours = inspect.isfunction(getattr(thing, member)) or isinstance(static, property)
                if is_ours and not member.startswith("_"):
                    yield f"{name}.{member}"


def test_every_public_call_is_in_the_file_of_right_ones():
    tree = ast.parse(RIGHT.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert [name for name in public_calls() if name.rpartition(".")[2] not in used] == []
