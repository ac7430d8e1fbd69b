"""Check the pages: links lead somewhere, code blocks are code, public names are documented.

Run as `python scripts/check_docs.py`; prints one line per problem and exits with 1 when there is
one. With the folder of the built site (`nox -s docs`), it checks that too.
"""

import ast
import inspect
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import memvid_async

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "memvid_async"
REFERENCE = "docs/reference"
TROUBLES = "docs/troubleshooting.md"

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
SHOWN = re.compile(r"^::: memvid_async\.([\w.]+)$", re.MULTILINE)
ANCHOR = re.compile(r'id="memvid_async\.([\w.]+)"')
ASKED = re.compile(r'<(?:script|img|iframe|link)[^>]+(?:src|href)="?(?:https?:)?//[^"> ]+')

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
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"{page.name}: {target} leads to no heading"


def anchors(text: str) -> set[str]:
    """The places of a page that can be linked: its headings, and the names that it shows."""
    names = {f"memvid_async.{name}" for name in SHOWN.findall(text)}
    return names | set(map(slug, HEADING.findall(FENCE.sub("", text))))


def broken_blocks(page: Path) -> Iterator[str]:
    """Name the code blocks of a page that do not parse as what they say they are."""
    for language, code in code_blocks(page.read_text(encoding="utf-8")):
        try:
            PARSERS.get(language, len)(code)
        except (SyntaxError, ValueError) as error:
            yield f"{page.name}: a {language} block does not parse: {error}"


def undocumented(texts: list[str]) -> Iterator[str]:
    """Compare what the pages of the reference show with what the package offers."""
    shown = Counter(name for text in texts for name in SHOWN.findall(text) if "." not in name)
    for name in sorted(set(memvid_async.__all__) | set(shown)):
        if shown[name] != 1:
            yield f"{REFERENCE}: {name} is shown {shown[name]} times"
        elif name not in memvid_async.__all__:
            yield f"{REFERENCE}: {name} is not a public name"


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


def fields_without_docstring(source: Path = SOURCE) -> Iterator[str]:
    """Name the fields of public classes that have no docstring below them."""
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef) or node.name not in memvid_async.__all__:
                continue
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                    continue
                told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                if not told and not field.target.id.startswith("_"):
                    yield f"{node.name}.{field.target.id} has no docstring"


def troubleshooting(text: str) -> Iterator[str]:
    """Name the public errors that the page of troubles has no entry for, and entries of none."""
    things = {name: getattr(memvid_async, name) for name in memvid_async.__all__}
    errors = {
        name
        for name, thing in things.items()
        if inspect.isclass(thing) and issubclass(thing, BaseException)
    }
    entries = set(re.findall(r"^### `(\w+)`$", text, re.MULTILINE))
    yield from (f"{TROUBLES}: {name} has no entry" for name in sorted(errors - entries))
    yield from (f"{TROUBLES}: {name} is no public error" for name in sorted(entries - errors))


def built(site: Path) -> Iterator[str]:
    """Check the built site: it shows each public name with its members, and asks nobody else."""
    shown: set[str] = set()
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        shown.update(ANCHOR.findall(text))
        yield from (f"{page.name}: asks {one}" for one in ASKED.findall(text))
    for name in memvid_async.__all__:
        thing = getattr(memvid_async, name)
        wanted = {name} | {f"{name}.{member}" for member in _members(thing)}
        yield from (f"the built reference lacks {one}" for one in sorted(wanted - shown))


def problems() -> list[str]:
    """Everything that is wrong."""
    found = [
        line for page in pages() for check in (broken_links, broken_blocks) for line in check(page)
    ]
    reference = sorted((ROOT / REFERENCE).glob("*.md"))
    found += undocumented([page.read_text(encoding="utf-8") for page in reference])
    found += troubleshooting((ROOT / TROUBLES).read_text(encoding="utf-8"))
    return [*found, *without_docstring(), *fields_without_docstring()]


def _members(thing: object) -> set[str]:
    """The public members of a class that are this library's own."""
    if not inspect.isclass(thing):
        return set()
    bases = [base for base in thing.__mro__ if base.__module__.startswith("memvid_async")]
    own = {name for base in bases for name in vars(base)}
    return {name for name in own if not name.startswith("_")}


def main() -> int:
    """Print the problems; return 1 when there are any."""
    found = problems() + [line for site in sys.argv[1:] for line in built(Path(site))]
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
