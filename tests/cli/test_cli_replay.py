"""`replay`, `diff`, `audit` and `export`: what they print, and how they end."""

import json
import re
import sys

import anyio
import pytest
from click.testing import CliRunner

from memvid_async import RecordingConfig, StoreConfig, open_store
from memvid_async.cli.command_line import cli

pytestmark = pytest.mark.one_loop

ASK = {"provider": "local", "model": "small", "duration_ms": 2}
UPPER = f"{sys.executable} -c 'print(input().upper())'"


def run(*arguments, status=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="memvid-async")
    assert result.exit_code == status, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def read(*arguments, status=0):
    return json.loads(run(*arguments, "--json", status=status).stdout)


async def fill(path):
    config = StoreConfig(recording=RecordingConfig(auto_checkpoint_interval=3))
    async with open_store(path, config=config) as store:
        for name, answer in (("one", "HELLO"), ("two", "GOODBYE")):
            async with store.session(name) as recorder:
                messages = [{"role": "user", "content": "hello"}]
                await recorder.record_tool_call("look", arguments={"at": 1}, result="a cat")
                await recorder.record_ask("hello", response=answer, messages=messages, **ASK)
                if name == "two":
                    await recorder.record_delete(4, task="cleaner")
                await recorder.record_put(7, "\x1b[2J note " * 300)
    return path


@pytest.fixture
def filled(tmp_path):
    return anyio.run(fill, tmp_path / "filled.mva")


def test_replay_tells_every_verdict(filled):
    output = run("replay", filled, "one").stdout
    assert "matched" in output
    assert "match rate 1.000: 1 matched, 2 skipped, 1 unverifiable" in output
    document = read("replay", filled, "one")
    assert [step["verdict"] for step in document["steps"]] == [
        "skipped",
        "skipped",
        "unverifiable",
        "matched",
    ]
    assert document["counts"]["matched"] == document["match_rate"] == 1
    assert len(read("replay", filled, "one", "--checkpoint", 0)["steps"]) == 1
    assert len(read("replay", filled, "one", "--before-index", 2)["steps"]) == 2
    assert "no checkpoint 5" in run("replay", filled, "--checkpoint", 5, status=1).stderr


def test_diff_shows_where_and_how(filled):
    assert "equal" in run("diff", filled, "one", "one").stdout
    output = run("diff", filled, "one", "two", status=1).stdout
    assert "they diverge at action 1" in output
    assert "2 equal, 1 changed, 1 only in a, 2 only in b" in output
    lines = [line.strip() for line in output.splitlines()]
    assert "- HELLO" in lines
    assert "+ GOODBYE" in lines
    assert any("+ delete" in line for line in lines)
    document = read("diff", filled, "one", "two", status=1)
    assert document["first_divergence"] == 1
    assert document["equal"] == [[0, 0], [3, 3]]
    assert document["changed"] == [
        {
            "a": {"index": 1, "kind": "ask", "task": document["changed"][0]["a"]["task"]},
            "b": {"index": 1, "kind": "ask", "task": document["changed"][0]["b"]["task"]},
            "differences": [{"field": "response", "diff": "- HELLO\n+ GOODBYE"}],
        }
    ]
    assert read("diff", filled, "one", "one")["is_equal"] is True
    assert "no session" in run("diff", filled, "one", "three", status=1).stderr


def test_audit_runs_commands_and_compares(filled):
    output = run("audit", filled, "one", "--model", f"upper={UPPER}").stdout
    assert re.search(r"upper\s+1\s+0\s+0\s+0", output)
    document = read("audit", filled, "two", "--model", f"upper={UPPER}", status=1)
    (answer,) = document["answers"]
    assert (answer["verdict"], answer["answer"]) == ("diverged", "HELLO")
    assert answer["diff"] == "- GOODBYE\n+ HELLO"
    assert document["models"][0]["changed"] == 1
    output = run("audit", filled, "two", "--model", f"upper={UPPER}", status=1).stdout
    assert "+ HELLO" in output


