"""The benchmark suite: a trial run of the cheap benchmarks, and how figures are judged."""

import pytest

from benchmarks import __main__ as suite
from benchmarks import harness, report, samples
from tests.support.depth import BENCHMARKS


def figure(value, **goals):
    return harness.Figure(case="case", against="other", values=[value], unit="x", **goals)


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [
        (3.0, True, harness.Verdict.AIM),
        (2.9, True, harness.Verdict.MUST),
        (1.4, True, harness.Verdict.MISS),
        (1.5, False, harness.Verdict.MUST),
        (3.1, False, harness.Verdict.MISS),
    ],
)
def test_a_figure_is_judged_against_both_goals(value, at_least, verdict):
    must, aim = (1.5, 3.0) if at_least else (3.0, 1.4)
    assert figure(value, must=must, aim=aim, at_least=at_least).verdict is verdict


def test_a_figure_without_goals_is_not_judged():
    assert figure(1.0).verdict is harness.Verdict.NONE


@pytest.mark.usefixtures("own_garbage")
def test_contenders_take_turns_in_a_rotating_order():
    order = []
    contenders = {name: lambda name=name: order.append(name) or 1.0 for name in "abc"}
    taken = harness.alternate(contenders, rounds=3)
    assert "".join(order) == "abcbcacab"
    assert taken == {name: [1.0, 1.0, 1.0] for name in "abc"}


def test_ratios_are_taken_within_a_round():
    assert harness.ratios([2.0, 20.0, 200.0], [1.0, 10.0, 50.0]) == [2.0, 2.0, 4.0]
    one = harness.Figure(case="case", against="other", values=[4.0, 2.0, 2.5], unit="x", must=2.2)
    assert one.value == 2.5
    assert "| 2.5 x | 2, 4 |" in report.render(
        {"it": harness.Result(figures=[one])}, [], "", "3 rounds"
    )


def test_samples_are_of_the_size_they_say():
    sizes = [ask.size for ask in samples.asks(200)]
    assert 440 <= sum(sizes) / len(sizes) <= 460
    assert samples.asks(5) == samples.asks(5)


def test_a_trial_run_of_the_cheap_benchmarks(tmp_path, capsys):
    output = tmp_path / "report.md"
    arguments = ["--quick", "--directory", str(tmp_path), "--output", str(output)]
    arguments += ["--only", *BENCHMARKS]
    assert suite.main(arguments) == 0
    text = output.read_text(encoding="utf-8")
    for case in BENCHMARKS.values():
        assert f"| {case} |" in text
    assert list(tmp_path.iterdir()) == [output]
    assert "buffered" in capsys.readouterr().err
