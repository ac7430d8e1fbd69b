"""Pieces of an HTML page. All recorded text goes through :func:`shown`, so that it can neither
become markup nor hide anything."""

from __future__ import annotations

import html
import json
import re
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import Any

from .. import content_text, spoken_text
from .documents import Document
from .text import count_of, format_size, format_time, printable, shorten

SHOWN_CHARS = 64 * 1024
"""How many characters of a content the page shows."""

_FOLDED_LINES = 14
_FOLDED_CHARS = 1_400
_MARKED_CHARS = 4_000
_LINE_CHARS = 100
_INPUTS = {"ask": "query", "find": "query", "put": "data", "update": "data"}
_OUTPUTS = {"ask": "response", "tool_call": "result"}


def shown(text: str, *, one_line: bool = False) -> str:
    """Return recorded text as HTML; characters that are not printable are escaped."""
    return html.escape(printable(text, one_line=one_line))


def block(text: str, size: int | None = None) -> str:
    """Return a text as HTML, folded when it is long. ``size``: the whole content's, in bytes."""
    cut = len(text) > SHOWN_CHARS
    text = text[:SHOWN_CHARS].replace("\r\n", "\n")
    note = ""
    if cut:
        whole = "" if size is None else f" of {format_size(size)}"
        said = f"The first {SHOWN_CHARS} characters{whole}; export as jsonl has all."
        note = f'<p class="note">{said}</p>'
    lines = text.split("\n")
    if len(lines) <= _FOLDED_LINES and len(text) <= _FOLDED_CHARS:
        return f"<pre>{shown(text)}</pre>{note}"
    start = "\n".join(lines[:_FOLDED_LINES])[:_FOLDED_CHARS]
    more = f"Show all: {len(lines)} lines, {len(text)} characters"
    return (
        f'<details class="long"><summary data-more="{more}"><pre>{shown(start)}</pre></summary>'
        f"<pre>{shown(text)}</pre>{note}</details>"
    )


def part(name: str, body: str) -> str:
    """Return a piece of an action with its name."""
    return f'<div class="part"><h3>{shown(name, one_line=True)}</h3><div>{body}</div></div>'


def aside(title: str, body: str) -> str:
    """Return a body that is folded until it is clicked."""
    return f'<details class="aside"><summary>{shown(title)}</summary>{body}</details>'


def diff_block(diff: str) -> str:
    """Return the lines of a difference as HTML; in a changed line, the changed words are marked."""
    lines = diff.split("\n")
    out, place = [], 0
    while place < len(lines):
        mark, text = lines[place][:1], lines[place][2:]
        following = lines[place + 1] if place + 1 < len(lines) else ""
        if mark == "-" and following[:1] == "+":
            old, new = _mark_words(text, following[2:])
            out += [f'<span class="del">{old}</span>', f'<span class="add">{new}</span>']
            place += 2
            continue
        name = {"-": "del", "+": "add"}.get(mark, "both")
        out.append(f'<span class="{name}">{shown(text)}</span>')
        place += 1
    return f'<pre class="diff">{"".join(out)}</pre>'


def _mark_words(old: str, new: str) -> tuple[str, str]:
    if max(len(old), len(new)) > _MARKED_CHARS:
        return shown(old), shown(new)
    a, b = (re.findall(r"\w+|\s+|.", text) for text in (old, new))
    runs = SequenceMatcher(None, a, b).get_matching_blocks()
    kept_a = {run.a + place for run in runs for place in range(run.size)}
    kept_b = {run.b + place for run in runs for place in range(run.size)}
    # In lines that have almost nothing in common, marked words tell nothing.
    alike = sum(len(a[place]) for place in kept_a if not a[place].isspace())
    if 3 * alike < max(len(old), len(new)):
        return shown(old), shown(new)
    return _marked(a, kept_a), _marked(b, kept_b)


