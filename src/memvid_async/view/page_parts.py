"""An action as HTML. What a page has shown before, it links to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import groupby
from typing import Any

from attrs import define, field

from .. import MessageRun
from .bars import title_of
from .documents import Document
from .markup import (
    SHOWN_CHARS,
    aside,
    attribute,
    block,
    image,
    json_text,
    named,
    part,
    parts_list,
    shown,
)
from .text import count_of, format_milliseconds, format_size, format_time, shorten

_INPUTS = {"ask": "query", "find": "query", "put": "data", "update": "data", "step": "input"}
_OUTPUTS = {"ask": "response", "tool_call": "result"}
# A shorter text is repeated: it reads better than a link to where it was. What an action was told
# beside its input, a prompt or frames, is mostly read where it was new.
_LINKED_CHARS, _LINKED_BESIDE_CHARS = 120, 30


def _anchor_on_page(index: int) -> str:
    return f"#a{index}"


@define
class Shown:
    """What a page has shown, so that nothing is on it twice."""

    link: Callable[[int], str] = _anchor_on_page
    """Returns the address of an action, by its index."""
    frame_link: Callable[[int, int], str] | None = None
    """Returns the address of a frame as it was after an event; None for a page that stands
    alone."""
    served: str | None = None
    """The address of the session where the page is served; None for a page that stands alone."""
    day: str = ""
    """The day that the page names, in UTC: of a time on that day, it shows the time alone."""
    _texts: dict[bytes, str] = field(factory=dict)

    def time_of(self, time_ns: int) -> str:
        """Return a time as the page shows it."""
        time = format_time(time_ns)
        return time.removeprefix(f"{self.day} ") if self.day else time

    def place_of(self, text: str, where: str, least: int = _LINKED_BESIDE_CHARS) -> str | None:
        """Return a link to where the page has a text of at least ``least`` characters; None where
        it is new, and then it is on the page from now on. ``where``: the id of what it is in."""
        if len(text) < _LINKED_BESIDE_CHARS:
            return None
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        before = self._texts.get(key)
        if before is None:
            self._texts[key] = where
            return None
        if len(text) < least:
            return None
        place = "above" if before == where else f"in action {before[1:]}"
        return f"<a href=#{before}>{place}</a>"

    def block(self, text: str, where: str, size: int | None = None) -> str:
        """Return a text as HTML, or a link to where the page has it. ``size``: the whole content's,
        in bytes."""
        place = self.place_of(text, where, _LINKED_CHARS)
        if place is None:
            return block(text, size)
        return f"<p class=note>the same as {place}</p>"


def head(
    action: Document, page: Shown, *, anchor: str = "a", other: str = "", note: str = ""
) -> str:
    """Return the head of an action: its index, what it is, and when it was. ``note`` is HTML."""
    index = action["index"]
    more = [action["task"]] if action["task"] else []
    if action["duration_ms"]:
        more.append(format_milliseconds(action["duration_ms"]))
    more.append(page.time_of(action["time_ns"]))
    return _head_line(f"{anchor}{index}", f"{index}{other}", action, note, more)


def _head_line(where: str, number: str, made: Document, note: str, more: list[str]) -> str:
    """Return the head of an action or a call. ``note`` is HTML. A page has thousands of heads: so
    its attributes have no quotes where they need none."""
    kind, title = made["kind"], named(title_of(made["details"]), "")
    what = f" <b>{title}</b>" if title else ""
    return (
        f"<h2><a href=#{where}>{number}</a> <i class={kind}>{kind.replace('_', ' ')}</i>{what}"
        f"{note} <small>{shown(' · '.join(more), one_line=True)}</small></h2>"
    )


def article(
    action: Document,
    page: Shown,
    *,
    anchor: str = "a",
    name: str = "",
    kind: str | None = None,
) -> str:
    """Return a whole action. ``name``: its CSS class; ``kind``: what the page filters it by, where
    that is not what the action did."""
    classes = [name] if name else []
    if action["error"] is not None:
        classes.append("failed")
    looks = f' class="{" ".join(classes)}"' if classes else ""
    filtered = f' data-kind="{kind}"' if kind else ""
    return (
        f"<article id={anchor}{action['index']}{looks}{filtered}>"
        f"{head(action, page, anchor=anchor)}{_Parts(action, page, anchor).html()}</article>\n"
    )


def checkpoint_article(
    action: Document, checkpoint: Document, page: Shown, *, anchor: str = "a"
) -> str:
    """Return a checkpoint as one line that ends with its state."""
    frames, digest = checkpoint["snapshot"]["frame_count"], checkpoint["state_hash"]
    held = f"{count_of(frames, 'frame')}, state {digest[:16]}…"
    state = f' <span class=id title="{digest}">{held}</span>'
    line = head(action, page, anchor=anchor, note=state)
    return f"<article id={anchor}{action['index']} class=mark>{line}</article>\n"


def flight_article(started: Any, arguments: Any, page: Shown) -> str:
    """Return a call of which nobody said how it ended."""
    more = [started.task] if started.task else []
    if started.try_number > 1:
        more.append(f"try {started.try_number}")
    more.append(f"since {page.time_of(started.time_ns)}")
    where = f"s{started.call}"
    given = [] if arguments is None else [part("input", page.block(json_text(arguments), where))]
    made = {"kind": started.kind.value, "details": started.details}
    line = _head_line(where, "…", made, " <span class=state>in flight</span>", more)
    return (
        f'<article id={where} class=flight data-kind="in flight">{line}{parts_list(given)}'
        "</article>\n"
    )


class _Parts:
    """Everything of an action except its head."""

    def __init__(self, action: Document, page: Shown, anchor: str) -> None:
        self._action = action
        self._page = page
        self._where = f"{anchor}{action['index']}"

    def html(self) -> str:
        parts = (*self._input(), *self._output(), *self._frames(), *self._error())
        return parts_list(parts) + "".join((*self._messages(), *self._metadata(), *self._links()))

    def _block(self, text: str, size: int | None = None) -> str:
        return self._page.block(text, self._where, size)

    def _input(self) -> list[str]:
        action = self._action
        if action.get("arguments") is not None:
            name = "input" if action["kind"] == "step" else "arguments"
            return [part(name, self._block(json_text(action["arguments"])))]
        if action["input"] is None:
            return []
        return [part(_INPUTS.get(action["kind"], "input"), self._content(action["input"]))]

    def _output(self) -> list[str]:
        action = self._action
        if action["output"] is None:
            return []
        output = self._content(action["output"])
        if action["kind"] == "ask":
            output += self._reply()
        return [part(_OUTPUTS.get(action["kind"], "output"), output)]

    def _content(self, content: Document) -> str:
        if content.get("is_erased"):
            return "<p class=note>(erased)</p>"
        if "text" in content:
            return self._block(content["text"], content["size"])
        picture = image(content["base64"])
        if picture is not None:
            return picture
        note = f"<p class=note>{format_size(content['size'])} that are not text, in base64</p>"
        return note + self._block(content["base64"], content["size"])

    def _reply(self) -> str:
        """Return the tokens of a reply, and its chunks, folded."""
        reply = self._action["reply"]
        if reply is None:
            return ""
        names = ("input_tokens", "output_tokens", "cached_tokens")
        told = [f"{reply[n]} {n.replace('_', ' ')}" for n in names if reply[n] is not None]
        if reply["cost_usd"] is not None:
            told.append(f"{reply['cost_usd']:.6g} US dollars")
        chunks = reply["chunks"]
        note = f"<p class=note>{', '.join(told)}</p>" if told else ""
        if len(chunks) < 2 or len(self._action["output"].get("text", "")) > SHOWN_CHARS:
            return note
        # The script draws them: the page has the reply once.
        lengths = " ".join(map(str, chunks))
        title = f"it came in {len(chunks)} chunks"
        return f'{note}<p class="note chunks" data-lengths="{lengths}">{title}</p>'

    def _frames(self) -> list[str]:
        """Return the frames that an action found or changed, unless its title names them."""
        action, details = self._action, self._action["details"]
        if action["retrieval"] is not None:
            return self._retrieved()
        if action["kind"] == "find":
            frames = ", ".join(map(str, details["result_frames"])) or "none"
            return [part("found", f"<pre>{details['result_count']}: frames {shown(frames)}</pre>")]
        if action["kind"] == "put_many":
            return [part("frames", block(", ".join(map(str, details["frame_ids"]))))]
        if action["kind"] == "ask" and details["retrieved_frames"]:
            frames = ", ".join(map(str, details["retrieved_frames"]))
            return [part("retrieved", block(f"frames {frames}"))]
        return []

    def _retrieved(self) -> list[str]:
        """Return how the memory was searched, and what was found: each frame as it was then."""
        how = self._action["retrieval"]
        words = [f"{how['mode']} search of the memory after event {how['as_of']}, at most"]
        words.append(count_of(how["top_k"], "frame"))
        if how["parameters"]:
            words.append(f"where {json_text(how['parameters'])}")
        if not how["syntax"]:
            words.append("of plain text")
        if how["embedding"] is not None:
            words.append(f"with an embedding {how['embedding_model'] or ''}")
        items = [self._item(item, how["as_of"]) for item in self._action["context"]]
        found = f"<ol class=hits>{''.join(items)}</ol>" if items else "<pre>nothing</pre>"
        return [part("searched", f"<pre>{shown(' '.join(words))}</pre>"), part("found", found)]

    def _item(self, item: Document, as_of: int) -> str:
        name = f"frame {item['frame_id']}"
        if self._page.frame_link is not None:
            href = self._page.frame_link(item["frame_id"], as_of)
            name = f'<a href="{href}">{name}</a>'
        name = f"{name} <b>{item['score']:.3g}</b>"
        if item["text"] is None:
            return f"<li><h4>{name}</h4><p class=note>(erased)</p>"
        place = self._page.place_of(item["text"], self._where)
        if place is not None:
            return f"<li><h4>{name} as {place}</h4>"
        return f"<li><h4>{name}</h4>{block(item['text'])}"

    def _error(self) -> list[str]:
        error = self._action["error"]
        if error is None:
            return []
        lines = [error, *self._action.get("traceback", ())]
        return [part("error", f"<pre class=error>{'<br>'.join(map(shown, lines))}</pre>")]

    def _messages(self) -> list[str]:
        messages = self._action.get("messages")
        if not messages:
            return []
        total, new, out = 0, 0, []
        for is_run, some in groupby(messages, key=lambda one: isinstance(one, MessageRun)):
            if is_run:
                runs = list(some)
                out.append((self._earlier(total + 1, runs), ""))
                total += sum(run.count for run in runs)
            else:
                own = [self._message(message) for message in some]
                out += own
                total, new = total + len(own), new + len(own)
        title = count_of(total, "message")
        if not any(body for _, body in out):
            told = ", ".join(name for name, _ in out)
            return [f"<p class=note>{title} in the prompt: {told}</p>"]
        title += f", {new} new" if new < total else ""
        parts = (f"<h4>{name}</h4>{body}" for name, body in out)
        return [aside(f"{title} in the prompt", f"<div class=messages>{''.join(parts)}</div>")]

    def _earlier(self, first: int, runs: list[MessageRun]) -> str:
        """Say where messages are that earlier asks have. ``first``: the number of the first."""
        last = first + sum(run.count for run in runs) - 1
        links = [
            f'<a href="{attribute(self._page.link(index))}">action {index}</a>'
            for index in dict.fromkeys((runs[0].index, runs[-1].index))
        ]
        return f"{first if first == last else f'{first}-{last}'} as in {' to '.join(links)}"

    def _message(self, message: Any) -> tuple[str, str]:
        """Return a message's role as HTML, and what it says; nothing where the page has that, and
        the role says where."""
        role, body = "message", ""
        if isinstance(message, dict):
            role = str(message.get("role", role))
            content = message.get("content")
            if not set(message) - {"role", "content"}:
                if isinstance(content, str):
                    place = self._page.place_of(content, self._where)
                    if place is not None:
                        return f"{named(role, '', 40)} as {place}", ""
                    body = block(content)
                elif isinstance(content, list):
                    body = "".join(map(self._piece, content))
        return named(role, "", 40), body or self._block(json_text(message))

    def _piece(self, piece: Any) -> str:
        """Return a piece of a message: a text or an image where it is one, otherwise as it is."""
        match piece:
            case {"type": "text", "text": str(text), **rest} if not rest:
                return self._block(text)
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                picture = image(url.partition(";base64,")[2], "image in the prompt")
            case {"type": "image", "source": {"type": "base64", "data": str(data)}}:
                picture = image(data, "image in the prompt")
            case _:
                picture = None
        return picture or self._block(json_text(piece))

    def _metadata(self) -> list[str]:
        metadata = self._action["metadata"]
        if not metadata:
            return []
        names = shorten(", ".join(map(str, metadata)), 80)
        return [aside(f"metadata: {names}", self._block(json_text(metadata)))]

    def _links(self) -> list[str]:
        if self._page.served is None or self._action["kind"] != "ask":
            return []
        address = f"{self._page.served}/why/{self._action['index']}"
        return [f'<p class=note><a href="{address}">why this answer?</a></p>']
