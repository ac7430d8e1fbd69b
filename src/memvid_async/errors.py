"""Every error the library raises on purpose: one root, named by the situation."""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from typing import Any
from uuid import UUID


class MemvidAsyncError(Exception):
    """The root of every error raised on purpose by this library.

    Each can be pickled and copied, its fields and notes included.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # The inherited method calls the class with the message, but __init__ takes other arguments.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class SessionActiveError(MemvidAsyncError):
    """The file's ambient session is already being recorded; end it first. Or the agent of a session
    that is to be resumed with ``replay`` runs already, here or in another process."""


class NoActiveSessionError(MemvidAsyncError):
    """There is no session to work on: none was named and no ambient one is being recorded."""


class SessionEndedError(MemvidAsyncError):
    """The session has ended (or was deleted) and takes no further actions."""

    session_id: UUID | None
    """The session's id; None where only its number in the file is known."""

    def __init__(self, session_id: UUID | None = None) -> None:
        which = f"session {session_id}" if session_id else "the session"
        super().__init__(f"{which} has ended; start a new session to record more")
        self.session_id = session_id


class UnrecordedWarning(UserWarning):
    """A ``record_…`` call on the store found no session in force, so nothing was recorded.

    Python shows it once for each line that made such a call, and ``warnings.filterwarnings`` makes
    it an error or silences it. ``put``, ``find`` and ``ask`` do their work without a session; they
    warn only where sessions are open and the caller's context is empty, as in a thread of an
    executor: there it was lost.
    """


class UnknownSyncWarning(UserWarning):
    """How often the servers of a stream sync is not known, and ``StoreConfig.sync_interval`` asks
    for it."""


class SessionNotFoundError(MemvidAsyncError):
    """No session has this id, or it was deleted."""

    session_id: UUID
    """The id that was asked for."""

    def __init__(self, session_id: UUID) -> None:
        super().__init__(
            f"there is no session {session_id}; it never existed or was deleted. "
            f"list_sessions(include_open=True) names those there are"
        )
        self.session_id = session_id


class CheckpointNotFoundError(MemvidAsyncError):
    """The session has no checkpoint with this id."""

    session_id: UUID
    """The session."""
    checkpoint_id: int
    """The id that was asked for."""

    def __init__(self, session_id: UUID, checkpoint_id: int) -> None:
        super().__init__(
            f"session {session_id} has no checkpoint {checkpoint_id}; "
            f"get_session(…).checkpoints names those it has"
        )
        self.session_id = session_id
        self.checkpoint_id = checkpoint_id


class FrameNotFoundError(MemvidAsyncError):
    """No frame has this id, in the memory that was asked."""

    frame_id: int
    """The id that was asked for."""

    def __init__(self, frame_id: int) -> None:
        super().__init__(
            f"there is no frame {frame_id} in this memory; it was never put, or was deleted. "
            f"frames() names those there are"
        )
        self.frame_id = frame_id


class ContentNotFoundError(MemvidAsyncError):
    """The content is not in this file: it belongs to another one, or was erased."""

    digest: bytes | None
    """BLAKE2b-256 of the content (32 bytes); None where not even that is known."""

    def __init__(self, problem: str, digest: bytes | None = None) -> None:
        super().__init__(problem)
        self.digest = digest


class InvalidValueError(MemvidAsyncError, ValueError):
    """An argument has a type or a value that cannot be recorded; the message says which."""


class LimitExceededError(MemvidAsyncError, ValueError):
    """An argument is larger than a limit allows; nothing was recorded."""

    limit: str
    """The name of the field of :class:`Limits`."""
    value: int
    """The size of the argument, in the unit of that field."""

    def __init__(self, limit: str, value: int, allowed: int) -> None:
        super().__init__(
            f"{value} is above the limit {limit}={allowed}; "
            f"raise it with StoreConfig(limits=Limits({limit}=...)) or record less"
        )
        self.limit = limit
        self.value = value


class VersionConflictError(MemvidAsyncError):
    """A key of a collection does not have the version that a call asked for; nothing was changed.

    Look at what is there, and try again with its version.
    """

    key: str
    """The key."""
    expected: int
    """The version that the call asked for; 0: that the key is not there."""
    version: int
    """The version that it has; 0 when it is not there."""
    value: Any
    """The :class:`Value` that is there; None when there is none, or it was not read."""

    def __init__(self, key: str, expected: int, version: int, value: Any = None) -> None:
        there = f"has version {version}" if version else "is not there"
        wanted = f"version {expected}" if expected else "no such key"
        super().__init__(f"key {key!r:.80} {there}, and {wanted} was asked for")
        self.key = key
        self.expected = expected
        self.version = version
        self.value = value