def _marked(words: list[str], kept: set[int]) -> str:
    out, marking = [], False
    for place, word in enumerate(words):
        if (place not in kept) != marking:
            marking = not marking
            out.append("<mark>" if marking else "</mark>")
        out.append(shown(word))
    return "".join(out) + ("</mark>" if marking else "")


# --- actions -----------------------------------------------------------------------------------


def title_of(action: Document) -> str:
    """Say in a few words which tool, model or frames an action is about."""
    details = action["details"]
    if action["kind"] == "checkpoint":
        return f"{details['checkpoint_id']}"
    for name in ("name", "model", "mode"):
        if details.get(name):
            return str(details[name])
    if "frame_id" in details:
        return f"frame {details['frame_id']}"
    frames = details.get("frame_ids", ())
    return count_of(len(frames), "frame") if frames else ""


def head(action: Document, *, anchor: str = "a", other: str = "", note: str = "") -> str:
    """Return the head of an action: its index, what it is, and when it was. ``note`` is HTML."""
    index = action["index"]
    more = [action["task"]] if action["task"] else []
    if action["duration_ms"]:
        more.append(_milliseconds(action["duration_ms"]))
    time = format_time(action["time_ns"])
    more.append(time.partition(" ")[2] or time)
    kind, told = action["kind"], shown(" · ".join(more), one_line=True)
    return (
        f'<h2 class="head"><a class="n" href="#{anchor}{index}">{index}{other}</a>'
        f'<span class="kind {kind}">{kind.replace("_", " ")}</span>'
        f'<span class="what">{shown(shorten(title_of(action), 120))}</span>{note}'
        f'<span class="more" title="{shown(time)} UTC">{told}</span></h2>'
    )


def _milliseconds(value: float) -> str:
    if value < 10:
        return f"{value:.2g} ms"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def article(action: Document, *, anchor: str = "a", name: str = "", kind: str | None = None) -> str:
    """Return a whole action. ``name``: its CSS class; ``kind``: what the page filters it by."""
    failed = " failed" if action["error"] is not None else ""
    return (
        f'<article id="{anchor}{action["index"]}" class="{name}{failed}" tabindex="-1" '
        f'data-kind="{kind or action["kind"]}">'
        f"{head(action, anchor=anchor)}{body(action)}</article>\n"
    )


def body(action: Document) -> str:
    """Return everything of an action except its head."""
    kind = action["kind"]
    parts = []
    if action.get("arguments") is not None:
        parts.append(part("arguments", block(json_text(action["arguments"]))))
    elif action["input"] is not None:
        parts.append(part(_INPUTS.get(kind, "input"), _content(action["input"])))
    if action["output"] is not None:
        output = _content(action["output"])
        if kind == "ask":
            output = _calls(action["output"].get("text", "")) or output
            output += _reply(action)
        parts.append(part(_OUTPUTS.get(kind, "output"), output))
    parts += _frames(action)
    if action["error"] is not None:
        parts.append(part("error", f'<pre class="error">{shown(action["error"])}</pre>'))
    if action.get("messages"):
        messages = "".join(map(_message, action["messages"]))
        title = f"{len(action['messages'])} messages in the prompt"
        parts.append(aside(title, f'<div class="messages">{messages}</div>'))
    if action["metadata"]:
        names = ", ".join(map(str, action["metadata"]))
        parts.append(aside(f"metadata: {shorten(names, 80)}", block(json_text(action["metadata"]))))
    return "".join(parts)


def _frames(action: Document) -> list[str]:
    """Return the frames that an action found or changed, unless its title names them."""
    kind, details = action["kind"], action["details"]
    if action["retrieval"] is not None:
        return _retrieved(action)
    if kind == "find":
        frames = ", ".join(map(str, details["result_frames"])) or "none"
        return [part("found", f"<pre>{details['result_count']}: frames {shown(frames)}</pre>")]
    if kind == "put_many":
        return [part("frames", block(", ".join(map(str, details["frame_ids"]))))]
    if kind == "ask" and details["retrieved_frames"]:
        frames = ", ".join(map(str, details["retrieved_frames"]))
        return [part("retrieved", block(f"frames {frames}"))]
    return []


