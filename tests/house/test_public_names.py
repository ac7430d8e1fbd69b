"""Every public name says where it is public, and what it takes."""

import ast
import copy
import enum
import inspect
import io
import pickle
import subprocess
import sys
import typing
from pathlib import Path

import attrs
import pytest

import memvid_async

NAMES = sorted(memvid_async.__all__)
THINGS = {name: getattr(memvid_async, name) for name in NAMES}
CLASSES = {name: thing for name, thing in THINGS.items() if inspect.isclass(thing)}


def callables():
    """Every public function, class and method, with its dotted name."""
    for name, thing in THINGS.items():
        if inspect.isroutine(thing) or inspect.isclass(thing):
            yield name, thing
    for name, kind in CLASSES.items():
        for member in dir(kind):
            found = inspect.getattr_static(kind, member)
            # A property has its signature; what a store's part offers is that part's function.
            found = found.fget if isinstance(found, property) else getattr(kind, member)
            found = getattr(found, "__func__", found)
            # What is Python's own, of an enum or an exception, is not ours to describe.
            if inspect.isfunction(found) and (not member.startswith("_") or member == "__init__"):
                yield f"{name}.{member}", found


CALLABLES = dict(callables())


def test_each_names_the_package_as_its_module():
    for name in set(NAMES) - {"SearchMode", "RUN"}:
        thing = THINGS[name]
        assert (thing.__module__, thing.__qualname__) == ("memvid_async", name)
        assert pickle.loads(pickle.dumps(thing)) is thing


def test_the_package_lists_its_public_names_alone():
    assert dir(memvid_async) == sorted([*NAMES, "__version__"])


def test_the_annotations_of_each_class_can_be_looked_up():
    for kind in CLASSES.values():
        typing.get_type_hints(kind)
        if attrs.has(kind):
            attrs.resolve_types(kind)


def test_each_signature_shows_every_default():
    for name, called in CALLABLES.items():
        try:
            shown = str(inspect.signature(called))
        except ValueError:
            # What is made as Python's own exceptions and dicts are has none on some releases.
            assert issubclass(called, (BaseException, dict)), name
            continue
        assert " at 0x" not in shown, (name, shown)
        assert "NOTHING" not in shown, (name, shown)


def test_a_traceback_names_the_public_error(tmp_path):
    code = (
        "import asyncio, memvid_async\n"
        "async def main():\n"
        f"    await memvid_async.open_store({str(tmp_path / 'none.mva')!r}, read_only=True)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("memvid_async.StoreNotFoundError: ")


OUTSIDE = {"cli": {"cli", "view", "interop"}, "view": {"view"}, "interop": {"interop"}}


@pytest.mark.parametrize("room", OUTSIDE)
def test_a_room_outside_uses_public_names_only(room):
    source = Path(memvid_async.__file__).parent
    for module in (source / room).rglob("*.py"):
        package = ["memvid_async", *module.relative_to(source).parts[:-1]]
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                names = [*base, *(node.module.split(".") if node.module else [])]
                imported = {alias.name for alias in node.names}
                if names == ["memvid_async"]:
                    allowed = {*memvid_async.__all__, "__version__", *OUTSIDE[room]}
                    assert imported <= allowed, f"{module.name}:{node.lineno}"
                elif names[0] == "memvid_async":
                    assert names[1] in OUTSIDE[room], f"{module.name}:{node.lineno}"
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    assert alias.name.split(".")[0] != "memvid_async", (
                        f"{module.name}:{node.lineno}"
                    )


class Naming(pickle.Unpickler):
    """Unpickles, and keeps the names of the library's own that a pickle refers to."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.names = set()

    def find_class(self, module, name):
        if module.startswith("memvid_async"):
            self.names.add((module, name))
        return super().find_class(module, name)


async def test_what_a_store_returns_pickles_by_public_names(make_store):
    store = await make_store()
    async with store.session("one", metadata={"deep": {"list": [1]}}) as recorder:
        frame_id = await store.put("rain " * 1_000, tags=["a"], metadata={"year": 2026})
        result = await store.find("rain", metadata={"year": 2026})
        await store.update(frame_id, "snow")
        await recorder.record_tool_call("search", arguments={"a": 1}, result="x" * 2_000)
        await recorder.record_ask(
            "why", provider="p", model="m", response="so", duration_ms=1, messages=["a", "b"]
        )
        await recorder.create_checkpoint()
    one = recorder.session_id
    forked = await store.fork(one)
    async with store.subscribe() as events:
        log = [await anext(events) for _ in range(store.last_sequence)]
    found = [
        *(await store.get_session(one), await store.list_sessions(include_open=True)),
        *(log, result, await store.get(frame_id), await store.read_context(log_action(log))),
        *(await store.compare(one, forked), await store.replay(one).report()),
        *(store.statistics(), await store.verify(), store.torn_tail),
    ]
    for value in found:
        reading = Naming(pickle.dumps(value))
        assert reading.load() == value
        assert {module for module, _ in reading.names} == {"memvid_async"}
        assert {name for _, name in reading.names} <= set(NAMES)
        assert copy.deepcopy(value) == value


def log_action(log):
    """The find among the events."""
    actions = (getattr(event.payload, "action", None) for event in log)
    return next(action for action in actions if action is not None and action.kind == "find")


def class_definitions():
    """The definition of every class of the package, by name."""
    found = {}
    for module in Path(memvid_async.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name] = node
    return found


DEFINITIONS = class_definitions()


def test_each_field_of_a_class_is_documented_below_it():
    for name, kind in CLASSES.items():
        body = DEFINITIONS[name].body
        for statement, below in zip(body, [*body[1:], None], strict=True):
            is_value = isinstance(statement, ast.Assign) and issubclass(kind, enum.Enum)
            if isinstance(statement, ast.AnnAssign) or is_value:
                is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                assert is_text, f"{name}: {ast.unparse(statement)}"
