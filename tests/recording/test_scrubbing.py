"""Scrubbing: what is taken out is nowhere, in the file or an error, whatever it was passed as."""

import inspect
import traceback

import pytest

from memvid_async import (
    ActionKind,
    ChunksCame,
    ErrorDetail,
    InvalidValueError,
    Limits,
    MemvidAsyncError,
    SessionRecorder,
    Store,
    StoreConfig,
    open_store,
    scrub_secrets,
)
from memvid_async.core.commands import NoteEvent, StartAction
from memvid_async.events.calls import CallFacts
from memvid_async.recording.converting import whole_text
from memvid_async.recording.known_secrets import REMOVED
from memvid_async.recording.scrubbing import scrubbed_call, scrubbed_command, scrubbing

SECRET = "sk-proj-Zq3vT9xLmN4bR7wK2pYs8dFh"
CARD = "4111 1111 1111 1111"


def key(*parts):
    """A secret in pieces, so that no scanner of this repository takes it for a real one."""
    return "".join(parts)


KNOWN = [
    SECRET,
    key("sk-", "ant-api03-", "a1B2" * 20, "-AA"),
    key("AKIA", "IOSFODNN7EXAMPLE"),
    key("gh", "p_", "16C7e42F292c6912E7710c838347Ae178B4a"),
    key("github_", "pat_", "11ABCDEFG0", "x" * 50),
    key("gl", "pat-", "abcDEF123456_-789xyz"),
    key("xo", "xb-", "123456789012-1234567890123-abcDEF"),
    key("AI", "za", "SyD-1234567890abcdefghijklmnopqrstu"),
    key("ya29.", "a0AfH6SMBx-1234567890"),
    key("eyJ", "hbGciOiJIUzI1NiJ9.", "eyJzdWIiOiIxIn0.", "c2lnbmF0dXJl"),
    key("sk_", "live_", "4eC39HqLyjWDarjtT1zdp7dc"),
    "-----BEGIN RSA PRIVATE KEY-----\nMIIB\nAAAA\n-----END RSA PRIVATE KEY-----",
    CARD,
    "5500-0000-0000-0004",
]
PARTS = {
    "Authorization: Bearer abc.DEF-123456789": "abc.DEF-123456789",
    "Authorization: Basic dXNlcjpwYXNzd29yZA==": "dXNlcjpwYXNzd29yZA",
    "postgres://me:hunter2@host/db": "hunter2",
    "https://me:p@ss:word@host/": "p@ss:word",
    "GET /v1?api_key=0123456789abcdef&q=1": "0123456789abcdef",
    '{"password": "correct horse"}': "correct",
    r'"{\"client_secret\": \"abcdef123456\"}"': "abcdef123456",
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG": "wJalrXUtnFEMI/K7MDENG",
    "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXX": "B00000000",
}
HARMLESS = [
    "The task-based risk-averse approach took 4111 1111 1111 1112 steps.",
    "desk-1234567890abcdefghij is a desk",
    "postgres://host/db and mailto:me@host",
    "max_tokens=4096, tokens: 12, 1700000000000000000 ns, 12345678901234",
    "see https://example.com/a:b@c",
    "é" * 100,
    "",
]


@pytest.mark.parametrize("secret", KNOWN, ids=range(len(KNOWN)))
def test_a_known_shape_is_removed_wherever_it_stands(secret):
    for around in ("{}", "use {} now", "a={};b", '{{"k": "{}"}}', "({})", "\n{}\n"):
        cleaned = scrub_secrets("ask", "query", around.format(secret))
        assert cleaned == around.format(REMOVED)
        assert scrub_secrets("ask", "query", cleaned) == cleaned


@pytest.mark.parametrize("text", PARTS, ids=range(len(PARTS)))
def test_a_secret_with_a_name_or_a_place_is_removed(text):
    cleaned = scrub_secrets("ask", "query", text)
    assert PARTS[text] not in cleaned
    assert cleaned[:8] == text[:8]
    assert scrub_secrets("ask", "query", cleaned) == cleaned


