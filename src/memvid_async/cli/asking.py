"""`find`, `ask`, `frames` and `get`: the commands that read the memory of a store."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
from attrs import frozen

from .. import Answer, Limits, Prompt, Store, StoreConfig, open_store
from ..view import documents
from ..view.text import count_of, printable
from . import render
from .addresses import require_store
from .arguments import (
    at_moment,
    check_search,
    file_argument,
    filter_options,
    json_option,
    limit_option,
    moment_options,
    run,
    search_options,
    used_filters,
)
from .exits import FINE, WRONG_USAGE, AnswerError, report
from .programs import prompt_bytes, run_program, timeout_option


@frozen
class _Wanted:
    """A query, and ``how`` to search for it: the arguments of ``Store.find``."""

    query: str
    how: dict[str, Any]


def _search(query: str, options: dict[str, Any]) -> _Wanted:
    check_search(options["mode"], options["embedding"])
    names = ("top_k", "mode", "embedding", "embedding_model", "syntax")
    return _Wanted(query, {**{name: options[name] for name in names}, **used_filters(options)})


@click.command()
@file_argument
@click.argument("query")
@search_options(top_k=10)
@filter_options
@moment_options
@limit_option()
@json_option
def find(
    file: str,
    query: str,
    limits: Limits,
    as_json: bool,
    at_sequence: int | None,
    at_time: int | None,
    **options: Any,
) -> int:
    """Search the memory of FILE, as it is now or as it was at a moment.

    A frame needs only one of the words. A "phrase in quotes" is required, a -word is excluded,
    word* matches beginnings, title:word looks in one field. The exit status is 1 if nothing was
    found.
    """
    return run(_find, file, limits, _search(query, options), at_sequence, at_time, as_json)


async def _find(
    file: str,
    limits: Limits,
    search: _Wanted,
    at_sequence: int | None,
    at_time: int | None,
    as_json: bool,
) -> int:
    config = StoreConfig(limits=limits)
    async with open_store(file, config=config, read_only=True) as store:
        place = await at_moment(store, at_sequence, at_time)
        result = await place.find(search.query, **search.how)
    if as_json:
        click.echo(documents.dump_told(documents.find_document(result), indent=2))
    elif result.hits:
        render.print_hits(render.output_console(), result.hits)
    if result.incomplete:
        click.echo(
            f"{count_of(result.incomplete, 'frame')} of that moment not searched, as it is erased",
            err=True,
        )
    if not result.hits:
        raise AnswerError("nothing was found")
    return FINE


@click.command()
@file_argument
@click.argument("question")
@click.option(
    "--command",
    metavar="'PROGRAM ARGS'",
    help="The model: a program that reads the prompt from its input and prints the reply.",
)
@click.option("--record", is_flag=True, help="Record the ask in FILE.")
@click.option("--provider", default="command", show_default=True, help="Recorded with the ask.")
@click.option("--model", help="Recorded with the ask; by default the program's name.")
@timeout_option
@search_options(top_k=5)
@filter_options
@limit_option()
@json_option
def ask(
    file: str,
    question: str,
    limits: Limits,
    command: str | None,
    record: bool,
    provider: str,
    model: str | None,
    timeout: float,
    as_json: bool,
    **options: Any,
) -> int:
    """Print what the memory of FILE holds about QUESTION, or what a program answers from it.

    PROGRAM is run without a shell. Its input is the frames found, an empty line and QUESTION.
    With --record, the ask is recorded in the ambient session of FILE, or in a new session where
    there is none.
    """
    if record and command is None:
        raise click.UsageError("--record needs --command: an ask is recorded with its reply")
    search = _search(question, options)
    if command is None:
        return run(_ask_context, file, limits, search, as_json)
    words = _split(command)
    asking = _Asking(file, limits, search, words, timeout, provider, model or Path(words[0]).name)
    return run(asking.run, record, as_json)


def _split(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--command: {error}") from None
    if not words:
        raise click.UsageError("--command names no program")
    return words


async def _ask_context(file: str, limits: Limits, search: _Wanted, as_json: bool) -> int:
    config = StoreConfig(limits=limits)
    async with open_store(file, config=config, read_only=True) as store:
        answer = await _ask(store, search, lambda prompt: str(prompt.context))
    if as_json:
        document = documents.answer_document(search.query, answer, with_reply=False)
        click.echo(documents.dump_told(document, indent=2))
    elif answer.hits:
        click.echo(printable(str(answer)))
    if not answer.hits:
        raise AnswerError("nothing was found")
    return FINE


async def _ask(
    store: Store,
    search: _Wanted,
    generate: Any,
    provider: str | None = None,
    model: str | None = None,
) -> Answer:
    how = dict(search.how)
    how["frame_metadata"] = how.pop("metadata", None)
    return await store.ask(
        search.query, generate=generate, provider=provider, model=model, task="ask", **how
    )


@frozen
class _Asking:
    """An ask that a program answers."""

    file: str
    limits: Limits
    search: _Wanted
    words: list[str]
    patience: float
    provider: str
    model: str

    async def run(self, record: bool, as_json: bool) -> int:
        """Ask, and print the reply."""
        if record:
            await require_store(self.file)
        config = StoreConfig(limits=self.limits)
        async with open_store(self.file, config=config, read_only=not record) as store:
            if record and not store.is_recording:
                async with store.session("ask"):
                    answer = await self._answer(store)
            else:
                answer = await self._answer(store)
        if as_json:
            document = documents.answer_document(self.search.query, answer, with_reply=True)
            click.echo(documents.dump_told(document, indent=2))
        else:
            click.echo(printable(str(answer)))
        return FINE

    async def _answer(self, store: Store) -> Answer:
        return await _ask(store, self.search, self._reply, self.provider, self.model)

    async def _reply(self, prompt: Prompt) -> str:
        return await run_program(self.words, prompt_bytes(prompt), self.patience)


@click.command()
@file_argument
@click.option("--newest", is_flag=True, help="Newest first.")
@click.option("-n", "--limit", type=click.IntRange(min=0), help="How many frames at most.")
@filter_options
@moment_options
@json_option
def frames(
    file: str,
    newest: bool,
    limit: int | None,
    at_sequence: int | None,
    at_time: int | None,
    as_json: bool,
    **options: Any,
) -> int:
    """List the frames of FILE, one per line, oldest first; with --json as JSON lines."""
    filters = used_filters(options)
    return run(_frames, file, newest, limit, filters, at_sequence, at_time, as_json)


async def _frames(
    file: str,
    newest: bool,
    limit: int | None,
    filters: dict[str, Any],
    at_sequence: int | None,
    at_time: int | None,
    as_json: bool,
) -> int:
    console = render.output_console()
    async with open_store(file, read_only=True) as store:
        place = await at_moment(store, at_sequence, at_time)
        async for frame in place.frames(newest_first=newest, limit=limit, **filters):
            if as_json:
                click.echo(documents.dump_told(documents.frame_document(frame)))
            else:
                render.print_frame(console, frame)
    return FINE


@click.command()
@file_argument
@click.argument("frame_id", metavar="ID", type=click.IntRange(min=1))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Write the content to this new file."
)
@moment_options
@json_option
def get(
    file: str,
    frame_id: int,
    output: str | None,
    at_sequence: int | None,
    at_time: int | None,
    as_json: bool,
) -> int:
    """Print the content of the frame ID of FILE, byte for byte; with --json all of its fields.

    On a terminal, characters that could control it are escaped.
    """
    if output is not None and as_json:
        raise click.UsageError("--output writes only the content; leave out --json")
    if output is not None and os.path.lexists(output):
        report(f"{output} exists already; name a new file")
        return WRONG_USAGE
    return run(_get, file, frame_id, output, at_sequence, at_time, as_json)


async def _get(
    file: str,
    frame_id: int,
    output: str | None,
    at_sequence: int | None,
    at_time: int | None,
    as_json: bool,
) -> int:
    async with open_store(file, read_only=True) as store:
        place = await at_moment(store, at_sequence, at_time)
        frame = await place.get(frame_id)
        if output is None and (as_json or sys.stdout.isatty()):
            data = await store.read_content(frame.content)
            if as_json:
                document = documents.frame_document(frame, data)
                click.echo(documents.dump_told(document, indent=2))
            else:
                click.echo(printable(data.decode(errors="backslashreplace")))
            return FINE
        with _target(output) as target:
            async for piece in store.stream_content(frame.content):
                target.write(piece)
    return FINE


@contextmanager
def _target(output: str | None) -> Iterator[IO[bytes]]:
    if output is None:
        yield sys.stdout.buffer
        return
    with Path(output).open("xb") as target:
        yield target
