"""What the servers answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import MemvidAsyncError, NotAStoreError, StoreFailedError
from .address import StreamName

# The server's codes of refusals that have a meaning of their own.
WRONG_LAST = 10071
NOT_FOUND = 10059
_NAME_TAKEN = 10058
# No leader answers for now: it is asked again.
PASSING = (10008, 10009, 10118)


class LostRaceError(MemvidAsyncError):
    """Somebody else appended first: nothing of this batch is in the stream.

    ``last``: the sequence of the last message, as the server says it; 0 where it does not.
    ``in_doubt``: the stream is gone, and may have taken the batch before.
    """

    def __init__(self, last: int, *, in_doubt: bool = False) -> None:
        super().__init__("another process appended first")
        self.last = last
        self.in_doubt = in_doubt


class StreamGoneError(StoreFailedError):
    """The stream is not there any more: the store was compacted, and its log is on the next one."""


class MessageLostError(StoreFailedError):
    """The servers do not have a message that they once had.

    ``stream``: which one. ``following``: the sequence of the next one that they have; 0 where that
    is not known.
    """

    def __init__(self, stream: StreamName, sequence: int, following: int = 0) -> None:
        super().__init__(
            f"the stream {stream.name} has lost its message {sequence}; recover() saves what is "
            "left"
        )
        self.stream, self.sequence, self.following = stream, sequence, following


class NoLeaderError(Exception):
    """The servers have no leader at the moment."""


class NobodyAnswersError(NoLeaderError):
    """No stream takes messages of this subject, as a server says that may not know all yet."""


class StreamFacts:
    """What the leader of a stream says of it."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        state, config = info["state"], info["config"]
        self.last: int = state["last_seq"]
        # Of a stream without messages, the one that would be the first.
        self.first: int = state["first_seq"]
        self.created: str = info["created"]
        self.replicas: int = config["num_replicas"]
        self.most_bytes: int = config.get("max_msg_size", -1)
        self.config: Mapping[str, Any] = config


def refusal(error: Mapping[str, Any]) -> MemvidAsyncError:
    """Return the error that says what the servers refused."""
    said = error.get("description", error)
    if error.get("err_code") == _NAME_TAKEN:
        return NotAStoreError(f"there is a stream of this name that is not a store's: {said}")
    return StoreFailedError(f"the server refuses: {said}")
