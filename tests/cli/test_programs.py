"""Programs as models: what they may print, and how long they may take."""

import sys

import pytest

from memvid_async import Prompt
from memvid_async.cli import programs
from memvid_async.cli.exits import AnswerError
from memvid_async.cli.programs import run_program

ENDLESS = """
import sys
stream = sys.stdout if sys.argv[1] == "out" else sys.stderr
try:
    while True:
        stream.write("y" * 65536)
except BrokenPipeError:
    pass
"""


def program(code, *arguments):
    return [sys.executable, "-c", code, *arguments]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(programs, "_MOST_OUTPUT", 100_000)


async def test_a_reply_of_the_most_bytes_is_taken():
    code = "import sys; sys.stdout.write('y' * 100_000)"
    assert await run_program(program(code), b"", 30) == "y" * 100_000


async def test_a_program_that_prints_without_end_is_refused_and_ended():
    with pytest.raises(AnswerError, match="more than 100,000 bytes"):
        await run_program(program(ENDLESS, "out"), b"", 30)


async def test_complaints_without_end_take_no_memory_and_are_stopped_in_time():
    with pytest.raises(AnswerError, match="no answer within 1 s"):
        await run_program(program(ENDLESS, "err"), b"", 1)


async def test_of_long_complaints_the_last_line_is_told():
    code = "import sys; sys.stderr.write('x' * 200_000 + '\\nthe reason\\n'); sys.exit(3)"
    with pytest.raises(AnswerError, match="exit status 3: the reason"):
        await run_program(program(code), b"", 30)


async def test_a_program_that_reads_nothing_answers_all_the_same():
    code = "import os; os.close(0); print('yes')"
    assert await run_program(program(code), b"x" * 10_000_000, 30) == "yes"


async def test_a_program_that_answers_while_it_reads_does_not_block():
    code = "import sys; sys.stdout.write(sys.stdin.read())"
    prompt = b"x" * 90_000
    assert await run_program(program(code), prompt, 30) == prompt.decode()


def test_what_a_program_reads():
    assert programs.prompt_bytes(Prompt("why?", None, [])).endswith(b"why?\n")
