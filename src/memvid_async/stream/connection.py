"""The connection to the servers.

Its methods block, and are called in any thread but that of the store's loop. So what waits for a
server waits in the store's threads, and the store's loop may be busy, or end, without the
connection suffering.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import (
    StoreClosedError,
    StoreFailedError,
)
from .address import Address, StreamName
from .announced import Announcements
from .client_loop import ClientLoop
from .connecting import connect_client, is_final
from .direct_get import ANSWER, get_messages
from .server_answers import (
    NOT_FOUND,
    PASSING,
    WRONG_LAST,
    LostRaceError,
    MessageLostError,
    NobodyAnswersError,
    NoLeaderError,
    StreamFacts,
    refusal,
)
from .straight_requests import Receiver, StraightRequests
from .stream_storage import FETCH_BYTES

if TYPE_CHECKING:
    from nats.aio.client import Client

T = TypeVar("T")

# Its last number is the stream's last sequence.
_NUMBER = re.compile(r"\d+$")
# After an answer that did not come, or a replica that lacks what is asked for.
_PAUSE = 0.02
# How many writers that lost are held between two looks.
_MOST_LOSERS = 1024
# Disconnecting takes at most this many seconds.
_CLOSING = 2.0
# A message that this many answers lacked, which had later ones, is in no replica.
_MOST_LACKING = 20
# A server must take messages of as many bytes, so that a batch comes in few enough.
_LEAST_PAYLOAD = 64 * 1024
# What a server says to who may not publish; whose turn it is need not be told.
_DENIED = re.compile(r'violation for publish to "(?!memvid\.lost)', re.IGNORECASE)
# What a message may have beside its payload: the subject, and the headers.
_ROOM_FOR_HEADERS = 1024


class Connection:
    """A connected client, and what the server announced. Made by :meth:`open`.

    ``stream``: the one that is appended to and watched, once :meth:`use` has said so. ``news``:
    what was announced of it.
    ``patience``: how many seconds a call waits for servers that do not answer.
    """

    def __init__(self, address: Address, patience: float, loop: ClientLoop) -> None:
        self.address = address
        self.stream = StreamName(address.name)
        self._patience = patience
        self._loop = loop
        self._client: Client | None = None
        self._requests = StraightRequests(loop)
        self._trouble = ""
        self._closed = False
        self.news = Announcements(self.stream.news_subject)
        self._losers: list[bytes] = []
        self._guard = threading.Lock()
        self._woken = False
        # Whether something may have been stored without being announced here.
        self.missed = self._watching = False
        self._subscription: Any = None

    @classmethod
    def open(
        cls,
        address: Address,
        options: Mapping[str, Any],
        patience: float,
        loop: ClientLoop | None = None,
    ) -> Self:
        """Connect.

        ``loop``: where the client runs, closed with the connection; by default one of its own.

        :raises StoreFailedError: when no server answers, or refuses.
        """
        connection = cls(address, patience, loop or ClientLoop())
        try:
            connection._call(connection._connect(options))
            connection._check_payload()
        except BaseException:
            connection.close()
            raise
        return connection

    # On the client's loop.

    async def _connect(self, options: Mapping[str, Any]) -> None:
        known = {
            "error_cb": self._note_trouble,
            "disconnected_cb": self._wake_soon,
            "reconnected_cb": self._wake_soon,
        }
        self._client = await connect_client(
            self.address, {**known, **options}, self._patience, lambda: self._trouble
        )
        await self._requests.open(self._client)

    async def _note_trouble(self, error: Exception) -> None:
        if self._client is None and is_final(error):
            # This ends the client's connect().
            raise error
        # What a server says tells more than how the connection ended after it.
        if not (self._trouble and isinstance(error, OSError)):
            self._trouble = str(error) or repr(error)

    async def _wake_soon(self) -> None:
        self.missed = True
        self.wake()

    def _announced(self, message: Any) -> None:
        news = self.news
        if message.subject == news.subject:
            news.note(int(message.headers["Nats-Sequence"]), message.data)
            self._loop.note_change()

    def _somebody_lost(self, message: Any) -> None:
        with self._guard:
            if len(self._losers) < _MOST_LOSERS:
                self._losers.append(message.data)

    # In other threads.

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            coroutine.close()
            raise StoreClosedError("the connection to the stream is closed")
        return self._loop.call(coroutine)

    def pause(self, seconds: float) -> None:
        """Return after some seconds, in which the client reads and answers."""
        self._loop.pause(seconds)

    def looks(self, patience: float) -> Iterator[None]:
        """Yield at once, and again after each pause, for some seconds: a server that was cut off,
        or just elected, may not know all yet."""
        until = time.monotonic() + patience
        while True:
            yield
            if time.monotonic() >= until:
                return
            self.pause(_PAUSE)

    def _answer(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the answer to a request that changes nothing, asked again until it comes.

        :raises StoreFailedError: when none came for ``patience`` seconds.
        """
        from nats.errors import Error  # noqa: PLC0415 - an extra

        until = time.monotonic() + self._patience
        while True:
            try:
                return self._call(ask())
            except (TimeoutError, OSError, Error, NoLeaderError) as error:
                if time.monotonic() >= until or self._is_denied:
                    raise self._unreachable(error) from error
                self.pause(_PAUSE)

    @property
    def _is_denied(self) -> bool:
        """Whether a server said that this user may not publish what a store needs."""
        return _DENIED.search(self._trouble) is not None

    def _unreachable(self, error: BaseException) -> StoreFailedError:
        from nats.errors import NoRespondersError  # noqa: PLC0415 - an extra

        if self._is_denied:
            # It is asked again by the next call: somebody may allow it.
            said, self._trouble = self._trouble, ""
            return StoreFailedError(f"the server refuses: {said}")
        why = self._trouble or str(error) or type(error).__name__
        if isinstance(error, NoRespondersError):
            why = "no JetStream: has the server none (`nats-server -js`), or no leader?"
        return StoreFailedError(f"the stream does not answer ({why}); try again")

    async def _ask(self, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        assert self._client is not None
        data = b"" if body is None else json.dumps(body).encode()
        reply = await self._client.request(f"$JS.API.{what}", data, timeout=ANSWER)
        answer: dict[str, Any] = json.loads(reply.data)
        if answer.get("error", {}).get("err_code") in PASSING:
            raise NoLeaderError(answer["error"]["description"])
        return answer

    def _told(self, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return what the leader answers; None when there is no such stream.

        :raises MemvidAsyncError: when it refuses, or none answers.
        """
        answer = self._answer(lambda: self._ask(what, body))
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("err_code") == NOT_FOUND:
            return None
        raise refusal(error)

    def facts(self, stream: StreamName | None = None) -> StreamFacts | None:
        """Return what the leader says of a stream, by default the one in use; None when there is
        none."""
        answer = self._told(f"STREAM.INFO.{(stream or self.stream).name}")
        return None if answer is None else StreamFacts(answer)

    def own_streams(self) -> list[StreamName]:
        """Return the store's streams, in order: more than one while it is compacted."""
        answer = self._told("STREAM.NAMES", {"subject": self.address.log_subjects}) or {}
        found = [StreamName.parse(name) for name in answer.get("streams") or ()]
        return sorted(found, key=lambda one: one.number)

    def create(self, stream: StreamName, replicas: int) -> None:
        """Create a stream, unless it is there.

        :raises StoreFailedError, NotAStoreError: when the server refuses.
        """
        body = {
            "name": stream.name,
            "subjects": [stream.subject],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": replicas,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "allow_direct": True,
            "deny_delete": True,
            "deny_purge": True,
            "republish": {"src": stream.subject, "dest": stream.news_subject},
            "metadata": {"memvid-async": "1"},
        }
        self._told(f"STREAM.CREATE.{stream.name}", body)

    def delete(self, stream: StreamName) -> None:
        """Delete a stream, if it is there.

        :raises StoreFailedError: when the server refuses.
        """
        self._told(f"STREAM.DELETE.{stream.name}")

    def _check_payload(self) -> None:
        if self.most_payload < _LEAST_PAYLOAD - _ROOM_FOR_HEADERS:
            raise StoreFailedError(
                f"the server's max_payload is {self.most_payload + _ROOM_FOR_HEADERS} bytes, and a "
                f"store needs {_LEAST_PAYLOAD}"
            )

    @property
    def most_payload(self) -> int:
        """The length of the longest payload that the server takes, in bytes."""
        assert self._client is not None
        return int(self._client.max_payload) - _ROOM_FOR_HEADERS

    def publish(
        self,
        stream: StreamName,
        payload: bytes,
        expected: int,
        *,
        stored: Callable[[], bool | None],
        is_gone: Callable[[], bool] = lambda: True,
    ) -> int:
        """Append a message after the one with the sequence ``expected``; return its sequence.

        A message whose acknowledgement does not come is sent again: as both expect the same last
        sequence, the stream takes at most one of them.

        ``stored``: looks whether the message after ``expected`` is this one; None when there is
        none after all. It is called where the message was sent more than once. ``is_gone``: looks
        whether the stream is gone, as a server says, which may not know all yet.

        :raises LostRaceError: when another message follows ``expected``, or the stream is gone.
        :raises StoreFailedError: when the server refuses it, or when no server answers: whether it
            is in the stream is then not known, and the next look at the stream tells.
        """
        until = time.monotonic() + self._patience
        sent = 0
        while True:
            sent += 1
            try:
                answer = self._send(stream, payload, expected)
            except (TimeoutError, OSError, NoLeaderError) as error:
                is_said = isinstance(error, NobodyAnswersError) and self.facts(stream) is None
                if is_said and is_gone():
                    raise LostRaceError(0, in_doubt=sent > 1) from error
                if time.monotonic() >= until or self._is_denied:
                    raise self._unreachable(error) from error
                self.pause(_PAUSE)
                continue
            refused = answer.get("error")
            if refused is None:
                return int(answer["seq"])
            if refused.get("err_code") != WRONG_LAST:
                raise refusal(refused)
            said = _NUMBER.search(refused.get("description", ""))
            last = int(said[0]) if said else 0
            is_there = None if said and last < expected else stored() if sent > 1 else False
            if is_there:
                return expected + 1
            if is_there is False:
                raise LostRaceError(last)
            # A new leader that has not caught up yet, unless it never does.
            if time.monotonic() >= until:
                raise StoreFailedError(
                    f"the stream ends at message {last}, but {expected} were acknowledged: the "
                    "servers have lost some"
                )
            self.pause(_PAUSE)

    def _send(self, stream: StreamName, payload: bytes, expected: int) -> dict[str, Any]:
        if self._closed:
            raise StoreClosedError("the connection to the stream is closed")
        headers = (
            f"Nats-Expected-Last-Sequence: {expected}\r\nNats-Expected-Stream: {stream.name}\r\n"
        )
        answer: dict[str, Any] = json.loads(
            self._requests.ask(stream.subject, headers, payload, ANSWER)
        )
        if answer.get("error", {}).get("err_code") in PASSING:
            raise NoLeaderError(answer["error"]["description"])
        return answer

    # Reading.

    def fetch(
        self,
        stream: StreamName,
        first: int,
        count: int,
        known: int = 0,
        size: int = FETCH_BYTES,
    ) -> list[tuple[int, bytes]]:
        """Return messages from the sequence ``first`` on, in a row: at most ``count``, which reach
        ``size`` bytes, or one.

        ``known``: the stream was said to reach this sequence: a replica that lacks it is asked
        again, unless the leader lacks it too. Then nothing is returned: what it had proposed was
        never accepted.

        :raises MessageLostError: when the stream goes on after ``first``, but does not have it.
        :raises StoreFailedError: when they do not come.
        """
        until, look = time.monotonic() + self._patience, time.monotonic() + ANSWER
        lacking = 0
        while True:
            found, following = self._answer(lambda: self._fetch(stream, first, count, size))
            if found or known < first:
                return found
            # Another replica may have it.
            lacking += following > 0
            if lacking >= _MOST_LACKING:
                raise MessageLostError(stream, first, following)
            if time.monotonic() >= look:
                facts = self.facts(stream)
                if facts is None or facts.last < first:
                    return []
                if not self._leader_has(stream, first):
                    raise MessageLostError(stream, first)
                look += ANSWER
            if time.monotonic() >= until:
                raise MessageLostError(stream, first)
            self.pause(_PAUSE)

    def _leader_has(self, stream: StreamName, sequence: int) -> bool:
        what = f"STREAM.MSG.GET.{stream.name}"
        return "error" not in self._answer(lambda: self._ask(what, {"seq": sequence}))

    async def _fetch(
        self, stream: StreamName, first: int, count: int, size: int
    ) -> tuple[list[tuple[int, bytes]], int]:
        assert self._client is not None
        return await get_messages(self._client, stream.name, first, count, size)

    # Following.

    def use(self, stream: StreamName) -> None:
        """From now on, append to this stream, and hold what is announced of it."""
        self.stream, self.news = stream, Announcements(stream.news_subject)
        if self._watching:
            self._answer(self._watch)

    def watch(self) -> None:
        """From now on, hold what the server announces."""
        if not self._watching:
            self._watching = True
            self._answer(self._watch)

    async def _watch(self) -> None:
        assert self._client is not None
        before, subject = self._subscription, self.stream.news_subject
        receiver: Any = Receiver(self._announced)
        self._subscription = await self._client.subscribe(subject, future=receiver)
        if before is not None:
            await before.unsubscribe()
        # What the leader is asked next comes to it after this. The client's flush() is not used: an
        # answer to it that comes too late ends the client's reading, without a word.
        self.missed = True

    def watch_losers(self) -> None:
        """From now on, hold who lost a race."""

        async def subscribe() -> None:
            assert self._client is not None
            receiver: Any = Receiver(self._somebody_lost)
            await self._client.subscribe(self.address.lost_subject, future=receiver)

        self._answer(subscribe)

    def tell_lost(self, writer: bytes) -> None:
        """Tell the other writers that this one lost a race."""

        async def tell() -> None:
            assert self._client is not None
            with suppress(Exception):
                await self._client.publish(self.address.lost_subject, writer)

        self._loop.start(tell())

    def take_losers(self) -> list[bytes]:
        """Return which writers said that they lost, since the last call."""
        if not self._losers:
            return []
        with self._guard:
            losers, self._losers = self._losers, []
        return losers

    def wait_for(self, after: int, timeout: float) -> bool:
        """Return once a message above the sequence ``after`` was announced, after :meth:`wake`, or
        after ``timeout`` seconds; return whether it was for one of the first two."""
        is_due = self._loop.wait(lambda: self.news.newest > after or self._woken, timeout)
        self._woken = False
        return is_due

    def wait_until(self, sequence: int, timeout: float) -> bool:
        """Return whether a message was announced in ``timeout`` seconds; at once if none is."""
        return self._watching and self._loop.wait(lambda: self.news.newest >= sequence, timeout)

    def wake(self) -> None:
        """Let :meth:`wait_for` return. May be called in any thread."""
        self._woken = True
        self._loop.note_change_soon()

    # Closing.

    def close(self) -> None:
        """Disconnect. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._loop.go_on()
        with suppress(Exception):
            self._loop.call(self._end())
        self._loop.close()

    async def _end(self) -> None:
        if self._client is not None:
            with suppress(Exception):
                async with asyncio.timeout(_CLOSING / 2):
                    await self._client.close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        # One that ends just then may miss it, and go on.
        if others:
            await asyncio.wait(others, timeout=_CLOSING / 2)
