"""An export is hardly larger than what the session holds, and loses nothing of it."""

import json
from contextlib import aclosing
from functools import partial

import pytest

from memvid_async import Durability, Generated, StoreConfig
from memvid_async.cli.exporting import json_lines
from memvid_async.interop.chats import read_plans, record_run
from memvid_async.view.session_page import load_session, session_page
from tests.support.depth import EXPORTED_RUNS
from tests.support.distinct import distinct_bytes

pytestmark = pytest.mark.one_loop
# What an action that does little has around it: on a page its head, names of its parts and bars in
# time; as JSON lines, of which it has two, names of fields, digests and times.
AROUND, LINES_AROUND = 330, 1_200


async def size_of(pieces):
    async with aclosing(pieces):
        return sum([len(piece.encode()) async for piece in pieces])


def page_of(store, session_id):
    return session_page(store, partial(load_session, store, session_id))


async def measured(store, session_id):
    """The distinct bytes of a session, those of its page without what every page has, and those
    of its JSON lines."""
    async with store.session("nothing") as nothing:
        pass
    session = await store.get_session(session_id)
    page = await size_of(page_of(store, session_id))
    around = await size_of(page_of(store, nothing.session_id))
    lines = await size_of(json_lines(store, session))
    return await distinct_bytes(store, session), page - around, lines


@pytest.fixture
async def store(make_store):
    return await make_store(config=StoreConfig(durability=Durability.BUFFERED))


async def run_agent(store, about):
    """An agent of 40 turns with two tools. ``about``: what its tool finds, of each turn."""
    chat = [{"role": "system", "content": "You are an agent with two tools. Use them."}]

    async def model(_):
        yield Generated(f"I look at row {len(chat)} of {about[:9]}.", input_tokens=200)

    async def find(query, limit):
        return f"{limit} of {query}: {about}"

    async with store.session("agent") as session:
        for turn in range(40):
            chat.append({"role": "user", "content": f"What is known of item {turn}, please?"})
            reply = await session.call_model(chat, model, provider="p", model="m")
            chat.append({"role": "assistant", "content": str(reply)})
            async with session.step("look", input={"turn": turn}):
                for name in ("search", "fetch"):
                    await session.call_tool(name, {"query": f"item {turn}", "limit": 5}, find)
    return session.session_id


async def test_what_surrounds_a_short_action_is_short(store):
    distinct, page, lines = await measured(store, await run_agent(store, "a row"))
    assert page < distinct + 160 * AROUND
    assert lines < distinct + 160 * LINES_AROUND


async def test_a_page_is_at_most_twice_what_the_session_holds(store):
    about = "It was sent on Monday, in a box, by train. " * 25
    distinct, page, _ = await measured(store, await run_agent(store, about))
    assert page < 2 * distinct


async def test_the_pages_of_real_runs_are_at_most_twice_what_they_hold(store, shared_data):
    path = shared_data / "tau-bench" / "gpt-4o-airline.json.gz"
    sums = [0, 0, 0]
    async with aclosing(read_plans(path)) as transcripts:
        (plans,) = [found async for found in transcripts]
    for plan in plans[:EXPORTED_RUNS]:
        found = await measured(store, await record_run(store, plan))
        sums = [one + other for one, other in zip(sums, found, strict=True)]
    distinct, page, lines = sums
    assert page < 2 * distinct
    assert lines < 2.5 * distinct


def resolved(lines):
    """The lines of an export, with what they refer to in place."""
    by_sequence = {}

    def content_of(sequence, field):
        payload = by_sequence[sequence]["payload"]
        return payload.get("action", payload)[field]

    for line in map(json.loads, lines):
        by_sequence[line["sequence"]] = line
        made = line["payload"].get("action", line["payload"])
        given = made.get("input", {})
        if set(given) == {"given_in"}:
            start = by_sequence[given["given_in"]]["payload"]
            made |= {name: start[name] for name in ("input", "arguments") if name in start}
        for field in ("input", "output"):
            content = made.get(field, {})
            if "given_in" in content:
                before = by_sequence[content["given_in"]]["payload"]
                held = before.get("action", before)
                content["text"] = next(
                    held[name]["text"]
                    for name in ("input", "output")
                    if held.get(name, {}).get("digest") == content["digest"]
                )
        messages = []
        for message in made.get("messages", ()):
            if "$earlier" in message:
                run = message["$earlier"]
                (ask,) = [
                    one["payload"]["action"]
                    for one in by_sequence.values()
                    if one["payload"].get("action", {}).get("index") == run["index"]
                ]
                messages += ask["messages"][run["first"] :][: run["count"]]
                continue
            if isinstance(message["content"], dict):
                said = message["content"]["$given"]
                message["content"] = content_of(said["sequence"], said["field"])["text"]
            messages.append(message)
        if messages:
            made["messages"] = messages
    return by_sequence


async def test_json_lines_that_refer_to_earlier_ones_lose_nothing(store):
    session = await store.get_session(await run_agent(store, "a row " * 30))
    lines = "".join([line async for line in json_lines(store, session)]).splitlines()
    told = resolved(lines)
    for action in session.actions:
        one = told[action.sequence]["payload"]["action"]
        for field in ("input", "output"):
            content = getattr(action, field)
            if content is None:
                continue
            if field == "input" and "arguments" in one:
                assert one["arguments"] == await store.read_arguments(action)
            else:
                assert one[field]["text"].encode() == await store.read_content(content)
        if action.kind == "ask":
            assert one["messages"] == await store.read_messages(action)
