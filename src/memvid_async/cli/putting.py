"""`put`: files, the standard input, or a frame for each line, into the memory of a store."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import IO, Any

import anyio
import click
from attrs import define, field
from rich.progress import Progress, TaskID

from .. import InvalidValueError, LimitExceededError, Limits, Store, StoreConfig, open_store
from ..view import documents
from ..view.text import count_of, printable
from . import render
from .arguments import file_argument, json_option, limit_option, metadata_option, read_json, run
from .exits import BAD, FINE, advised, report, say_note, telling_what_is_kept

# A batch is one command, so either all of its frames are recorded or none.
_BATCH_FRAMES = 1_000
_BATCH_BYTES = 1024 * 1024
_CHUNK = 256 * 1024
# The longest line, in contents: JSON may escape every character of one.
_LINE_TIMES = 8
_REFUSED = (InvalidValueError, LimitExceededError)


@click.command()
@file_argument
@click.argument(
    "paths",
    nargs=-1,
    metavar="[PATH…|-]",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
)
@click.option("--lines", is_flag=True, help="Put each line as a frame.")
@click.option("--jsonl", is_flag=True, help="Put each line as a frame: a JSON object.")
@click.option("--title", help="The frame's title; by default the file's name.")
@click.option("--uri", help="Where the frame comes from.")
@click.option("--tag", "tags", multiple=True, help="A tag. May be repeated.")
@metadata_option
@click.option("--media-type", help="The media type of the content, such as text/markdown.")
@limit_option()
@json_option
def put(
    file: str,
    paths: tuple[str, ...],
    lines: bool,
    jsonl: bool,
    limits: Limits,
    as_json: bool,
    **fields: Any,
) -> int:
    """Put each PATH into the memory of FILE as a frame, and print the frames' ids.

    Without a PATH, and for -, the standard input is read. FILE is created if it does not exist.
    """
    if lines and jsonl:
        raise click.UsageError("--lines and --jsonl read a file in two ways; use only one")
    form = "lines" if lines else "jsonl" if jsonl else None
    alone = [f"--{name}" for name in ("title", "uri") if fields[name] is not None]
    if alone and (form is not None or len(paths) > 1):
        raise click.UsageError(f"{' and '.join(alone)} would be the same for several frames")
    used = {name: value for name, value in fields.items() if value not in (None, (), {})}
    return run(_put, file, paths or ("-",), form, limits, used, as_json)


async def _put(
    file: str,
    paths: tuple[str, ...],
    form: str | None,
    limits: Limits,
    fields: dict[str, Any],
    as_json: bool,
) -> int:
    with render.progress_bar(counted=form is None) as progress:
        putter = _Putter(file, limits, fields, progress, as_json=as_json)
        with telling_what_is_kept(putter.kept):
            await putter.run(paths, form)
    if as_json:
        click.echo(documents.dump_told(putter.ids))
    if form is not None:
        click.echo(putter.summary(), err=True)
    return BAD if putter.failures else FINE


@define
class _Putter:
    """Puts the frames that can be put, reports why the others cannot, and counts both."""

    file: str
    limits: Limits
    fields: Mapping[str, Any]
    progress: Progress
    as_json: bool
    ids: list[int] = field(factory=list)
    count: int = 0
    failures: int = 0
    started: float = field(factory=time.monotonic)
    _stack: AsyncExitStack = field(factory=AsyncExitStack)
    _opened: Store | None = None
    _task: TaskID | None = None
    _batch: list[tuple[str, Any]] = field(factory=list)
    _batch_bytes: int = 0

    async def run(self, paths: tuple[str, ...], form: str | None) -> None:
        """Put the files, in order. The store is opened when there is a frame to put."""
        self._task = self.progress.add_task("putting", total=_total(paths, form))
        async with self._stack:
            for path in paths:
                if path != "-" and _is_same_file(path, self.file):
                    self._refuse(path, InvalidValueError("it is the file that is put into"))
                    continue
                with click.open_file(path, "rb") as stream:
                    async with aclosing(_chunks(stream)) as chunks:
                        if form is None:
                            await self._put_whole(path, chunks)
                        else:
                            await self._put_lines(path, chunks, form)
            await self._flush()

    def summary(self) -> str:
        """Say in one line what was put."""
        seconds = time.monotonic() - self.started
        return f"put {count_of(self.count, 'frame')} in {seconds:.1f} s; {self.failures} left out"

    def kept(self) -> str:
        """Say what is in the file whatever happens."""
        return f"{count_of(self.count, 'frame')} put, and kept"

    async def _store(self) -> Store:
        if self._opened is None:
            self._opened = await self._stack.enter_async_context(
                open_store(self.file, config=StoreConfig(limits=self.limits))
            )
        return self._opened

    async def _put_whole(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        fields = dict(self.fields)
        if path != "-":
            name = os.fsencode(Path(path).name).decode(errors="replace")
            fields.setdefault("title", name)
        content = await _content(chunks, self.limits.content_bytes)
        if not content:
            name = "the standard input" if path == "-" else path
            say_note(f"nothing is put: {name} is empty")
            return
        store = await self._store()
        try:
            await self._put(_one(store.put(content, **fields)))
        except _REFUSED as error:
            self._refuse(path, error)
        self._advance(1)

    async def _put_lines(self, path: str, chunks: AsyncIterator[bytes], form: str) -> None:
        number = 0
        try:
            async for line in _lines(chunks, _LINE_TIMES * self.limits.content_bytes):
                number += 1
                self._advance(len(line) + 1)
                if line.strip():
                    await self._take(f"{path}, line {number}", line, form)
        except ValueError as error:
            # After a line without an end, nothing tells where the next one begins.
            self._refuse(f"{path}, line {number + 1}", error)

    async def _take(self, where: str, line: bytes, form: str) -> None:
        try:
            item = self._item(line.removeprefix(b"\xef\xbb\xbf").decode().rstrip("\r"), form)
        except (ValueError, RecursionError) as error:
            self._refuse(where, error)
            return
        self._batch.append((where, item))
        self._batch_bytes += len(line)
        if len(self._batch) >= _BATCH_FRAMES or self._batch_bytes >= _BATCH_BYTES:
            await self._flush()

    def _item(self, line: str, form: str) -> dict[str, Any]:
        item = {"content": line} if form == "lines" else read_json(line)
        if isinstance(item, str):
            item = {"content": item}
        if not isinstance(item, dict):
            raise InvalidValueError("a frame is a JSON object, or a string that is its content")
        merged = {**self.fields, **item}
        if "tags" in self.fields and isinstance(item.get("tags"), list):
            merged["tags"] = [*self.fields["tags"], *item["tags"]]
        if "metadata" in self.fields and isinstance(item.get("metadata"), dict):
            merged["metadata"] = {**self.fields["metadata"], **item["metadata"]}
        return merged

    async def _flush(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        parts = [batch] if batch else []
        while parts:
            part = parts.pop()
            store = await self._store()
            try:
                await self._put(store.put_many([item for _, item in part]))
            except _REFUSED as error:
                if len(part) == 1:
                    self._refuse(part[0][0], error)
                else:
                    # One frame makes the whole batch fail: put them one by one, without that one.
                    parts += [[entry] for entry in reversed(part)]

    def _advance(self, steps: int) -> None:
        if self._task is not None:
            self.progress.advance(self._task, steps)

    async def _put(self, putting: Coroutine[Any, Any, list[int]]) -> None:
        """Put, and count what was put. Where Ctrl-C comes meanwhile, the end is waited for: what is
        told of what is kept must be what the file has."""
        task = asyncio.ensure_future(putting)
        try:
            self._done(await asyncio.shield(task))
        except asyncio.CancelledError:
            self._done(await task)
            raise

    def _done(self, ids: list[int]) -> None:
        self.count += len(ids)
        if self.as_json:
            self.ids += ids
        else:
            click.echo("\n".join(map(str, ids)))

    def _refuse(self, where: str, error: Exception) -> None:
        self.failures += 1
        report(f"{printable(where)}: {advised(error)}")


def _is_same_file(path: str, file: str) -> bool:
    try:
        return Path(path).samefile(file)
    except FileNotFoundError:
        return False


def _total(paths: tuple[str, ...], form: str | None) -> int | None:
    if form is None:
        return len(paths)
    return None if "-" in paths else sum(Path(path).stat().st_size for path in paths)


async def _chunks(stream: IO[bytes]) -> AsyncGenerator[bytes]:
    """Yield the bytes of a stream as they arrive; Ctrl-C works while it waits."""
    try:
        descriptor = stream.fileno()
    except OSError:
        descriptor = -1
    mode = os.fstat(descriptor).st_mode if descriptor >= 0 else 0
    waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and stream.isatty())
    while True:
        if waits:
            await anyio.wait_readable(descriptor)
        chunk = os.read(descriptor, _CHUNK) if descriptor >= 0 else stream.read(_CHUNK)
        if not chunk:
            return
        yield chunk


async def _content(chunks: AsyncIterator[bytes], most: int) -> str | bytes | AsyncIterator[bytes]:
    """Join the chunks: text where they are UTF-8, else bytes; a stream beyond ``most`` bytes."""
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) > most:
            return _joined(bytes(head), chunks)
    try:
        return head.decode()
    except UnicodeDecodeError:
        return bytes(head)


async def _joined(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in rest:
        yield chunk


async def _lines(chunks: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """Yield the lines, without their ends.

    :raises ValueError: when a line has more than ``most`` bytes.
    """
    waiting = bytearray()
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        waiting += first
        if len(waiting) > most:
            raise ValueError(f"a line is longer than {most} bytes")
        if others:
            yield bytes(waiting)
            for line in others[:-1]:
                yield line
            waiting = bytearray(others[-1])
    if waiting:
        yield bytes(waiting)


async def _one(putting: Awaitable[int]) -> list[int]:
    return [await putting]
