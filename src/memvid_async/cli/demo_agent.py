"""The demo's child process: agents that answer questions about Python from the store's memory.

    python -m memvid_async.cli.demo_agent FILE

It puts the text of `pydoc` into the memory. Then agents ask it, and never stop by themselves. For
each put and each ask, one line of JSON goes to the standard output after the store has acked it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import anyio

from .. import Answer, FrameItem, Prompt, Store, open_store

AGENT_COUNT = 6
TOP_K = 3
TAG = "pydoc"
BATCH = 100
"""Passages in one put_many."""

QUESTIONS = (
    "What does a lambda expression yield?",
    "When does the else clause of a for loop run?",
    "How does the with statement call the context manager?",
    "What may a finally clause do to an exception?",
    "How are names resolved in an enclosing function scope?",
    "What is the difference between global and nonlocal?",
    "How is the truth value of an object tested?",
    "Which objects are mutable and which are immutable?",
    "How does slicing a sequence work with a negative index?",
    "What happens when a generator reaches a yield expression?",
    "How do I set a breakpoint in the debugger?",
    "How do I format a number with a thousands separator?",
    "What does await suspend?",
    "How does raise from chain an exception to its cause?",
    "Is comparison chaining evaluated left to right?",
    "What is assert good for when Python is optimized?",
    "How does import find a module in a package?",
    "Do dictionaries preserve insertion order?",
    "What does the del statement do to a name?",
    "Which special method makes an object callable?",
    "What are f-strings and how are they evaluated?",
    "How does the power operator bind to unary minus?",
    "What does a class definition do with its decorators?",
    "How can an integer literal be written in hexadecimal?",
)


def passages(topics: Mapping[str, str]) -> Iterator[FrameItem]:
    """Yield the paragraphs of the topics that are sentences, as frames to be put."""
    for topic, whole in topics.items():
        for text in re.split(r"\n\s*\n", whole):
            if len(text) > 80 and "::=" not in text:
                yield {"content": text, "title": topic, "tags": [TAG]}


def extract(prompt: Prompt) -> str:
    """Return the sentence of the context that shares most words with the question: a demo model."""
    words = _stems(str(prompt.question))
    assert prompt.context is not None
    best, most = "Nothing is known about that.", 0
    for item in prompt.context.items:
        for sentence in re.split(r"(?<=[.:!?])\s+", item.text or ""):
            shared = len(words & _stems(sentence))
            if shared > most:
                best, most = " ".join(sentence.split()), shared
    return best


def _stems(text: str) -> set[str]:
    """Return the beginnings of the longer words, which distinguish sentences best."""
    return {word[:6] for word in re.findall(r"[a-z_]{4,}", text.lower())}


async def record_for_ever(path: str) -> None:
    """Put the topics, then let the agents ask until the process is killed or its reader is gone."""
    from pydoc_data.topics import topics

    async with open_store(path) as store:
        await _put_topics(store, topics)
        async with anyio.create_task_group() as group:
            for number in range(AGENT_COUNT):
                name = f"agent-{number + 1}"
                group.start_soon(_answer_questions, store, name, number, name=name)


async def _put_topics(store: Store, topics: Mapping[str, str]) -> None:
    async with store.session("librarian", metadata={"source": "pydoc_data.topics"}):
        waiting = passages(topics)
        while batch := list(itertools.islice(waiting, BATCH)):
            for frame_id, item in zip(await store.put_many(batch), batch, strict=True):
                _acknowledge(kind="frame", frame=frame_id, text=item["content"])


async def _answer_questions(store: Store, name: str, first: int) -> None:
    async with store.session(name) as recorder:
        session = str(recorder.session_id)
        for turn in itertools.count():
            question = QUESTIONS[(first * 7 + turn) % len(QUESTIONS)]
            answer = await store.ask(
                question,
                generate=extract,
                provider="demo",
                model="extract",
                top_k=TOP_K,
                tags=[TAG],
            )
            _acknowledge(kind="ask", session=session, **_values(question, answer))
            note = f"{question} {answer}"
            frame_id = await store.put(note, title=name, tags=["note"])
            _acknowledge(kind="frame", frame=frame_id, text=note)


def _values(question: str, answer: Answer) -> dict[str, Any]:
    assert answer.action is not None
    return {
        "index": answer.action.index,
        "question": question,
        "answer": str(answer),
        "frames": [hit.frame_id for hit in answer.hits],
    }


def _acknowledge(**line: Any) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


if __name__ == "__main__":
    try:
        anyio.run(record_for_ever, sys.argv[1])
    except* BrokenPipeError:
        pass