def test_audit_tells_commands_that_fail(filled):
    says = f"{sys.executable} -c 'import sys; sys.exit(\"no luck\")'"
    waits = f"{sys.executable} -c 'import signal; signal.pause()'"
    models = [f"says={says}", f"waits={waits}", "gone=/no/such/command"]
    options = [part for model in models for part in ("--model", model)]
    document = read("audit", filled, "one", *options, "--timeout", "0.7", status=1)
    reasons = {answer["model"]: answer["reason"] for answer in document["answers"]}
    assert "exit status 1: no luck" in reasons["says"]
    assert "no answer within 0.7 s" in reasons["waits"]
    assert "cannot run /no/such/command" in reasons["gone"]
    assert [model["failed"] for model in document["models"]] == [1, 1, 1]


def test_audit_gives_the_messages_when_asked(filled):
    echo = f"{sys.executable} -c 'print(input())'"
    document = read("audit", filled, "one", "--model", f"e={echo}", "--messages", status=1)
    assert json.loads(document["answers"][0]["answer"]) == {
        "question": "hello",
        "messages": [{"role": "user", "content": "hello"}],
    }


@pytest.mark.parametrize("model", ["upper", "=cat", "upper=", "upper='cat", "one=cat"])
def test_a_model_without_a_name_of_its_own_or_a_command_is_wrong_usage(filled, model):
    run("audit", filled, "--model", "one=tac", "--model", model, status=2)


def test_jsonl_holds_every_event_whole(filled, tmp_path):
    lines = run("export", filled, "two", "--format", "jsonl").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["type"] for event in events] == [
        "session_started",
        "action_recorded",
        "action_recorded",
        "action_recorded",
        "checkpoint_created",
        "action_recorded",
        "session_ended",
    ]
    assert events[5]["payload"]["action"]["input"]["text"] == "\x1b[2J note " * 300
    assert events[2]["payload"]["action"]["messages"] == [{"role": "user", "content": "hello"}]
    target = tmp_path / "out.jsonl"
    assert run("export", filled, "two", "--format", "jsonl", "-o", target).stdout == ""
    assert target.read_text(encoding="utf-8").splitlines() == lines


async def test_an_open_session_is_exported_as_far_as_it_is(tmp_path):
    path = tmp_path / "open.mva"
    async with open_store(path) as store:
        await store.start_session("open")
        for count in (1, 2):
            result = await anyio.to_thread.run_sync(
                lambda: run("export", path, "open", "--format", "jsonl")
            )
            assert len(result.stdout.splitlines()) == count
            await store.record_put(1, "a note")


async def record_chat(path):
    chat = []
    async with open_store(path) as store:
        await store.put("What is known of coats. " * 50)
        async with store.session("chat") as session:
            for turn in range(40):
                chat.append({"role": "user", "content": f"coats, {turn}? " * 20})
                await store.find("coats")
                await session.record_ask(
                    chat[-1]["content"], response=f"yes, {turn} " * 30, messages=[*chat]
                )
                chat.append({"role": "assistant", "content": f"yes, {turn} " * 30})
    return len(json.dumps(chat))


def test_jsonl_gives_nothing_twice(tmp_path):
    path = tmp_path / "chat.mva"
    size = anyio.run(record_chat, path)
    lines = run("export", path, "chat", "--format", "jsonl").stdout.splitlines()
    # Messages refer to queries and responses.
    assert sum(map(len, lines)) < 1.1 * size + 1_100 * len(lines)
    actions = [json.loads(line)["payload"].get("action") for line in lines]
    asks = [action for action in actions if action and action["kind"] == "ask"]
    finds = [action for action in actions if action and action["kind"] == "find"]
    assert asks[5]["messages"][0] == {"$earlier": {"index": 9, "first": 0, "count": 9}}
    assert "text" in finds[0]["context"][0]
    assert [find["context"][0]["given_in"] for find in finds[1:]] == [finds[0]["sequence"]] * 39
    whole = []
    by_index = {ask["index"]: place for place, ask in enumerate(asks)}
    for ask in asks:
        messages = []
        for one in ask["messages"]:
            run_ = one.get("$earlier")
            earlier = [] if run_ is None else whole[by_index[run_["index"]]]
            messages += [one] if run_ is None else earlier[run_["first"] :][: run_["count"]]
        whole.append(messages)
    assert [len(messages) for messages in whole] == [*range(1, 80, 2)]
    assert whole[-1][:77] == whole[-2]


