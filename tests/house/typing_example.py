# pyright: strict
"""User code that makes every public call. `test_typing.py` has it checked; it is never run."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type
from uuid import UUID

from memvid_async import (
    RUN,
    Action,
    ActionKind,
    ActionRecorded,
    Answer,
    AskDetails,
    Check,
    CheckpointNotFoundError,
    Collection,
    CollectionReader,
    CompactReport,
    Content,
    ContentNotFoundError,
    Context,
    CopyReport,
    CorruptFileError,
    Delete,
    DeletePrefix,
    Durability,
    Event,
    Failed,
    FindResult,
    Frame,
    FrameErased,
    FrameFields,
    FrameFilters,
    FrameItem,
    FrameNotFoundError,
    FramePut,
    FramesPut,
    Generated,
    KeySearch,
    LimitExceededError,
    Limits,
    Prompt,
    PruneReport,
    Put,
    RecordingConfig,
    RecoverReport,
    Reply,
    Result,
    SearchMode,
    ServedSession,
    Session,
    SessionNotFoundError,
    SessionRecorder,
    SessionSummary,
    Step,
    Store,
    StoreConfig,
    StoreFailedError,
    StoreLockedError,
    StoreSession,
    StoreStatistics,
    StoreSummary,
    StoreView,
    SyncCollection,
    SyncCollectionReader,
    SyncSession,
    SyncStore,
    SyncStoreView,
    TornTail,
    UncertainCall,
    UncertainCallError,
    Usage,
    Value,
    Verdict,
    VerifyReport,
    VersionConflictError,
    WhatIf,
    Why,
    WhyFrame,
    check_recordable,
    content_text,
    copy_store,
    current_call,
    list_stores,
    open_store,
    recover,
    scrub_secrets,
    spoken_text,
    tool,
)


async def both_forms_of_opening(path: Path) -> None:
    async with open_store(path) as store:
        assert_type(store, Store)
    store = await open_store(str(path), read_only=True)
    assert_type(store, Store)
    await store.aclose()


async def recording(path: Path) -> None:
    config = StoreConfig(
        durability=Durability.BUFFERED,
        recording=RecordingConfig(
            auto_checkpoint_interval=10, max_actions=1_000, auto_record=False
        ),
        limits=Limits(content_bytes=1 << 20),
        clock=lambda: 0,
    )
    async with open_store(path, config=config) as store:
        async with store.session("typed", metadata={"run": 1}) as recorder:
            assert_type(recorder, StoreSession)
            assert_type(recorder.session_id, UUID)
            action = await recorder.record_ask(
                "Why?",
                provider="local",
                model="small",
                response=b"Because.",
                duration_ms=12.5,
                retrieved_frames=[1, 2],
                messages=[{"role": "user", "content": "Why?"}],
                input_tokens=12,
                output_tokens=3,
                cached_tokens=8,
                cost_usd=0.002,
            )
            assert_type(action, Action)
            await recorder.record_tool_call("search", arguments={"words": ["why"]}, result="found")
            assert_type(await recorder.create_checkpoint(), int)
        assert_type(await store.record_put(7, "a note"), Action | None)
        assert_type(await store.start_session("ambient"), UUID)
        await store.start_session_if_none()
        assert_type(store.active_session_id, UUID | None)
        assert_type(store.is_recording, bool)
        assert_type(await store.create_checkpoint(), int)
        assert_type(await store.end_session(), Session)
    assert_type(config.new_id(), UUID)


async def recording_the_rest(store: Store, recorder: SessionRecorder) -> None:
    found = await recorder.record_find(
        "rain", mode="lexical", result_count=2, result_frames=[1, 2], task="a", metadata={"k": 1}
    )
    assert_type(found, Action)
    assert_type(await recorder.record_put(7, b"data", duration_ms=1), Action)
    assert_type(await recorder.record_put_many(range(3)), Action)
    assert_type(await recorder.record_update(7, "data"), Action)
    assert_type(await recorder.record_delete(7, error="TimeoutError: too late"), Action)
    ambient = await store.record_find("q", mode="x", result_count=0, result_frames=())
    assert_type(ambient, Action | None)
    assert_type(await store.record_put_many([1]), Action | None)
    assert_type(await store.record_update(7, "data"), Action | None)
    assert_type(await store.record_delete(7), Action | None)
    assert_type(await store.record_tool_call("t", arguments=[1, None]), Action | None)
    assert_type(await store.record_step("s", input=[1], output="done"), Action | None)
    begun = await recorder.record_start(ActionKind.STEP, "s", parent=None)
    assert_type(await recorder.record_step("s", started=begun), Action)


async def remembering(store: Store, chunks: AsyncIterable[bytes]) -> None:
    assert_type(await store.put("text", title="T", tags={"a"}, metadata={"year": 2026}), int)
    await store.put(b"bytes", media_type="text/plain", embedding=[0.5, 1], embedding_model="m")
    await store.put(chunks, uri="file:///x")
    fields: FrameFields = {"title": "T", "tags": ["a"]}
    item: FrameItem = {"content": "text", **fields}
    assert_type(
        await store.put_many(["text", b"bytes", {"content": "x", "uri": "u"}, item]), list[int]
    )
    await store.update(1, "new text", title=None)
    await store.update(1, tags=["a"], embedding=None)
    await store.update(1, **fields)
    await store.delete(1)
    await store.put("text", uri="file:///x", replace=True)
    count = await store.set_embedding_model("m", lambda texts: [[1.0]] * len(texts), progress=print)
    assert_type(count, int)
    frame = await store.get(1)
    assert_type(frame, Frame)
    assert_type(frame.content.digest, bytes)
    assert_type((frame.content.size, frame.content.preview), tuple[int, str])
    filters: FrameFilters = {"tags": ["a"], "since_ns": 0}
    mode: SearchMode = "hybrid"
    result = await store.find("rain", top_k=3, mode=mode, embedding=(1, 2), task="a", **filters)
    assert_type(result, FindResult)
    assert_type(result.hits[0].score, float)
    await store.find(None, mode="semantic", embedding=[1.0], metadata={"year": 2026}, until_ns=1)
    async for one in store.frames(newest_first=True, after=7, uri="file:", media_type="text/plain"):
        assert_type(one.title, str | None)


async def keeping_keys(store: Store, view: StoreView) -> None:
    threads = store.collection("threads")
    search = KeySearch(lambda texts: [[1.0] for _ in texts], "model", fields=["text"])
    found = await store.collection("notes", search=search).find("a", prefix="n/", limit=3)
    assert_type([(one.value, one.score) for one in found], list[tuple[Value, float]])
    assert_type(await threads.get("a", ttl=60), Value | None)
    assert_type(await threads.sweep(), int)
    assert_type(threads, Collection)
    version = await threads.put("a/1", {"n": [1]}, metadata={"step": 1}, ttl=60, if_version=0)
    assert_type(version, int)
    await threads.delete("a/2", if_version=version)
    check = Check("a/1", version)
    applied = await threads.apply(
        [Put("b", 1, {"n": 1}, 60), Delete("c"), DeletePrefix("d"), check]
    )
    assert_type(applied, int)
    assert_type(await threads.append("list", [1, "two"]), int)
    assert_type(await threads.write_list("list", [3], keep=1, if_version=version), int)
    await threads.pop("list")
    assert_type(await threads.items("list"), list[Any])
    assert_type(await threads.tail("list", 3), list[Any])
    assert_type(await threads.get("a/1"), Value | None)
    assert_type(await threads.get_many(["a/1"]), list[Value | None])
    where = {"step": {"$gte": 1}}
    async for value in threads.scan("a/", after="a/0", reverse=True, limit=3, where=where):
        assert_type(value, Value)
    assert_type(await threads.prefixes(1, prefix="a"), list[str])
    then = view.collection("threads")
    assert_type(then, CollectionReader)
    print(then.name, await then.get_many(["a"]), await then.items("l"), await then.tail("l", 1))
    print([value.key async for value in then.scan()], await then.prefixes(2))
    try:
        await threads.put("a/1", 2, if_version=version)
    except VersionConflictError as conflict:
        print(conflict.key, conflict.expected, conflict.version, conflict.value)


def keeping_keys_without_await(store: SyncStore, view: SyncStoreView) -> None:
    threads = store.collection("threads")
    assert_type(threads, SyncCollection)
    assert_type(threads.put("a/1", 1), int)
    threads.apply([Put("a/1", 2), Check("a/1", 3)])
    print(threads.name, threads.append("list", [1]), threads.write_list("list", [1]))
    threads.pop("list")
    for value in threads.scan(limit=3):
        assert_type(value, Value)
    print(threads.get_many(["a"]), threads.prefixes(1), threads.items("l"), threads.tail("l", 2))
    then = view.collection("threads")
    assert_type(then, SyncCollectionReader)
    print(then.name, then.get_many(["a"]), then.items("l"), then.tail("l", 1), then.prefixes(1))
    print([value.key for value in then.scan()])


async def asking(store: Store) -> None:
    async def awaited(prompt: Prompt) -> Generated:
        assert_type(prompt.context, Context | None)
        return Generated(str(prompt), input_tokens=1, cost_usd=0.5)

    async def streamed(prompt: Prompt) -> AsyncIterator[str]:
        yield str(prompt.question)

    answer = await store.ask("Why?", generate=lambda prompt: f"A. {prompt}", provider="local")
    assert_type(answer, Answer)
    assert_type((answer.text, str(answer)), tuple[str | bytes, str])
    assert_type((answer.action, answer.cost_usd), tuple[Action | None, float | None])
    await store.ask("Why?", generate=awaited, model="small", messages=[{"role": "user"}], top_k=3)
    await store.ask("Why?", generate=streamed, tags=["a"], frame_metadata={"k": 1}, metadata={})


async def looking_back(store: Store, session_id: UUID) -> None:
    view = await store.at(session_id=session_id, checkpoint_id=0)
    assert_type(view, StoreView)
    await store.at(sequence=7)
    await store.at(time_ns=0)
    assert_type(view.sequence, int)
    assert_type(await view.find("rain -snow", syntax=False, tags=["a"]), FindResult)
    assert_type(await view.get(1), Frame)
    async for frame in view.frames(title="T"):
        assert_type(frame, Frame)
    assert_type(await view.list_sessions(), list[SessionSummary])
    assert_type(await store.get_summary(session_id), SessionSummary)
    assert_type(await view.get_session(session_id), Session)
    forked = await store.fork(session_id, action_index=3, name="another way", metadata={"k": 1})
    assert_type(forked, UUID)
    async with store.resume_session(forked) as recorder:
        await recorder.annotate({"forked": True})
        assert_type(await recorder.put("a frame", title="t"), int)
        assert_type(await recorder.find("frame", top_k=3), FindResult)
        assert_type(recorder, StoreSession)


async def keeping(store: Store, damaged: Path, session_id: UUID) -> None:
    assert_type((store.path, store.read_only, store.torn_tail), tuple[Path, bool, TornTail])
    await store.refresh()
    statistics = store.statistics()
    assert_type(statistics, StoreStatistics)
    assert_type(statistics.frame_count, int)
    await store.annotate_session(session_id, {"rating": 5})
    await store.rename_session(session_id, None)
    await store.delete_session(session_id)
    pruned = await store.prune(
        older_than=timedelta(days=30), keep_last=10, where={"agent": "a"}, dry_run=True
    )
    assert_type(pruned, PruneReport)
    print(pruned.sessions, pruned.keys, pruned.kept, pruned.event_count, pruned.compacted)
    await store.prune(older_than=60.0, collection="threads", compact_share=0.5)
    report = await store.compact(progress=lambda done, total: print(f"{done} of {total}"))
    assert_type(report, CompactReport)
    saved = await recover(damaged, "saved.mva", config=StoreConfig(), progress=print)
    assert_type(saved, RecoverReport)
    config = StoreConfig(replicas=3)
    copied = await copy_store(store.path, "nats://host/agents", config=config, progress=print)
    assert_type(copied, CopyReport)
    assert_type(await list_stores("nats://host"), list[StoreSummary])
    check_recordable({"a": [1, None]}, Limits())


async def reading_actions(store: Store, action: Action) -> None:
    assert_type(await store.read_messages(action), list[Any])
    assert_type(await store.read_new_messages([action]), list[list[Any]])
    why: Why = await store.why(action)
    for given in why.frames:
        assert_type(given, WhyFrame)
        assert_type(given.put_by, Action | None)
        print(given.frame_id, given.score, given.sequence, given.content, given.put_ns, given.later)
    assert_type(await store.read_context(action), Context)
    assert_type((await store.read_context(action)).is_complete, bool)
    arguments: dict[str, int] = await store.read_arguments(action)
    assert_type(content_text(str(arguments)), str)
    assert_type(spoken_text(b"{}"), str | None)
    for chunk in await store.read_chunks(action):
        print(chunk)
    if action.output is not None:
        async for piece in store.stream_content(action.output):
            assert_type(piece, bytes)


async def reading(store: Store, session_id: UUID) -> None:
    assert_type(await store.list_sessions(include_open=True), list[SessionSummary])
    await store.list_sessions(newest_first=True, after=str(UUID(int=1)), limit=10)
    session = await store.get_session(session_id)
    assert_type(await store.get_session(str(session_id)), Session)
    for action in session.actions:
        if isinstance(action.details, AskDetails):
            assert_type(action.details.provider, str | None)
        if action.input is not None:
            assert_type(action.input, Content)
            assert_type(await store.read_content(action.input), bytes)
    for checkpoint in session.checkpoints:
        assert_type(checkpoint.state_hash, bytes)
    assert_type(await store.verify(), VerifyReport)


async def following(store: Store) -> int:
    async with store.subscribe(after=store.last_sequence) as events:
        await events.wait_caught_up()
        async for event in events:
            assert_type(event, Event)
            if isinstance(event.payload, FramesPut):
                assert_type(event.payload.frame_ids, range)
                assert_type(event.payload[0], FramePut | FrameErased)
            if isinstance(event.payload, ActionRecorded):
                if event.payload.messages is not None:
                    assert_type(event.payload.messages.count, int)
                    assert_type(event.payload.messages.own, tuple[bytes, ...])
                    assert_type(event.payload.messages.hash_count, int)
                return event.payload.action.index
        assert_type((events.caught_up, events.last_sequence), tuple[bool, int])
        await events.aclose()
    return 0


async def failing(store: Store) -> str:
    try:
        await store.sync()
    except StoreFailedError as error:
        return str(error)
    except SessionNotFoundError as error:
        assert_type(error.session_id, UUID)
    except CheckpointNotFoundError as error:
        assert_type((error.session_id, error.checkpoint_id), tuple[UUID, int])
    except FrameNotFoundError as error:
        assert_type(error.frame_id, int)
    except ContentNotFoundError as error:
        assert_type(error.digest, bytes | None)
    except LimitExceededError as error:
        assert_type((error.limit, error.value), tuple[str, int])
    except StoreLockedError as error:
        assert_type(error.pid, int | None)
    except CorruptFileError as error:
        assert_type(error.offset, int)
    return ""


async def serving(store: Store, session_id: UUID) -> None:
    async with store.serve(session_id) as recorded:
        assert_type(recorded.session_id, UUID | None)
        result: dict[str, int] = await recorded.call_tool("search", {"words": ["rain"]}, task="a")
        assert_type(await recorded.call_tool("count", {"words": 3}, count), int)
        assert_type(await recorded.call_tool("search", {}, lambda: 7), int)
        assert_type(await recorded.call_tool("later", {"words": 3}, count_later), int)
        assert_type(await recorded.call_model("Why?", shout, model="small"), Generated)
        assert_type(await recorded.once("choice", lambda: 4), int)
        async for piece in recorded.stream_model("Why?", shout):
            assert_type(piece, str | bytes)
        async with recorded.step("plan", input={"a": 1}) as step:
            step.output = "done"
        assert_type(await recorded.find("rain", mode="lexical"), FindResult)
        assert_type(await recorded.ask("Why?", generate=shout), Answer)
        assert_type(await recorded.put("rain", title="Weather"), int)
        print(result)
        assert_type(recorded.unserved, tuple[Action, ...])
        assert_type(recorded.report().counts[Verdict.SERVED], int)


async def replaying(store: Store, one: UUID, other: UUID) -> None:
    async for step in store.replay(one, checkpoint_id=0):
        assert_type(step.verdict, Verdict)
    assert_type((await store.replay(one).report()).match_rate, float)
    await store.replay(one, before_index=7, what_if=WhatIf(top_k=3, mode="lexical")).report()
    comparison = await store.compare(one, other)
    assert_type((comparison.first_divergence, comparison.is_equal), tuple[int | None, bool])
    async with store.serve(one, missing="run") as recorded:
        assert_type(recorded, ServedSession)
        assert_type(await recorded.put_many(["a", "b"]), list[int])
    report = await store.audit(
        one, {"loud": shout, "told": lambda prompt: Generated(str(prompt), 1, 2)}
    )
    assert_type(report.models[0].input_tokens, int | None)
    assert_type(report.is_equal, bool)
    assert_type(Reply((1, 2)).split("abc"), list[str])


async def looking_at_calls(store: Store, session_id: UUID) -> None:
    session = await store.get_session(session_id)
    for start in session.in_flight:
        assert_type((start.call, start.key, start.parent), tuple[int, str, int | None])
    for action in session.actions:
        assert_type((action.started, action.started_ns), tuple[int | None, int | None])
        assert_type(action.raw, Content | None)
        if action.error_detail is not None:
            assert_type(action.error_detail.type_name, str)
        assert_type((Reply((1,)).usage, action.usage), tuple[Usage | None, Usage | None])


def shout(prompt: Prompt) -> str:
    return str(prompt.question).upper()


def synchronous(path: Path) -> None:
    config = StoreConfig(scrub=scrub_secrets)
    with SyncStore.open(path, config=config, read_only=False) as store:
        assert_type(store.put("a frame", title="t", tags=["a"]), int)
        assert_type(store.find("frame", top_k=3, mode="hybrid", tags=["a"]), FindResult)
        assert_type(store.ask("what?", generate=lambda prompt: str(prompt.context)), Answer)
        assert_type(store.frames(newest_first=True), Iterator[Frame])
        assert_type(store.at(sequence=1).get(1), Frame)
        assert_type(store.record_ask("q", model="m"), Action | None)
        with store.session("s", metadata={"a": 1}) as session:
            assert_type(session, SyncSession)
            assert_type(session.record_tool_call("t", arguments={}), Action)
        with store.subscribe(after=3) as events:
            for event in events:
                assert_type(event, Event)
            events.close()
        for step in store.replay(session.session_id):
            assert_type(step.verdict, Verdict)
        with store.serve(session.session_id) as recorded:
            assert_type(recorded.unserved, tuple[Action, ...])
        assert_type(store.statistics(), StoreStatistics)
        store.close()


async def on_another_loop(store: Store) -> None:
    shared = SyncStore.of(store)
    putting = shared.submit(lambda opened: opened.put("a frame"))
    assert_type(await asyncio.wrap_future(putting), int)


def count(words: int) -> int:
    call = current_call()
    if call is not None:
        assert_type((call.key, call.started), tuple[str, int | None])
    return words


async def count_later(words: int) -> int:
    return words


def decide(call: UncertainCall) -> Result | Failed:
    assert_type((call.key, call.tries), tuple[str, int])
    return Result(1) if call.name == "count" else Failed(ValueError(call.key))


async def making_calls(store: Store, session_id: UUID) -> None:
    async with store.session() as session:
        assert_type(await session.call_tool("count", {"words": 3}, count), int)
        assert_type(await session.call_tool("later", {"words": 3}, count_later), int)
        assert_type(await session.call_model("Why?", shout, provider="p"), Generated)
        assert_type(await session.once("choice", lambda: 4), int)
        async for piece in session.stream_model("Why?", shout):
            assert_type(piece, str | bytes)
        async with session.step("plan") as step:
            assert_type(step, Step)
        async with session.timeout(60) as nothing:
            assert_type(nothing, None)
    try:
        async with store.resume_session(session_id, replay=True, uncertain=decide) as resumed:
            assert_type(resumed, StoreSession)
    except UncertainCallError as error:
        assert_type(error.key, str)
        print(RUN)


async def tools(store: Store) -> None:
    async with store.session("s") as session:

        @session.tool(name="add", timeout=3.0)
        def add(a: int, b: int) -> int:
            return a + b

        @session.tool
        async def say(what: str) -> str:
            return what

        assert_type(await add(1, b=2), int)
        assert_type(await say("it"), str)
        assert_type(await module_tool(7), float)
        assert_type(await session.call_tool("say", {"what": "it"}, say), str)
        assert_type(await session.call_tool("add", {}, lambda: 7), int)
        assert_type(await session.now(), int)
        assert_type((await session.uuid(), await session.random()), tuple[UUID, float])
        await session.sleep(0)


@tool
def module_tool(n: int) -> float:
    return n / 2


def making_calls_without_await(store: SyncStore, session_id: UUID) -> None:
    with store.session() as session:
        assert_type(session.once("choice", lambda: 4), int)
        assert_type(session.call_model("Why?", shout), Generated)
        assert_type(session.call_tool("count", {"words": 3}, count), int)
        assert_type(session.call_tool("later", {"words": 3}, count_later), int)
        for piece in session.stream_model("Why?", shout):
            assert_type(piece, str | bytes)
        with session.step("plan") as step:
            assert_type(step, Step)
    with store.serve(session_id) as recorded:
        assert_type(recorded.once("choice", lambda: 4), int)
        counted: int = recorded.call_tool("count", {"words": 3}, count)
        assert_type(recorded.call_model(str(counted), shout), Generated)
        for piece in recorded.stream_model("Why?", shout):
            assert_type(piece, str | bytes)
