"""The names of the sessions that a page tells of, each looked up once."""

from __future__ import annotations

from uuid import UUID

from .. import SessionNotFoundError, Store


class SessionNames:
    """The names of sessions, looked up as they are asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[UUID, str | None] = {}

    async def get(self, session_id: UUID) -> str | None:
        """Return a session's name, "" where it has none; None where there is no such session."""
        if session_id not in self._names:
            try:
                summary = await self._store.get_summary(session_id)
                self._names[session_id] = summary.name or ""
            except SessionNotFoundError:
                self._names[session_id] = None
        return self._names[session_id]
