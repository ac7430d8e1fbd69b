"""What the documentation site has beside the pages in ``docs/``, as a hook of mkdocs.

The examples and the changelog lie outside of ``docs/``. They become pages of the site here, and
links to them, which are right where the repository is read, are made right for the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"\]\(((?:\.\./)+)(examples|benchmarks)/(\w+)\.(?:py|md)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what is outside of the folder of the pages."""
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = f"# {path.stem}\n\n```python\n{path.read_text('utf-8')}```\n"
        files.append(File.generated(config, f"examples/{path.stem}.md", content=text))
    for path in (ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "report.md"):
        inside = path.relative_to(ROOT).as_posix().replace("CHANGELOG", "changelog")
        text = path.read_text("utf-8").replace("](docs/", "](")
        files.append(File.generated(config, inside, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to what is outside to its page in the site."""
    inside = markdown.replace("../CHANGELOG.md", "changelog.md")
    return OUTSIDE.sub(lambda link: f"]({link[1][3:]}{link[2]}/{link[3]}.md)", inside)