def _retrieved(action: Document) -> list[str]:
    """Return how the memory was searched, and what was found: folded, each frame as it was then."""
    how = action["retrieval"]
    words = [f"{how['mode']} search of the memory after event {how['as_of']}, at most"]
    words.append(count_of(how["top_k"], "frame"))
    if how["parameters"]:
        words.append(f"where {json_text(how['parameters'])}")
    if not how["syntax"]:
        words.append("of plain text")
    if how["embedding"] is not None:
        words.append(f"with an embedding {how['embedding_model'] or ''}")
    items = []
    for item in action["context"]:
        text = '<p class="note">(erased)</p>' if item["text"] is None else block(item["text"])
        title = f"frame {item['frame_id']} · {item['score']:.3g}"
        items.append(f"<div><h4>{title}</h4>{text}</div>")
    scores = ", ".join(f"{item['frame_id']} ({item['score']:.3g})" for item in action["context"])
    outline = f"<pre>{shown(scores or 'nothing')}</pre>"
    folded = aside("as they were then", f'<div class="messages">{"".join(items)}</div>')
    return [
        part("searched", f"<pre>{shown(' '.join(words))}</pre>"),
        part("found", outline + (folded if items else "")),
    ]


def _reply(action: Document) -> str:
    """Return the tokens of a reply, and its chunks, folded."""
    reply, text = action["reply"], action["output"].get("text", "")
    if reply is None:
        return ""
    names = ("input_tokens", "output_tokens", "cached_tokens")
    tokens = [f"{reply[n]} {n.replace('_', ' ')}" for n in names if reply[n] is not None]
    if reply["cost_usd"] is not None:
        tokens.append(f"{reply['cost_usd']:.6g} US dollars")
    told = f'<p class="note">{", ".join(tokens)}</p>' if tokens else ""
    if len(reply["chunks"]) > 1 and sum(reply["chunks"]) == len(text) <= SHOWN_CHARS:
        places = pairwise(accumulate(reply["chunks"], initial=0))
        chunks = "".join(f"<span>{shown(text[start:end])}</span>" for start, end in places)
        title = f"it came in {len(reply['chunks'])} chunks"
        told += aside(title, f'<pre class="chunks">{chunks}</pre>')
    return told


def checkpoint_article(action: Document, checkpoint: Document, *, anchor: str = "a") -> str:
    """Return a checkpoint as one line that ends with its state."""
    frames, digest = checkpoint["snapshot"]["frame_count"], checkpoint["state_hash"]
    held = f"{count_of(frames, 'frame')}, state {digest[:16]}…"
    state = f'<span class="id" title="{digest}">{held}</span>'
    line = head(action, anchor=anchor, note=state)
    return (
        f'<article id="{anchor}{action["index"]}" class="mark" tabindex="-1" '
        f'data-kind="checkpoint">{line}</article>\n'
    )


def _calls(response: str) -> str:
    """Return a response that calls tools as its text and a line for each call; "" for others."""
    text = spoken_text(response)
    return "" if text is None else block(text) + aside("as it was", block(content_text(response)))


def _message(message: Any) -> str:
    role, text = "message", None
    if isinstance(message, dict):
        role = str(message.get("role", role))
        if isinstance(message.get("content"), str) and not set(message) - {"role", "content"}:
            text = message["content"]
    body = block(json_text(message) if text is None else text)
    return f"<div><h4>{shown(shorten(role, 40))}</h4>{body}</div>"


def _content(content: Document) -> str:
    if content.get("is_erased"):
        return '<p class="note">(erased)</p>'
    if "text" in content:
        return block(content_text(content["text"]), content["size"])
    note = f'<p class="note">{format_size(content["size"])} that are not text, in base64</p>'
    return note + block(content["base64"], content["size"])


def json_text(value: Any) -> str:
    """Return a value as JSON: on one line when that is short, else indented."""
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= _LINE_CHARS else json.dumps(value, indent=1, ensure_ascii=False)
