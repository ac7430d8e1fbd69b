"""A pytest plugin: the Agents SDK's own tests get our session instead of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import agents
import agents.memory
import pytest
from agents.extensions.memory import async_sqlite_session

from memvid_async.interop.openai_agents import MemvidSession

from .opened_stores import closed_stores, leave_out, opened  # noqa: F401 - a fixture

_OWN_INIT = MemvidSession.__init__


# Tests that look into the SQLite of the session that they were written for.
OF_SQLITE = {
    "test_cancelled_suffix_transaction_settles_before_newer_append",
    "test_failed_encrypted_suffix_transaction_preserves_original_tokens",
    "test_settled_clear_failure_invalidates_response_chain",
    "test_settled_pop_failure_invalidates_response_chain",
    "test_sqlite_session_close_closes_worker_thread_connections",
    "test_sqlite_session_close_retries_quarantined_connection",
    "test_sqlite_session_closed_rejects_empty_add_items",
    "test_sqlite_session_closes_retired_connections_before_the_next_allocation",
    "test_sqlite_session_failed_add_items_releases_write_lock",
    "test_sqlite_session_failed_clear_session_rolls_back",
    "test_sqlite_session_failed_pop_item_releases_write_lock",
    "test_sqlite_session_file_lock_is_shared_across_instances",
    "test_sqlite_session_get_items_limit_skips_corrupt_newest_rows",
    "test_sqlite_session_get_items_session_settings_limit_skips_corrupt_rows",
    "test_sqlite_session_keeps_connections_of_live_worker_threads",
    "test_sqlite_session_pop_item_returns_none_after_dropping_only_corrupt_rows",
    "test_sqlite_session_pop_item_skips_corrupt_most_recent",
    "test_sqlite_session_post_commit_cancellation_propagates_after_known_outcome",
    "test_sqlite_session_reaps_connections_from_exited_worker_threads",
    "test_sqlite_session_rollback_failure_evicts_connection",
    "test_suffix_transaction_rolls_back_failed_insert",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot be asked of another session."""
    out = [item for item in items if getattr(item, "originalname", item.name) in OF_SQLITE]
    leave_out(config, items, out)


class _Closed:
    """What closing a session returns: to be awaited, or not."""

    def __await__(self) -> Iterator[None]:
        yield from ()


def _init(
    self: MemvidSession,
    session_id: str,
    db_path: object = ":memory:",
    *tables: str,
    session_settings: Any = None,
) -> None:
    """Take what SQLiteSession takes."""
    self.db_path = db_path  # type: ignore[attr-defined]
    _OWN_INIT(self, session_id, opened(db_path), session_settings=session_settings)


def _close(self: MemvidSession) -> _Closed:
    return _Closed()


MemvidSession.__init__ = _init  # type: ignore[method-assign, assignment]
MemvidSession.close = _close  # type: ignore[attr-defined]
agents.SQLiteSession = agents.memory.SQLiteSession = MemvidSession  # type: ignore[misc, assignment]
async_sqlite_session.AsyncSQLiteSession = MemvidSession  # type: ignore[misc, assignment]
