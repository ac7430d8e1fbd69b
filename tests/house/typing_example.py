"""User code for the type checker (`nox -s types`): it is checked, never run."""

from pathlib import Path
from typing import assert_type
from uuid import UUID

from memvid_async import (
    Action,
    ActionRecorded,
    AskDetails,
    Content,
    Durability,
    Event,
    Generated,
    Limits,
    RecordingConfig,
    ServedSession,
    Session,
    SessionRecorder,
    SessionSummary,
    Store,
    StoreConfig,
    StoreFailedError,
    Verdict,
    VerifyReport,
    open_store,
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
            assert_type(recorder, SessionRecorder)
            assert_type(recorder.session_id, UUID)
            action = await recorder.record_ask(
                "Why?",
                provider="local",
                model="small",
                response=b"Because.",
                duration_ms=12.5,
                retrieved_frames=[1, 2],
                messages=[{"role": "user", "content": "Why?"}],
            )
            assert_type(action, Action)
            await recorder.record_tool_call("search", arguments={"words": ["why"]}, result="found")
            assert_type(await recorder.create_checkpoint(), int)
        assert_type(await store.record_put(7, "a note"), Action | None)
        assert_type(await store.start_session("ambient"), UUID)
        assert_type(store.active_session_id, UUID | None)
        assert_type(await store.end_session(), Session)


async def reading(store: Store, session_id: UUID) -> None:
    assert_type(await store.list_sessions(include_open=True), list[SessionSummary])
    session = await store.get_session(session_id)
    for action in session.actions:
        if isinstance(action.details, AskDetails):
            assert_type(action.details.provider, str)
        if action.input is not None:
            assert_type(action.input, Content)
            assert_type(await store.read_content(action.input), bytes)
    assert_type(await store.verify(), VerifyReport)


async def following(store: Store) -> int:
    async with store.subscribe(after=store.last_sequence) as events:
        await events.wait_caught_up()
        async for event in events:
            assert_type(event, Event)
            if isinstance(event.payload, ActionRecorded):
                return event.payload.action.index
    return 0


async def failing(store: Store) -> str:
    try:
        await store.sync()
    except StoreFailedError as error:
        return str(error)
    return ""


async def replaying(store: Store, one: UUID, other: UUID) -> None:
    async for step in store.replay(one, checkpoint_id=0):
        assert_type(step.verdict, Verdict)
    assert_type((await store.replay(one).report()).match_rate, float)
    assert_type((await store.compare(one, other)).first_divergence, int | None)
    async with store.serve(one, missing="run") as recorded:
        assert_type(recorded, ServedSession)
        assert_type(await recorded.ask("Why?", model="small"), str | bytes | None)
    report = await store.audit(one, {"loud": str.upper, "told": lambda q, _: Generated(q, 1, 2)})
    assert_type(report.models[0].input_tokens, int | None)