class ReplayDivergenceError(MemvidAsyncError):
    """A call that the recording does not hold at this point; the message shows the nearest one."""

    nearest: Any
    """The recorded :class:`Action` that is most like the call; None when nothing is left."""
    differences: tuple[Any, ...]
    """A :class:`Difference` for each field in which the call (``b``) is not that action (``a``)."""

    def __init__(self, message: str, nearest: Any = None, differences: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.nearest = nearest
        self.differences = tuple(differences)


class UncertainCallError(MemvidAsyncError):
    """Calls began and nobody said how they ended, so running the agent again may do them twice.

    Pass ``uncertain=`` to ``resume_session`` to say what becomes of them.
    """

    key: str
    """The key of the first of them."""
    calls: tuple[Any, ...]
    """All of them, each an :class:`UncertainCall`."""

    def __init__(self, calls: Sequence[Any]) -> None:
        told = "; ".join(f"{call.kind} {call.name!r} (key {call.key})" for call in calls[:10])
        more = f", and {len(calls) - 10:,} more" if len(calls) > 10 else ""
        super().__init__(
            f"nobody knows how {len(calls)} calls ended: {told}{more}. Pass uncertain='run' to try "
            f"them again, or a callable that decides for each"
        )
        self.calls = tuple(calls)
        self.key = calls[0].key

    @property
    def call(self) -> Any:
        """The first of them."""
        return self.calls[0]


class ReplayStopped(BaseException):
    """The session diverged, or has a call of which nobody knows how it ended: it takes no calls.

    It is raised in every task that makes one. ``except Exception`` does not catch it, so an agent
    that handles errors of its calls does not go on. Leaving the session's block raises the error
    that came first, which is also this one's ``__cause__``.
    """


class RecordedCallError(MemvidAsyncError):
    """The recorded call failed, so the served one fails too; the message is what was recorded."""

    action: Any
    """The recorded :class:`Action`."""

    def __init__(self, action: Any) -> None:
        super().__init__(action.error)
        self.action = action


class NotAStoreError(MemvidAsyncError):
    """The path does not name a file that this library wrote."""


class StoreNotFoundError(NotAStoreError, FileNotFoundError):
    """There is no file at the path, or no directory to create it in."""


class UnsupportedVersionError(MemvidAsyncError):
    """The file was written in a format version that this release cannot read."""


class CorruptFileError(MemvidAsyncError):
    """Bytes that were known to be durable are damaged."""

    offset: int
    """Where the damage begins in the file, in bytes; on a stream, in its log."""
    problem: str
    """What is wrong there."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"the store is damaged at byte {offset}: {problem}")
        self.offset = offset
        self.problem = problem


class StoreLockedError(MemvidAsyncError):
    """Another process kept the file's lock for longer than ``StoreConfig.lock_timeout``."""

    pid: int | None
    """The holder's process id, None where the system does not tell it."""

    def __init__(self, pid: int | None, waited: float) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(
            f"{holder} has held the file's lock for {waited:g} s; try again, or raise lock_timeout"
        )
        self.pid = pid


class StoreClosedError(MemvidAsyncError):
    """The store is closed, or its event loop ended; what was not acked may not be recorded."""


class WrongLoopError(StoreClosedError):
    """The store cannot be used here, and nothing was done.

    It was used on another event loop, thread or process than the one that opened it, or after that
    loop had ended.
    """


class StoreReadOnlyError(MemvidAsyncError):
    """The store cannot be written: opened read-only, no permission, or too new for this release."""


class OutOfMemoryError(MemvidAsyncError):
    """There was not enough memory for a call. What was acked is not affected."""


def as_ours(error: BaseException) -> BaseException:
    """Return an error of the library's own in place of one that says that memory ran out."""
    if isinstance(error, MemoryError):
        ours: BaseException = OutOfMemoryError("there is not enough memory for this call")
    elif type(error).__module__ == "pyo3_runtime":
        # cbor2 is written in Rust, and its panics do not derive from Exception.
        ours = OutOfMemoryError(f"encoding or decoding stopped: {error}")
    else:
        return error
    ours.__cause__ = error
    return ours


class NotCompactedError(MemvidAsyncError):
    """``compact()`` could not write or install the new file; the message says why.

    The file is as it was, and the store goes on.
    """


class StoreFailedError(MemvidAsyncError):
    """A read, write or sync failed; the store refuses further writes. Open the file again."""
