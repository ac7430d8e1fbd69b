"""What the commands print for people. All recorded text goes through :func:`printable`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import UUID

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .. import Action, Frame, Hit, MessageRun, Session, Why
from ..view.bars import title_of
from ..view.documents import Document
from ..view.findings import used_of
from ..view.text import (
    count_of,
    format_cost,
    format_count,
    format_duration,
    format_milliseconds,
    format_size,
    format_time,
    printable,
    shorten,
)
from ..view.tree import TreeNode, describe_fork
from .columns import print_table

_PIPE_WIDTH = 10_000  # the width without a terminal, so that nothing is cut
_INDENT = "    "
_LINE = 160
_MOST_INDENTED = 20  # deeper forks are not indented further
_SNIPPET = 320
_HIT_TITLE = 32
_SHOWN_HITS = 5
_NARROW = 80  # a narrower terminal is told the time of day alone
_ID_DIGITS = (8, 13, 18, 23)  # an id may be cut before one of its dashes

Say = Callable[[Text], object]

STYLES = {
    "ask": "cyan",
    "tool_call": "magenta",
    "find": "blue",
    "checkpoint": "yellow",
    "put": "green",
    "put_many": "green",
}


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Raise the error, so that the command ends with its own exit status."""
        raise BrokenPipeError


def output_console() -> Console:
    """Return a console on the standard output: styles only on a terminal, and no markup at all."""
    console = _Output(file=sys.stdout, markup=False, highlight=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def progress_bar(*, counted: bool = False) -> Progress:
    """Return a bar on the standard error, shown only on a terminal and removed when it is done."""
    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
    amount: ProgressColumn = MofNCompleteColumn() if counted else TaskProgressColumn()
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), amount]
    return Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def print_info(console: Console, info: Document) -> None:
    """Print facts about a store, one per line."""
    rows = {
        "file": info["path"],
        "size": f"{format_size(info['file_bytes'])} ({info['file_bytes']} bytes)",
        "events": info["last_sequence"],
        "sessions": f"{info['session_count']} ({info['open_session_count']} open)",
        "frames": info["frame_count"],
        "contents": f"{info['content_count']} kept once",
        "calls": f"{format_count(info['ask_count'])} asks, "
        f"{format_count(info['tool_call_count'])} tool calls, "
        f"{format_count(info['failed_count'])} failed",
        "tokens": f"{format_count(info['input_tokens'])} in, "
        f"{format_count(info['output_tokens'])} out",
        "cost": format_cost(info["cost_usd"]),
        "ambient session": info["active_session_id"] or "none",
        "compacted": f"{info['generation']} times",
        "torn tail": f"{info['bytes_dropped']} bytes",
    }
    for name, value in rows.items():
        line = Text(padded(console, name, -15), style="bold")
        line.append(f"  {printable(str(value), one_line=True)}", style="not bold")
        console.print(line)


def padded(console: Console, value: object, width: int) -> str:
    """Return a value padded to a width on a terminal, as it is elsewhere; below 0: to the left."""
    text = str(value)
    if not console.is_terminal:
        return text
    return text.rjust(width) if width > 0 else text.ljust(-width)


def print_sessions(console: Console, nodes: Sequence[TreeNode]) -> None:
    """Print sessions, one per line, in order; ids are cut as far as they stay unique."""
    ids = [str(node.session_id) for node in nodes]
    digits = next((n for n in _ID_DIGITS if len({i[:n] for i in ids}) == len(ids)), None)
    rows = []
    for node in nodes:
        session = _indent(node.depth) + str(node.session_id)[:digits]
        summary = node.summary
        if summary is None:
            rows.append([session, *[""] * 7, "gone"])
            continue
        tokens, failed = summary.input_tokens + summary.output_tokens, summary.failed_count
        rows.append(
            [
                session,
                shorten(summary.name or "", 256),
                format_time(summary.created_ns).partition(".")[0],
                format_duration(summary.duration_ns),
                str(summary.action_count),
                format_count(tokens) if tokens else "",
                format_cost(summary.cost_usd) if summary.cost_usd else "",
                format_count(failed) if failed else "",
                "open" if summary.ended_ns is None else "ended",
            ]
        )
    names = ("session", "name", "started (UTC)", "lasted", "actions", "tokens", "cost", "failed")
    less = ("lasted", "actions", "tokens", "cost", "started (UTC)", "state", "failed")
    print_table(console, (*names, "state"), rows, numbers=range(3, 8), folded=1, less=less)


def _indent(depth: int) -> str:
    """Return what is printed before a session in the tree: spaces, and the depth of a deep one."""
    return "  " * depth if depth <= _MOST_INDENTED else "  " * _MOST_INDENTED + f"({depth}) "


