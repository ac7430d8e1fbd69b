"""A pytest plugin: the tests of Pydantic AI's harness get our stores instead of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic_ai_harness.step_persistence as theirs
import pytest
from pydantic_ai_harness.step_persistence import _capability, _store, conversations

from memvid_async.interop.pydantic_ai import MemvidConversationStore, MemvidStepStore

from .opened_stores import closed_stores, leave_out, opened  # noqa: F401 - a fixture


class InMemoryStepStore(MemvidStepStore):
    """Takes what theirs takes."""

    def __init__(self, *, max_snapshots_per_run: Any = None) -> None:
        super().__init__(opened(), max_snapshots_per_run=max_snapshots_per_run)


class FileStepStore(MemvidStepStore):
    """Takes what theirs takes."""

    def __init__(
        self, directory: object, *, max_snapshots_per_run: Any = None, **_media: Any
    ) -> None:
        super().__init__(opened(directory), max_snapshots_per_run=max_snapshots_per_run)


class SqliteStepStore(MemvidStepStore):
    """Takes what theirs takes."""

    def __init__(
        self, *, database: object, max_snapshots_per_run: Any = None, **_media: Any
    ) -> None:
        super().__init__(opened(database), max_snapshots_per_run=max_snapshots_per_run)


class SqliteConversationStore(MemvidConversationStore):
    """Takes what theirs takes."""

    def __init__(self, *, database: object) -> None:
        self.database = database
        super().__init__(opened(database))


for _kind in (InMemoryStepStore, FileStepStore, SqliteStepStore):
    for _module in (theirs, _capability, _store):
        setattr(_module, _kind.__name__, _kind)
conversations.SqliteConversationStore = SqliteConversationStore  # type: ignore[misc, assignment]


def _bounded(kind: str, folder: Path, keep: int | None) -> tuple[Any, Any]:
    """Return a store, and what counts the snapshots that it keeps of a run."""
    store = opened(folder / kind)

    def count(run_id: str) -> int:
        return sum(1 for _ in store.collection("pydantic-ai").scan(f"s/{run_id}/"))

    return MemvidStepStore(store, max_snapshots_per_run=keep), count


# Tests that write or read, by hand, the files and tables of the stores that they were written for.
OF_FILES = """
TestBoundedAgentRun
TestFromSpecForwarding
TestAtomicFileWrites
TestFileStepStoreMedia
TestFileStorePruneEdgeCases
TestMediaStoreResolution
TestSqliteRowDefenses
TestSqliteStepStoreMedia
test_agent_run_with_large_binary_input
test_corrupt_history_is_not_an_empty_session
test_delete_with_only_run_catalog
test_event_deserialization_rejects_non_string_optional
test_event_deserialization_rejects_unknown_kind
test_event_deserialization_rejects_wrong_types
test_events_round_trip_skips_blank_lines
test_failed_state_migration_surfaces_instead_of_pinning_a_broken_schema
test_file_skips_corrupt_wrong_typed_and_unreadable
test_file_store_legacy_snapshot_without_state_reads_as_complete
test_file_store_rejects_unknown_state_value
test_get_tool_effect_returns_latest_for_run
test_hard_kill_leaves_model_frontier_and_unknown_effects
test_large_bound_does_not_exceed_sql_variable_limit
test_latest_snapshot_picks_most_recent_seq
test_legacy_database_without_state_column_migrates
test_register_duplicate_run_raises
test_register_run_rejects_bad_run_id
test_rejects_both_database_and_connection
test_roundtrip_search_paging_and_media
test_run_deserialization_rejects_wrong_types
test_run_record_load_with_missing_metadata
test_shared_connection_default_media_store_uses_same_connection
test_shared_connection_mode
test_skips_corrupt_rows
test_snapshot_deserialization_rejects_wrong_types
test_snapshot_record_suppresses_retry_if_key_ledger_write_was_interrupted
test_snapshot_seq_counter_increments
test_snapshot_seq_counter_keeps_max_across_unordered_iter
test_snapshot_seq_counter_skips_non_integer_filenames
test_tool_effect_deserialization_rejects_unknown_status
test_tool_effect_deserialization_rejects_wrong_types
test_tool_effects_round_trip
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Leave out what cannot be asked of another store."""
    names = set(OF_FILES.split())
    out = [item for item in items if {item.originalname, item.cls and item.cls.__name__} & names]
    leave_out(config, items, out)
    for item in items:
        if hasattr(item.module, "_make_store"):
            item.module._make_store = _bounded
