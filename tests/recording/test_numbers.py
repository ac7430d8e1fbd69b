"""Integers of any size, infinities and NaN are kept as they are, wherever a value may be."""

import json
import math

import anyio
import pytest
from click.testing import CliRunner

from memvid_async import LimitExceededError, Limits, StoreConfig, Verdict, open_store
from memvid_async.cli.command_line import cli

pytestmark = pytest.mark.anyio

NUMBERS = {
    "wide": 2**64,
    "negative": -(2**64) - 1,
    "huge": 1 << 20_000,
    "odd": [math.nan, math.inf, -math.inf, {"deep": math.nan}],
}
MESSAGES = [{"role": "user", "content": "x" * 2000, "seed": NUMBERS["huge"]}, math.nan, 2**70]
BY = {"provider": "p", "model": "m"}


async def record(store):
    async with store.session("numbers", metadata=NUMBERS) as recorder:
        await recorder.record_tool_call("count", arguments=NUMBERS, metadata=NUMBERS)
        await recorder.record_tool_call("bare", arguments=math.nan)
        await recorder.record_ask("q", **BY, messages=MESSAGES, metadata={"nan": math.nan})
        await recorder.record_ask("q", **BY, messages=[*MESSAGES, 1])
        await store.put("otter", metadata=NUMBERS)
        await store.find("otter", metadata={"odd": NUMBERS["odd"], "wide": 2**64})
    return recorder.session_id


async def test_they_come_back_after_reopening_and_compacting(tmp_path):
    path = tmp_path / "numbers.mva"
    async with open_store(path) as store:
        session_id, other = await record(store), await record(store)
        await store.delete_session(other)
        await store.compact()
        live = await store.get_session(session_id)
    async with open_store(path) as store:
        session = await store.get_session(session_id)
        assert session == live
        assert session.metadata == NUMBERS
        tool, bare, ask, longer, put, find = session.actions
        assert [await store.read_arguments(tool), tool.metadata] == [NUMBERS, NUMBERS]
        assert math.isnan(await store.read_arguments(bare))
        assert await store.read_messages(ask) == MESSAGES
        assert await store.read_messages(longer) == [*MESSAGES, 1]
        assert (await store.get(put.affected_frames[0])).metadata == NUMBERS
        assert len(find.affected_frames) == 1
        assert not (await store.find("otter", metadata={"wide": 2**64 + 1})).hits
        report = await store.replay(session_id).report()
        assert report.counts[Verdict.DIVERGED] == 0
        again = await record(store)
        # The put and the find are of other frames.
        assert len((await store.compare(session_id, again)).equal) == 4
        assert (await store.verify()).ok


@pytest.mark.parametrize("options", [["--json"], ["--full"], ["--full", "--json"], []])
def test_they_are_shown(tmp_path, options):
    async def fill():
        async with open_store(path) as store:
            return [str(await record(store)) for _ in range(2)]

    path = tmp_path / "numbers.mva"
    ids = anyio.run(fill)
    commands = {"show": ids[:1], "frames": [], "sessions": []}
    if "--full" not in options:
        commands["diff"] = ids
    for command, arguments in commands.items():
        more = options if command == "show" else [o for o in options if o == "--json"]
        result = CliRunner().invoke(cli, [command, str(path), *arguments, *more])
        # The sessions differ: the second put another frame.
        assert result.exit_code == (command == "diff"), (result.output, result.exception)
        if "--json" in more:
            lines = result.stdout.splitlines() if command == "frames" else [result.stdout]
            (shown, *_) = [json.loads(line, parse_constant=pytest.fail) for line in lines]
            if command == "show":
                assert shown["metadata"] == {
                    **NUMBERS,
                    "huge": hex(1 << 20_000),
                    "odd": ["nan", "inf", "-inf", {"deep": "nan"}],
                }
    page = tmp_path / "page.html"
    result = CliRunner().invoke(cli, ["export", str(path), ids[0], "-o", str(page)])
    assert result.exit_code == 0, result.output
    assert hex(1 << 20_000)[:50] in page.read_text()


async def test_their_size_is_bounded(make_store):
    store = await make_store(config=StoreConfig(limits=Limits(value_bytes=1000)))
    async with store.session() as recorder:
        with pytest.raises(LimitExceededError, match="value_bytes"):
            await recorder.record_tool_call("t", arguments=1 << 8000)
        assert (await recorder.record_tool_call("t", arguments=1 << 7000)).index == 0