def print_hits(console: Console, hits: Sequence[Hit]) -> None:
    """Print frames that were found, best first; matching words are in brackets."""
    width = _HIT_TITLE if console.is_terminal else _LINE
    rows = [
        [
            f"{hit.score:.3g}",
            str(hit.frame_id),
            shorten(hit.title or hit.uri or "", width),
            shorten(hit.snippet, _SNIPPET),
        ]
        for hit in hits
    ]
    print_table(console, ("score", "frame", "title", "snippet"), rows, numbers=(0, 1), folded=3)


def print_frame(console: Console, frame: Frame) -> None:
    """Print a frame on one line."""
    line = Text(padded(console, frame.frame_id, 8))
    line.append(f"  {format_time(frame.updated_ns).partition('.')[0]}  ")
    line.append(padded(console, format_size(frame.content.size), 10) + "  ")
    title = shorten(frame.title or frame.uri or "", 40)
    if title:
        line.append(title + "  ", style="bold")
    if frame.tags:
        line.append(shorten(" ".join(f"#{tag}" for tag in frame.tags), 40) + "  ", style="cyan")
    line.append(shorten(frame.content.preview, 80), style="dim")
    console.print(line)


def print_session_head(console: Console, session: Session) -> None:
    """Print what a session is; what it adds up to comes after its actions."""
    title = shorten(session.name or "(no name)", 256)
    console.print(Text(title, style="bold"))
    ended = "still open" if session.ended_ns is None else format_time(session.ended_ns)
    console.print(Text(f"  session  {session.session_id}"))
    console.print(Text(f"  started  {format_time(session.created_ns)} UTC"))
    console.print(Text(f"  ended    {ended}"))
    if session.error is not None:
        console.print(Text(f"  error    {shorten(session.error, _LINE)}", style="red"))
    if session.fork is not None:
        console.print(Text(f"  forked   {describe_fork(session, session.fork)}"))
    if session.metadata:
        keys = ", ".join(sorted(str(key) for key in session.metadata))
        console.print(Text(f"  metadata {shorten(keys, _LINE)}"))


def print_totals(console: Console, session: Session, shown: int) -> None:
    """Print what a session adds up to. ``shown``: how many of its actions were printed."""
    count = len(session.actions)
    of_all = "" if shown == count else f"{shown} of "
    told = [f"{of_all}{count_of(count, 'action')}"]
    failed = sum(action.error is not None for action in session.actions)
    if failed:
        told.append(f"{failed} failed")
    if session.in_flight:
        told.append(f"{len(session.in_flight)} in flight")
    used = used_of(action.usage for action in session.actions if action.usage is not None)
    if used.input_tokens or used.output_tokens:
        told.append(f"{format_count(used.input_tokens)} tokens in")
        told.append(f"{format_count(used.output_tokens)} out")
    if used.cost_usd:
        told.append(format_cost(used.cost_usd))
    last = session.ended_ns or (session.actions[-1].time_ns if session.actions else None)
    if last is not None:
        told.append(format_duration(max(0, last - session.created_ns)))
    console.print(Text(", ".join(told), style="bold"))


def print_rows(console: Console, actions: Sequence[Document]) -> None:
    """Print actions, a row for each: what it was, how long it took, what it used, and the
    beginnings of its input and output."""
    names = ["index", "kind", "what", "task", "took", "tokens", "cost", "input → output"]
    rows = [_action_row(action) for action in actions]
    left_out = set[str]()
    if console.is_terminal:
        left_out = {name for at, name in enumerate(names) if not any(row[at] for row in rows)}
    places = [at for at, name in enumerate(names) if name not in left_out]
    cells = [[row[at] for at in places] for row in rows]
    numbers = [to for to, at in enumerate(places) if names[at] in _NUMBERS]
    shown = [names[at] for at in places]
    # What was said matters more than by whom.
    less = [name for name in ("task", "tokens", "cost", "took") if name in shown]
    print_table(console, shown, cells, numbers=numbers, cut=len(places) - 1, less=less)


_NUMBERS = ("index", "took", "tokens", "cost")
_NAME = 24


def _action_row(action: Document) -> list[str]:
    reply = action["reply"] or {}
    tokens = (reply.get("input_tokens") or 0) + (reply.get("output_tokens") or 0)
    cost = reply.get("cost_usd")
    texts = [_preview(action), "" if action["output"] is None else action["output"]["preview"]]
    said = " → ".join(shorten(text, _LINE) for text in texts if text)
    if action["kind"] == "find":
        said += f" → {count_of(action['details']['result_count'], 'result')}"
    if action["error"] is not None:
        said = f"! {shorten(action['error'], _LINE)}" + (f"  {said}" if said else "")
    return [
        str(action["index"]),
        action["kind"],
        shorten(title_of(action["details"]), _NAME),
        shorten(action["task"] or "", _NAME),
        format_milliseconds(action["duration_ms"]) if action["duration_ms"] else "",
        format_count(tokens) if tokens else "",
        format_cost(cost) if cost else "",
        said,
    ]


