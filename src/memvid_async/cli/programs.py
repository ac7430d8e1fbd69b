"""Running a program as a model: it reads a prompt from its input and prints its reply."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress

import click

from .. import Limits, Prompt
from ..view.text import shorten
from .arguments import FiniteRange
from .exits import AnswerError

timeout_option = click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    default=120,
    show_default=True,
    help="How long the program may take at most, in seconds.",
)


# The most that a program may print: what a store takes as one reply.
_MOST_OUTPUT = Limits().content_bytes
# Of its complaints, only the last are kept.
_MOST_COMPLAINT = 4 * 1024
_PIECE_BYTES = 64 * 1024


def prompt_bytes(prompt: Prompt) -> bytes:
    """What a program reads: the passages found, numbered, an empty line, and the question."""
    alone = Prompt(prompt.question, prompt.context)
    return f"{alone}\n".encode()


async def run_program(words: list[str], prompt: bytes, patience: float) -> str:
    """Run a program without a shell, and return its output without the newline at its end.

    ``words``: the program and its arguments. ``patience``: how long it may take, in seconds.

    :raises AnswerError: when it cannot be run, takes longer, prints more than ``_MOST_OUTPUT``
        bytes, or ends with another status than 0.
    """
    name = shorten(words[0], 80)
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise AnswerError(f"cannot run {name}: {error.strerror}") from None
    try:
        async with asyncio.timeout(patience):
            reply, complaint, _ = await asyncio.gather(
                _read(process), _read_last(process.stderr), _write(process.stdin, prompt)
            )
            await process.wait()
    except TimeoutError:
        raise AnswerError(f"{name}: no answer within {patience:g} s") from None
    finally:
        if process.returncode is None:
            await _end(process)
    if len(reply) > _MOST_OUTPUT:
        raise AnswerError(f"{name}: it prints more than {_MOST_OUTPUT:,} bytes")
    if process.returncode:
        said = complaint.decode("utf-8", "replace").strip().splitlines()
        raise AnswerError(
            f"{name}: exit status {process.returncode}" + (f": {said[-1]}" if said else "")
        )
    return reply.decode("utf-8", "replace").removesuffix("\n")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a program, and wait for its end; not for others to which it passed its output."""
    process.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            # asyncio notices the end of a program only when all of its output was read.
            await asyncio.gather(_read_last(process.stdout), _read_last(process.stderr))
            await process.wait()


async def _read(process: asyncio.subprocess.Process) -> bytes:
    """Return what a program prints. It is killed when that is too much."""
    assert process.stdout is not None
    data = bytearray()
    while piece := await process.stdout.read(_PIECE_BYTES):
        # What it printed before it died is read to its end, and dropped.
        if len(data) <= _MOST_OUTPUT:
            data += piece
            if len(data) > _MOST_OUTPUT:
                process.kill()
    return bytes(data)


async def _read_last(stream: asyncio.StreamReader | None) -> bytes:
    """Read a stream to its end, and return the last of it."""
    assert stream is not None
    last = b""
    while piece := await stream.read(_PIECE_BYTES):
        last = (last + piece)[-_MOST_COMPLAINT:]
    return last


async def _write(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    """Pass a program its input; one that does not want it may close it."""
    assert stream is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
    with suppress(BrokenPipeError, ConnectionResetError):
        stream.close()
