"""The memory as pages: its frames at any moment, a search of it, and one frame with its history."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from .. import (
    ContentNotFoundError,
    Event,
    Frame,
    FrameDeleted,
    FrameErased,
    FrameNotFoundError,
    FramesPut,
    FrameUpdated,
    Store,
    StoreView,
)
from .documents import plain
from .forms import form, number_of, query_of, search_field
from .gathered import Gathered
from .markup import attribute, block, facts_list, json_text, named, part, parts_list, shown
from .shell import LIST_KEYS, end, head, start
from .text import count_of, format_size, format_time, shorten

_THEN = "<h2>As it was</h2>"
# About as many events as one read of the log has.
_NEAR = 2_000
FRAMES = 50
"""How many frames a page shows."""


async def memory_page(store: Store, asked: Mapping[str, str]) -> AsyncGenerator[str, None]:
    """Yield the page of the memory at a moment: its newest frames, or those that a search finds."""
    query, moment = asked.get("q", "").strip(), _moment(store, asked)
    place: Store | StoreView = store
    if moment < store.last_sequence:
        place = await store.at(sequence=moment)
    yield head(live=True) + start("Memory", live=True, here="/memory")
    then = "now" if place is store else f"after event {moment}"
    yield f"<main><header><h1>Memory</h1></header>{_form(store, query, moment)}"
    yield f'<p class="note">As it is {then}.</p><div id="list"><ol class="rows matches">'
    if query:
        found = await place.find(query, top_k=FRAMES)
        for hit in found.hits:
            yield _row(hit.frame_id, moment, hit.title or hit.uri, f"{hit.score:.3g}", hit.snippet)
        count = len(found.hits)
        last = None
    else:
        after, count, last = number_of(asked.get("after", "")), 0, None
        async for frame in place.frames(newest_first=True, after=after, limit=FRAMES):
            count, last = count + 1, frame.frame_id
            size = format_size(frame.content.size)
            preview = frame.content.preview
            yield _row(frame.frame_id, moment, frame.title or frame.uri, size, preview)
    yield "</ol>" + ("" if count else '<p class="note">No frame fits.</p>')
    if last is not None and count == FRAMES:
        older = attribute(query_of({"at": asked.get("at", ""), "after": str(last)}))
        yield f'<nav class="pages" aria-label="More"><a rel="next" href="?{older}">older</a></nav>'
    yield "</div>" + end(LIST_KEYS, live=True)


def _moment(store: Store, asked: Mapping[str, str]) -> int:
    given = number_of(asked.get("at", ""))
    return store.last_sequence if given is None else min(given, store.last_sequence)


def _form(store: Store, query: str, moment: int) -> str:
    slider = (
        f'<label class="wide">as it was after event <output>{moment}</output> '
        f'<input type="range" name="at" min="0" max="{store.last_sequence}" value="{moment}">'
        "</label>"
    )
    return form("/memory", [search_field("Words to find", query), slider], "Find")


def _row(frame_id: int, moment: int, title: str | None, note: str, text: str) -> str:
    return (
        f'<li><a href="/memory/{frame_id}?at={moment}">frame {frame_id}</a> '
        f'<b>{named(title or "", "")}</b> <span class="soft">{note}</span>'
        f"<pre>{shown(shorten(text, 300))}</pre></li>"
    )


async def frame_page(
    store: Store, gathered: Gathered, frame_id: int, asked: Mapping[str, str]
) -> AsyncGenerator[str, None]:
    """Yield the page of a frame as it was at a moment, and every change of it."""
    moment = _moment(store, asked)
    place = await store.at(sequence=moment)
    yield head(live=True) + start(f"Frame {frame_id}", live=True)
    yield f'<main><header><h1>Frame {frame_id}</h1><p class="note">As it was after event {moment}'
    yield f' · <a href="/memory?at={moment}">the memory then</a></p></header><div id="list">'
    try:
        yield await _frame(store, await place.get(frame_id))
    except FrameNotFoundError:
        yield '<p class="note">It was not in the memory then.</p>'
    yield '<h2>Its history</h2><ol class="rows matches">'
    await gathered.catch_up()
    async for event in _events(store, gathered.frame_changes(frame_id)):
        told = _change(event.payload, frame_id)
        if told is not None:
            yield (
                f'<li><a href="?at={event.sequence}">event {event.sequence}</a> '
                f'<span class="soft">{format_time(event.time_ns)}</span>{told}</li>'
            )
    yield "</ol></div>" + end(LIST_KEYS, live=True)


async def _events(store: Store, sequences: Sequence[int]) -> AsyncGenerator[Event, None]:
    """Yield the events with these sequences; those that lie near each other are read together."""
    wanted, place = set(sequences), 0
    while place < len(sequences):
        begin = place
        place += 1
        while place < len(sequences) and sequences[place] - sequences[place - 1] < _NEAR:
            place += 1
        async with store.subscribe(after=sequences[begin] - 1) as events:
            async for event in events:
                if event.sequence in wanted:
                    yield event
                if event.sequence >= sequences[place - 1]:
                    break


async def _frame(store: Store, frame: Frame) -> str:
    facts = {
        "put": format_time(frame.created_ns).partition(".")[0],
        "changed": format_time(frame.updated_ns).partition(".")[0],
        "size": format_size(frame.content.size),
    }
    parts = [
        part(name, f"<pre>{shown(value)}</pre>")
        for name, value in (
            ("title", frame.title),
            ("uri", frame.uri),
            ("type", frame.media_type),
            ("tags", ", ".join(frame.tags)),
        )
        if value
    ]
    if frame.metadata:
        parts.append(part("metadata", block(json_text(plain(frame.metadata)))))
    parts.append(part("content", await _body(store, frame.content)))
    then = f"{_THEN}{parts_list(parts)}"
    return f'{facts_list(facts)}<article data-kind="frame">{then}</article>'


async def _body(store: Store, content: Any) -> str:
    try:
        data = await store.read_content(content)
    except ContentNotFoundError:
        return '<p class="note">(erased)</p>'
    try:
        return block(data.decode(), content.size)
    except UnicodeDecodeError:
        return f'<p class="note">{format_size(content.size)} that are not text</p>'


def _change(payload: object, frame_id: int) -> str | None:
    """Say what an event did to a frame; None where it did nothing."""
    match payload:
        case FramesPut() if frame_id in payload.frame_ids:
            frame = payload[frame_id - payload.frame_id]
            if isinstance(frame, FrameErased):
                return " put, and erased since"
            together = "" if len(payload) == 1 else f", one of {count_of(len(payload), 'frame')}"
            return f" put{together}<pre>{shown(shorten(frame.content.preview, 300))}</pre>"
        case FrameUpdated(frame_id=found) if found == frame_id:
            names = ", ".join(payload.changes)
            content = payload.changes.get("content")
            text = "" if content is None else f"<pre>{shown(shorten(content.preview, 300))}</pre>"
            where = f" in the fork {payload.branch}" if payload.branch else ""
            return f" changed{where}: {shown(names)}{text}"
        case FrameDeleted(frame_id=found) if found == frame_id:
            return " deleted"
        case FrameErased(frame_id=found) if found == frame_id:
            return " changed, and erased since"
    return None
