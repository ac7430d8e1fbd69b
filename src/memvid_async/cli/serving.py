"""`mcp`: a store as a memory that agents reach through the Model Context Protocol."""

from __future__ import annotations

import click

from .. import open_store
from .arguments import file_argument, run
from .exits import FINE


@click.command()
@file_argument
@click.option("--read-only", is_flag=True, help="Leave out the tools that write.")
@click.option(
    "--http", is_flag=True, help="Serve streamable HTTP; otherwise standard input/output."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="With --http: the address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="With --http: the port; 0 for a free one.",
)
def mcp(file: str, read_only: bool, http: bool, host: str, port: int) -> int:
    """Serve the memory of FILE to agents: remember, recall, context, forget, and the sessions.

    FILE is created if it does not exist, unless it is served read-only. Any number of servers may
    have one file.
    """
    return run(_mcp, file, read_only, http, host, port)


async def _mcp(file: str, read_only: bool, http: bool, host: str, port: int) -> int:
    from ..interop.mcp import make_server, serve_http

    async with open_store(file, read_only=read_only) as store:
        server = make_server(store)
        if http:
            await serve_http(server, host, port, lambda url: click.echo(f"serving {url}", err=True))
        else:
            await server.run_stdio_async()
    return FINE
