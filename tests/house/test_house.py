"""The house: which module may import which, how long things grow, pages that agree with code."""

import ast
import asyncio
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import memvid_async
from scripts import check_docs, walks

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "memvid_async"
MODULES = sorted(SOURCE.rglob("*.py"))

# The rooms of src/memvid_async, what each holds and which others it may import; imports for types
# count. `python -m tests.house.test_house` prints the table into docs/design.md.
EVERYWHERE = {"errors", "config"}
PUBLIC = {"__init__"}
CORE = {"events", "core"}
BELOW_MEMORY = {*CORE, "engine", "recording", "search"}
MAY_IMPORT: dict[str, tuple[str, set[str]]] = {
    "errors": ("one root error and its tree", set()),
    "config": ("configuration and limits", {"errors"}),
    "events": ("the facts: values, contents, sessions and actions, frames", EVERYWHERE),
    "core": (
        "pure: commands, `decide`, `evolve`, the folded state. No loop, clock, thread or I/O",
        {*EVERYWHERE, "events"},
    ),
    "format": (
        "bytes: header, segments, rows, checksums, finding good segments again. Knows no decider",
        {*EVERYWHERE, "events"},
    ),
    "storage": ("where bytes live: protocol, disk, RAM", EVERYWHERE),
    "search": ("SQLite, vectors, fusion; all that knows SQL", {*EVERYWHERE, "events"}),
    "file": (
        "the event log in one file: catalog, TOC, journal, view, compact, verify, recover",
        {*EVERYWHERE, *CORE, "format", "storage"},
    ),
    "engine": (
        "where asyncio and threads begin: event log, writer, follower, tail, subscription",
        {*EVERYWHERE, *CORE, "file"},
    ),
    "stream": (
        "the event log on a replicated stream: connection, messages, journal, turns",
        {*EVERYWHERE, *CORE, "format", "file", "engine"},
    ),
    "recording": (
        "arguments checked and bounded, the session in force, session handles",
        {*EVERYWHERE, *CORE, "engine"},
    ),
    "memory": (
        "frames folded into a search index: live, past, forked; put, find, ask",
        {*EVERYWHERE, *BELOW_MEMORY},
    ),
    "replay": (
        "verify, what-if, serve, audit, compare",
        {*EVERYWHERE, *BELOW_MEMORY, "memory"},
    ),
    "store": (
        "opening, `Store`, views: holds the parts and wires them; the only wiring",
        {*EVERYWHERE, *BELOW_MEMORY, "memory", "replay", "file", "storage", "stream"},
    ),
    "__init__": (
        "the public names",
        {*EVERYWHERE, *BELOW_MEMORY, "file", "stream", "memory", "replay", "store"} - {"search"},
    ),
    "interop": ("other formats and frameworks, one file each", PUBLIC),
    "view": ("what people see of recordings: pages, documents, safe text", PUBLIC),
    "cli": ("thin commands", {*PUBLIC, "interop", "view"}),
    "__main__": ("`python -m memvid_async`", {"cli"}),
}
PURE = {"errors", "config", "events", "core", "format"}
NO_ASYNCIO = {*PURE, "storage", "search", "file"}
ASYNCIO = {"aiofiles", "anyio", "asyncio"}
CONCURRENCY = {*ASYNCIO, "concurrent", "multiprocessing", "threading"}
# Folded by one thread, read by others: a lock, and no thread of its own.
LOCKS = {("persistent_map.py", "threading.Lock")}

MODULE_LINES = 500
FUNCTION_LINES = 60
# What is longer on purpose, with the reason.
LONG_MODULES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}


def part(module: Path) -> str:
    """The room that a module is in, or the module itself where it stands beside the rooms."""
    return module.relative_to(SOURCE).parts[0].removesuffix(".py")


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


