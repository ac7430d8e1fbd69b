"""The demo: what was acked before the kill is there, and the demo says so only when it is."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from anyio import to_thread

from memvid_async import Context, ContextItem, Prompt, open_store
from memvid_async.cli import demo, demo_agent

pytestmark = pytest.mark.one_loop

BLOCKED = """
import sys
sys.modules["click"] = sys.modules["rich"] = sys.modules["numpy"] = None
sys.argv = ["memvid-async", *sys.argv[1:]]
from memvid_async.cli import main
main()
"""


@pytest.fixture(scope="module")
def topics():
    return pytest.importorskip("pydoc_data.topics").topics


def counted(text, words):
    (count,) = re.findall(rf"{words}\s+(\d+)\n", text)
    return int(count)


def test_without_the_extras_everything_acked_is_found(tmp_path, topics):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED, "demo"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    acked = counted(done.stdout, "acked before the crash")
    asks = counted(done.stdout, "asks found, equal by value")
    frames = counted(done.stdout, "frames found, equal by value")
    assert asks >= demo.KILL_AFTER
    assert frames >= len(list(demo_agent.passages(topics))) + demo.KILL_AFTER // 2
    assert asks + frames == acked
    assert counted(done.stdout, "missing or different") == 0
    assert done.stdout.count("the same frames") == demo._ASKED_AGAIN
    assert "Everything that was acked is there." in done.stdout
    assert "--file" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("topics")
async def test_the_file_is_kept_where_it_was_asked_for(tmp_path):
    path = tmp_path / "kept.mva"
    said = []
    status = await to_thread.run_sync(lambda: demo.run_demo(str(path), said.append, kill_after=30))
    assert status == 0, said
    assert any("kept" in line for line in said)
    async with open_store(path, read_only=True) as store:
        assert (await store.verify()).ok
        sessions = await store.list_sessions(include_open=True)
        found = await store.find("What does a lambda expression yield?", tags=[demo_agent.TAG])
        assert found.hits[0].title == "lambda"
    names = {f"agent-{n + 1}" for n in range(demo_agent.AGENT_COUNT)}
    assert {s.name for s in sessions} <= {"librarian", *names}
    assert sum(s.action_count for s in sessions if s.name in names) >= 30


@pytest.mark.usefixtures("topics")
async def test_what_is_lost_or_changed_is_noticed(tmp_path):
    path, said = tmp_path / "kept.mva", []
    acks = await to_thread.run_sync(demo._record_and_kill, str(path), said.append, 30)
    frames = [ack for ack in acks if ack["kind"] == "frame"]
    asks = [ack for ack in acks if ack["kind"] == "ask"]
    async with open_store(path) as store:
        whole = await demo._compare(store, acks)
        assert (whole.frames, whole.asks, whole.wrong) == (len(frames), len(asks), [])
        forged = [
            {**frames[0], "text": "forged"},
            {**frames[1], "frame": 10**6},
            {**asks[0], "answer": "forged"},
            {**asks[1], "index": 10**6},
        ]
        findings = await demo._compare(store, forged)
        assert await demo._ask_again(store, asks[:2], said.append)
        assert not await demo._ask_again(store, [{**asks[0], "frames": [1]}], said.append)
    assert findings.found == 0
    assert [line.rpartition(" is ")[2] for line in findings.wrong] == [
        "not what was recorded",
        "missing",
    ] * 2
    assert await demo._open_again(str(path), [*acks, forged[0]], said.append) == 1
    assert said[-1].startswith("NOT everything")


@pytest.mark.usefixtures("topics")
def test_an_existing_file_is_left_alone(tmp_path):
    path = tmp_path / "mine"
    path.write_text("mine")
    said = []
    assert demo.run_demo(str(path), said.append) == 2
    assert path.read_text() == "mine"
    assert "exists already" in said[0]


@pytest.mark.usefixtures("topics")
def test_a_child_that_cannot_record_is_reported(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(demo.sys, "executable", shutil.which("false"))
    assert demo.run_demo(str(tmp_path / "demo.mva"), said.append) == 1
    assert "stopped by itself" in said[-1]
    assert "Traceback" not in "".join(said)


def test_a_python_without_topics_says_so(monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda _: None)
    said = []
    assert demo.run_demo(None, said.append) == 2
    assert "pydoc_data.topics" in said[0]


def test_the_model_picks_the_sentence_that_answers():
    texts = ["Nothing here. Cats sleep\nall day! Dogs bark.", None, "Where cats go."]
    context = Context(tuple(ContextItem(i, 1.0, text) for i, text in enumerate(texts, 1)))
    asked = Prompt("Do cats sleep?", context)
    assert demo_agent.extract(asked) == "Cats sleep all day!"
    assert "Nothing is known" in demo_agent.extract(Prompt("Rain?", context))


async def test_every_question_is_answered_from_the_memory(tmp_path, topics):
    async with open_store(tmp_path / "topics.mva") as store:
        await store.put_many(demo_agent.passages(topics))
        for question in demo_agent.QUESTIONS:
            answer = await store.ask(
                question, generate=demo_agent.extract, provider="demo", model="extract"
            )
            assert len(answer.hits) == 5
            assert "Nothing is known" not in str(answer), question