@pytest.mark.parametrize("text", HARMLESS, ids=range(len(HARMLESS)))
def test_what_is_harmless_stays(text):
    assert scrub_secrets("ask", "query", text) == text


HARD = ["a." * 50_000, "sk-" * 40_000, "eyJ" * 40_000, "a:" * 50_000, "1 " * 50_000, "-----BEGIN A"]


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_a_hard_text_takes_time_in_proportion(text):
    scrub_secrets("ask", "query", text * 4)


def needed(store):
    """Every call that records, with arguments that it needs."""

    async def stream(_):
        yield "so "
        yield "far"

    async def raising(_):
        raise OSError("the line is dead")

    async def body():
        yield b"streamed "
        yield b"body"

    return {
        "record_ask": {"query": "q", "response": "r", "provider": "p", "model": "m"},
        "record_find": {"query": "q", "mode": "m", "result_count": 0, "result_frames": []},
        "record_put": {"frame_id": 1, "data": "d"},
        "record_put_many": {"frame_ids": [1]},
        "record_update": {"frame_id": 1, "data": "d"},
        "record_delete": {"frame_id": 1},
        "record_tool_call": {"name": "t", "arguments": {}},
        "put": {"content": "text"},
        "put_many": {"items": ["text"]},
        "update": {"frame_id": 1, "content": "text"},
        "delete": {"frame_id": 1},
        "find": {"query": "text"},
        "ask": {"question": "text?", "generate": lambda _: "yes"},
        "start_session": {},
    }


def dressed(secret, name):
    """The secret as every type in which a call may get it."""
    large = f"{'long ' * 20_000}{secret}{' text' * 20_000}"
    return [
        secret,
        f"before {secret} after",
        large,
        large.encode(),
        f"\ud83d {secret}",
        secret.encode(),
        b"\xff" + secret.encode() + b"\xfe",
        bytearray(secret.encode()),
        {"k": secret},
        {secret: 1},
        [{"role": "user", "content": secret}, {"deep": [[{"er": [secret]}]]}],
        [secret],
        (secret,),
        {secret},
        OSError(secret),
        OSError(*[secret] * 2),
        type("Named", (), {"__repr__": lambda _: secret})(),
        "x " * 120 + secret,
        [("k", secret)],
    ]


def said(error):
    """All that an error and its causes say."""
    found = []
    while error is not None:
        found += [str(error), repr(error), *getattr(error, "__notes__", ())]
        found += traceback.format_exception(error)
        error = error.__cause__ or error.__context__
    return "\n".join(found)


SCRUBBING = StoreConfig(scrub=scrub_secrets, limits=Limits(error_chars=300, name_chars=256))
CALLS = sorted(needed(None))


def fields_of(call):
    """The arguments of a call that can hold anything."""
    names = list(inspect.signature(getattr(Store, call)).parameters)[1:]
    extra = ["title", "uri", "metadata", "tags", "media_type", "embedding_model"]
    names += extra if call in ("put", "update", "find") else []
    return [name for name in dict.fromkeys(names) if name not in ("filters", "fields", "generate")]


@pytest.mark.parametrize("call", CALLS)
async def test_a_secret_is_nowhere_in_the_file_or_an_error(tmp_path, call):
    path = tmp_path / "store.mva"
    taken = 0
    async with open_store(path, config=SCRUBBING) as store:
        await store.put("text")
        async with store.session("s"):
            for name in fields_of(call):
                for value in dressed(SECRET, name):
                    arguments = {**needed(store)[call], name: value}
                    refused = None
                    try:
                        await getattr(store, call)(**arguments)
                        taken += 1
                    except (MemvidAsyncError, TypeError) as error:
                        refused = error
                    assert SECRET not in said(refused), (name, value)
                    if call == "start_session" and store.is_recording:
                        await store.end_session()
        await store.sync()
        assert (await store.verify()).ok
    assert taken or call == "delete"
    assert SECRET.encode() not in path.read_bytes()