def print_in_flight(console: Console, session: Session) -> None:
    """Print the calls of which nobody said how they ended."""
    for started in session.in_flight:
        title = shorten(title_of(started.details), _NAME)
        since = format_time(started.time_ns)
        line = Text(f"  in flight  {started.kind.value}  {title}  since {since}", style="yellow")
        if started.input is not None:
            line.append(f"  {shorten(started.input.preview, _LINE)}")
        console.print(line)


@contextmanager
def paged(console: Console, *, wanted: bool) -> Iterator[None]:
    """Show what is printed in a pager, where people sit before it."""
    if not (wanted and console.is_terminal and sys.stdin.isatty()):
        yield
        return
    # What fits the screen stays there; colours are shown.
    os.environ.setdefault("LESS", "-FRX")
    with console.pager(styles=True):
        yield


def print_action(say: Say, action: Document) -> None:
    """Print an action: what it was, its input and its output, whole where the document has them.
    ``say``: what prints a line."""
    kind = action["kind"]
    head = Text(f"\n{action['index']:5}  ")
    head.append(kind, style=STYLES.get(kind, "bold"))
    head.append(f"  {_describe(action)}")
    head.append(f"  {format_time(action['time_ns'])}", style="dim")
    say(head)
    if action["error"] is not None:
        say(Text(f"{_INDENT}! {shorten(action['error'], _LINE)}", style="red"))
        for frame in action.get("traceback") or ():
            say(Text(f"{_INDENT}  {shorten(frame, _LINE)}", style="dim"))
    if action.get("arguments") is not None:
        _print_block(say, ">", json.dumps(action["arguments"], ensure_ascii=False), None)
    else:
        _print_content(say, ">", action["input"])
    if action["retrieval"] is not None:
        say(Text(f"{_INDENT}? {_describe_retrieval(action)}", style="dim"))
    for message in action.get("messages") or ():
        if isinstance(message, MessageRun):
            last = message.first + message.count - 1
            span = f"{message.first}" if message.count == 1 else f"{message.first} to {last}"
            told = f"{_INDENT}m messages {span} of action {message.index}"
            say(Text(told, style="dim"))
        else:
            _print_block(say, "m", json.dumps(message, ensure_ascii=False), None)
    _print_content(say, "<", action["output"])


def print_why(console: Console, why: Why, names: Mapping[UUID | None, str | None]) -> None:
    """Print what an answer was made of. ``names``: of the sessions that there are."""
    asked = why.action
    preview = "" if asked.input is None else asked.input.preview
    console.print(Text(f"{asked.index}  {asked.kind.value}  {shorten(preview, _LINE)}"))
    if not why.frames:
        console.print(Text("it was given no frames of the memory"))
    for frame in why.frames:
        score = "" if frame.score is None else f"  score {frame.score:.3g}"
        body = "" if frame.sequence is None else f"  its body of event {frame.sequence}"
        console.print(Text(f"\nframe {frame.frame_id}{score}{body}", style="bold"))
        text = "(not known, or erased)" if frame.content is None else frame.content.preview
        console.print(Text(f"{_INDENT}{shorten(text, _SNIPPET)}"))
        if frame.sequence is not None:
            by = "no session that is known"
            if frame.put_by is not None:
                by = _in_session(frame.put_by, names)
            when = "" if frame.put_ns is None else f"  {format_time(frame.put_ns)}"
            console.print(Text(f"{_INDENT}put by {by}{when}"))
        for action in frame.later:
            console.print(Text(f"{_INDENT}used by {_in_session(action, names)}"))


def _in_session(action: Action, names: Mapping[UUID | None, str | None]) -> str:
    session = str(action.session_id)[:8]
    name = names.get(action.session_id, "(deleted)") or "(no name)"
    return f"{action.kind.value} {action.index} of {session} {shorten(name, 60)}"


def action_lines(action: Document) -> list[str]:
    """Return the lines that :func:`print_action` prints of an action, as plain text."""
    lines: list[str] = []
    # A console's wrapping and painting would take most of the time of a search.
    print_action(lambda text: lines.extend(text.plain.splitlines()), action)
    return lines


