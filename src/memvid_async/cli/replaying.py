"""`replay`, `diff` and `audit`: the commands that check and compare recordings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import groupby
from typing import Any

import attrs
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import (
    Action,
    AskDetails,
    AuditReport,
    Comparison,
    Prompt,
    ReplayReport,
    Session,
    ToolCallDetails,
    Verdict,
    WhatIf,
    open_store,
)
from ..view import documents, findings
from ..view.aligned import Pairing, aligned_pairings
from ..view.text import count_of, printable, shorten
from . import render
from .arguments import TakesSession, file_argument, find_session, json_option, run
from .exits import BAD, FINE
from .programs import prompt_bytes, run_program, timeout_option
from .what_if import print_rerun, rerun_rows, what_if, what_if_options

_LINE = 160
_STYLES = {
    Verdict.MATCHED: "green",
    Verdict.DIVERGED: "red",
    Verdict.SERVED: "cyan",
    Verdict.SKIPPED: "dim",
    Verdict.UNVERIFIABLE: "yellow",
}

Command = Callable[[Prompt], Coroutine[Any, Any, str]]


@click.command(cls=TakesSession)
@file_argument
@click.argument("session", required=False)
@click.option(
    "--checkpoint",
    "checkpoint_id",
    type=click.IntRange(min=0),
    metavar="ID",
    help="Start at this checkpoint.",
)
@click.option(
    "--before-index",
    type=click.IntRange(min=0),
    metavar="INDEX",
    help="Only the actions before this one.",
)
@what_if_options
@json_option
def replay(
    file: str,
    session: str | None,
    checkpoint_id: int | None,
    before_index: int | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Repeat a SESSION of FILE from its events, and report what matches the recording.

    With --top-k, --mode, --as-of or filters, its searches are changed, and their results are shown
    beside the recorded ones. The exit status is 1 if anything differs from the recording.
    """
    changed = what_if(**options)
    span = {"checkpoint_id": checkpoint_id, "before_index": before_index}
    return run(_replay, file, session, span, changed, as_json)


async def _replay(
    file: str,
    wanted: str | None,
    span: dict[str, int | None],
    changed: WhatIf | None,
    as_json: bool,
) -> int:
    async with open_store(file, read_only=True) as store:
        session_id = await find_session(store, wanted)
        report = await store.replay(session_id, what_if=changed, **span).report()
    if as_json:
        document = findings.replay_document(report)
        for shown, step in zip(document["steps"], report.steps, strict=True):
            if step.rerun is not None:
                shown["rerun"] = rerun_rows(step.action, step.rerun)
        click.echo(documents.dump_told(document, indent=2))
    else:
        _print_replay(render.output_console(), report)
    return BAD if report.counts[Verdict.DIVERGED] else FINE


def _print_replay(console: Console, report: ReplayReport) -> None:
    """Print each run of steps with one verdict on a line, and what diverged with its differences.

    Searches that were changed come first, frame by frame.
    """
    reran = [step for step in report.steps if step.rerun is not None]
    for step in reran:
        print_rerun(console, step)
    if reran:
        console.print()
    for (verdict, reason), steps in groupby(report.steps, key=lambda s: (s.verdict, s.reason)):
        run = list(steps)
        first, last = run[0].index, run[-1].index
        line = Text(f"{first if first == last else f'{first}-{last}':>11}  ")
        line.append(f"{verdict:12}", style=_STYLES[verdict])
        kinds = ", ".join(dict.fromkeys(step.action.kind.value for step in run))
        line.append("  " + shorten(f"{kinds}: {reason}" if reason else kinds, _LINE))
        console.print(line)
        for difference in (d for step in run if step.rerun is None for d in step.differences):
            _print_diff(console, difference.field, difference.diff)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items() if count)
    compared = report.counts[Verdict.MATCHED] + report.counts[Verdict.DIVERGED]
    rate = f"match rate {report.match_rate:.3f}" if compared else "nothing could be compared"
    console.print(Text(f"{rate}: {counts or 'no actions'}"))


@click.command(cls=TakesSession)
@file_argument
@click.argument("a")
@click.argument("b")
@json_option
def diff(file: str, a: str, b: str, as_json: bool) -> int:
    """Compare the sessions A and B of FILE by what they did.

    Each is an id, the beginning of an id, or a name. The exit status is 1 if they differ.
    """
    return run(_diff, file, a, b, as_json)


async def _diff(file: str, wanted_a: str, wanted_b: str, as_json: bool) -> int:
    async with open_store(file, read_only=True) as store:
        ids = await find_session(store, wanted_a), await find_session(store, wanted_b)
        comparison = await store.compare(*ids)
        sessions = [await store.get_session(session_id) for session_id in ids]
    if as_json:
        click.echo(documents.dump_told(findings.comparison_document(comparison), indent=2))
    else:
        _print_comparison(render.output_console(), comparison, sessions)
    return FINE if comparison.is_equal else BAD


def _print_comparison(console: Console, comparison: Comparison, sessions: list[Session]) -> None:
    for letter, session in zip("ab", sessions, strict=True):
        name = shorten(session.name or "(no name)", 80)
        title = f"  {session.session_id}  {count_of(len(session.actions), 'action')}"
        console.print(Text(f"{letter}  ").append(name, style="bold").append(title))
    first = comparison.first_divergence
    console.print(Text("equal" if first is None else f"they diverge at action {first}"))
    console.print(
        Text(
            f"{len(comparison.equal)} equal, {len(comparison.changed)} changed, "
            f"{len(comparison.only_in_a)} only in a, {len(comparison.only_in_b)} only in b\n"
        )
    )
    for is_equal, pairs in groupby(aligned_pairings(comparison), key=lambda pair: pair.is_equal):
        if is_equal:
            _print_equal(console, list(pairs))
        else:
            for pair in pairs:
                _print_pairing(console, pair)


