"""The demo: what was acked before the kill is there, and the demo says so only when it is."""

import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from anyio import to_thread

from memvid_async import open_store
from memvid_async.cli import demo, demo_agent

BLOCKED = """
import sys
sys.modules["click"] = sys.modules["rich"] = None
sys.argv = ["memvid-async", *sys.argv[1:]]
from memvid_async.cli import main
main()
"""


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
def library():
    topics = pytest.importorskip("pydoc_data.topics").topics
    return demo_agent.Library(topics)


def counted(text, words):
    (count,) = re.findall(rf"{words}\s+(\d+)\n", text)
    return int(count)


@pytest.mark.usefixtures("library")
def test_without_the_extra_everything_acked_is_found(tmp_path):
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
    assert acked >= demo.KILL_AFTER
    assert counted(done.stdout, "found again, equal by value") == acked
    assert counted(done.stdout, "missing or different") == 0
    assert "Everything that was acked is there." in done.stdout
    assert "--file" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("library")
async def test_the_file_is_kept_where_it_was_asked_for(tmp_path):
    path = tmp_path / "kept.mva"
    said = []
    status = await to_thread.run_sync(demo.run_demo, str(path), said.append)
    assert status == 0, said
    assert any("kept" in line for line in said)
    async with open_store(path, read_only=True) as store:
        assert (await store.verify()).ok
        sessions = await store.list_sessions(include_open=True)
    assert {s.name for s in sessions} <= {f"agent-{n + 1}" for n in range(demo_agent.AGENT_COUNT)}
    assert sum(s.action_count for s in sessions) >= demo.KILL_AFTER


@pytest.mark.usefixtures("library")
async def test_a_lost_or_changed_action_is_noticed(tmp_path):
    path, said = tmp_path / "kept.mva", []
    acks = await to_thread.run_sync(demo._record_and_kill, str(path), said.append, 30)
    async with open_store(path) as store:
        whole = await demo._compare(store, acks)
        assert (whole.found, whole.wrong) == (len(acks), [])
        forged = [{**acks[0], "output": "forged"}, {**acks[1], "index": 10**6}, *acks[2:]]
        findings = await demo._compare(store, forged)
    assert findings.found == len(acks) - 2
    assert [line.rpartition(" is ")[2] for line in findings.wrong] == [
        "not what was recorded",
        "missing",
    ]
    assert await demo._open_again(str(path), forged, said.append) == 1
    assert said[-1].startswith("NOT everything")


@pytest.mark.usefixtures("library")
def test_an_existing_file_is_left_alone(tmp_path):
    path = tmp_path / "mine"
    path.write_text("mine")
    said = []
    assert demo.run_demo(str(path), said.append) == 2
    assert path.read_text() == "mine"
    assert "exists already" in said[0]


@pytest.mark.usefixtures("library")
def test_a_child_that_cannot_record_is_reported(tmp_path, capfd):
    said = []
    assert demo.run_demo(str(tmp_path / "no" / "folder"), said.append) == 1
    assert "stopped by itself" in said[-1]
    assert "Traceback" not in "".join(said)


def test_a_python_without_topics_says_so(monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda _: None)
    said = []
    assert demo.run_demo(None, said.append) == 2
    assert "pydoc_data.topics" in said[0]


def test_every_question_is_answered_from_a_topic(library):
    for question in demo_agent.QUESTIONS:
        found = library.find(question)
        assert 1 <= len(found) <= demo_agent.MOST_RESULTS
        words = Counter(demo_agent.split_words(question))
        assert any(word in found[0].words for word in words), question
    assert library.find("zzz") == []
    assert library.find("lambda anonymous function")[0].topic == "lambda"