async def test_replies_streams_and_failures_are_scrubbed(tmp_path):
    path = tmp_path / "store.mva"

    async def chunks(_):
        for at in range(0, len(SECRET), 5):
            yield SECRET[at : at + 5]

    async def fails(_):
        yield "key: "
        raise PermissionError(f"{SECRET} is no key")

    async def body():
        for at in range(0, len(SECRET), 5):
            yield SECRET[at : at + 5].encode()

    async with open_store(path, config=SCRUBBING) as store:
        frame = await store.put(body())
        assert (await store.get(frame)).content.preview == REMOVED
        session = store.session(f"with {SECRET}", metadata={"key": SECRET})

        async def talk():
            async with session:
                answer = await store.ask(f"{SECRET}?", generate=chunks, messages=[SECRET])
                # The caller gets what the model said.
                assert answer.text == SECRET
                await store.ask("why?", generate=lambda _: {"key": SECRET})
                await store.ask("why?", generate=fails)

        with pytest.raises(PermissionError):
            await talk()
        read = await store.get_session(session.session_id)
        assert read.name == f"with {REMOVED}"
        assert read.error == f"PermissionError: {REMOVED} is no key"
        first, second, third = read.actions
        assert first.input.preview == f"{REMOVED}?"
        assert "".join(await store.read_chunks(first)) == REMOVED
        assert await store.read_messages(first) == [REMOVED]
        assert second.output.preview == f'{{"key": "{REMOVED}"}}'
        assert third.error == read.error
        await store.annotate_session(session.session_id, {SECRET: SECRET})
        await store.rename_session(session.session_id, f"still {SECRET}")
        read = await store.get_session(session.session_id)
        assert (read.name, read.metadata[REMOVED]) == (f"still {REMOVED}", REMOVED)
        values = store.collection(f"of {SECRET}")
        await values.put(f"key/{SECRET}", {"data": [SECRET]}, metadata={"m": SECRET})
        await values.append("list", [SECRET, 1])
        assert (await values.get(f"key/{SECRET}")).data == {"data": [REMOVED]}
        assert await values.items("list") == [REMOVED, 1]
        # What is searched for is scrubbed as what was put.
        await store.put(f"the key is {SECRET}", title=SECRET)
        assert (await store.find("key", title=SECRET)).hits
    assert SECRET.encode() not in path.read_bytes()


async def test_a_scrubber_is_told_what_it_looks_at(tmp_path):
    seen = set()

    def scrub(kind, field, value):
        seen.add((kind, field, value))
        return value

    config = StoreConfig(scrub=scrub)
    async with (
        open_store(tmp_path / "a.mva", config=config) as store,
        store.session("name", metadata={"meta": "data"}) as session,
    ):
        prompt = [{"role": "r"}]
        await session.record_ask("why?", provider="p", response="so", messages=prompt, task="t")
        await session.record_tool_call("t", arguments={"a": [b"b"]}, result={"c": 1}, error="e")
        await store.put("text", title="title", tags=["tag"])
    assert seen >= {
        ("session", "name", "name"), ("session", "metadata", "meta"), ("ask", "query", "why?"),
        ("ask", "response", "so"), ("ask", "messages", "role"), ("tool_call", "arguments", "a"),
        ("tool_call", "arguments", "b"), ("tool_call", "result", "c"), ("tool_call", "error", "e"),
        ("put", "content", "text"), ("put", "title", "title"), ("put", "a tag", "tag"),
    }  # fmt: skip


