"""What a session holds, each thing once: the measure of its exports."""

import json

from attrs import asdict

from memvid_async import MessageRun
from memvid_async.view.documents import new_messages, plain, read_action
from memvid_async.view.text import format_time


async def distinct_bytes(store, session):
    """The size of a session's distinct content in UTF-8.

    That is each value that was recorded, once: texts; arguments, metadata and messages as JSON on
    one line; the names of tools, models, tasks and fields of details; errors. And of each action
    its index, its time to the millisecond, and how long it took.
    """
    values, facts = set(), 0
    for action, new in zip(
        session.actions, await new_messages(store, session.actions), strict=True
    ):
        own = [message for message in new if not isinstance(message, MessageRun)]
        document = await read_action(store, action, full=True, messages=own)
        facts += len(f"{action.index}{format_time(action.time_ns)}")
        facts += len(f"{action.duration_ms:.3g}")
        values |= {action.kind.value, action.task or "", action.error or ""}
        values |= set(_leaves([document["details"], document["reply"], document["retrieval"]]))
        values |= {_line(document[name]) for name in ("arguments", "metadata") if name in document}
        values |= {item["text"] or "" for item in document.get("context", ())}
        values |= set(document.get("traceback", ()))
        # The arguments are the input, as JSON.
        read = ("output",) if document.get("arguments") is not None else ("input", "output")
        for content in filter(None, (document[name] for name in read)):
            values.add(content.get("text") or content.get("base64", ""))
        for message in own:
            text = message.get("content") if isinstance(message, dict) else None
            values.add(text if isinstance(text, str) else _line(message))
    values |= set(_leaves([session.name, plain(session.metadata)]))
    values |= {str(asdict(checkpoint)) for checkpoint in session.checkpoints}
    return facts + sum(len(value.encode("utf-8", "replace")) for value in values)


def _line(value):
    return json.dumps(value, ensure_ascii=False)


def _leaves(value):
    if isinstance(value, (list, dict)):
        for item in value if isinstance(value, list) else value.values():
            yield from _leaves(item)
    elif value is not None:
        yield str(value)
