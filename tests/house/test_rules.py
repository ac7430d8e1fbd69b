"""Every rule of `docs/rules.md` is held by a test, which names it by its number."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("recording", "replay")
RANGE = re.compile(r"\b[Rr]ules? ([0-9, and to]+)")


def rules() -> list[int]:
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    return [int(number) for number in re.findall(r"^(\d+)\. ", page, re.MULTILINE)]


def named(path: Path) -> Iterator[int]:
    """The rules that the docstrings of a file's tests name: "Rules 30 to 32", "Rule 6 and 7"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name[:4] == "test":
            for numbers in RANGE.findall(ast.get_docstring(node) or ""):
                for first, last in re.findall(r"(\d+)(?: to (\d+))?", numbers):
                    yield from range(int(first), int(last or first) + 1)


def test_every_rule_has_a_test() -> None:
    assert rules() == list(range(1, len(rules()) + 1))
    paths = [path for room in ROOMS for path in (ROOT / "tests" / room).glob("test_*.py")]
    held = {rule for path in paths for rule in named(path)}
    assert held == set(rules())