BROKEN = {
    "raises": lambda _kind, _field, value: {}[value],
    "returns nothing": lambda _kind, _field, _value: None,
    "returns bytes": lambda _kind, _field, value: value.encode(),
    "takes too little": lambda value: value,
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_scrubber_that_fails_records_nothing(tmp_path, name):
    path = tmp_path / "a.mva"
    async with open_store(path) as store:
        await store.start_session()
    async with open_store(path, config=StoreConfig(scrub=BROKEN[name])) as store:
        before = store.last_sequence
        for call, arguments in needed(store).items():
            if call in ("record_put_many", "record_delete", "delete"):
                arguments = arguments | {"task": SECRET} if "record" in call else arguments
            if call == "delete":
                continue
            if call == "start_session":
                arguments = {"name": SECRET}
            with pytest.raises(InvalidValueError, match=r"StoreConfig\.scrub") as caught:
                await getattr(store, call)(**arguments)
            assert SECRET not in said(caught.value)
        assert store.last_sequence == before


def test_what_scrubs_is_a_callable():
    with pytest.raises(InvalidValueError):
        StoreConfig(scrub="secrets")
    assert whole_text("é") == "é"
    assert isinstance(SessionRecorder, type)


def test_what_only_calls_have_is_scrubbed():
    limits = scrubbing(Limits(), scrub_secrets)
    frames = (f"a.py:1 in {SECRET}",)
    detail = ErrorDetail("builtins", "OSError", (5, SECRET), {"note": [SECRET]}, frames)
    call = scrubbed_call(limits, CallFacts(lane=(SECRET, 2), error_detail=detail))
    assert call.lane == (REMOVED, 2)
    assert call.error_detail == ErrorDetail(
        "builtins", "OSError", (5, REMOVED), {"note": [REMOVED]}, (f"a.py:1 in {REMOVED}",)
    )
    start = StartAction(5, ActionKind.TOOL_CALL, ("t",), None, None, None, (1, SECRET))
    assert scrubbed_command(limits, start).lane == (1, REMOVED)
    assert scrubbed_command(Limits(), start) is start
    for whole, made in ((SECRET, REMOVED), (SECRET.encode(), REMOVED.encode())):
        note = NoteEvent(5, ChunksCame(7, 0, 0, (whole[:9], whole[9:])))
        cleaned = scrubbed_command(limits, note).note
        assert cleaned == ChunksCame(7, 0, 0, (made, made[:0]))
    harmless = NoteEvent(5, ChunksCame(7, 0, 0, ("a", "b")))
    assert scrubbed_command(limits, harmless) == harmless
    assert scrubbed_command(limits, None) is None


async def talk(session):
    """Every kind of call, each with the secret in all that it is given and returns."""

    async def tool(key):
        return {"got": key}

    async def refuses(key):
        error = PermissionError(13, f"{key} is no key")
        error.extra = key
        raise error

    async def chunks(_):
        yield SECRET[:10]
        yield SECRET[10:]

    said = [await session.call_tool("look", {"key": SECRET}, tool)]
    with pytest.raises(PermissionError):
        await session.call_tool("look", {"key": SECRET}, refuses)
    prompt = [{"role": "user", "content": f"{SECRET}?"}]
    said.append(str(await session.call_model(prompt, lambda _: f"re: {SECRET}", model=SECRET)))
    said.append("".join([chunk async for chunk in session.stream_model(SECRET, chunks)]))
    async with session.step(SECRET, input={SECRET: SECRET}) as step:
        step.output = SECRET
    said.append(await session.once("a key", lambda: SECRET))
    return said


async def test_calls_are_scrubbed_and_served_again(tmp_path):
    path = tmp_path / "a.mva"
    async with open_store(path, config=SCRUBBING) as store:
        async with store.session() as session:
            live = [{"got": SECRET}, f"re: {SECRET}", SECRET, SECRET]
            assert await talk(session) == live
        # A call of now is compared as it would be recorded.
        async with store.serve(session.session_id) as served:
            assert await talk(served) == [{"got": REMOVED}, f"re: {REMOVED}", REMOVED, REMOVED]
    assert SECRET.encode() not in path.read_bytes()
