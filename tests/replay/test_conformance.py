"""The harness `crashresume`: an agent dies right after each of its effects, and starts again.

It has an effect happen, and raises: here that is a SIGKILL for the process in which the agent
lives. Then it compares the effects, by their keys, and what the agent came to, with those of one
that never died.
"""

import signal

import crashresume
import pytest

from tests.support.depth import DEEP
from tests.support.fork_server import ForkServer

ORDERS = ("tea", "cake") if DEEP else ("tea",)


class Subject:
    """What the harness has for an agent: it hands its steps to the process."""

    def __init__(self, context, server, path, policy):
        self._context = context
        self._server = server
        server.bear(path, policy)
        self._until("ready")

    def step(self, item):
        self._server.tell(["step", item])
        self._until("done")

    def state(self):
        self._server.tell(["end"])
        state = self._until("state")
        assert self._server.end() == 0
        return state

    def _until(self, what):
        """Answer what the process asks until it says this; what else it says then."""
        while (said := self._server.hear())[0] != what:
            asked, name, item = said
            key = f"{name}:{item}"
            if asked == "happened?":
                answer = any(effect.key == key for effect in self._context.effects.effects)
            else:
                answer = self._have_effect(name, item, key)
            self._server.tell(answer)
        return said[1:]

    def _have_effect(self, name, item, key):
        try:
            return self._context.effect(name, item, key=key).seq
        except crashresume.InjectedCrash:
            assert self._server.end(signal.SIGKILL) == -signal.SIGKILL
            raise


@pytest.fixture
def conform(tmp_path):
    server = ForkServer("tests.support.conform_child")

    def run(policy, orders):
        return crashresume.conform(
            lambda context: Subject(context, server, tmp_path / context.run_id, policy), orders
        )

    yield run
    server.close()


def test_an_agent_that_dies_after_any_effect_conforms(conform):
    report = conform("look", ORDERS)
    assert report.passed, str(report)
    assert report.crash_points == 6 * len(ORDERS)


def test_effects_happen_again_where_the_policy_says_run(conform):
    report = conform("run", ORDERS[:1])
    assert {finding.kind for finding in report.findings} == {"effect_replayed"}
    assert {finding.crash_after for finding in report.findings} == {
        *range(1, report.crash_points + 1)
    }