def print_event(console: Console, event: Document) -> None:
    """Print an event on one line; on a terminal as much of it as the line has room for."""
    session, when = (event["session_id"] or "-")[:8], format_time(event["time_ns"])
    if console.is_terminal and console.width < _NARROW:
        line = Text(f"{event['sequence']:5}  {when[11:19]}  ")
    else:
        line = Text(padded(console, event["sequence"], 8))
        line.append(f"  {when}  {padded(console, session, -8)}  ")
    action = event["payload"].get("action")
    if event["type"] == "action_started":
        begun = event["payload"]
        line.append(f"{begun['kind']} begins", style="dim")
        told = f"{begun['task'] or ''} {title_of(begun['details'])} {_preview(begun)}"
        line.append("  " + shorten(told, _LINE))
    elif action is None:
        line.append(event["type"], style="dim")
        line.append("  " + shorten(_describe_payload(event["payload"]), _LINE))
    else:
        line.append(action["kind"], style=STYLES.get(action["kind"], "bold"))
        if "arguments" in action:
            text = json.dumps(action["arguments"], ensure_ascii=False)
        else:
            text = _preview(action)
        if action["error"] is not None:
            line.append(f"  ! {shorten(action['error'], _LINE)}", style="red")
        line.append("  " + shorten(f"{_describe(action)}  {text}".strip(), _LINE))
    if console.is_terminal:
        line.truncate(console.width, overflow="ellipsis")
    console.print(line)


def _describe_retrieval(action: Document) -> str:
    """Say how the memory was searched, and how the reply came."""
    how, reply = action["retrieval"], action["reply"]
    found = list(zip(action["affected_frames"], how["scores"], strict=False))
    named = ", ".join(f"{frame_id} ({score:.3g})" for frame_id, score in found[:_SHOWN_HITS])
    if len(found) > _SHOWN_HITS:
        named += f" and {len(found) - _SHOWN_HITS} more"
    words = [f"{how['mode']} search as of event {how['as_of']}: frames {named or 'none'}"]
    if not how["syntax"]:
        words.append("of plain text")
    if how["parameters"]:
        words.append(f"where {json.dumps(how['parameters'], ensure_ascii=False)}")
    if reply is not None and len(reply["chunks"]) != 1:
        words.append(f"reply in {len(reply['chunks'])} chunks")
    if reply is not None:
        names = ("input_tokens", "output_tokens", "cached_tokens")
        words += [f"{reply[n]} {n.replace('_', ' ')}" for n in names if reply[n] is not None]
        if reply["cost_usd"] is not None:
            words.append(f"{reply['cost_usd']:.6g} US dollars")
    return shorten("; ".join(words), _SNIPPET)


def _preview(action: Document) -> str:
    """Return how an input begins; a call's as JSON."""
    return "" if action["input"] is None else str(action["input"]["preview"])


def _describe_payload(payload: Document) -> str:
    frames = payload.get("frames", ())
    if len(frames) == 1:
        payload = frames[0]
    elif frames:
        payload = {**payload, "frames": len(frames)}
    shown = {name: value for name, value in payload.items() if value not in (None, "", 0, {}, [])}
    return ", ".join(
        f"{name} {value['preview'] if name == 'content' else _as_json(value)}"
        for name, value in shown.items()
        if name != "config"
    )


def _as_json(value: object) -> str:
    is_plain = isinstance(value, (str, int, float))
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


def _describe(action: Document) -> str:
    words = [action["task"]] if action["task"] else []
    for name, value in action["details"].items():
        if name in ("name", "mode"):
            words.append(str(value))
        elif name in ("provider", "model"):
            words += [str(value)] if value else []
        elif value:
            words.append(f"{name.replace('_', ' ')} {value}")
    if action["duration_ms"]:
        words.append(f"{action['duration_ms']:g} ms")
    return shorten("  ".join(words), _LINE)


def _print_content(say: Say, mark: str, content: Document | None) -> None:
    if content is None:
        return
    if content.get("is_erased"):
        say(Text(f"{_INDENT}{mark} (erased)", style="dim"))
    elif "text" in content:
        _print_block(say, mark, content["text"], None)
    elif "base64" in content:
        _print_block(say, mark, content["base64"], f"{content['size']} bytes, in base64")
    else:
        cut = content["size"] > len(content["preview"].encode())
        _print_block(say, mark, content["preview"], format_size(content["size"]) if cut else None)


def _print_block(say: Say, mark: str, text: str, note: str | None) -> None:
    lines = printable(text).split("\n")
    for number, line in enumerate(lines):
        say(Text(f"{_INDENT}{mark if number == 0 else ' '} {line}"))
    if note:
        say(Text(f"{_INDENT}  … {note} in all", style="dim"))