def _print_equal(console: Console, pairs: list[Pairing]) -> None:
    def span(actions: Iterator[Action | None]) -> str:
        indexes = [action.index for action in actions if action is not None]
        return f"{indexes[0]}" if len(indexes) == 1 else f"{indexes[0]}-{indexes[-1]}"

    a, b = span(pair.a for pair in pairs), span(pair.b for pair in pairs)
    console.print(Text(f"  {a:>9} {b:>9}  = {len(pairs)} equal", style="dim"))


def _print_pairing(console: Console, pair: Pairing) -> None:
    mark, style = ("+", "green")
    if pair.a:
        mark, style = ("~", "yellow") if pair.b else ("-", "red")
    a, b = (str(action.index) if action is not None else "" for action in (pair.a, pair.b))
    action = pair.a or pair.b
    assert action is not None
    line = Text(f"  {a:>9} {b:>9}  ")
    line.append(f"{mark} {action_title(action)}", style=style)
    if not pair.differences:
        preview = "" if action.input is None else action.input.preview
        line.append("  " + shorten(preview, 80), style="dim")
    console.print(line)
    for difference in pair.differences:
        _print_diff(console, difference.field, difference.diff)


def action_title(action: Action) -> str:
    """Say which kind of action it is, and which tool or model it used."""
    details = action.details
    if isinstance(details, ToolCallDetails):
        return f"{action.kind} {shorten(details.name, 60)}"
    if isinstance(details, AskDetails) and details.model:
        return f"{action.kind} {shorten(details.model, 60)}"
    return str(action.kind)


def _print_diff(console: Console, field: str, diff: str) -> None:
    console.print(Text(f"{'':26}{printable(field, one_line=True)}", style="bold"))
    for line in printable(diff).split("\n"):
        style = {"-": "red", "+": "green"}.get(line[:1], "dim")
        console.print(Text(f"{'':28}{line}", style=style))


@click.command(cls=TakesSession)
@file_argument
@click.argument("session", required=False)
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="NAME=COMMAND",
    help="A model to ask: a name for it, and the command that is it. May be repeated.",
)
@click.option(
    "--messages", is_flag=True, help="Give the command JSON with the context and the messages."
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="How many commands may run at a time.",
)
@timeout_option
@json_option
def audit(
    file: str,
    session: str | None,
    models: tuple[str, ...],
    messages: bool,
    concurrency: int,
    timeout: float,
    as_json: bool,
) -> int:
    """Put the questions of a SESSION of FILE to other models, and compare the answers.

    A COMMAND reads the frames that were found then, followed by the question, from its standard
    input, and prints its answer. It is run without a shell. The exit status is 1 if an answer
    differs from the recorded one.
    """
    commands = dict(_parse_model(model, messages, timeout) for model in models)
    if len(commands) < len(models):
        raise click.BadParameter("two models have the same name", param_hint="--model")
    return run(_audit, file, session, commands, concurrency, as_json)


def _parse_model(option: str, messages: bool, timeout: float) -> tuple[str, Command]:
    name, _, command = option.partition("=")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.BadParameter(f"{option!r}: {error}", param_hint="--model") from None
    if not name or not words:
        raise click.BadParameter(f"{option!r} is not NAME=COMMAND", param_hint="--model")
    return name, partial(_ask_command, words, messages, timeout)


async def _ask_command(
    words: list[str],
    messages: bool,
    patience: float,
    prompt: Prompt,
) -> str:
    """What a command answers; the newline at its end is not part of it."""
    whole = json.dumps(_prompt_document(prompt)).encode() if messages else prompt_bytes(prompt)
    return await run_program(words, whole, patience)


def _prompt_document(prompt: Prompt) -> documents.Document:
    document: documents.Document = {
        "question": documents.plain(prompt.question),
        "messages": documents.plain(prompt.messages),
    }
    if prompt.context is not None:
        document["context"] = [documents.plain(attrs.asdict(i)) for i in prompt.context.items]
    return document


async def _audit(
    file: str, wanted: str | None, models: dict[str, Command], concurrency: int, as_json: bool
) -> int:
    async with open_store(file, read_only=True) as store:
        session_id = await find_session(store, wanted)
        report = await store.audit(session_id, models, concurrency=concurrency)
    if as_json:
        click.echo(documents.dump_told(findings.audit_document(report), indent=2))
    else:
        _print_audit(render.output_console(), report)
    return FINE if report.is_equal else BAD


def _print_audit(console: Console, report: AuditReport) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model")
    for title in ("same", "changed", "failed", "skipped", "seconds"):
        table.add_column(title, justify="right")
    for model in report.models:
        counts = (model.same, model.changed, model.failed, model.skipped)
        seconds = f"{model.duration_ms / 1000:.2f}"
        table.add_row(Text(shorten(model.model, 60)), *map(str, counts), seconds)
    console.print(table)
    for answer in report.answers:
        if answer.verdict in (Verdict.DIVERGED, Verdict.UNVERIFIABLE):
            line = Text(f"\n{answer.index:5}  ")
            line.append(f"{answer.verdict:12}", style=_STYLES[answer.verdict])
            line.append(f"  {shorten(answer.model, 60)}")
            if answer.reason:
                line.append(f"  {shorten(answer.reason, _LINE)}")
            console.print(line)
            if answer.diff:
                _print_diff(console, "response", answer.diff)
