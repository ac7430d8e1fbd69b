"""A pytest plugin: LangGraph's tests get our saver and store instead of those on SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.store.sqlite import AsyncSqliteStore, SqliteStore

from memvid_async import StoreConfig
from memvid_async.interop.langgraph import MemvidSaver, MemvidStore

from .opened_stores import leave_out, path_of

_NUMBERS = count()
# Tests that number the ids of uuid.uuid4 count on every one.
_CONFIG = StoreConfig(id_factory=lambda: UUID(int=next(_NUMBERS)))

# Tests of SQLite: its statements, its errors, its older tables. One asks the conformance package
# for what no release of it has.
LEFT_OUT = """
test_async_read_only_legacy_database_still_reads_delta_history
test_async_setup_does_not_wait_on_another_writer
test_async_setup_migrates_legacy_writes_table_repeatably
test_checkpoint_search_sql_injection_prevention
test_delta_channel_conformance
test_escape_glob_literal
test_informative_async_errors
test_list_namespaces_prefix_uses_indexable_condition
test_metadata_predicate
test_metadata_predicate_sql_injection_prevention
test_namespace_match_pattern
test_nonnull_migrations
test_put_writes_persists_task_path
test_read_only_legacy_database_still_reads_delta_history
test_search_where
test_setup_does_not_wait_on_another_writer
test_setup_migrates_legacy_writes_table_repeatably
test_sql_injection_vulnerability
test_vector_store_initialization
test_walk_step_looks_up_the_parent_by_primary_key
"""


def _instead(theirs: Any, ours: Any) -> None:
    """Let what opens one of theirs open one of ours."""

    @contextmanager
    def opened(name: object, **options: Any) -> Iterator[Any]:
        with ours.from_path(path_of(name), config=_CONFIG, **options) as one:
            one.setup = lambda: None
            yield one

    @asynccontextmanager
    async def aopened(name: object, **options: Any) -> AsyncIterator[Any]:
        async with ours.from_path(path_of(name), config=_CONFIG, **options) as one:
            one.setup = _nothing
            yield one

    theirs.from_conn_string = aopened if theirs.__name__.startswith("Async") else opened


async def _nothing() -> None:
    """Make no tables."""


_instead(SqliteSaver, MemvidSaver)
_instead(AsyncSqliteSaver, MemvidSaver)
_instead(SqliteStore, MemvidStore)
_instead(AsyncSqliteStore, MemvidStore)


def _is_ours(item: Any) -> bool:
    """Whether a test has our saver or store; of those that take any, only with SQLite's."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    taken = [params[name] for name in ("sync_checkpointer", "async_checkpointer") if name in params]
    if Path(item.path).parts[-3].startswith("langgraph-"):
        return any(str(one).startswith("sqlite") for one in taken)
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Leave out what does not come to our saver or store."""
    names = set(LEFT_OUT.split())
    out = [item for item in items if item.originalname in names or not _is_ours(item)]
    leave_out(config, items, out)
