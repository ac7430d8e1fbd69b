"""Wrong calls, one per line: mypy and pyright must each refuse all of them, and nothing else.

They are checked by `test_typing.py` and never run. A comment says what is wrong.
"""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from memvid_async import (
    Action,
    Frame,
    FrameFilters,
    Limits,
    RecordingConfig,
    Session,
    SessionRecorder,
    Store,
    StoreConfig,
    SyncStore,
    WhatIf,
    open_store,
    recover,
)


def opening(path: Path) -> None:
    open_store(path, read_only="yes")  # wrong: a bool
    open_store(path, StoreConfig())  # wrong: config is a keyword
    StoreConfig(durability="sync")  # wrong: a Durability
    StoreConfig(language="german")  # wrong: english or none
    StoreConfig(limits=Limits(bytes=5))  # wrong: there is no such limit
    StoreConfig(embedder=lambda texts: [len(text) for text in texts])  # wrong: each several numbers
    StoreConfig(clock=lambda: "now")  # wrong: nanoseconds
    RecordingConfig(max_actions="many")  # wrong: an int
    with open_store(path):  # wrong: async with
        pass


async def recording(store: Store, recorder: SessionRecorder) -> None:
    await recorder.record_find("q", mode="x", result_count="2", result_frames=())  # wrong: an int
    await recorder.record_put(1, {"no": "text"})  # wrong: str or bytes
    await recorder.record_put_many(5)  # wrong: several ids
    await recorder.record_tool_call("search")  # wrong: arguments are needed
    store.session(metadata=["a"])  # wrong: a map
    action: Action = await store.record_put(1, "x")  # wrong: None outside a session
    session: Session = store.end_session()  # wrong: not awaited
    print(action, session)


async def remembering(store: Store, any_filters: FrameFilters) -> None:
    await store.put(5)  # wrong: str, bytes or a stream of bytes
    await store.put("x", titel="t")  # wrong: title
    await store.put_many([{"title": "t"}])  # wrong: an item has content
    await store.put_many([{"content": "x", "titel": "t"}])  # wrong: title
    await store.update(1, None)  # wrong: left out, or content
    await store.update(1, titel="t")  # wrong: title
    await store.find("x", tag="t")  # wrong: tags
    await store.find("x", mode="magic")  # wrong: no such mode
    await store.find("x", since_ns="today")  # wrong: nanoseconds
    await store.find("x", top_k="ten")  # wrong: an int
    await store.ask("q")  # wrong: generate
    await store.ask("q", generate=lambda prompt: 5)  # wrong: str, bytes or a Generated
    await store.ask("q", generate=lambda question, context: "a")  # wrong: it takes a Prompt
    await store.ask("q", generate=str.upper)  # wrong: a Prompt is not a str
    store.frames(tag="t")  # wrong: tags
    frame: Frame | None = await store.find("x")  # wrong: a FindResult
    any_filters["titles"] = "t"  # wrong: title
    print(frame)


async def replaying(store: Store, one: UUID, write: Callable[[str], None]) -> None:
    store.replay(one, from_checkpoint=1)  # wrong: checkpoint_id
    store.replay(one, until=1)  # wrong: before_index
    store.replay(one, what_if=WhatIf(mode="magic"))  # wrong: no such mode
    store.replay(one, what_if=WhatIf(filters={"tag": "t"}))  # wrong: tags
    await store.audit(one, str)  # wrong: models by name
    store.serve(one, missing="ignore")  # wrong: raise or run
    await store.at(checkpoint="first")  # wrong: checkpoint_id
    await store.read_content(one)  # wrong: a Content
    await store.verify(write)  # wrong: progress takes two ints
    store.subscribe("start")  # wrong: a sequence
    async for event in store.subscribe().events:  # wrong: it is the iterator itself
        print(event)
    report = await recover("a", "b")
    report.complete = False  # wrong: reports do not change


def synchronous(store: SyncStore) -> None:
    store.put("text", title=3)  # wrong: a str
    store.session("s", metadata="text")  # wrong: a map
    store.subscribe(after="1")  # wrong: an int
    with store.frames() as frames:  # wrong: an iterator
        print(frames)