def test_export_refuses_two_sessions_as_jsonl(filled):
    run("export", filled, "one", "two", "--format", "jsonl", status=2)


def test_export_replaces_a_page_and_no_store(filled, tmp_path):
    page, before = tmp_path / "page.html", filled.read_bytes()
    for _ in range(2):
        run("export", filled, "one", "-o", page)
    (tmp_path / "link").symlink_to(filled)
    for out in (filled, tmp_path / "link"):
        run("export", filled, "one", "-o", out, status=2)
    assert filled.read_bytes() == before


async def ask_the_memory(path):
    by = {"provider": "p", "model": "m"}
    said = "[1] IT RAINS IN OSLO.\n\nDOES IT RAIN?"
    async with open_store(path) as store, store.session("asks"):
        kept = await store.put("It rains in Oslo.")
        await store.ask("Does it rain?", generate=lambda _: said, **by)
        await store.update(kept, "It snows in Oslo.")
        await store.ask("Rain", generate=lambda _: "RAIN", **by)
    return path


def test_audit_gives_what_was_retrieved_then(tmp_path):
    path = anyio.run(ask_the_memory, tmp_path / "asks.mva")
    whole = f"{sys.executable} -c 'import sys; print(sys.stdin.read().strip().upper())'"
    document = read("audit", path, "--model", f"whole={whole}")
    assert [answer["verdict"] for answer in document["answers"]] == ["matched"] * 2
    echo = f"{sys.executable} -c 'print(input())'"
    document = read("audit", path, "--model", f"e={echo}", "--messages", status=1)
    given = [json.loads(answer["answer"]) for answer in document["answers"]]
    assert given[1] == {"question": "Rain", "messages": [], "context": []}
    assert [(item["frame_id"], item["text"]) for item in given[0]["context"]] == [
        (1, "It rains in Oslo.")
    ]


# --- the memory, forks ----------------------------------------------------------------------------


async def remember(path):
    async with open_store(path) as store, store.session("mine") as recorder:
        await store.put("the quick fox", title="first")
        await store.put("a lazy dog and a fox", tags=["t"])
        await recorder.create_checkpoint()
        await store.find("fox", top_k=1)
        await store.find("fox", tags=["t"])
        await store.delete(1)
        await store.put("fox fox fox")
        await store.ask("which fox", generate=lambda _: "it", provider="p", model="m")
    return path


@pytest.fixture
def remembered(tmp_path):
    return anyio.run(remember, tmp_path / "memory.mva")


def reruns(*arguments, **options):
    steps = read("replay", *arguments, **options)["steps"]
    return {step["index"]: step["rerun"] for step in steps if "rerun" in step}


def changes(rows):
    return [(row["frame_id"], row["change"], row["place_before"], row["place"]) for row in rows]


def test_replay_does_the_memory_again(remembered):
    document = read("replay", remembered)
    assert document["match_rate"] == 1
    assert document["counts"] == {
        "matched": 7,
        "diverged": 0,
        "served": 0,
        "skipped": 1,
        "unverifiable": 0,
    }


