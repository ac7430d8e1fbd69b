"""Real runs of one task, compared: what they share is found, against the transcripts themselves."""

import json
import re
from collections import defaultdict
from itertools import pairwise

import pytest

from memvid_async import Durability, StoreConfig
from memvid_async.interop.chat_plans import PlannedAsk
from memvid_async.interop.chats import read_plans, record_run
from memvid_async.interop.transcripts import TranscriptError
from tests.conftest import ROOT
from tests.replay.test_lcs import naive_length

pytestmark = pytest.mark.one_loop

FILES = ("tau-bench/gpt-4o-airline.json.gz", "mini-swe-agent/trajectories.tar.gz")


@pytest.fixture
async def store(make_store):
    return await make_store(config=StoreConfig(durability=Durability.BUFFERED))


def outline(step):
    """A step of a transcript in a form that can be compared; ids of calls are left out."""
    if not isinstance(step, PlannedAsk):
        return "tool", step.name, json.dumps(step.arguments), step.result
    response = step.response
    if response.startswith("{") and '"tool_calls"' in response:
        spoken = json.loads(response)
        for call in spoken["tool_calls"]:
            call.pop("id", None)
        response = json.dumps(spoken)
    return "ask", step.query, response, step.model


async def tasks_of(store, path):
    """Per task, its runs: the session's id and the outline of its steps."""
    tasks = defaultdict(list)
    async for plans in read_plans(path):
        for plan in plans:
            if isinstance(plan, TranscriptError):
                continue  # an agent that was stopped before the model said anything
            fields = plan.metadata["imported_chat"]["fields"]
            task = fields.get("task_id", fields.get("instance_id"))
            session_id = await record_run(store, plan)
            tasks[task].append((session_id, [outline(step) for step in plan.actions]))
    return tasks


@pytest.mark.parametrize("name", FILES)
async def test_what_runs_of_one_task_share_is_found(store, shared_data, name):
    tasks = await tasks_of(store, shared_data / name)
    compared = shared = 0
    for runs in tasks.values():
        for (id_a, steps_a), (id_b, steps_b) in pairwise(runs):
            comparison = await store.compare(id_a, id_b)
            prefix = 0
            while prefix < min(len(steps_a), len(steps_b)) and steps_a[prefix] == steps_b[prefix]:
                prefix += 1
            whole = prefix == len(steps_a) == len(steps_b)
            assert comparison.first_divergence == (None if whole else prefix)
            for a, b in comparison.equal:
                assert steps_a[a.index] == steps_b[b.index]
            assert len(comparison.equal) == naive_length(steps_a, steps_b)
            for changed in comparison.changed:
                assert steps_a[changed.a.index] != steps_b[changed.b.index]
                assert all(difference.diff for difference in changed.differences)
            compared += 1
            shared += prefix > 0
    assert compared >= 20
    assert shared > 0


def never_asked(_prompt):
    raise AssertionError("a served model must not be asked")


async def test_a_real_run_is_served_from_its_recording(store, shared_data):
    tasks = await tasks_of(store, shared_data / FILES[0])
    for runs in list(tasks.values())[:10]:
        for session_id, _ in runs:
            session = await store.get_session(session_id)
            async with store.serve(session_id) as recorded:
                for action in session.actions:
                    if action.kind == "ask":
                        query = (await store.read_content(action.input)).decode()
                        reply = await recorded.call_model(query, never_asked, task=action.task)
                        assert str(reply) == (await store.read_content(action.output)).decode()
                    else:
                        arguments = await store.read_arguments(action)
                        result = await recorded.call_tool(
                            action.details.name, arguments, task=action.task
                        )
                        want = action.output and (await store.read_content(action.output)).decode()
                        assert result == want
                assert recorded.unserved == ()


def table_rows():
    """The ten comparisons of docs/replay.md: the task, the two runs, the figures."""
    page = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
    for line in re.findall(r"^\| \w+ \d+ \|.*$", page, re.MULTILINE):
        task, runs, actions, *figures, _ = [cell.strip() for cell in line.strip("|").split("|")]
        figures = [int(figure) for figure in figures]
        yield (
            task,
            runs.removeprefix("trials ").split(", "),
            [*map(int, actions.split(", "))],
            figures,
        )


def is_run(plan, task, run):
    """Whether a transcript is the one that the table names."""
    kind, number = task.split()
    if kind == "airline":
        fields = plan.metadata["imported_chat"]["fields"]
        return (str(fields.get("task_id")), str(fields.get("trial"))) == (number, run)
    folder, _, name = plan.name.partition("/")
    wanted = {"rerun": "chat_dev_rerun", "noparallel": "lite_dev_noparallel"}
    wanted |= {"lite": "lite_dev", "bench": "bench_dev"}
    return folder.endswith(f"-{number}") and name.startswith(f"deepseek_{wanted[run]}-")


async def test_the_ten_comparisons_of_the_documentation(store, shared_data):
    rows = list(table_rows())
    assert len(rows) == 10
    wanted = {(task, run) for task, runs, _, _ in rows for run in runs}
    sessions = {}
    for name in FILES:
        async for plans in read_plans(shared_data / name):
            for plan in plans:
                if isinstance(plan, TranscriptError):
                    continue  # as above
                of_airline = name == FILES[0]
                for task, run in wanted:
                    if task.startswith("airline") == of_airline and is_run(plan, task, run):
                        assert (task, run) not in sessions
                        sessions[task, run] = await record_run(store, plan)
    for task, runs, actions, figures in rows:
        comparison = await store.compare(*(sessions[task, run] for run in runs))
        lengths = [len((await store.get_session(sessions[task, run])).actions) for run in runs]
        assert lengths == actions, (task, runs)
        assert figures == [
            comparison.first_divergence,
            len(comparison.equal),
            len(comparison.changed),
            len(comparison.only_in_a),
            len(comparison.only_in_b),
        ], (task, runs)
