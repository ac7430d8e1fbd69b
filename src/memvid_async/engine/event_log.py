"""The seam: what everything above asks of an event log, wherever its bytes lie.

A file is one event log (:class:`.file_log.FileLog`); a replicated stream can be another. Above this
module nobody knows an offset, a segment or a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

from ..core.appended import Appended
from ..core.commands import Command
from ..core.reports import CompactReport, SavedProjection, TornTail, VerifyReport
from ..core.state import State
from ..errors import MemvidAsyncError
from ..events.content import Content
from ..events.event import Action, Event
from ..file.changes import TextPut

T_co = TypeVar("T_co", covariant=True)


class View(Protocol):
    """What readers may see: the log up to one event, and the state that its events fold to.

    It never changes; reading through it blocks, so it is read in threads. All its methods raise
    :class:`CorruptFileError` where the log is damaged, and :class:`StoreFailedError` where it
    cannot be read.
    """

    @property
    def state(self) -> State:
        """The state after the last event that counts."""
        ...

    @property
    def edition(self) -> object:
        """The same object for all views in which the hints of :meth:`memory_changes` and saved
        projections mean the same; another one after a compaction."""
        ...

    @property
    def version(self) -> int:
        """The version of the format that the events are kept in."""
        ...

    def damage(self, sequence: int, message: str) -> MemvidAsyncError:
        """An error that says where the event with this sequence lies."""
        ...

    # Events.

    def events_after(self, after: int, limit: int) -> list[Event]:
        """Events with a sequence above ``after``, in order: about ``limit`` bytes of them, at
        least one; none when there are none."""
        ...

    def commands_after(self, after: int, limit: int) -> list[list[Event]]:
        """As :meth:`events_after`, the events of each command together, the first one whole."""
        ...

    def history(self, until: int) -> Iterator[tuple[State, Event]]:
        """Every event up to the sequence ``until``, each with the state after it."""
        ...

    def time_of(self, sequence: int) -> int:
        """When the event with this sequence happened, in nanoseconds since the Unix epoch."""
        ...

    # Sessions.

    def has_session(self, number: int) -> bool:
        """Whether the events of a session can be found by its number."""
        ...

    def session_events(
        self, number: int, after: int = 0, limit: int | None = None
    ) -> tuple[list[Event], int]:
        """The events of one session above ``after``, in order, and the sequence up to which there
        are no others; about ``limit`` bytes of them, when it is given."""
        ...

    def session_number(self, action: Action) -> int:
        """The number of the session that an action is in.

        :raises InvalidValueError: when it is in no session of this store (any more).
        """
        ...

    # Contents.

    def content(self, sequence: int) -> Content:
        """The content whose event has this sequence, without its data."""
        ...

    def data(self, content: Content) -> bytes:
        """The bytes of a content; text as UTF-8.

        :raises ContentNotFoundError: when it is not in this store.
        """
        ...

    def value(self, content: Content) -> str | bytes:
        """A content as it was recorded, text or bytes; raises as :meth:`data` does."""
        ...

    def part(self, content: Content, place: int) -> bytes:
        """The bytes of one part of a content that is in parts; ``place``: which, from 0."""
        ...

    # The memory.

    def memory_events(self, after: int, limit: int, until: int) -> Iterator[tuple[Event, int]]:
        """The events above ``after``, up to ``until``, that change the memory, in order, each with
        a hint by which the log finds it again faster; about ``limit`` bytes, at least one."""
        ...

    def memory_changes(
        self, after: int, limit: int, until: int, hint: int = 0
    ) -> Iterator[tuple[Event | TextPut, int]]:
        """:meth:`memory_events`, the plain ones as :class:`TextPut`. ``hint``: of an event at or
        before all of them, if one is known; 0 if not."""
        ...

    def frame_content(self, hint: int, sequence: int) -> Content:
        """The content of the frame event with this sequence, which was read with this hint."""
        ...

    def frame_content_of(self, sequence: int) -> Content | None:
        """The content of the frame event with this sequence; None when it was erased.

        :raises InvalidValueError: when there is no such event.
        """
        ...

    # Projections.

    def saved_memory(self, until: int) -> SavedProjection | None:
        """The memory's search index as it was saved last, folded no further than the event
        ``until``; None when it was never saved.

        :raises ValueError: when it cannot be read.
        """
        ...


class Pending(Protocol[T_co]):
    """A result that is on its way. Cancelling who waits for it does not stop it, and it can be
    awaited again: what became durable must be known whatever happens to a task."""

    def then(self, receive: Callable[[T_co], object], /) -> Self:
        """Have the loop call ``receive`` with the result before whoever waits goes on. What it
        raises is raised there."""
        ...

    async def wait(self) -> T_co:
        """The result, or the error."""
        ...


class EventLog(Protocol):
    """The events of one store, in order, wherever they are kept. Used on one event loop; one call
    at a time but for those that say otherwise.

    Commands are decided (:func:`..core.decide.decide`) against the newest state of all processes,
    in order; what they decide is appended as one batch. A log that others may append to in between
    decides them again.
    """

    @property
    def view(self) -> View:
        """The log as this process has taken it in, what is staged included."""
        ...

    @property
    def torn_tail(self) -> TornTail:
        """What opening, or catching up, found torn at the end."""
        ...

    @property
    def byte_count(self) -> int:
        """How many bytes the log takes."""
        ...

    @property
    def content_count(self) -> int:
        """How many distinct contents have an event of their own."""
        ...

    # Appending.

    def commit(self, commands: Sequence[Command]) -> Pending[tuple[list[Any], Appended]]:
        """Decide commands, append their events and make them durable.

        Its result: per command, its answer or the error that refused it; and what became durable,
        others' events first, where others appended.

        :raises StoreLockedError: when another process kept this one waiting too long; nothing was
            appended.
        :raises StoreFailedError: when it is not known what was appended.
        """
        ...

    def begin(self) -> Pending[None]:
        """Begin a batch whose commands come one by one; until :meth:`flush`, others wait.

        :raises StoreLockedError, StoreFailedError: as for :meth:`commit`.
        """
        ...

    @property
    def has_begun(self) -> bool:
        """Whether a batch was begun that is not flushed yet."""
        ...

    def stage(self, command: Command) -> Any:
        """Decide a command of the batch that was begun: its answer, or the error that refused it.
        It does not wait for anything, so that small ones can be decided on the loop."""
        ...

    def stage_all(self, commands: Sequence[Command]) -> Pending[list[Any]]:
        """:meth:`stage` each, off the loop."""
        ...

    @property
    def staged_bytes(self) -> int:
        """How many bytes the batch that was begun holds so far."""
        ...

    def flush(self) -> Pending[Appended]:
        """Make the batch that was begun durable, and let others go on.

        :raises StoreFailedError: when it is not known what was appended.
        """
        ...

    # Taking in what others append.

    def follow(self) -> Pending[Appended]:
        """Take in what others appended by now.

        :raises StoreFailedError, CorruptFileError: when the log cannot be followed any more.
        """
        ...

    def has_news(self) -> Pending[bool]:
        """Whether there may be something for :meth:`follow` to take in."""
        ...

    def wait_for_news(self) -> Pending[None]:
        """Return once there may be something to take in, or after :meth:`wake`; also now and then
        without a reason."""
        ...

    def wake(self) -> None:
        """Have :meth:`wait_for_news` return."""
        ...

    # The whole.

    def save_memory(
        self,
        edition: object,
        base: int,
        through: int,
        page_count: int,
        pages: Sequence[tuple[int, bytes]],
    ) -> Pending[tuple[int, Appended]]:
        """Keep the changed pages of the memory's search index, folded from views of ``edition`` up
        to the event ``through``, since the save at ``base`` (0: all of its pages). Its result is
        where it was saved, as :attr:`SavedProjection.at` says it; 0 when it was not."""
        ...

    def compact(
        self, progress: Callable[[int, int], None]
    ) -> Pending[tuple[CompactReport, Appended]]:
        """Erase what was deleted. ``progress`` is called in any thread, with the bytes done and the
        bytes there are.

        :raises CorruptFileError: when the log is damaged; it stays as it is.
        """
        ...

    async def verify(
        self, written: Callable[[], View], progress: Callable[[int, int], None] | None
    ) -> VerifyReport:
        """Read everything again and check it, up to the end of the view that ``written`` returns:
        of what is durable. At any time. ``progress``: called on the loop, with the bytes done and
        the bytes there are."""
        ...

    # Closing.

    def fail(self, error: MemvidAsyncError) -> None:
        """Refuse everything from now on but reading."""
        ...

    def close(self) -> Pending[None]:
        """Leave the log as the next opening finds it quickest; it can still be read."""
        ...

    def release(self) -> None:
        """Let the log go, once the reads that are under way are done. Safe to call twice."""
        ...

    async def wait_released(self) -> None:
        """Return once it is let go; at once where it was released on a loop that has ended."""
        ...