def test_what_if_more_were_asked_for(remembered):
    found = reruns(remembered, "--top-k", 2, status=1)
    assert changes(found[3]) == [(1, "same", 0, 0), (2, "new", None, 1)]
    assert found[3][0]["score"] == found[3][0]["score_before"] >= found[3][1]["score"]
    assert found[3][1]["score_before"] is None
    assert changes(found[4]) == [(2, "same", 0, 0)]
    output = run("replay", remembered, "-k", 2, status=1).stdout
    assert re.search(r"new +2 +1 +\d", output)
    assert "only searches are changed" in output


def test_what_if_it_were_now(remembered):
    found = reruns(remembered, "--as-of", "now", status=1)
    assert changes(found[3]) == [(3, "new", None, 0), (1, "lost", 0, None)]
    assert found[3][1]["score"] is None
    assert changes(reruns(remembered, "--as-of", 0, status=1)[4]) == [(2, "lost", 0, None)]
    run("replay", remembered, "--as-of", 10**6, status=1)


def test_what_if_other_frames_were_searched(remembered):
    assert len(reruns(remembered, "--no-filters", status=1)[4]) == 2
    assert changes(reruns(remembered, "--title", "first", status=1)[3]) == [(1, "same", 0, 0)]
    assert run("replay", remembered, "--before-index", 4, "--title", "first").exit_code == 0
    assert changes(reruns(remembered, "--metadata", "a=1", status=1)[3]) == [(1, "lost", 0, None)]


def test_what_cannot_be_searched_is_told(remembered):
    assert "needs an embedding" in run("replay", remembered, "--mode", "hybrid", status=1).stderr
    for wrong in (["-k", 0], ["--as-of", "soon"], ["--as-of", -1], ["--no-filters", "--tag", "t"]):
        run("replay", remembered, *wrong, status=2)


def test_fork_prints_an_id_that_can_be_continued(remembered):
    forked = run(
        "fork", remembered, "mine", "--checkpoint", 0, "--name", "other way"
    ).stdout.strip()
    document = read("show", remembered, forked)
    assert (document["session_id"], document["name"]) == (forked, "other way")
    assert [action["kind"] for action in document["actions"]] == ["put", "put", "checkpoint"]
    shown = run("show", remembered, "other way").stdout
    assert re.search(r"forked +from session [0-9a-f-]{36} after 3 actions\n", shown)
    made = read("fork", remembered, forked, "--action", 0)
    assert (made["action_count"], made["fork"]["parent_id"]) == (1, forked)
    assert read("fork", remembered, "mine")["action_count"] == 8
    assert read("diff", remembered, "mine", forked, status=1)["first_divergence"] == 3


def test_fork_says_what_is_not_there(remembered, tmp_path):
    assert "no action 99" in run("fork", remembered, "mine", "--action", 99, status=1).stderr
    assert "no checkpoint 7" in run("fork", remembered, "mine", "--checkpoint", 7, status=1).stderr
    assert "no session" in run("fork", remembered, "yours", status=1).stderr
    run("fork", remembered, "mine", "--action", 0, "--checkpoint", 0, status=2)
    run("fork", tmp_path / "none.mva", "mine", status=1)
    assert not (tmp_path / "none.mva").exists()


async def delete(path, name):
    async with open_store(path) as store:
        summaries = await store.list_sessions(include_open=True)
        (gone,) = [summary.session_id for summary in summaries if summary.name == name]
        await store.delete_session(gone)
    return str(gone)


def test_sessions_as_a_tree(remembered):
    one = run("fork", remembered, "mine", "--name", "one").stdout.strip()
    two = run("fork", remembered, "mine", "--name", "two").stdout.strip()
    below = run("fork", remembered, "one", "--name", "below").stdout.strip()
    rows = read("sessions", remembered, "--tree")
    assert [(row["name"], row["depth"]) for row in rows] == [
        ("mine", 0),
        ("one", 1),
        ("below", 2),
        ("two", 1),
    ]
    assert [row["session_id"] for row in rows[1:]] == [one, below, two]
    gone = anyio.run(delete, remembered, "one")
    assert gone == one
    rows = read("sessions", remembered, "--tree")
    assert rows[2] == {"session_id": one, "is_deleted": True, "depth": 0}
    assert [(row.get("name"), row["depth"]) for row in rows] == [
        ("mine", 0),
        ("two", 1),
        (None, 0),
        ("below", 1),
    ]
    lines = run("sessions", remembered, "--tree").stdout.splitlines()
    assert re.match(r"[0-9a-f]+ .* gone", lines[3])
    assert re.match(r"  [0-9a-f]+ +below", lines[4])
    assert "8 are gone with a deleted session" in run("show", remembered, "below").stdout
    assert "depth" not in read("sessions", remembered)[0]


