"""Appending's way to the server and back: a message goes straight to the socket, and its answer to
the thread that waits, with no task and no queue between. The client's own request takes two to
three times as much of the processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

from .client_loop import ClientLoop
from .server_answers import NobodyAnswersError

# An answer that says so of nobody that could give one.
_NOBODY = "503"
# Whether an answer is late is looked at after this many seconds, again and again.
_LOOK = 0.1


class Receiver:
    """Gets the messages of a subscription as soon as they are read.

    It takes the place of the future that a subscription may have: what is for a callback goes
    through a queue, and to a task. ``receive`` is called on the client's loop.
    """

    def __init__(self, receive: Callable[[Any], object]) -> None:
        self._receive = receive

    def set_result(self, message: Any) -> None:
        """Get a message. One without the headers that it must have is somebody else's."""
        with suppress(TypeError, ValueError, LookupError):
            self._receive(message)

    def cancelled(self) -> bool:
        """Whether no message is wanted."""
        return False


class StraightRequests:
    """Messages that are answered, on one connected client. :meth:`open` comes first."""

    def __init__(self, loop: ClientLoop) -> None:
        self._loop = loop
        self._numbers = count(1)
        # Of what was sent, the subject of its answer and the answer, once that is there.
        self._answers: dict[str, Any] = {}
        self._is_looking = False

    async def open(self, client: Any) -> None:
        """Let answers be received, from now on. On the client's loop."""
        self._client = client
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", future=Receiver(self._answered))

    def _answered(self, message: Any) -> None:
        if message.subject in self._answers:
            self._answers[message.subject] = message
            self._loop.note_change()

    def _look(self) -> None:
        """Let who waits look at the time, again and again while somebody does: a timer for each
        message would take as long as the rest of sending it."""
        self._is_looking = bool(self._answers)
        if self._is_looking:
            self._loop.note_change()
            self._loop.later(_LOOK, self._look)

    def ask(self, subject: str, headers: str, payload: bytes, timeout: float) -> str:
        """Send a message and return the data of its answer. In any other thread.

        ``headers``: a line for each.

        :raises TimeoutError, ConnectionError, NobodyAnswersError: when there is none.
        :raises StoreClosedError: when the connection is closed meanwhile.
        """
        answers, inbox = self._answers, f"{self._inbox}.{next(self._numbers)}"
        # As https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub says.
        head = f"NATS/1.0\r\n{headers}\r\n".encode()
        sizes = f"{len(head)} {len(head) + len(payload)}"
        data = b"".join((f"HPUB {subject} {inbox} {sizes}\r\n".encode(), head, payload, b"\r\n"))

        def send() -> None:
            # While it connects again, it would send this before it has said who it is.
            if self._client.is_connected:
                # Its publish() takes as long as all of this.
                self._client._transport.write(data)  # noqa: SLF001
                if not self._is_looking:
                    self._look()
            else:
                answers[inbox] = ConnectionError("there is no connection to a server")
                self._loop.note_change()

        answers[inbox], until = None, time.monotonic() + timeout
        try:
            self._loop.wait(
                lambda: answers[inbox] is not None or time.monotonic() >= until, None, send
            )
        finally:
            answer = answers.pop(inbox)
        if answer is None:
            raise TimeoutError
        if isinstance(answer, ConnectionError):
            raise answer
        if answer.headers and answer.headers.get("Status") == _NOBODY:
            raise NobodyAnswersError
        found: str = answer.data.decode()
        return found
