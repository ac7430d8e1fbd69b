"""The store for synchronous code: the same methods without ``await``."""

from __future__ import annotations

import functools
import os
import warnings
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import UUID

from ..config import StoreConfig
from ..core.reports import TornTail
from ..engine.subscription import Subscription
from ..events.event import Action, Event
from ..memory.store_session import StoreSession
from ..recording.made_calls import Step
from ..replay.replay_run import Replay
from ..replay.serve import ServedSession
from ..replay.verdicts import ReplayReport, ReplayStep
from .loop_thread import LoopThread
from .opening import open_store
from .portal import Portal
from .store import Store
from .sync_collections import SyncCollection, SyncCollectionReader
from .sync_methods import SyncBlock, SyncHandle, awaited, called, handled, iterate, iterated
from .views import StoreView

T = TypeVar("T")


class SyncStep(SyncBlock[AbstractAsyncContextManager[Step]]):
    """A part of the agent's work: ``with session.step("plan") as step``, a :class:`Step`."""

    def __enter__(self) -> Step:  # type: ignore[override]
        step: Step = self._portal.run(self._block.__aenter__)
        return step


def _tool(
    self: Any,
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    effect: bool = True,
    timeout: float | None = None,
    thread: bool = True,
) -> Any:
    """Make a function a tool of this session, as ``SessionRecorder.tool`` does; its calls block."""

    def decorate(decorated: Callable[..., Any]) -> Callable[..., Any]:
        options = {"name": name, "effect": effect, "timeout": timeout, "thread": thread}
        made = self._handle.tool(**options)(decorated)

        @functools.wraps(decorated)
        def blocking(*args: Any, **named: Any) -> Any:
            return self._portal.run(lambda: made(*args, **named))

        return blocking

    return decorate if function is None else decorate(function)


class SyncSession(SyncBlock[StoreSession]):
    """A session of a :class:`SyncStore`: ``with store.session(…) as session``.

    Like :class:`StoreSession`. Inside the block, the store records into this session, too, in
    the same thread.
    """

    @property
    def session_id(self) -> UUID:
        """The session's id."""
        return self._handle.session_id

    record_ask = awaited(StoreSession.record_ask)
    record_find = awaited(StoreSession.record_find)
    record_put = awaited(StoreSession.record_put)
    record_put_many = awaited(StoreSession.record_put_many)
    record_update = awaited(StoreSession.record_update)
    record_delete = awaited(StoreSession.record_delete)
    record_tool_call = awaited(StoreSession.record_tool_call)
    record_step = awaited(StoreSession.record_step)
    record_start = awaited(StoreSession.record_start)
    tool = _tool
    create_checkpoint = awaited(StoreSession.create_checkpoint)
    annotate = awaited(StoreSession.annotate)
    put = awaited(StoreSession.put)
    put_many = awaited(StoreSession.put_many)
    update = awaited(StoreSession.update)
    delete = awaited(StoreSession.delete)
    find = awaited(StoreSession.find)
    ask = awaited(StoreSession.ask)
    call_model = awaited(StoreSession.call_model)
    stream_model = iterated(StoreSession.stream_model)
    step = handled(StoreSession.step, SyncStep)
    now = awaited(StoreSession.now)
    uuid = awaited(StoreSession.uuid)
    random = awaited(StoreSession.random)
    sleep = awaited(StoreSession.sleep)

    @overload
    def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        run: Callable[..., Coroutine[Any, Any, T]],
        *,
        effect: bool = ...,
        timeout: float | None = ...,
        task: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> T: ...
    @overload
    def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        run: Callable[..., T],
        *,
        effect: bool = ...,
        timeout: float | None = ...,
        task: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> T: ...
    def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        run: Callable[..., Any],
        *,
        effect: bool = True,
        timeout: float | None = None,
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """As :meth:`SessionRecorder.call_tool`."""
        options = {"effect": effect, "timeout": timeout, "task": task, "metadata": metadata}
        return self._call("call_tool", (name, arguments, run), options)

    def once(self, name: str, make: Callable[[], T], *, task: str | None = None) -> T:
        """As :meth:`SessionRecorder.once`."""
        made: T = self._call("once", (name, make), {"task": task})
        return made


