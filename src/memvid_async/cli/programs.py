"""Running a program as a model: it reads a prompt from its input and prints its reply."""

from __future__ import annotations

import asyncio
import subprocess

import click

from .. import Prompt
from ..view.text import shorten
from .exits import AnswerError

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    help="How long the program may take at most, in seconds.",
)


def prompt_bytes(prompt: Prompt) -> bytes:
    """What a program reads: the passages found, numbered, an empty line, and the question."""
    alone = Prompt(prompt.question, prompt.context)
    return f"{alone}\n".encode()


async def run_program(words: list[str], prompt: bytes, patience: float) -> str:
    """Run a program without a shell, and return its output without the newline at its end.

    ``words``: the program and its arguments. ``patience``: how long it may take, in seconds.

    :raises AnswerError: when it cannot be run, takes longer, or ends with another status than 0.
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
            reply, complaint = await process.communicate(prompt)
    except TimeoutError:
        raise AnswerError(f"{name}: no answer within {patience:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = complaint.decode("utf-8", "replace").strip().splitlines()
        raise AnswerError(
            f"{name}: exit status {process.returncode}" + (f": {said[-1]}" if said else "")
        )
    return reply.decode("utf-8", "replace").removesuffix("\n")
