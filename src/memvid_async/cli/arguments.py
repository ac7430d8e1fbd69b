"""What the commands share: their arguments, the search for a session, and how they run."""

from __future__ import annotations

import base64
import contextlib
import difflib
import json
import math
import os
import re
import stat
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeVar, cast
from uuid import UUID

import anyio
import attrs
import click
from attrs import frozen

from .. import (
    Action,
    ActionKind,
    FrameFilters,
    Limits,
    SessionNotFoundError,
    SessionSummary,
    Store,
    StoreView,
)
from ..view.text import read_time, shorten
from .addresses import is_address, note_unreachable
from .exits import AnswerError

Command = TypeVar("Command", bound=Callable[..., Any])

_LISTED_CANDIDATES = 5
# The most that a file with an embedding may hold: some hundred thousand numbers.
_SHORT_BYTES = 4 * 1024 * 1024
_LIMIT_NAMES = [field.name for field in attrs.fields(Limits)]

file_argument = click.argument("file", type=click.Path(readable=False))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def run(command: Callable[..., Awaitable[int]], *arguments: object) -> int:
    """Run a coroutine function and return its exit status."""
    return anyio.run(_run, command, arguments)


async def _run(command: Callable[..., Awaitable[int]], arguments: tuple[object, ...]) -> int:
    for one in arguments:
        if isinstance(one, str) and is_address(one):
            await note_unreachable(one)
    return await command(*arguments)


class TakesSession(click.Command):
    """A command that takes sessions, the newest of which may be named as -1, the one before as
    -2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what counts from the newest from being taken for an option."""
        end = args.index("--") if "--" in args else len(args)
        marked = [_MARK + one if _FROM_NEWEST(one) else one for one in args[:end]]
        try:
            return super().parse_args(ctx, marked + args[end:])
        except click.UsageError as error:
            # It quotes the value that was typed. Click's stubs take the message for final.
            vars(error)["message"] = error.message.replace(repr(_MARK)[1:-1], "")
            raise


def as_typed(argument: str) -> str:
    """Return an argument of a :class:`TakesSession` as it was typed."""
    return argument.removeprefix(_MARK)


_MARK = "\0"
_FROM_NEWEST = re.compile(r"-[1-9]\d{0,8}").fullmatch


class FiniteRange(click.FloatRange):
    """A range of numbers, of which neither infinity nor NaN is one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


async def find_session(store: Store, wanted: str | None) -> UUID:
    """Return the session that an id, the beginning of an id, or a name fits; None: the newest.

    ``-1`` is the newest, ``-2`` the one before. A whole name goes before the beginning of an id.

    :raises AnswerError: when it fits no session, or several.
    """
    if wanted is None:
        newest = await store.list_sessions(include_open=True, newest_first=True, limit=1)
        if not newest:
            raise AnswerError(f"{store.path} holds no session")
        return newest[0].session_id
    wanted = as_typed(wanted)
    with contextlib.suppress(ValueError, SessionNotFoundError):
        # A whole id is found without a list of all sessions.
        return (await store.get_summary(UUID(wanted))).session_id
    summaries = await store.list_sessions(include_open=True)
    if _FROM_NEWEST(wanted) and not any(summary.name == wanted for summary in summaries):
        if len(summaries) < -int(wanted):
            held = f"{len(summaries)} sessions" if summaries else "no session"
            raise AnswerError(f"{store.path} holds {held}")
        return summaries[int(wanted)].session_id
    found = [summary for summary in summaries if summary.name == wanted]
    found = found or [summary for summary in summaries if _is_id_of(summary, wanted)]
    if not found:
        raise AnswerError(f"no session has the id or the name {shorten(wanted, 80)!r}")
    if len(found) > 1:
        names = [f"{s.session_id} {shorten(s.name or '', 40)}" for s in found[:_LISTED_CANDIDATES]]
        more = ", …" if len(found) > len(names) else ""
        raise AnswerError(
            f"{shorten(wanted, 80)!r} fits {len(found)} sessions: {', '.join(names)}{more}"
        )
    return found[0].session_id


def _is_id_of(summary: SessionSummary, wanted: str) -> bool:
    digits = wanted.replace("-", "").lower()
    return bool(digits) and summary.session_id.hex.startswith(digits)


def read_json(text: str) -> Any:
    """Parse a JSON value; ``{"$base64": text}`` stands for bytes, as in what the commands print.

    :raises ValueError: when it is not JSON, or nested too deep; NaN and Infinity are not JSON.
    """
    try:
        return json.loads(text, parse_constant=_not_json, object_hook=_bytes_or_map)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _bytes_or_map(value: dict[str, Any]) -> Any:
    if value.keys() == {"$base64"} and isinstance(value["$base64"], str):
        return base64.b64decode(value["$base64"], validate=True)
    return value


def read_pairs(_: click.Context, __: click.Parameter, options: tuple[str, ...]) -> dict[str, Any]:
    """Return the pairs of options such as ``year=2026``; a value that is not JSON is a text."""
    pairs = {}
    for pair in options:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE")
        try:
            pairs[key] = read_json(value)
        except (ValueError, RecursionError):
            pairs[key] = value
    return pairs


def _read_time(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return read_time(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time such as 2026-03-01T12:00") from None


def _read_short(path: str) -> str:
    """Return the text of a short file, such as one with an embedding.

    :raises ValueError: when it is longer, not a regular file (a pipe may never end), or not UTF-8.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(_SHORT_BYTES + 1)
    if len(data) > _SHORT_BYTES:
        raise ValueError(f"it is longer than {_SHORT_BYTES} bytes")
    return data.decode()