def rooms_table() -> list[str]:
    """The rooms as the lines of a table."""
    lines = ["| room | holds | may import |", "|---|---|---|"]
    for room, (holds, others) in MAY_IMPORT.items():
        if room not in {"__init__", "__main__"}:
            named = sorted(others - EVERYWHERE, key=list(MAY_IMPORT).index)
            names = ", ".join("public names" if name == "__init__" else name for name in named)
            only = "errors" if room == "config" else "nothing" if room == "errors" else names
            lines.append(f"| `{room}` | {holds} | {only or 'errors, config'} |")
    return lines


def test_a_room_imports_what_its_row_says():
    for module in MODULES:
        here = part(module)
        for line, imported in imports(module):
            there = own_part(imported)
            if there is not None and there != here:
                assert there in MAY_IMPORT[here][1], f"{module}:{line} imports {imported}"


def test_the_rooms_are_those_of_the_table():
    assert {part(module) for module in MODULES} == set(MAY_IMPORT)


def test_the_page_has_the_table_of_rooms():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert "\n".join(rooms_table()) in page, "run python -m tests.house.test_house"


def test_no_modules_import_each_other():
    names = {name_of(module): module for module in MODULES}
    wanted = {
        name: {other for _, found in imports(module) if (other := owner(found, names)) != name}
        for name, module in names.items()
    }
    # What imports nothing that is left is taken away, until only circles are left.
    while leaves := [name for name, others in wanted.items() if not others & set(wanted)]:
        for name in leaves:
            del wanted[name]
    assert not wanted


def name_of(module: Path) -> str:
    """The dotted name of a module."""
    parts = ("memvid_async", *module.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def owner(imported: str, names: dict[str, Path]) -> str | None:
    """The module that an imported name is in, of those with these names."""
    while imported and imported not in names:
        imported = imported.rpartition(".")[0]
    return imported or None


def test_no_two_files_have_one_name():
    names = [module.name for module in MODULES if module.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


def test_the_pure_rooms_know_no_loop_and_no_thread():
    for module in MODULES:
        refused = CONCURRENCY if part(module) in PURE else ASYNCIO
        imported_here = imports(module) if part(module) in NO_ASYNCIO else ()
        for line, imported in imported_here:
            if (module.name, imported) not in LOCKS:
                assert imported.split(".")[0] not in refused, f"{module}:{line} imports {imported}"


def test_calls_do_not_walk_far(tmp_path):
    """Rooms crossed, and changes of room, at most.

    Threads that run at the same time may add changes, so the shortest of some walks counts.
    """
    most = {"record_ask": (8, 31), "put": (9, 49), "a recorded find": (11, 90)}
    found = dict.fromkeys(most, (2**31, 2**31))
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        for walk in asyncio.run(walks.walks(folder)):
            if walk.name in most:
                found[walk.name] = min(found[walk.name], (walk.room_count, walk.changes))
        if all(found[name][1] <= changes for name, (_, changes) in most.items()):
            break
    for name, (rooms, changes) in most.items():
        assert found[name][0] <= rooms, found
        assert found[name][1] <= changes, found


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
            # What stops an agent is not to be caught with its errors.
            root = memvid_async.MemvidAsyncError | memvid_async.ReplayStopped | Warning
            assert issubclass(thing, root), name


def test_the_version_is_stated_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(
        r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert project["dynamic"] == ["version"]
    assert headings[0] == memvid_async.__version__


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_readme_sections_hold_one_command_line(heading):
    (command,) = section_commands((ROOT / "README.md").read_text(encoding="utf-8"), heading)
    assert command


def section_commands(text: str, heading: str) -> list[str]:
    """The lines of the one fenced block under a heading."""
    section = re.split(r"^## ", text.split(f"\n## {heading}\n")[1], flags=re.MULTILINE)[0]
    ((_, code),) = check_docs.code_blocks(section)
    return code.splitlines()


if __name__ == "__main__":
    PAGE = ROOT / "docs" / "design.md"
    TEXT = PAGE.read_text(encoding="utf-8")
    LINES = r"\| room \| holds \| may import \|\n(\|.*\n)+"
    PAGE.write_text(re.sub(LINES, "\n".join(rooms_table()) + "\n", TEXT), encoding="utf-8")
