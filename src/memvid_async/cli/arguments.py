"""What the commands share: their arguments, and how they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import click

file_argument = click.argument("file", type=click.Path(readable=False))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def run(command: Callable[..., Awaitable[int]], *arguments: object) -> int:
    """Run a coroutine function to its exit status."""
    return anyio.run(command, *arguments)