def events_of(path, session):
    lines = run("export", path, session, "--format", "jsonl").stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_jsonl_has_the_frames_that_a_session_changed(remembered):
    anyio.run(put_alone, remembered)
    events = events_of(remembered, "mine")
    assert [event["type"] for event in events] == [
        "session_started",
        *["frames_put", "action_recorded"] * 2,
        "checkpoint_created",
        *["action_recorded"] * 2,
        *["frame_deleted", "action_recorded"],
        *["frames_put", "action_recorded"],
        "action_recorded",
        "session_ended",
    ]
    (frame,) = events[1]["payload"]["frames"]
    assert frame["content"]["text"] == "the quick fox"
    found, asked = events[6]["payload"]["action"], events[-2]["payload"]["action"]
    assert found["retrieval"]["mode"] == "lexical"
    assert [(item["frame_id"], item["text"]) for item in found["context"]] == [(1, "the quick fox")]
    assert asked["reply"]["chunks"] == [2]


async def put_alone(path):
    async with open_store(path) as store:
        await store.put("in no session")


async def put_large(path):
    async with open_store(path) as store, store.session("large"):
        await store.put_many(["x" * 3_000, "y" * 3_000, "small"])
        await store.delete(1)
    return path


def test_jsonl_survives_what_was_erased(tmp_path):
    path = anyio.run(put_large, tmp_path / "large.mva")
    (put,) = [event for event in events_of(path, "large") if event["type"] == "frames_put"]
    frames = put["payload"]["frames"]
    assert [frame["content"]["size"] for frame in frames] == [3_000, 3_000, 5]
    assert frames[1]["content"]["text"] == "y" * 3_000
    run("compact", path)
    events = events_of(path, "large")
    assert [event["type"] for event in events if event["type"].startswith("frame")] == [
        "frames_put",
        "frame_deleted",
    ]
    erased, *left = next(e["payload"]["frames"] for e in events if e["type"] == "frames_put")
    assert left == frames[1:]
    assert (erased["frame_id"], len(erased["digest"])) == (1, 64)
    assert "(erased)" not in run("show", path, "large", "--full").stdout


def test_show_tells_what_was_erased(remembered):
    run("compact", remembered)
    document = read("show", remembered, "--full")
    assert document["actions"][0]["input"]["is_erased"] is True
    assert [item["text"] for item in document["actions"][3]["context"]] == [None]
    assert "> (erased)" in run("show", remembered, "--full").stdout


def test_jsonl_of_a_fork_begins_with_the_past_that_it_shares(remembered):
    run("fork", remembered, "mine", "--checkpoint", 0, "--name", "fork")
    run("fork", remembered, "fork", "--action", 1, "--name", "below")
    shared = ["session_started", *["frames_put", "action_recorded"] * 2]
    events = events_of(remembered, "fork")
    assert [event["type"] for event in events] == [*shared, "checkpoint_created", "session_started"]
    assert events[-1]["payload"]["fork"]["parent_id"] == events[0]["session_id"]
    assert [event["type"] for event in events_of(remembered, "below")] == [
        *shared,
        "session_started",
    ]
    anyio.run(delete, remembered, "mine")
    assert [event["type"] for event in events_of(remembered, "below")] == ["session_started"]
    assert [event["type"] for event in events_of(remembered, "fork")] == ["session_started"]
