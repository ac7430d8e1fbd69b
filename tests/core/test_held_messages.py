"""An ask's messages: kept once, found again by prefix and by piece, and given back whole."""

from itertools import pairwise

import cbor2
import pytest
from attrs import evolve as replace
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import Content, CorruptFileError, InvalidValueError, MessageRun, StoredMessages
from memvid_async.core import held_messages as model
from memvid_async.core.held_messages import (
    HELD_MOST,
    PIECE_BYTES,
    TAG_CONTENT,
    TAG_PIECE,
    Messages,
    hashed_messages,
    hold_messages,
    keep_messages,
    message_places,
    restore_messages,
)
from memvid_async.core.session_state import NOTHING_HELD
from memvid_async.engine.reading import read_messages
from memvid_async.events.content import content_digest
from memvid_async.events.values import MAX_DEPTH, MAX_ITEMS
from memvid_async.file.journal import Journal
from memvid_async.storage import RamStorage
from tests.support.asking import verified
from tests.support.hostile import ODDITIES
from tests.support.naive import ask, canonical, fixed_config, start
from tests.support.plans import CONTENTS, MESSAGES, examples


def as_messages(values) -> Messages:
    return hashed_messages(tuple(map(canonical, values)))


class Asks:
    """The asks of one session, kept by the functions alone."""

    def __init__(self):
        self.held = NOTHING_HELD
        self.asks = {}
        self.contents: dict[int, str | bytes] = {}

    def store(self, data):
        for sequence, known in self.contents.items():
            if content_digest(known) == content_digest(data):
                return sequence
        self.contents[len(self.contents) + 1] = data
        return len(self.contents)

    def content(self, sequence):
        data = self.contents[sequence]
        return data.encode() if isinstance(data, str) else data

    def add(self, values, query="", response=None):
        index = len(self.asks)
        given, result = Content(query), None if response is None else Content(response)
        stored = keep_messages(self.held, as_messages(values), index, given, result, self.store)
        action = Action(index, given, result)
        self.held = hold_messages(self.held, stored, index, given, result)
        self.asks[index] = (action, stored)
        return stored

    def read(self, index):
        return restore_messages(index, self.asks.__getitem__, self.content)


class Action:
    """As much of an action as the functions look at."""

    def __init__(self, index, given, result):
        self.index, self.input, self.output = index, given, result


PARTS = st.tuples(
    st.integers(0, 5),
    st.integers(0, 5),
    st.lists(MESSAGES, max_size=3),
    CONTENTS,
    st.none() | CONTENTS,
)


@given(st.lists(PARTS, min_size=1, max_size=12), st.integers(1, 8))
@examples(2)
def test_every_branch_of_a_chat_comes_back_whole(parts, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "HELD_MOST", 4 * most)
        asks, told = Asks(), []
        for back, cut, values, query, response in parts:
            # Larger content leaves the action; the functions see none of it.
            small = [c if c is None or len(c) < 300 else None for c in (query, response)]
            before = told[-1 - back % len(told)] if told else []
            told.append([*before[: len(before) - cut], *values, *filter(None, small)])
            if not told[-1]:
                told[-1] = ["hello"]
            asks.add(told[-1], small[0] or "", small[1])
            assert len(asks.held) <= 4 * most + 2
        for index, values in enumerate(told):
            assert canonical(asks.read(index)) == canonical(values)


def test_a_growing_chat_is_stored_once():
    asks, chat = Asks(), []
    for turn in range(50):
        query = f"{turn}: what is the meaning of all this, once more?"
        response = f"{turn}: the meaning of all this is still being looked for"
        chat.append({"role": "user", "content": query})
        stored = asks.add(chat, query, response)
        # What was asked is a piece of the message; what was answered is one of the next ask's.
        assert sum(map(len, stored.own)) < 100
        chat.append({"role": "assistant", "content": response})
    assert asks.read(49) == chat[:-1]


def test_a_second_chat_beside_the_first_keeps_what_they_share():
    asks = Asks()
    asks.add(["system", "one"])
    other = asks.add(["system", "two"])
    assert (other.parts[0], len(other.parts)) == (MessageRun(0, 0, 1), 2)
    both = asks.add(["system", "one", "more"])
    assert both.parts[0] == MessageRun(0, 0, 2)
    assert [asks.read(i) for i in range(3)] == [
        ["system", "one"],
        ["system", "two"],
        ["system", "one", "more"],
    ]


def test_the_same_messages_again_are_a_reference_alone():
    asks = Asks()
    asks.add(["a", "b"])
    again = asks.add(["a", "b"])
    assert again == StoredMessages(b"", (MessageRun(0, 0, 2),))
    assert asks.read(1) == ["a", "b"]


