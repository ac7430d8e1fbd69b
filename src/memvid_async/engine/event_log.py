"""The seam: what all rooms above need from an event log, wherever its bytes are.

A file is one event log (:class:`.file_log.FileLog`); a replicated stream can be another. No module
above this one knows an offset, a segment or a lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

from ..core.appended import Appended
from ..core.commands import Command
from ..core.reports import CompactReport, SavedProjection, TornTail, VerifyReport
from ..core.state import State
from ..errors import MemvidAsyncError
from ..events.content import Content
from ..events.event import Action, Event
from ..events.frames import Version
from ..events.keyed import KeyChange

T_co = TypeVar("T_co", covariant=True)
# A projection as it is saved whole: its name, the last event folded into it, how many pages it has,
# and the pages.
Folded = tuple[str, int, int, Sequence[tuple[int, bytes]]]


class View(Protocol):
    """What readers may see: the log up to one event, and the state that its events fold to.

    A view never changes. Its methods block, so they are called in threads. All of them raise
    :class:`CorruptFileError` where the log is damaged, and :class:`StoreFailedError` where it
    cannot be read.
    """

    @property
    def state(self) -> State:
        """The state after the last event that counts."""
        ...

    @property
    def edition(self) -> object:
        """An object that identifies the log between two compactions.

        Hints of :meth:`memory_events` and saved projections are valid only within one edition.
        """
        ...

    @property
    def version(self) -> int:
        """The version of the format that the events are kept in."""
        ...

    def damage(self, sequence: int, message: str) -> MemvidAsyncError:
        """Return an error that says where the event with this sequence is."""
        ...

    # Events.

    def events_after(self, after: int, limit: int) -> list[Event]:
        """Return events with a sequence above ``after``, in order.

        They have about ``limit`` bytes together; there is at least one, unless none is left.
        """
        ...

    def commands_after(self, after: int, limit: int) -> list[list[Event]]:
        """Return events as :meth:`events_after` does, in one list per command.

        The first command's events are complete, also where they exceed ``limit``.
        """
        ...

    def history(self, until: int) -> Iterator[tuple[State, Event]]:
        """Iterate over all events up to the sequence ``until``, each with the state after it."""
        ...

    def times(self, after: int, until: int) -> Iterator[tuple[int, int]]:
        """Iterate over sequences and times (nanoseconds since the Unix epoch) of the events above
        ``after``, up to ``until``, in order. Of events in a row that have one time, the last is
        enough."""
        ...

    # Sessions.

    def has_session(self, number: int) -> bool:
        """Whether the events of a session can be found by its number."""
        ...

    def session_events(
        self, number: int, after: int = 0, limit: int | None = None
    ) -> tuple[list[Event], int]:
        """Return events of one session above ``after``, in order; about ``limit`` bytes of them.

        The second value is the sequence up to which the session has no others.
        """
        ...

    def session_commands(self, number: int) -> Iterator[list[Event]]:
        """Iterate over the events of one session in order, a list per command."""
        ...

    def session_events_back(self, number: int, before: int | None = None) -> Iterator[list[Event]]:
        """Iterate over the events of one session below ``before``, newest first, a list per
        command, in order. The first ones cost the same however many there are."""
        ...

    def session_number(self, action: Action) -> int:
        """Return the number of the session that an action is in.

        :raises InvalidValueError: when it is in no session of this store, or in none any more.
        """
        ...

    # Contents.

    def content(self, sequence: int) -> Content:
        """Return the content whose event has this sequence, without its data."""
        ...

    def data(self, content: Content) -> bytes:
        """Return the bytes of a content; text as UTF-8.

        :raises ContentNotFoundError: when it is not in this store.
        """
        ...

    def value(self, content: Content) -> str | bytes:
        """Return a content as it was recorded, text or bytes; raises as :meth:`data` does."""
        ...

    def part(self, content: Content, place: int) -> bytes:
        """Return the bytes of one part of a content in parts; ``place`` counts from 0."""
        ...

    # The memory.

    def memory_events(
        self, after: int, until: int, hint: int | None = None
    ) -> Iterator[tuple[Event, int]]:
        """The events above ``after``, up to ``until``, that change the memory, in order, each with
        a hint: a number by which the log finds it again faster, and that only the log understands.

        ``hint``: of the last one of them at or before ``after``, where ``after`` is the end of a
        view; None where that is not known.
        """
        ...

    def frame_content(self, hint: int, version: Version) -> Content:
        """Return the content of a version of a frame, whose event came with ``hint``."""
        ...

    def frame_content_of(self, version: Version) -> Content | None:
        """Return the content of a version of a frame; None when it was erased.

        :raises InvalidValueError: when there is no such version.
        """
        ...

    # Collections.

    def collection_events(
        self, after: int, until: int, hint: int | None = None
    ) -> Iterator[tuple[Event, int]]:
        """The events above ``after``, up to ``until``, that create or change collections, in order,
        as :meth:`memory_events` returns those that change the memory."""
        ...

    def key_change(self, hint: int, sequence: int, place: int) -> KeyChange:
        """Return the change at ``place`` in the event with this sequence, which changed a
        collection and came with ``hint``."""
        ...

    # Projections: the memory's search index, and the keys of the collections.

    def saved_projection(self, name: str, until: int) -> SavedProjection | None:
        """Return a projection as saved last; None when it was never saved.

        It must not be folded further than the event ``until``.

        :raises ValueError: when it cannot be read.
        """
        ...


class Pending(Protocol[T_co]):
    """A result that is not there yet.

    Cancelling a task that waits for it does not stop it, and it can be awaited again: what became
    durable must be known, whatever happens to a task.
    """

    def then(self, receive: Callable[[T_co], object], /) -> Self:
        """Let the loop call ``receive`` with the result, before the waiting tasks go on.

        An error that it raises is raised in the tasks that wait.
        """
        ...

    async def wait(self) -> T_co:
        """Wait for the result and return it, or raise the error."""
        ...


class EventLog(Protocol):
    """The events of one store, in order, wherever they are kept.

    It is used on one event loop, one call at a time, except for calls that say otherwise.

    Commands are decided (:func:`..core.decide.decide`) in order, against the newest state of all
    processes, and their events are appended as one batch. A log that others can append to in
    between decides them again.
    """

    @property
    def view(self) -> View:
        """The log as this process has taken it in, including staged events."""
        ...

    @property
    def torn_tail(self) -> TornTail:
        """What opening, or catching up, found torn at the end."""
        ...

    def note_readers(self, count: int) -> None:
        """Note how many read the events as they become durable. While nobody does, they need not be
        returned, and cost nothing."""
        ...

    @property
    def byte_count(self) -> int:
        """The log's length in bytes."""
        ...

    @property
    def content_count(self) -> int:
        """How many distinct contents have an event of their own."""
        ...

    @property
    def failure(self) -> MemvidAsyncError | None:
        """Why the log refuses everything, where it is no longer known what it holds; else None.

        An error that leaves this None has changed nothing, and the call can be made again.
        """
        ...

    # Appending.

    def commit(self, commands: Sequence[Command]) -> Pending[tuple[list[Any], Appended]]:
        """Decide commands, append their events and make them durable.

        The result holds, for each command, its answer or the error that refused it; and what became
        durable, which begins with events that others appended. With no commands it takes those in,
        and appends nothing.

        :raises StoreLockedError: when another process kept this one waiting too long; nothing was
            appended.
        :raises StoreFailedError: when it is not known what was appended.
        """
        ...

    def begin(self) -> Pending[None]:
        """Begin a batch whose commands come one by one. Others wait until :meth:`flush`.

        :raises StoreLockedError, StoreFailedError: as for :meth:`commit`.
        """
        ...

    @property
    def has_begun(self) -> bool:
        """Whether a batch has begun and is not flushed yet."""
        ...

    def stage(self, command: Command) -> Any:
        """Decide a command of the begun batch; return its answer, or the error that refused it.

        It waits for nothing, so that small commands can be decided on the loop.
        """
        ...

    def stage_all(self, commands: Sequence[Command]) -> Pending[list[Any]]:
        """Do :meth:`stage` for each command, outside the loop's thread."""
        ...

    @property
    def staged_bytes(self) -> int:
        """How many bytes the begun batch has so far."""
        ...

    def flush(self) -> Pending[Appended]:
        """Make the begun batch durable, and let others continue.

        :raises StoreFailedError: when it is not known what was appended.
        """
        ...

    # Taking in what others append.

    def follow(self) -> Pending[Appended]:
        """Take in everything that others have appended by now.

        :raises StoreFailedError, CorruptFileError: when the log cannot be followed any more.
        """
        ...

    def has_news(self) -> Pending[bool]:
        """Tell whether there may be something for :meth:`follow` to take in."""
        ...

    def wait_for_news(self) -> Pending[None]:
        """Return once there may be something to take in, or after :meth:`wake`.

        Sometimes it returns without a reason.
        """
        ...

    def wake(self) -> None:
        """Let :meth:`wait_for_news` return."""
        ...

    # The whole.

    def save_projection(
        self,
        name: str,
        edition: object,
        base: int,
        through: int,
        page_count: int,
        pages: Sequence[tuple[int, bytes]],
    ) -> Pending[tuple[int, Appended]]:
        """Keep the changed pages of a projection, folded from views of ``edition`` up to the event
        ``through``, since the save at ``base`` (0: all of its pages).

        The result is where it was saved, as :attr:`SavedProjection.at` says it; 0 when it was not.
        """
        ...

    async def compact(
        self,
        alone: Alone,
        progress: Callable[[int, int], None],
        fold: Callable[[View], Sequence[Folded]],
    ) -> CompactReport:
        """Erase what was deleted before this call, while others append.

        ``alone``: makes a call of the log when no other is made. ``progress`` is called in any
        thread, with the bytes done and the bytes there are. ``fold`` is called in a thread with a
        view of what is left, and returns what is then saved of projections: ``name``, ``through``,
        ``page_count`` and ``pages`` as for :meth:`save_projection`.

        :raises CorruptFileError: when the log is damaged; it is as it was.
        :raises NotCompactedError: when it could not be written again; it is as it was.
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
        """Refuse everything except reading from now on."""
        ...

    def close(self) -> Pending[None]:
        """End writing, and leave the log so that opening it is quick. It can still be read."""
        ...

    def release(self) -> None:
        """Release the log once the reads that are under way are done. Safe to call twice."""
        ...

    async def wait_released(self) -> None:
        """Return once it is released; at once where that was on a loop that has ended."""
        ...


# A call that changes the log. It results in an answer, and in what became durable.
LogCall = Callable[[EventLog], Pending[tuple[Any, Appended]]]
# Makes such a call when no other is made, publishes what became durable, and returns the answer.
Alone = Callable[[LogCall], Awaitable[Any]]
