"""The demo's child process: agents that answer questions about Python and record how they do it.

    python -m memvid_async.cli.demo_agent FILE

Recording never ends by itself. For each recorded action one line of JSON goes to the standard
output, after the store has acked the action and never before.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import anyio
from attrs import field, frozen

from .. import Action, SessionRecorder, Store, open_store

AGENT_COUNT = 6
MOST_RESULTS = 3

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

_COMMON = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are be by can do does for from how i in into is it its may of on or should that
        the their them there they this to was what when where which who why will with you your
        """,
    )
)


def split_words(text: str) -> list[str]:
    """The words of a text that can tell one topic from another, in lower case."""
    return [word for word in re.findall(r"[a-z_]+", text.lower()) if word not in _COMMON]


@frozen
class Paragraph:
    """A piece of a topic: ``words`` counts its words."""

    topic: str
    text: str
    words: Counter[str]


@frozen
class Library:
    """The topics of `pydoc`, cut into paragraphs, with a keyword lookup."""

    topics: Mapping[str, str]
    numbers: Mapping[str, int] = field(init=False)
    paragraphs: list[Paragraph] = field(init=False)
    weights: Mapping[str, float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        paragraphs = [
            Paragraph(topic, text, Counter(split_words(text)))
            for topic, whole in self.topics.items()
            for text in re.split(r"\n\s*\n", whole)
            if len(text) > 80 and "::=" not in text
        ]
        spread = Counter(word for paragraph in paragraphs for word in paragraph.words)
        weights = {word: math.log(len(paragraphs) / count) for word, count in spread.items()}
        object.__setattr__(self, "paragraphs", paragraphs)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "numbers", {name: i for i, name in enumerate(self.topics)})

    def find(self, question: str) -> list[Paragraph]:
        """The paragraphs that share the rarest words with the question, best first."""
        words = set(split_words(question))
        scores = [
            (self._score(paragraph, words), number)
            for number, paragraph in enumerate(self.paragraphs)
        ]
        best = sorted(scores, reverse=True)[:MOST_RESULTS]
        return [self.paragraphs[number] for score, number in best if score > 0]

    def _score(self, paragraph: Paragraph, words: set[str]) -> float:
        shared = sum(self.weights[word] for word in words if word in paragraph.words)
        in_title = sum(self.weights.get(word, 0.0) for word in words if word in paragraph.topic)
        return shared + 0.5 * in_title - 0.002 * len(paragraph.text)


async def record_for_ever(path: str) -> None:
    """Record what the agents do until the process is killed, or nobody reads the acks any more."""
    from pydoc_data.topics import topics

    library = Library(topics)
    async with open_store(path) as store, anyio.create_task_group() as group:
        for number in range(AGENT_COUNT):
            name = f"agent-{number + 1}"
            group.start_soon(_answer_questions, store, library, name, number, name=name)


async def _answer_questions(store: Store, library: Library, name: str, first: int) -> None:
    async with store.session(name, metadata={"source": "pydoc_data.topics"}) as recorder:
        for turn in itertools.count():
            question = QUESTIONS[(first * 7 + turn) % len(QUESTIONS)]
            await _answer(recorder, library, question)


async def _answer(recorder: SessionRecorder, library: Library, question: str) -> None:
    found = library.find(question)
    frames = [library.numbers[paragraph.topic] for paragraph in found]
    action = await recorder.record_find(
        question, mode="keyword", result_count=len(found), result_frames=frames
    )
    _acknowledge(recorder, action, question, None)

    arguments = {"topic": found[0].topic}
    text = library.topics[found[0].topic]
    action = await recorder.record_tool_call("read_topic", arguments=arguments, result=text)
    _acknowledge(recorder, action, arguments, text)

    answer = f"[{found[0].topic}] {' '.join(found[0].text.split())}"
    action = await recorder.record_ask(
        question,
        provider="pydoc",
        model="keyword lookup",
        response=answer,
        duration_ms=0,
        retrieved_frames=frames,
    )
    _acknowledge(recorder, action, question, answer)


def _acknowledge(recorder: SessionRecorder, action: Action, given: Any, got: str | None) -> None:
    line = {
        "session": str(recorder.session_id),
        "index": action.index,
        "kind": action.kind.value,
        "input": given,
        "output": got,
    }
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


if __name__ == "__main__":
    try:
        anyio.run(record_for_ever, sys.argv[1])
    except* BrokenPipeError:
        pass