def test_a_shorter_prompt_is_a_prefix_of_a_longer_one():
    asks = Asks()
    asks.add(["a", "b", "c"])
    asks.add(["a", "b"])
    assert asks.read(1) == ["a", "b"]


def test_equal_values_of_other_types_are_other_messages():
    asks = Asks()
    for values in ([1], [1.0], [True], ["1"], [b"1"]):
        assert len(asks.add(values).own) == 1
    assert [type(asks.read(i)[0]) for i in range(5)] == [int, float, bool, str, bytes]


@pytest.mark.parametrize("text", ["p" * PIECE_BYTES, "é" * PIECE_BYTES, b"\xff" * PIECE_BYTES])
def test_a_string_that_the_action_holds_is_a_reference(text):
    asks = Asks()
    stored = asks.add([{"content": text}, [text, text]], query=text)
    tag = cbor2.dumps(cbor2.CBORTag(TAG_PIECE, [0, 0]))
    assert stored.own[1] == b"\x82" + tag + tag
    assert asks.read(0) == [{"content": text}, [text, text]]


def test_text_is_no_piece_of_equal_bytes():
    asks = Asks()
    asks.add([b"p" * 40, "q" * 40], query="p" * 40, response=b"q" * 40)
    assert asks.read(0) == [b"p" * 40, "q" * 40]


def test_keys_are_never_references():
    asks = Asks()
    key = "k" * 2000
    asks.add([{key: 1}], query=key[:100])
    assert asks.contents == {}
    assert asks.read(0) == [{key: 1}]


def test_what_a_session_holds_is_bounded():
    asks = Asks()
    values = [str(i) for i in range(HELD_MOST + 10)]
    asks.add(values)
    assert len(asks.held) <= HELD_MOST + 2
    asks.add([*values, "more"])
    asks.add([*values[:5], "other"])
    assert [asks.read(0), asks.read(1), asks.read(2)] == [
        values,
        [*values, "more"],
        [*values[:5], "other"],
    ]


@given(st.lists(MESSAGES, max_size=5), st.lists(MESSAGES, max_size=5))
def test_hashes_tell_messages_and_chains_apart(one, other):
    first, second = (as_messages(values) for values in (one, other))
    pairs = zip(first.hashes, second.hashes, first.chains, second.chains, strict=False)
    for i, (a, b, c, d) in enumerate(pairs):
        assert (a == b) == (first.items[i] == second.items[i])
        assert (c == d) == (first.items[: i + 1] == second.items[: i + 1])
    assert all(a != b for a, b in pairwise(first.chains))


def chat(turns, change):
    """What each turn of a chat asks: messages that ``change`` makes of all so far."""
    said = []
    for turn in range(turns):
        said.append(f"question {turn}, {'q' * 100}")
        yield change(turn, list(said))
        said.append(f"answer {turn}, {'a' * 100}")


