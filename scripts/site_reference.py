"""What mkdocstrings needs to know to show the public classes as they are used.

It reads the source, and the source makes some of what is public when it is imported: methods that a
store offers of its parts, their synchronous siblings, constructors of attrs classes. This extension
of griffe asks the imported package for those, and writes the docstrings' roles and ``:raises``
lines as Markdown.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from griffe import (
    Attribute,
    Class,
    Docstring,
    Extension,
    Function,
    GriffeLoader,
    Module,
    Object,
    Parameter,
    ParameterKind,
    Parameters,
)

PACKAGE = "memvid_async"
ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`~?([^`]+)`")
RAISES = re.compile(r"^:raises ([\w, ]+):(.*(?:\n(?!:)[^\n]+)*)", re.MULTILINE)
KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: ParameterKind.positional_or_keyword,
    inspect.Parameter.VAR_POSITIONAL: ParameterKind.var_positional,
    inspect.Parameter.KEYWORD_ONLY: ParameterKind.keyword_only,
    inspect.Parameter.VAR_KEYWORD: ParameterKind.var_keyword,
}


class PublicSurface(Extension):
    """Show what is public as a caller sees it."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **_: Any) -> None:
        """Complete the classes of the package, once all of it was read."""
        if pkg.path != PACKAGE:
            return
        public = set(importlib.import_module(PACKAGE).__all__)
        for thing in list(everything(pkg)):
            if isinstance(thing, Class):
                complete(thing, loader)
        for thing in everything(pkg):
            if thing.docstring is not None:
                thing.docstring = Docstring(
                    as_markdown(thing.docstring.value, public),
                    parent=thing,
                    lineno=thing.docstring.lineno,
                    endlineno=thing.docstring.endlineno,
                )


def everything(thing: Object) -> Iterator[Object]:
    """Yield a module or class and all that is in it, imported names left out."""
    yield thing
    for member in list(thing.members.values()):
        if isinstance(member, Object):
            yield from everything(member)


def complete(shown: Class, loader: GriffeLoader) -> None:
    """Add to a class what it has only when it was imported."""
    try:
        real = getattr(importlib.import_module(shown.module.path), shown.name)
    except (ImportError, AttributeError):
        return  # a framework that is not installed, or a class inside of a function
    for name, member in list(shown.members.items()):
        if isinstance(member, Attribute) and "property" not in member.labels:
            member.labels.clear()
            if str(member.value).startswith("field("):
                member.value = None  # the constructor has the default
        found = getattr(real, name, None)
        if isinstance(member, Attribute) and inspect.isfunction(found):
            original = inspect.unwrap(found)
            source = loader.modules_collection[f"{original.__module__}.{original.__qualname__}"]
            made = Function(
                name,
                parameters=source.parameters,
                returns=returned(inspect.getattr_static(real, name), source.returns),
                docstring=source.docstring,
                lineno=member.lineno,
                endlineno=member.endlineno,
            )
            if inspect.iscoroutinefunction(found):
                made.labels.add("async")
            shown.set_member(name, made)
    if hasattr(real, "__attrs_attrs__") and "__init__" not in shown.members:
        shown.set_member("__init__", constructor(shown, real))


def returned(descriptor: object, annotation: Any) -> Any:
    """Return what a method returns: its annotation, but for one that hands out another kind."""
    kind = getattr(descriptor, "_finish", None)
    if isinstance(kind, type):
        return kind.__name__
    return annotation if kind is None else str(annotation).replace("AsyncIterator", "Iterator")


def constructor(shown: Class, real: type) -> Function:
    """Return the constructor that attrs makes of a class's fields."""
    parameters = [Parameter("self", kind=ParameterKind.positional_or_keyword)]
    for name, one in inspect.signature(real).parameters.items():
        field = shown.all_members.get(name)
        required = one.default is inspect.Parameter.empty
        parameters.append(
            Parameter(
                name,
                annotation=field.annotation if isinstance(field, Attribute) else None,
                kind=KINDS[one.kind],
                default=None if required else plain(one.default),
            )
        )
    return Function("__init__", parameters=Parameters(*parameters))


def plain(default: object) -> str:
    """Return a default as one would write it."""
    named = getattr(default, "__qualname__", None)
    if isinstance(named, str):
        return named
    return repr(default) if isinstance(default, str) else str(default)


def as_markdown(text: str, public: set[str]) -> str:
    """Return a docstring with links in place of roles, and its ``:raises`` lines as a section."""
    raised: list[str] = []

    def collect(match: re.Match[str]) -> str:
        told = " ".join(match[2].split())
        raised.extend(f"    {name.strip()}: {told}" for name in match[1].split(","))
        return ""

    def link(match: re.Match[str]) -> str:
        name = match[1].removeprefix(f"{PACKAGE}.")
        if name.partition(".")[0] in public:
            return f"[`{name}`][{PACKAGE}.{name}]"
        return f"`{name}`"

    rest = ROLE.sub(link, RAISES.sub(collect, text)).rstrip()
    return f"{rest}\n\nRaises:\n" + "\n".join(raised) if raised else rest
