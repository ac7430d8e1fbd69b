"""What a torture writer records: a function of who writes it and how many came before, so that a
reader can tell, by value, what it must be."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import frozen

from memvid_async import Action, ActionKind, AskDetails, Content, FindDetails, ToolCallDetails


@frozen
class Made:
    """One ``record_…`` call."""

    method: str
    args: tuple[Any, ...]
    keywords: dict[str, Any]


# Large enough for events of their own; shared by all writers.
_SHARED = [f"shared {i} ".encode() * 200 for i in range(4)]


def _blob(draw: random.Random, tag: str) -> str | bytes:
    pick = draw.random()
    if pick < 0.1:
        return draw.choice(_SHARED)
    if pick < 0.25:
        return f"{tag} " * draw.randint(100, 600)
    return f"{tag} {draw.random()}"


def make(writer: int, number: int) -> Made:
    """The call that writer ``writer`` makes after ``number`` others."""
    draw = random.Random(writer << 32 | number)
    tag = f"{writer}/{number}"
    keywords: dict[str, Any] = {"task": tag, "duration_ms": draw.randint(0, 1000)}
    if draw.random() < 0.3:
        keywords["metadata"] = {"tag": tag, "numbers": [draw.randint(0, 2**40), None, True]}
    if draw.random() < 0.2:
        keywords["error"] = f"error of {tag}"
    kind = draw.choice(["put", "put", "ask", "find", "tool_call", "update"])
    if kind in ("put", "update"):
        return Made(f"record_{kind}", (draw.randint(0, 2**40), _blob(draw, tag)), keywords)
    if kind == "find":
        frames = [draw.randint(0, 99) for _ in range(draw.randint(0, 4))]
        keywords |= {"mode": "lex", "result_count": len(frames), "result_frames": frames}
        return Made("record_find", (f"find {tag}",), keywords)
    if kind == "tool_call":
        keywords |= {"arguments": {"tag": tag, "blob": _blob(draw, tag)}, "result": f"did {tag}"}
        return Made("record_tool_call", ("tool",), keywords)
    messages = [{"role": "user", "content": f"{writer} says {i}"} for i in range(number % 6)]
    keywords |= {"provider": "p", "model": "m", "response": _blob(draw, tag), "messages": messages}
    return Made("record_ask", (f"ask {tag}",), keywords)


def difference(
    action: Action,
    made: Made,
    data: Callable[[Content], bytes],
    arguments: Callable[[Action], Any],
    messages: Callable[[Action], list[Any]],
) -> str | None:
    """What is wrong with an action that should be this call's; None when it is right."""
    given = made.keywords
    wanted: dict[str, Any] = {
        "kind": made.method.removeprefix("record_"),
        "task": given["task"],
        "error": given.get("error"),
        "metadata": given.get("metadata", {}),
        "duration": given["duration_ms"],
        "frames": (),
        "input": None,
        "output": given.get("response", given.get("result")),
        "rest": None,
    }
    details = action.details
    rest: Any = None
    kind = action.kind
    if kind in (ActionKind.PUT, ActionKind.UPDATE):
        wanted |= {"frames": made.args[:1], "input": made.args[1]}
    elif kind is ActionKind.TOOL_CALL:
        assert isinstance(details, ToolCallDetails)
        wanted["rest"] = (made.args[0], given.get("arguments"))
        rest = (details.name, arguments(action))
    else:
        wanted["input"] = made.args[0]
    if isinstance(details, FindDetails):
        frames = tuple(given.get("result_frames", ()))
        wanted |= {"frames": frames, "rest": (given.get("mode"), len(frames))}
        rest = (details.mode, details.result_count)
    elif isinstance(details, AskDetails):
        wanted["rest"] = (given.get("provider"), given.get("model"), given.get("messages"))
        rest = (details.provider, details.model, messages(action))
    found = {
        "kind": str(kind),
        "task": action.task,
        "error": action.error,
        "metadata": dict(action.metadata),
        "duration": action.duration_ms,
        "frames": action.affected_frames,
        "input": _read(action.input, data) if kind is not ActionKind.TOOL_CALL else None,
        "output": _read(action.output, data),
        "rest": rest,
    }
    wanted["input"], wanted["output"] = _raw(wanted["input"]), _raw(wanted["output"])
    for name, value in wanted.items():
        if found[name] != value:
            return f"{name} is {found[name]!r:.200}, not {value!r:.200}"
    return None


def _raw(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _read(content: Content | None, data: Callable[[Content], bytes]) -> bytes | None:
    return None if content is None else data(content)