class SyncServedSession(SyncBlock[ServedSession]):
    """A recording that answers calls: ``with store.serve(session_id) as recorded``.

    Like :class:`ServedSession`; each thread gets the answers to its own calls.
    """

    @property
    def session_id(self) -> UUID | None:
        """The new session with all calls, served or run; None where there is none."""
        return self._handle.session_id

    @property
    def unserved(self) -> tuple[Action, ...]:
        """The recorded calls that no live call has asked for so far."""
        return self._handle.unserved

    annotate = awaited(ServedSession.annotate)
    put = awaited(ServedSession.put)
    put_many = awaited(ServedSession.put_many)
    update = awaited(ServedSession.update)
    delete = awaited(ServedSession.delete)
    find = awaited(ServedSession.find)
    ask = awaited(ServedSession.ask)
    now = awaited(ServedSession.now)
    uuid = awaited(ServedSession.uuid)
    random = awaited(ServedSession.random)
    sleep = awaited(ServedSession.sleep)
    tool = _tool
    call_model = awaited(ServedSession.call_model)
    stream_model = iterated(ServedSession.stream_model)
    step = handled(ServedSession.step, SyncStep)
    report = called(ServedSession.report)

    def call_tool(
        self,
        name: str,
        arguments: Any,
        run: Callable[..., Any] | None = None,
        *,
        effect: bool = True,
        timeout: float | None = None,
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """As :meth:`ServedSession.call_tool`."""
        options = {"effect": effect, "timeout": timeout, "task": task, "metadata": metadata}
        return self._call("call_tool", (name, arguments, run), options)

    def once(self, name: str, make: Callable[[], T], *, task: str | None = None) -> T:
        """As :meth:`SessionRecorder.once`."""
        made: T = self._call("once", (name, make), {"task": task})
        return made


class SyncSubscription(SyncBlock[Subscription], Iterator[Event]):
    """Events in order: ``with store.subscribe(…) as events: for event in events``.

    Like :class:`Subscription`. Iterating waits for the next event; another thread's
    :meth:`close` ends it.
    """

    def __next__(self) -> Event:
        try:
            return self._portal.run(self._handle.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event that was delivered."""
        return self._handle.last_sequence

    @property
    def caught_up(self) -> bool:
        """Whether every durable event has been delivered."""
        return self._handle.caught_up

    wait_caught_up = awaited(Subscription.wait_caught_up)

    def close(self) -> None:
        """Stop delivering; iteration ends. A second call does nothing."""
        self._portal.run(self._handle.aclose)


class SyncReplay(SyncHandle[Replay]):
    """A replay: ``for step in store.replay(…)``, or ``store.replay(…).report()``."""

    def __iter__(self) -> Iterator[ReplayStep]:
        return iterate(self._portal, self._handle)

    def report(self) -> ReplayReport:
        """Return the verdicts on all actions."""
        return self._portal.run(self._handle.report)


class SyncStoreView(SyncHandle[StoreView]):
    """A store as it was at one moment. Like :class:`StoreView`."""

    @property
    def sequence(self) -> int:
        """The sequence of the last event before this moment."""
        return self._handle.sequence

    get = awaited(StoreView.get)
    frames = iterated(StoreView.frames)
    find = awaited(StoreView.find)
    context = awaited(StoreView.context)
    collection = handled(StoreView.collection, SyncCollectionReader)
    list_sessions = awaited(StoreView.list_sessions)
    get_session = awaited(StoreView.get_session)


class SyncStore(SyncHandle[Store]):
    """A store for synchronous code: the methods of :class:`Store` without ``await``.

    ``with SyncStore.open(path) as store`` runs an event loop in a thread of its own.
    ``SyncStore.of(store)`` is for the other threads of a program that has an asyncio store. What
    is a coroutine there blocks here, an async iterator is an iterator, and an ``async with`` block
    a ``with`` block. Any number of threads may use it at the same time. Each has one asyncio task
    on the loop, whose name is the thread's. Ctrl-C cancels the call that it interrupts.
    """

    def __init__(self, portal: Portal, store: Store, thread: LoopThread | None = None) -> None:
        super().__init__(portal, store)
        self._thread = thread
        if thread is not None:
            # A store that was dropped, or that is still open when the program ends.
            weakref.finalize(self, thread.stop)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        config: StoreConfig | None = None,
        read_only: bool = False,
    ) -> Self:
        """Open a file, in a ``with`` block or with a later :meth:`close`.

        It takes and raises what :func:`open_store` does.
        """
        thread = LoopThread(open_store(path, config=config, read_only=read_only))
        return cls(*thread.start(), thread)

    @classmethod
    def of(cls, store: Store) -> Self:
        """Return an open asyncio store, for threads other than the one of its event loop.

        It is called on that loop, and does not close the store.

        :raises WrongLoopError: when the caller is not on the store's event loop.
        """
        store.statistics()  # Only the store's own loop may call it.
        return cls(Portal(), store)

    def submit(self, make: Callable[[Store], Awaitable[T]]) -> Future[T]:
        """Start ``make(store)`` on the store's event loop, with the asyncio store; do not wait.

        It is the way for code on another event loop: ``await asyncio.wrap_future(store.submit(
        lambda store: store.put("text")))``. Cancelling the future cancels what was started.

        :raises WrongLoopError: in a forked child.
        :raises StoreClosedError: when the loop has ended.
        """
        store = self._handle
        return self._portal.submit(lambda: make(store))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store, and end its thread. Safe to call twice, and in a forked child.

        :raises StoreFailedError: when events that a buffered store has acked could not be written.
        """
        if self._thread is not None:
            self._thread.close(self._portal, self._handle)

    def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None and thread.is_open:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self._handle.path

    @property
    def read_only(self) -> bool:
        """Whether it was opened with ``read_only=True``."""
        return self._handle.read_only

    @property
    def torn_tail(self) -> TornTail:
        """The torn tail that was found last: how many bytes were dropped, and where it began."""
        return self._handle.torn_tail

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event, as last folded; 0 in an empty store."""
        return self._handle.last_sequence

    @property
    def active_session_id(self) -> UUID | None:
        """The id of the file's ambient session, as last folded; None while there is none."""
        return self._handle.active_session_id

    @property
    def is_recording(self) -> bool:
        """Whether the file has an ambient session, as last folded."""
        return self._handle.is_recording

    start_session = awaited(Store.start_session)
    start_session_if_none = awaited(Store.start_session_if_none)
    end_session = awaited(Store.end_session)
    session = handled(Store.session, SyncSession)
    resume_session = handled(Store.resume_session, SyncSession)
    list_sessions = awaited(Store.list_sessions)
    actions = iterated(Store.actions)
    usage = awaited(Store.usage)
    get_session = awaited(Store.get_session)
    get_summary = awaited(Store.get_summary)
    fork = awaited(Store.fork)
    annotate_session = awaited(Store.annotate_session)
    rename_session = awaited(Store.rename_session)
    delete_session = awaited(Store.delete_session)

    record_ask = awaited(Store.record_ask)
    record_find = awaited(Store.record_find)
    record_put = awaited(Store.record_put)
    record_put_many = awaited(Store.record_put_many)
    record_update = awaited(Store.record_update)
    record_delete = awaited(Store.record_delete)
    record_tool_call = awaited(Store.record_tool_call)
    record_step = awaited(Store.record_step)
    create_checkpoint = awaited(Store.create_checkpoint)

    put = awaited(Store.put)
    put_many = awaited(Store.put_many)
    update = awaited(Store.update)
    delete = awaited(Store.delete)
    get = awaited(Store.get)
    frames = iterated(Store.frames)
    find = awaited(Store.find)
    context = awaited(Store.context)
    ask = awaited(Store.ask)
    set_embedding_model = awaited(Store.set_embedding_model)
    at = handled(Store.at, SyncStoreView)
    collection = handled(Store.collection, SyncCollection)

    read_content = awaited(Store.read_content)
    stream_content = iterated(Store.stream_content)
    read_arguments = awaited(Store.read_arguments)
    read_messages = awaited(Store.read_messages)
    why = awaited(Store.why)
    read_new_messages = awaited(Store.read_new_messages)
    read_context = awaited(Store.read_context)
    read_chunks = awaited(Store.read_chunks)
    compare = awaited(Store.compare)
    serve = handled(Store.serve, SyncServedSession)
    replay = handled(Store.replay, SyncReplay)
    audit = awaited(Store.audit)

    subscribe = handled(Store.subscribe, SyncSubscription)
    sync = awaited(Store.sync)
    refresh = awaited(Store.refresh)
    prune = awaited(Store.prune)
    verify = awaited(Store.verify)
    compact = awaited(Store.compact)
    statistics = called(Store.statistics)
