"""Deleting what is old: sessions, or the keys of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from attrs import evolve, field, frozen

from ..config import StoreConfig
from ..core.reports import CompactReport
from ..engine.engine import Engine
from ..errors import InvalidValueError, SessionNotFoundError, VersionConflictError
from ..events.event import SessionSummary
from ..events.printing import counted
from ..events.values import as_plain, checked_time
from ..memory.collection import Collection
from ..memory.collection_steps import Check, Delete, Step
from ..memory.key_recall import KeyRecall
from ..recording.command_intake import CommandIntake
from ..recording.prepare_values import prepare_count, prepare_flag
from ..search import KeptKey
from .folding import fold_projections
from .sessions import Sessions

# Keys deleted by one command, each with a condition.
_AT_ONCE = 1024


@frozen
class PruneReport:
    """What :meth:`Store.prune` deleted; with ``dry_run`` what it would have deleted."""

    sessions: tuple[UUID, ...] = field(repr=counted("session"))
    """The sessions, oldest first."""
    keys: tuple[str, ...] = field(repr=counted("key"))
    """The keys of the collection, in order."""
    kept: int
    """How many sessions or keys were looked at and are left."""
    event_count: int
    """How many events belong to what was deleted; a key counts as one."""
    dry_run: bool
    """Whether nothing was deleted."""
    compacted: CompactReport | None = None
    """What compacting afterwards did; None where it was not asked for, or not due."""


@frozen
class _Chosen:
    """What is to be deleted."""

    older_than_ns: int | None
    keep_last: int
    where: Mapping[str, Any]

    def of(self, newest_first: Iterable[Any], ended_ns: Callable[[Any], int]) -> list[Any]:
        """Return those that are to be deleted, oldest first."""
        found = islice(newest_first, self.keep_last, None)
        before = self.older_than_ns
        return [one for one in found if before is None or ended_ns(one) <= before][::-1]


class Pruning:
    """The part of a store that deletes what is old."""

    def __init__(
        self,
        engine: Engine,
        intake: CommandIntake,
        sessions: Sessions,
        keys: KeyRecall,
        config: StoreConfig,
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._sessions = sessions
        self._keys = keys
        self._config = config

    async def prune(
        self,
        *,
        older_than: timedelta | float | None = None,
        keep_last: int | None = None,
        where: Mapping[str, Any] | None = None,
        collection: str | None = None,
        dry_run: bool = False,
        compact_share: float | None = None,
    ) -> PruneReport:
        """Delete sessions that have ended, or with ``collection`` keys of that collection.

        ``older_than``: those that ended, or whose key was changed last, at least this long ago: a
        :class:`timedelta`, or seconds. ``keep_last``: but for the newest ones, at most this many.
        ``where``: of sessions only those with these metadata, as :meth:`list_sessions` takes them;
        of keys with these conditions, as :meth:`Collection.scan` takes them. ``dry_run``: delete
        nothing, and report what would be deleted. ``compact_share``: then compact, if at least this
        share of the log's events (0 to 1) belongs to what was deleted.

        A key that is changed meanwhile stays. Without :meth:`compact` the bytes stay in the file.

        :raises InvalidValueError: when none of the first three is passed, or one cannot be.
        """
        prepare_flag(dry_run, "dry_run")
        if older_than is None and keep_last is None and where is None:
            raise InvalidValueError("say what to delete: older_than, keep_last or where")
        if where is not None and not isinstance(where, Mapping):
            raise InvalidValueError(f"where must be a map, not {type(where).__name__}")
        chosen = _Chosen(
            None if older_than is None else self._moment(older_than),
            0 if keep_last is None else prepare_count(keep_last, "keep_last"),
            {} if where is None else where,
        )
        share = None if compact_share is None else _share(compact_share)
        if collection is None:
            report = await self._prune_sessions(chosen, dry_run=dry_run)
        else:
            named = Collection(collection, self._engine, self._intake, self._keys, self._config)
            report = await self._prune_keys(chosen, named, dry_run=dry_run)
        last = max(1, self._engine.view.state.last_sequence)
        if share is None or dry_run or not report.event_count or report.event_count / last < share:
            return report
        alone, log = self._intake.run_alone, self._engine.log
        compacted = await log.compact(alone, lambda _done, _total: None, fold_projections)
        return evolve(report, compacted=compacted)

    def _moment(self, older_than: Any) -> int:
        """Return the time before which something is older than asked for."""
        seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        seconds = as_plain(seconds)
        if type(seconds) not in (int, float) or not 0 <= seconds < 2**63:
            raise InvalidValueError(
                f"older_than must be a timedelta, or seconds of at least 0, not {older_than!r:.80}"
            )
        return self._now() - int(seconds * 10**9)

    def _now(self) -> int:
        return checked_time(self._config.clock())

    async def _prune_sessions(self, chosen: _Chosen, *, dry_run: bool) -> PruneReport:
        metadata = dict(chosen.where) or None
        found = await self._sessions.list_sessions(newest_first=True, metadata=metadata)
        gone: Sequence[SessionSummary] = chosen.of(found, lambda one: one.ended_ns or 0)
        deleted = []
        for one in gone:
            # Somebody else may have deleted it.
            with suppress(SessionNotFoundError):
                if not dry_run:
                    await self._sessions.delete_session(one.session_id)
                deleted.append(one)
        # Its start and its end besides.
        events = sum(one.action_count + 2 for one in deleted)
        ids = tuple(one.session_id for one in deleted)
        return PruneReport(ids, (), len(found) - len(deleted), events, dry_run)

    async def _prune_keys(
        self, chosen: _Chosen, collection: Collection, *, dry_run: bool
    ) -> PruneReport:
        number = self._engine.view.state.collections.numbers.get(collection.name, 0)
        found = await self._keys.newest(number, self._now(), chosen.where)
        gone = chosen.of(found, lambda one: one.time_ns)
        deleted: list[str] = []
        for at in range(0, len(gone), _AT_ONCE):
            some = gone[at : at + _AT_ONCE]
            deleted += [one.key for one in some] if dry_run else await _delete(collection, some)
        return PruneReport(
            (), tuple(sorted(deleted)), len(found) - len(deleted), len(deleted), dry_run
        )


async def _delete(collection: Collection, some: Sequence[KeptKey]) -> list[str]:
    """Delete keys that have not changed since, and return them."""
    left = list(some)
    while left:
        steps: list[Step] = [Check(one.key, one.version) for one in left]
        try:
            await collection.apply([*steps, *(Delete(one.key) for one in left)])
        except VersionConflictError as conflict:
            left = [one for one in left if one.key != conflict.key]
        else:
            break
    return [one.key for one in left]


def _share(value: Any) -> float:
    share = as_plain(value)
    if type(share) not in (int, float) or not 0 <= share <= 1:
        raise InvalidValueError(f"compact_share must be a number from 0 to 1, not {value!r:.80}")
    return float(share)
