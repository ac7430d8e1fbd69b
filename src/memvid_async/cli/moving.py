"""`copy` and `stores`: stores moved between files and streams, and those of some servers listed."""

from __future__ import annotations

import click

from .. import StoreConfig, copy_store, list_stores
from ..view import documents, findings
from ..view.text import count_of, format_size, format_time, printable
from .addresses import shown_place
from .arguments import json_option, run
from .exits import FINE
from .rewriting import bar


@click.command()
@click.argument("source", type=click.Path(readable=False))
@click.argument("target", type=click.Path(readable=False))
@click.option(
    "--replicas", type=click.IntRange(min=1), help="How many servers are to have a new stream."
)
@json_option
def copy(source: str, target: str, replicas: int | None, as_json: bool) -> int:
    """Copy the store SOURCE, a file or the address of a stream, to TARGET, event for event.

    Where TARGET holds the beginning of SOURCE, as after a copy that was killed, the rest is
    copied. All of it is compared.
    """
    return run(_copy, source, target, replicas, as_json)


async def _copy(source: str, target: str, replicas: int | None, as_json: bool) -> int:
    config = StoreConfig(replicas=replicas)
    with bar("copying") as tell:
        result = await copy_store(source, target, config=config, progress=tell)
    if as_json:
        click.echo(documents.dump_told(findings.report_document(result), indent=2))
    else:
        before = result.byte_count - result.copied_bytes
        click.echo(
            f"{shown_place(target)}: {count_of(result.event_count, 'event')}, as in "
            f"{shown_place(source)}; {format_size(result.copied_bytes)} copied, "
            f"{format_size(before)} there before"
        )
    return FINE


@click.command()
@click.argument("servers")
@json_option
def stores(servers: str, as_json: bool) -> int:
    """List the stores on the streams of SERVERS, such as nats://host:4222."""
    return run(_stores, servers, as_json)


async def _stores(servers: str, as_json: bool) -> int:
    found = await list_stores(servers)
    if as_json:
        click.echo(documents.dump_told([findings.report_document(one) for one in found], indent=2))
        return FINE
    for one in found:
        click.echo(
            f"{printable(one.name, one_line=True):24}  {count_of(one.event_count, 'event'):>18}  "
            f"{format_size(one.byte_count):>10}  {format_time(one.last_ns)}"
        )
    if not found:
        click.echo("no stores")
    return FINE
