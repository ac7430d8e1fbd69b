"""Check the pages: links lead somewhere, code blocks are code, public names are documented.

Run as `python scripts/check_docs.py`; prints one line a problem and exits with 1 when there is one.
"""

import ast
import inspect
import json
import re
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import memvid_async

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "docs/reference.md"

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
MEMBER_ROW = re.compile(r"^\| `(?:await )?([A-Za-z_]\w*)", re.MULTILINE)
ATTRIBUTE = re.compile(r"^\s+self\.(\w+)(?:: [^=]+)? = ", re.MULTILINE)
CLASS_HEADING = re.compile(r"^### `(\w+)`$")

PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "python": lambda code: compile(code, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT),
    "toml": tomllib.loads,
}


def pages(root: Path = ROOT) -> list[Path]:
    """Every page that is checked."""
    return [
        *sorted(root.glob("*.md")),
        *sorted(root.glob("docs/**/*.md")),
        *sorted(root.glob("benchmarks/*.md")),
    ]


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The language and the code of each fenced block."""
    return FENCE.findall(text)


def slug(heading: str) -> str:
    """The anchor of a heading, as the usual renderers make it."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return kept.replace(" ", "-")


def broken_links(page: Path) -> Iterator[str]:
    """Name the links of a page to a file or a heading that does not exist."""
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        if not file.exists():
            yield f"{page.name}: {target} leads to no file"
        elif anchor and anchor not in map(
            slug, HEADING.findall(FENCE.sub("", file.read_text(encoding="utf-8")))
        ):
            yield f"{page.name}: {target} leads to no heading"


def broken_blocks(page: Path) -> Iterator[str]:
    """Name the code blocks of a page that do not parse as what they say they are."""
    for language, code in code_blocks(page.read_text(encoding="utf-8")):
        try:
            PARSERS.get(language, len)(code)
        except (SyntaxError, ValueError) as error:
            yield f"{page.name}: a {language} block does not parse: {error}"


def undocumented(text: str) -> Iterator[str]:
    """Compare the reference's text with what the package offers, in both directions."""
    public = set(memvid_async.__all__)
    documented = {name for name, _ in _sections(text)}
    for part in re.split(r"^#{2,3} ", text, flags=re.MULTILINE):
        if not CLASS_HEADING.match("### " + part.splitlines()[0] if part else ""):
            documented |= set(MEMBER_ROW.findall(part))
    yield from (f"{REFERENCE}: {name} is not documented" for name in sorted(public - documented))
    yield from (f"{REFERENCE}: {name} is not a public name" for name in sorted(documented - public))
    for name, body in _sections(text):
        members = _members(getattr(memvid_async, name, None))
        rows = set(MEMBER_ROW.findall(body))
        yield from (
            f"{REFERENCE}: {name}.{member} is not documented" for member in sorted(members - rows)
        )
        yield from (
            f"{REFERENCE}: {name}.{member} does not exist" for member in sorted(rows - members)
        )


def without_docstring() -> Iterator[str]:
    """Name the public classes, functions and methods that have no docstring of their own."""
    for name in memvid_async.__all__:
        thing = getattr(memvid_async, name)
        if not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        if not (thing.__doc__ or "").strip():
            yield f"{name} has no docstring"
        for member, value in vars(thing).items() if inspect.isclass(thing) else ():
            function = value.fget if isinstance(value, property) else value
            if (
                not member.startswith("_")
                and inspect.isroutine(function)
                and not inspect.getdoc(function)
            ):
                yield f"{name}.{member} has no docstring"


def problems() -> list[str]:
    """Everything that is wrong."""
    found = [
        line for page in pages() for check in (broken_links, broken_blocks) for line in check(page)
    ]
    found += undocumented((ROOT / REFERENCE).read_text(encoding="utf-8"))
    return found + list(without_docstring())


def _sections(text: str) -> list[tuple[str, str]]:
    """The classes that have a section of their own in the reference, with its text."""
    parts = re.split(r"^(#{1,3} .+)$", text, flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return [(match[1], body) for heading, body in pairs if (match := CLASS_HEADING.match(heading))]


def _members(thing: object) -> set[str]:
    if not inspect.isclass(thing):
        return set()
    if typing.is_typeddict(thing):
        return set(thing.__annotations__)
    fields = {field.name for field in getattr(thing, "__attrs_attrs__", ())}
    own = {
        name
        for base in thing.__mro__
        for name in vars(base)
        if base.__module__.startswith("memvid_async")
    }
    made = set(ATTRIBUTE.findall(inspect.getsource(thing.__init__))) if "__init__" in own else set()
    return {name for name in fields | own | made if not name.startswith("_")}


def main() -> int:
    """Print the problems; return 1 when there are any."""
    found = problems()
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
