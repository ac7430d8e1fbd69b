"""What is left of a damaged stream, as the bytes of a file: for recovering it.

Opening a stream needs its newest message, and reads it in order. Here nothing is needed: each batch
that is whole says where in the log it belongs, and what is lost between two of them stays zeros.
"""

from __future__ import annotations

import tempfile
from typing import Self

from ..config import StoreConfig
from ..errors import NotAStoreError, StoreNotFoundError
from ..file.wreck import Progress
from .address import Address, StreamName
from .client_loop import ClientLoop
from .connection import Connection
from .messages import Message, MessageKind, decode_message
from .server_answers import MessageLostError

# A message holds at most this many bytes, whatever the servers' settings
# (https://docs.nats.io/running-a-nats-service/configuration: max_payload).
_MOST_PAYLOAD = 64 * 1024 * 1024
_FETCH_COUNT = 1024


class StreamImage:
    """The log's bytes in a temporary file without a name. Made by :meth:`of_store`.

    ``lost``: how many messages are gone, or not a store's. ``ends_in_loss``: whether some are gone
    after the last batch that is whole.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._size = 0
        self._waiting: list[Message] = []
        self.lost = 0
        # How many messages since the last whole batch.
        self._lost_since = 0
        # Whether all of it is what a compaction copied.
        self._only_copied = True
        # The number of the stream in which the log goes on; 0 for none.
        self._next_number = 0

    @classmethod
    def of_store(
        cls, address: Address, config: StoreConfig, loop: ClientLoop, progress: Progress
    ) -> Self:
        """Read the stream that has a store's log, or what is left of it.

        ``progress`` is called with the messages read, and with how many there are.

        :raises StoreNotFoundError: when the store has no stream.
        :raises NotAStoreError: when there is nothing of a store in it.
        :raises StoreFailedError: when no server answers, or refuses.
        """
        connection = Connection.open(address, config.nats_options, config.server_timeout, loop)
        chosen, images = None, []
        try:
            following = 0
            for stream in connection.own_streams():
                if stream.number < following:
                    continue
                image = cls()
                images.append(image)
                image._read(connection, stream, progress)
                # What a compaction left, or is writing, as long as nobody has begun to use it.
                if image._only_copied and stream.number and stream.number != following:
                    continue
                # Where the stream is gone in which the log goes on, the one before has nearly all.
                chosen, following = image, image._next_number
                if not following:
                    break
            if not images:
                raise StoreNotFoundError(f"there is no store on a stream named {address.name}")
            if chosen is None or not chosen.size():
                chosen = None
                raise NotAStoreError(f"nothing of a store is left on the stream {address.name}")
            return chosen
        finally:
            connection.close()
            for image in images:
                if image is not chosen:
                    image.close()

    def _read(self, connection: Connection, stream: StreamName, progress: Progress) -> None:
        facts = connection.facts(stream)
        if facts is None or not facts.last:
            return
        self._lose(facts.first - 1)
        sequence = facts.first
        while sequence <= facts.last:
            progress(sequence, facts.last)
            try:
                found = connection.fetch(stream, sequence, _FETCH_COUNT, sequence)
            except MessageLostError as lost:
                following = min(lost.following or sequence + 1, facts.last + 1)
                self._lose(following - sequence)
                sequence = following
                continue
            if not found:
                return
            for _, payload in found:
                self._take(payload)
            sequence += len(found)

    def _lose(self, count: int) -> None:
        self.lost += count
        self._lost_since += count
        self._waiting = []

    def _take(self, payload: bytes) -> None:
        message = decode_message(payload)
        if message.kind == MessageKind.FOREIGN:
            self.lost += 1
            return
        if message.kind != MessageKind.LOG:
            self._next_number = message.next_number or self._next_number
            self._only_copied &= message.kind != MessageKind.BEGUN
            self._waiting = []
            return
        self._only_copied &= message.is_copied
        waiting = self._waiting if message.part else []
        if message.part and (len(waiting) != message.part or waiting[0].batch != message.batch):
            # What it continues is gone, and this with it.
            self._lost_since += 1
            self._waiting = []
            return
        self._waiting = waiting = [*waiting, message]
        if len(waiting) == message.parts:
            self._place(message.at, b"".join(one.data for one in waiting))

    def _place(self, at: int, data: bytes) -> None:
        """Write a batch at its offset, unless what is lost cannot be as long as that says."""
        if not self._size <= at <= self._size + self._lost_since * _MOST_PAYLOAD:
            self._lose(1)
            return
        self._file.seek(at)
        self._file.write(data)
        self._size, self._lost_since = at + len(data), 0

    @property
    def ends_in_loss(self) -> bool:
        """See the class."""
        return self._lost_since > 0

    def size(self) -> int:
        """See :class:`..file.wreck.DamagedBytes`, for this and :meth:`read`."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the log."""
        self._file.seek(offset)
        return self._file.read(length)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
