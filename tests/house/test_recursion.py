"""No function calls itself, directly or through others: what it walks may be very deep.

Calls are told by names: of functions of the same module, of functions imported from another module,
and of a class's own methods through ``self`` and ``cls``. A function that is handed on counts as
called.
"""

import ast
import symtable
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
# What symtable calls the parts of a function that have a scope of their own.
PARTS = ("lambda", "genexpr", "listcomp", "setcomp", "dictcomp")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

# Those that do, each with what bounds it.
BOUNDED = {
    "memvid_async.search.conditions:_plain": "stops at _MOST_DEPTH",
    "memvid_async.search.conditions:_asked": "stops at _MOST_DEPTH",
    "memvid_async.events.values:_check_container": "stops at MAX_DEPTH",
    "memvid_async.events.value_preview:_ValueBegin.value": "stops at MAX_DEPTH",
    "memvid_async.events.value_preview:_ValueBegin._array": "see value",
    "memvid_async.events.value_preview:_ValueBegin._map": "see value",
    "memvid_async.events.values:_with_one_nan": "a decoded value, at most MAX_DEPTH deep",
    "memvid_async.format.rows:_count": "a row made here: a frame, its content, its parts",
    "memvid_async.core.held_messages:_replace": "a decoded value, at most MAX_DEPTH deep",
    "memvid_async.replay.textdiff:_plain": "a decoded value, at most MAX_DEPTH deep",
    "memvid_async.view.documents:with_times": "a document of decoded values, see plain",
    "memvid_async.view.documents:new_messages": "once, for one action alone",
    "memvid_async.cli.given:Given._refer": "a document of decoded values, see plain",
    "memvid_async.cli.given:_filled": "a document of decoded values, see plain",
    "memvid_async.view.documents:plain": "a decoded value, at most MAX_DEPTH deep",
    "memvid_async.interop.openai_tracing:MemvidTracing._inside": "each span has a task of its own",
    "memvid_async.interop.openai_tracing:MemvidTracing._record": "see _inside",
    "memvid_async.interop.openai_tracing:MemvidTracing._record_call": "see _inside",
    "memvid_async.interop.openai_tracing:MemvidTracing._record_step": "see _inside",
    "memvid_async.interop.otel_spans:plain": "stops at _MOST_DEPTH",
    "memvid_async.interop.otel_spans:_thawed": "a decoded value, at most MAX_DEPTH deep",
    "memvid_async.recording.converting:_Plain._make": "stops at MAX_DEPTH",
    "memvid_async.stream.straight_requests:StraightRequests._look": "the loop calls it later",
    "memvid_async.recording.converting:_Plain._container": "see _make",
    "memvid_async.recording.converting:_Plain._map": "see _make",
    "memvid_async.recording.scrubbing:ScrubbingLimits.value": "stops at MAX_DEPTH",
    "memvid_async.replay.compare:_fill": "one level for each key that actions are paired by",
    "memvid_async.replay.lcs:_align": "halves one side each time",
    "memvid_async.memory.projection_saver:ProjectionSaver.note_put": "the loop calls _saved",
    "memvid_async.memory.projection_saver:ProjectionSaver._saved": "see note_put",
    "memvid_async.recording.call_recorder:CallRecorder._tell": "the loop calls _settled, later",
    "memvid_async.recording.call_recorder:CallRecorder._settled": "see _tell",
    "memvid_async.recording.settling:Settling._turn": "the loop calls it, a turn later",
    "memvid_async.recording.tool_decorator:_decorated": "once, for a decorator with arguments",
    "memvid_async.recording.tool_decorator:_listed": "stops at MAX_DEPTH",
    "memvid_async.recording.error_details:_Describing.describe": "stops at _MOST_DEPTH",
    "memvid_async.recording.error_details:_Describing._members": "see describe",
    "memvid_async.recording.scrubbing:_scrubbed_error": "a description, see describe",
    "memvid_async.format.call_rows:_error_row": "a description, see describe",
    "memvid_async.format.call_rows:_read_error": "a decoded value, at most MAX_DEPTH deep",
    "memvid_async.replay.recorded_errors:_error_of": "a description, see describe",
    "memvid_async.replay.recorded_errors:_made": "see _both",
    "memvid_async.replay.recorded_errors:_both": "pickle calls _again, for a copy",
    "memvid_async.replay.recorded_errors:_again": "see _both",
    "memvid_async.replay.handover:Handover._let_settle": "the loop calls _settled, later",
    "memvid_async.replay.handover:Handover._settled": "see _let_settle",
    "memvid_async.replay.handover:Handover._advance": "see _let_settle",
    "memvid_async.replay.handover:Handover._release": "see _let_settle",
    "memvid_async.replay.handover:Handover._record": "see _let_settle",
}


