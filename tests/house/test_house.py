"""The house: which module may import which, how long things grow, pages that agree with code."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import memvid_async
from scripts import check_docs

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "memvid_async"
MODULES = sorted(SOURCE.rglob("*.py"))

# A module imports from its own layer or one below it. docs/design.md draws the same staircase.
LAYERS = (
    {"errors", "config", "pace", "values", "content", "frames", "events"},
    {"model"},
    {"log", "storage", "format", "prepare", "search", "worker"},
    {"index"},
    {"reader"},
    {"changes"},
    {"memory", "past"},
    {"logfile"},
    {"logcopy"},
    {"compaction", "verify", "wreck"},
    {"journal", "salvage"},
    {"subscription", "writer", "follower"},
    {"intake", "recorder"},
    {"callables", "contents", "prepare_frames", "recall"},
    {"frame_store", "replay"},
    {"views"},
    {"store"},
    {"__init__"},
    {"interop"},
    {"cli"},
    {"__main__"},
)
PURE = {"errors", "config", "values", "content", "frames", "events", "model", "format"}
CONCURRENCY = {"aiofiles", "anyio", "asyncio", "concurrent", "multiprocessing", "threading"}

MODULE_LINES = 500
FUNCTION_LINES = 60
# What is longer on purpose, with the reason.
LONG_MODULES: dict[str, str] = {
    "store.py": "all that a caller may do with a store, most of it docstrings; it only wires",
}
LONG_FUNCTIONS: dict[str, str] = {}


def part(module: Path) -> str:
    """The part of the house a module belongs to: its file's name, or its package's."""
    return module.relative_to(SOURCE).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    for number, names in enumerate(LAYERS):
        if name in names:
            return number
    raise AssertionError(f"{name} has no place in LAYERS")


def imports(module: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the absolute dotted name of everything a module imports, at any depth."""
    package = ["memvid_async", *module.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def own_part(imported: str) -> str | None:
    """The part of the house an import leads to; None when it leads outside."""
    names = imported.split(".")
    if names[0] != "memvid_async":
        return None
    inside = len(names) > 1 and (
        (SOURCE / names[1]).is_dir() or (SOURCE / f"{names[1]}.py").is_file()
    )
    return names[1] if inside else "__init__"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(module):
    here = layer(part(module))
    for line, imported in imports(module):
        there = own_part(imported)
        if there is not None:
            assert layer(there) <= here, (
                f"{module.name}:{line} imports {imported} from a layer above"
            )


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_pure_core_knows_no_loop_and_no_thread(module):
    if part(module) in PURE:
        for line, imported in imports(module):
            assert imported.split(".")[0] not in CONCURRENCY, (
                f"{module.name}:{line} imports {imported}"
            )


def test_only_the_command_line_needs_its_extra():
    for module in MODULES:
        if part(module) not in {"cli", "__main__"}:
            found = {imported.split(".")[0] for _, imported in imports(module)}
            assert not found & {"click", "rich"}, module


def test_no_module_is_too_long():
    lines = {
        str(path.relative_to(SOURCE)): path.read_text(encoding="utf-8").count("\n")
        for path in MODULES
    }
    long = {name for name, count in lines.items() if count > MODULE_LINES}
    assert long == set(LONG_MODULES)


def test_no_function_is_too_long():
    long = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno >= FUNCTION_LINES:
                    long.add(f"{module.relative_to(SOURCE)}:{node.name}")
    assert long == set(LONG_FUNCTIONS)


def test_public_names_are_sorted_and_exist():
    assert len(set(memvid_async.__all__)) == len(memvid_async.__all__)
    for name in memvid_async.__all__:
        assert hasattr(memvid_async, name)


def test_pages_and_public_names_agree():
    assert check_docs.problems() == []


def test_every_error_has_the_one_root():
    for name in memvid_async.__all__:
        thing = getattr(memvid_async, name)
        if isinstance(thing, type) and issubclass(thing, BaseException):
            assert issubclass(thing, memvid_async.MemvidAsyncError), name


def test_the_version_is_stated_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(
        r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert project["dynamic"] == ["version"]
    assert headings[0] == memvid_async.__version__


def test_ci_runs_the_readme_test_command(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = section_commands(readme, "Test it")
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    stand_in = "echo 'it is' run && pwd"
    (tmp_path / "README.md").write_text(readme.replace(command, stand_in), encoding="utf-8")
    done = subprocess.run(["sh", f"{tmp_path}/.ci/run"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"+ {stand_in}", "it is run", str(tmp_path)]


def test_ci_can_be_executed():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_readme_sections_hold_one_command_line(heading):
    (command,) = section_commands((ROOT / "README.md").read_text(encoding="utf-8"), heading)
    assert command


def section_commands(text: str, heading: str) -> list[str]:
    """The lines of the one fenced block under a heading."""
    section = re.split(r"^## ", text.split(f"\n## {heading}\n")[1], flags=re.MULTILINE)[0]
    ((_, code),) = check_docs.code_blocks(section)
    return code.splitlines()
