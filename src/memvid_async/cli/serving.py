"""`view` and `mcp`: a store served to a browser, and to agents."""

from __future__ import annotations

import secrets
import socket
import webbrowser

import click

from .. import open_store
from ..view.text import printable
from .arguments import file_argument, run
from .exits import FINE

# A page keeps a connection open for what is new; the server does not wait for it to end.
_QUIET = {"log_level": "warning", "timeout_graceful_shutdown": 1}
_LOOPBACK = ("127.0.0.1", "localhost")


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


@click.command()
@file_argument
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The port; by default a free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--token", help="What a browser must know; by default one is made for any other host."
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open nothing.")
def view(file: str, port: int, host: str, token: str | None, no_browser: bool) -> int:
    """Show the sessions of FILE in a browser, live, until Ctrl-C."""
    return run(_view, file, port, host, token, no_browser)


async def _view(file: str, port: int, host: str, token: str | None, no_browser: bool) -> int:
    import uvicorn

    from ..view.server import make_app

    if token is None and host not in _LOOPBACK:
        token = secrets.token_urlsafe(18)
    async with open_store(file, read_only=True) as store:
        with socket.create_server((host, port)) as listening:
            port = listening.getsockname()[1]
            url = f"http://{host}:{port}/" + (f"?token={token}" if token else "")
            click.echo(f"showing {printable(file)} at {url} (Ctrl-C ends it)", err=True)
            app = make_app(store, hosts=(host, *_LOOPBACK), token=token)
            if not no_browser:
                webbrowser.open(url)
            await uvicorn.Server(uvicorn.Config(app, **_QUIET)).serve([listening])
    return FINE