class Module:
    """The functions of one module, by name, and what each of them names."""

    def __init__(self, name, text, *, is_package):
        self.name = name
        self.names = {}
        tree = ast.parse(text)
        self._imported = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                path = name.split(".")
                up = node.level - is_package
                base = path[: len(path) - up] if node.level else []
                base = ".".join([*base, *([node.module] if node.module else [])])
                for one in node.names:
                    self._imported[one.asname or one.name] = f"{base}:{one.name}"
        self._tops = {node.name for node in tree.body if isinstance(node, FUNCTION)}
        self._scan(symtable.symtable(text, name, "exec"), "", [])
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self._scan_methods(node)

    def _scan(self, table, path, defined):
        """``defined``: per function around, the functions that are defined in it, by name."""
        inner = {}
        for child in table.get_children():
            if child.get_type() == "function" and child.get_name() not in PARTS:
                inner[child.get_name()] = f"{path}{child.get_name()}"
        own = self.names.setdefault(path.rstrip("."), set())
        is_function = table.get_type() == "function"
        for symbol in table.get_symbols() if is_function else ():
            if not symbol.is_referenced():
                continue
            word = symbol.get_name()
            if symbol.is_global():
                found = f"{self.name}:{word}" if word in self._tops else self._imported.get(word)
            elif symbol.is_free():
                found = next(
                    (f"{self.name}:{names[word]}" for names in defined if word in names), None
                )
            elif word in inner:
                found = f"{self.name}:{inner[word]}"
            else:
                found = self._imported.get(word) if symbol.is_imported() else None
            if found is not None:
                own.add(found)
        around = [inner, *defined] if is_function else defined
        for child in table.get_children():
            if child.get_name() in inner or child.get_type() == "class":
                self._scan(child, f"{path}{child.get_name()}.", around)
            elif child.get_type() == "function":
                # A lambda or a comprehension is part of the function that it stands in.
                self._scan(child, path, around)

    def _scan_methods(self, node):
        methods = {one.name: one for one in node.body if isinstance(one, FUNCTION)}
        for name, method in methods.items():
            for one in ast.walk(method):
                if (
                    isinstance(one, ast.Attribute)
                    and isinstance(one.value, ast.Name)
                    and one.value.id in ("self", "cls")
                    and one.attr in methods
                ):
                    self.names.setdefault(f"{node.name}.{name}", set()).add(
                        f"{self.name}:{node.name}.{one.attr}"
                    )


def calls_of(sources):
    """Per function ``module:name``, the functions that it names; ``sources``: text by module."""
    graph = {}
    for name, (text, is_package) in sources.items():
        module = Module(name, text, is_package=is_package)
        graph.update({f"{name}:{path}": found for path, found in module.names.items() if path})
    return {name: found & graph.keys() for name, found in graph.items()}


def recursive(graph):
    """The functions that can reach themselves."""
    found = set()
    for start in graph:
        seen, waiting = set(), list(graph[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph[name]
        if start in seen:
            found.add(start)
    return found


def library():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield ".".join(parts[:-1] if is_package else parts), (path.read_text(), is_package)


def test_no_function_calls_itself_but_those_that_something_bounds():
    graph = calls_of(dict(library()))
    assert len(graph) > 800
    assert sum(map(len, graph.values())) > 1200
    assert recursive(graph) == set(BOUNDED)


SAMPLES = {
    "by its name": """
def f(x):
    return f(x)
""",
    "as an argument": """
def f(x):
    return list(map(f, x))
""",
    "in a comprehension": """
def f(x):
    return [f(y) for y in x]
""",
    "in a lambda": """
def f(x):
    return lambda: f(x)
""",
    "through another": """
def f(x):
    return g(x)
def g(x):
    return f(x)
""",
    "through a method": """
class C:
    def f(self):
        self.g()
    def g(self):
        self.f()
""",
    "through a class method": """
class C:
    @classmethod
    def f(cls):
        cls.f()
""",
    "inside a function": """
def g():
    def f(x):
        f(x)
    f(1)
""",
    "through an import": """
from .other import g
def f(x):
    g(x)
""",
    "through an import of its own": """
def f(x):
    from .other import g
    g(x)
""",
    "asynchronously": """
async def f(x):
    await f(x)
""",
}
OTHERS = {
    "a variable of that name": """
def f(x):
    f = x
    return f
""",
    "a parameter of that name": """
def f(x, f):
    return f(x)
""",
    "a method of another object": """
class C:
    def f(self):
        self.x.f()
""",
    "a method and a function": """
def f(x):
    return x
class C:
    def f(self):
        return f(1)
""",
    "a row of calls": """
def f(x):
    return g(x)
def g(x):
    return h(x)
def h(x):
    return x
""",
}


def sample(text):
    return calls_of({
        "p.m": (text, False),
        "p.other": ("from .m import f\ndef g(x):\n    f(x)", False),
    })  # fmt: skip


def test_it_sees_a_function_that_calls_itself():
    assert [name for name, text in SAMPLES.items() if not recursive(sample(text))] == []


def test_it_takes_nothing_else_for_one():
    assert [name for name, text in OTHERS.items() if recursive(sample(text))] == []
