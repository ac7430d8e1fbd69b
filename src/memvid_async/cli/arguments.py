"""What the commands share: their arguments, the session that is meant, and how they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import anyio
import click

from .. import SessionSummary, Store
from .exits import AnswerError
from .text import shorten

_LISTED_CANDIDATES = 5

file_argument = click.argument("file", type=click.Path(readable=False))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def run(command: Callable[..., Awaitable[int]], *arguments: object) -> int:
    """Run a coroutine function to its exit status."""
    return anyio.run(command, *arguments)


async def find_session(store: Store, wanted: str | None) -> UUID:
    """The session that an id, the beginning of one, or a name fits; None stands for the newest.

    :raises AnswerError: when it fits none, or several.
    """
    summaries = await store.list_sessions(include_open=True)
    if wanted is None:
        if not summaries:
            raise AnswerError(f"{store.path} holds no session")
        return summaries[-1].session_id
    found = [summary for summary in summaries if _fits(summary, wanted)]
    if not found:
        raise AnswerError(f"no session has the id or the name {shorten(wanted, 80)!r}")
    if len(found) > 1:
        names = [f"{s.session_id} {shorten(s.name or '', 40)}" for s in found[:_LISTED_CANDIDATES]]
        more = ", …" if len(found) > len(names) else ""
        raise AnswerError(
            f"{shorten(wanted, 80)!r} fits {len(found)} sessions: {', '.join(names)}{more}"
        )
    return found[0].session_id


def _fits(summary: SessionSummary, wanted: str) -> bool:
    digits = wanted.replace("-", "").lower()
    return summary.name == wanted or (bool(digits) and summary.session_id.hex.startswith(digits))
