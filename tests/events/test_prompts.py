"""A prompt as one text, and a reply in its chunks."""

import pytest

from memvid_async import Context, ContextItem, Generated, Prompt, Reply

CONTEXT = Context((ContextItem(1, 2.0, "It rains."), ContextItem(2, 1.0, None)))
QUESTION = {"role": "user", "content": "Why?"}
AS_TEXT = {
    "a question": (Prompt("Why?"), "Why?"),
    "bytes": (Prompt(b"Why\xff"), "Why\ufffd"),
    "a context": (Prompt("Why?", CONTEXT), "[1] It rains.\n\nWhy?"),
    "nothing found": (Prompt("Why?", Context(())), "Why?"),
    "messages": (
        Prompt("Why?", None, [{"role": "system", "content": "Be short."}, "a note", b"more"]),
        "system: Be short.\n\na note\n\nmore\n\nWhy?",
    ),
    "the question among the messages": (
        Prompt("Why?", CONTEXT, [{"role": "system", "content": "Be short."}, QUESTION]),
        "[1] It rains.\n\nsystem: Be short.\n\nuser: Why?",
    ),
    "a message with more in it": (
        Prompt("Why?", None, [{"role": "tool", "content": "8\u00b0", "tool_call_id": "c"}]),
        '{"role": "tool", "content": "8\u00b0", "tool_call_id": "c"}\n\nWhy?',
    ),
    "no role": (Prompt("Why?", None, [{"content": "text"}]), "text\n\nWhy?"),
    "what JSON cannot hold": (
        Prompt("Why?", None, [{"image": b"\x00"}, 7]),
        "{'image': b'\\x00'}\n\n7\n\nWhy?",
    ),
}


@pytest.mark.parametrize("name", AS_TEXT)
def test_a_prompt_is_ready_to_be_sent_as_text(name):
    prompt, text = AS_TEXT[name]
    assert str(prompt) == text


def test_the_messages_are_the_models_own_list():
    given = (QUESTION,)
    prompt = Prompt("Why?", messages=given)
    assert prompt.messages == [QUESTION]
    prompt.messages.append("more")
    assert given == (QUESTION,)


def test_a_reply_is_split_where_its_chunks_ended():
    assert Reply((1, 0, 2)).split("abc") == ["a", "", "bc"]
    assert Reply((1, 2)).split(b"abc") == [b"a", b"bc"]
    assert Reply((1, 1)).split("abc") == ["abc"]
    assert Reply(()).split("abc") == ["abc"]


def test_what_was_generated_is_its_text():
    assert str(Generated("text", 1, 2)) == "text"
    assert str(Generated(b"by\xfftes")) == "by\ufffdtes"
