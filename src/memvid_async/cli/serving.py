"""`view` and `mcp`: a store served to a browser, and to agents."""

from __future__ import annotations

import secrets
import signal
import socket
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import click

from .. import open_store
from .addresses import shown_place
from .arguments import file_argument, run
from .exits import FINE

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
    from ..interop.mcp import make_server

    async with open_store(file, read_only=read_only) as store:
        server = make_server(store)
        if not http:
            await server.run_stdio_async()
        else:
            with socket.create_server((host, port)) as listening:
                url = f"http://{host}:{listening.getsockname()[1]}/mcp"
                click.echo(f"serving {shown_place(file)} at {url}", err=True)
                await _serve(server.streamable_http_app(host=host), listening)
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
    from ..view.server import make_app

    if token is None and host not in _LOOPBACK:
        token = secrets.token_urlsafe(18)
    async with open_store(file, read_only=True) as store:
        with socket.create_server((host, port)) as listening:
            query = f"?token={token}" if token else ""
            url = f"http://{host}:{listening.getsockname()[1]}/{query}"
            click.echo(f"showing {shown_place(file)} at {url} (Ctrl-C ends it)", err=True)
            app = make_app(store, hosts=(host, *_LOOPBACK), token=token)
            if not no_browser:
                webbrowser.open(url)
            await _serve(app, listening)
    return FINE


async def _serve(app: Any, listening: socket.socket) -> None:
    """Serve an application on a socket until Ctrl-C or SIGTERM."""
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc, unused-ignore]
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn's own would send the signal once more, after the server has ended.
            yield

    # Pages keep a connection open for what is new: the server does not wait for it to end.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    server = Server(config)
    async with anyio.create_task_group() as group:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

            async def stop() -> None:
                async for _ in signals:
                    server.should_exit = True

            group.start_soon(stop)
            await server.serve([listening])
            group.cancel_scope.cancel()