def _read_embedding(_: click.Context, __: click.Parameter, option: str | None) -> Any:
    if option is None:
        return None
    try:
        text = _read_short(option[1:]) if option.startswith("@") else option
        value = read_json(text)
    except OSError as error:
        raise click.BadParameter(f"{option[1:]}: {error.strerror}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise click.BadParameter(
            "it must be a JSON array of numbers, or @ and a regular file with one, "
            f"of at most {_SHORT_BYTES:,} bytes"
        )
    return value


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Combine several options into one decorator."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


where_option = click.option(
    "--where",
    metavar="KEY=VALUE",
    multiple=True,
    callback=read_pairs,
    help="Only with this metadata: JSON, or else text. May be repeated.",
)
session_option = click.option(
    "--session", help="Only this session: an id, the beginning of one, a name, or -1."
)

metadata_option = click.option(
    "--metadata",
    metavar="KEY=VALUE",
    multiple=True,
    callback=read_pairs,
    help="A metadata value: JSON, or else text. May be repeated.",
)


action_options = together(
    click.option(
        "--kind",
        type=click.Choice([kind.value for kind in ActionKind]),
        help="Only actions of this kind.",
    ),
    click.option("--task", help="Only those of this task."),
    click.option("--tool", help="Only those of this tool, step or model."),
    click.option("--failed", is_flag=True, help="Only those that failed."),
)


@frozen
class Selected:
    """Which actions a command prints; what is None is not asked for."""

    kind: str | None = None
    task: str | None = None
    tool: str | None = None
    failed: bool = False

    def fits(self, action: Action) -> bool:
        """Whether an action is to be printed."""
        details = action.details
        names = (getattr(details, "name", None), getattr(details, "model", None))
        return (
            (self.kind is None or action.kind == self.kind)
            and (self.task is None or action.task == self.task)
            and (self.tool is None or self.tool in names)
            and (not self.failed or action.error is not None)
        )

    @property
    def is_any(self) -> bool:
        """Whether all actions fit."""
        return self == Selected()


def limit_option(**raised: int) -> Callable[[Command], Command]:
    """Return the option of a command that takes something in: other limits than the usual ones.

    ``raised``: the limits that this command raises by itself. The parameter is a ``Limits``.
    """

    def read(_context: click.Context, _option: click.Parameter, pairs: tuple[str, ...]) -> Limits:
        values = dict(raised)
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name not in _LIMIT_NAMES:
                close = difflib.get_close_matches(name, _LIMIT_NAMES, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise click.BadParameter(f"there is no limit {shorten(name, 80)!r}{hint}")
            if not value.isascii() or not value.isdigit() or int(value[:20]) == 0:
                raise click.BadParameter(f"{name} needs a whole number above 0, as {name}=1000000")
            values[name] = int(value[:20])
        return Limits(**values)

    return click.option(
        "--limit",
        "limits",
        metavar="NAME=VALUE",
        multiple=True,
        callback=read,
        help="Another limit, such as value_bytes=4194304. May be repeated.",
    )


frame_filter_options = together(
    click.option(
        "--tag", "tags", multiple=True, help="Frames with this tag; repeated: with all of them."
    ),
    click.option("--uri", help="Frames whose URI begins with this."),
    click.option("--title", help="Frames with exactly this title."),
    click.option("--media-type", help="Frames of this media type."),
    metadata_option,
)

filter_options = together(
    frame_filter_options,
    click.option(
        "--since",
        "since_ns",
        metavar="TIME",
        callback=_read_time,
        help="Frames put at this time or later.",
    ),
    click.option(
        "--until",
        "until_ns",
        metavar="TIME",
        callback=_read_time,
        help="Frames put before this time.",
    ),
)

moment_options = together(
    click.option(
        "--at-sequence",
        type=click.IntRange(min=0),
        help="The memory as it was after this event.",
    ),
    click.option(
        "--at-time",
        metavar="TIME",
        callback=_read_time,
        help="The memory as it was at this time.",
    ),
)


def search_options(top_k: int) -> Callable[[Command], Command]:
    """Options that say how to search. ``top_k``: the default of how many frames."""
    return together(
        click.option(
            "-k",
            "--top-k",
            type=click.IntRange(min=1),
            default=top_k,
            show_default=True,
            help="How many frames at most.",
        ),
        click.option(
            "--mode",
            type=click.Choice(["lexical", "semantic", "hybrid"]),
            default="lexical",
            show_default=True,
            help="By words, by an embedding, or by both.",
        ),
        click.option(
            "--embedding",
            metavar="ARRAY|@PATH",
            callback=_read_embedding,
            help="The query's embedding: a JSON array, or @ and a file with one.",
        ),
        click.option("--embedding-model", help="The model that made the embedding."),
        click.option(
            "--syntax/--no-syntax",
            default=True,
            show_default=True,
            help="Whether quotes, -word, word* and title:word mean more than words.",
        ),
    )


def check_search(mode: str, embedding: Any) -> None:
    """Refuse a mode that needs an embedding where there is none."""
    if mode != "lexical" and embedding is None:
        raise click.UsageError(f"--mode {mode} needs --embedding")


def used_filters(options: Mapping[str, Any]) -> FrameFilters:
    """Return the filters among a command's options that were used."""
    values = {name: options.get(name) for name in FrameFilters.__annotations__}
    return cast("FrameFilters", {name: v for name, v in values.items() if v not in (None, (), {})})


async def at_moment(
    store: Store, at_sequence: int | None, at_time: int | None
) -> Store | StoreView:
    """Return the store, or the view of it that the options ask for."""
    if at_sequence is None and at_time is None:
        return store
    if at_sequence is not None and at_time is not None:
        raise click.UsageError("--at-sequence and --at-time name two moments; use only one")
    return await store.at(sequence=at_sequence, time_ns=at_time)