CHANGES = {
    "a clock before": lambda turn, said: [f"It is 10:{turn}.", *said],
    "a clock before the question": lambda turn, said: [*said[:-1], f"It is 10:{turn}.", said[-1]],
    "a clock in the middle": lambda turn, said: [*said[:3], f"It is 10:{turn}.", *said[3:]],
    "two clocks": lambda turn, said: [f"It is 10:{turn}.", *said, f"It is 11:{turn}."],
    "two chats in turn": lambda turn, said: [f"chat {turn % 2}", *said],
    "a window": lambda _turn, said: ["system", *said[-9:]],
    "the same again and again": lambda _turn, said: ["continue", *said, "continue", "continue"],
    "the same answers": lambda _turn, said: [one if "q" in one else "ok" for one in said],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_message_is_stored_once_wherever_it_stands(name):
    asks, told = Asks(), list(chat(60, CHANGES[name]))
    stored = [asks.add(messages) for messages in told]
    distinct = len({message for messages in told for message in messages})
    assert sum(len(one.own) for one in stored) <= 2 * distinct + 60
    # An ask is a few runs, however long the chat is.
    assert max(len(one.parts) - len(one.own) for one in stored[10:]) <= 11
    assert [asks.read(index) for index in range(60)] == told


@given(
    st.lists(st.lists(st.integers(0, 6).map(str), min_size=1, max_size=12), max_size=40),
    st.integers(2, 60),
)
@examples(8)
def test_any_order_of_few_messages_comes_back_and_no_stored_one_is_used_twice(told, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "HELD_MOST", most)
        asks = Asks()
        for index, messages in enumerate(told):
            asks.add(messages)
            assert len(asks.held) <= most + 2
            places = [(a, b) for a, b, _ in message_places(index, asks.asks.__getitem__)]
            assert len(set(places)) == len(places)
    assert [asks.read(index) for index in range(len(told))] == told


# What a damaged or hostile file may say.


@pytest.mark.parametrize(
    "change",
    [
        MessageRun(5, 0, 1),
        MessageRun(1, 0, 1),
        MessageRun(0, 0, 2),
        MessageRun(0, 1, 1),
        MessageRun(0, 2**30, 2**30),
        canonical(cbor2.CBORTag(TAG_PIECE, [0, 1])),
        canonical(cbor2.CBORTag(TAG_PIECE, [9, 0])),
        canonical(cbor2.CBORTag(TAG_PIECE, 3)),
        canonical(cbor2.CBORTag(TAG_PIECE, ["a", "b"])),
        canonical(cbor2.CBORTag(TAG_CONTENT, [99, True])),
        canonical(cbor2.CBORTag(TAG_CONTENT, [1, True])),
        canonical(cbor2.CBORTag(1234, [1, True])),
        b"\xff",
        *ODDITIES,
    ],
    ids=range(13 + len(ODDITIES)),
)
def test_references_that_lead_nowhere_are_errors(change):
    asks = Asks()
    asks.contents[1] = b"\xff"
    asks.add(["first"], query="query")
    asks.add(["first", "second"])
    action, stored = asks.asks[1]
    asks.asks[1] = (action, replace(stored, parts=(change,)))
    # The reader turns each of these into CorruptFileError.
    with pytest.raises((ValueError, KeyError, TypeError)):
        asks.read(1)


def test_references_in_a_circle_are_an_error():
    asks = Asks()
    asks.add(["first"])
    asks.add(["second"])
    for index, other in ((0, 1), (1, 0)):
        action, stored = asks.asks[index]
        asks.asks[index] = (action, replace(stored, parts=(MessageRun(other, 0, 1),)))
    with pytest.raises(ValueError, match="forward"):
        asks.read(0)


def test_references_that_grow_with_each_ask_are_an_error():
    """A file may say that each ask is the one before, twice over."""
    asks = Asks()
    asks.add(["first"])
    asks.add(["second"])
    action, _ = asks.asks[1]
    for index in range(1, 40):
        before = 2 ** (index - 1)
        runs = (MessageRun(index - 1, 0, before),) * 2
        asks.asks[index] = (action, StoredMessages(b"", runs))
    with pytest.raises(ValueError, match="one twice"):
        asks.read(39)


# Through the journal: anything that is taken in is given back, after a reopening too.


def recorded(*ops):
    storage = RamStorage()
    journal = Journal.open(storage, fixed_config())
    journal.commit([start(1)])
    outcomes, _ = journal.commit([op.command() for op in ops])
    again = Journal.open(storage, fixed_config())
    assert verified(again).ok
    return again, outcomes


def test_the_most_items_of_one_message_come_back_though_each_becomes_a_reference():
    query = "q" * PIECE_BYTES
    message = [query] * 23_000 + [0] * (MAX_ITEMS - 23_001)
    journal, (action,) = recorded(ask(1, query, None, message))
    assert read_messages(journal.view, action) == [message]


def test_the_deepest_message_comes_back_though_its_core_becomes_a_reference():
    query = "q" * PIECE_BYTES
    message = query
    for _ in range(MAX_DEPTH):
        message = [message]
    large = "r" * 5000
    deep = large
    for _ in range(MAX_DEPTH):
        deep = {"k": deep}
    journal, (action,) = recorded(ask(1, query, large, message, deep))
    assert read_messages(journal.view, action) == [message, deep]


def test_however_many_messages_are_taken_in_are_given_back():
    values = [0] * (MAX_ITEMS + 10)
    try:
        journal, (action,) = recorded(ask(1, "q", "r", *values))
    except InvalidValueError:
        return
    if not isinstance(action, InvalidValueError):
        assert read_messages(journal.view, action) == values


def test_another_files_action_has_no_messages_here():
    one, (action,) = recorded(ask(1, "q", None, "m"), ask(1, "q", None, "m"))[0], [None]
    _, (action, _) = recorded(ask(1, "q", None, "m"), ask(1, "q", None, "m"))
    for sequence in (0, 1, 3, 99):
        other = replace(action, sequence=sequence, index=7)
        with pytest.raises((InvalidValueError, CorruptFileError)):
            read_messages(one.view, other)
