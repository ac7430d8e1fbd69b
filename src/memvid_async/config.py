"""What a caller can set, and every bound that the library keeps, by name."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID

from attrs import field, fields, frozen

from .errors import InvalidValueError

KIB = 1024
MIB = 1024 * KIB

# The messages of one ask take at most this many bytes: a few of them may name one large content
# again and again.
MOST_MESSAGES_BYTES = 128 * MIB


class Durability(Enum):
    """When ``await store.record_…()`` returns."""

    SYNC = "sync"
    """Once the event is on the disk (group commit; the default)."""

    BUFFERED = "buffered"
    """Once the event is in the log; the disk has it within ``StoreConfig.flush_interval``."""


_MOST = 2**63 - 1

Check = Callable[[Any, Any, Any], None]


def _whole(minimum: int, *, most: int = _MOST, optional: bool = False) -> Check:
    def check(_instance: object, attribute: Any, value: object) -> None:
        if optional and value is None:
            return
        if type(value) is not int or not minimum <= value <= most:
            last = "2^63 - 1" if most == _MOST else most
            raise InvalidValueError(
                f"{attribute.name} must be an int from {minimum} to {last}, not {value!r:.80}"
            )

    return check


def _seconds(*, above_zero: bool = False, finite: bool = True, optional: bool = False) -> Check:
    def check(_instance: object, attribute: Any, value: object) -> None:
        if optional and value is None:
            return
        number = value if type(value) in (int, float) else math.nan
        if not (number >= 0) or (above_zero and number == 0) or (finite and number == math.inf):  # type: ignore[operator]
            raise InvalidValueError(f"{attribute.name} must be seconds, not {value!r:.80}")

    return check


def _addresses(_instance: object, attribute: Any, value: object) -> None:
    is_fine = isinstance(value, tuple) and all(
        isinstance(one, str) and one.startswith(("http://", "https://", "nats://", "tls://"))
        for one in value
    )
    if not is_fine:
        raise InvalidValueError(
            f"{attribute.name} must be a tuple of addresses such as 'http://host:8222', not "
            f"{value!r:.80}"
        )


def _instance_of(kind: type) -> Check:
    def check(_instance: object, attribute: Any, value: object) -> None:
        if not isinstance(value, kind):
            raise InvalidValueError(
                f"{attribute.name} must be a {kind.__name__}, not {value!r:.80}"
            )

    return check


def _callable(_instance: object, attribute: Any, value: object) -> None:
    if not callable(value):
        raise InvalidValueError(f"{attribute.name} must be callable, not {value!r:.80}")


def _callable_or_none(instance: object, attribute: Any, value: object) -> None:
    if value is not None:
        _callable(instance, attribute, value)


def _one_of(*allowed: str) -> Callable[[object, Any, object], None]:
    def check(_instance: object, attribute: Any, value: object) -> None:
        if not isinstance(value, str) or value not in allowed:
            raise InvalidValueError(f"{attribute.name} must be one of {allowed}, not {value!r:.80}")

    return check


_Embeddings = Iterable[Iterable[float]]
Scrub = Callable[[str, str, str], str]
Embedder = Callable[[list[str]], _Embeddings | Awaitable[_Embeddings]]


@frozen(repr=False)
class _Settings:
    """The base of settings; a repr shows the fields that differ from their defaults."""

    def __repr__(self) -> str:
        own = (one for one in fields(type(self)) if one.repr)
        values = ((one.name, getattr(self, one.name), one.default) for one in own)
        shown = (f"{name}={value!r}" for name, value, default in values if value != default)
        return f"{type(self).__name__}({', '.join(shown)})"


@frozen(kw_only=True, repr=False)
class RecordingConfig(_Settings):
    """How a session records. Checkpoint actions count towards neither number; a call counts from
    its beginning on."""

    auto_checkpoint_interval: int = field(default=0, validator=_whole(0))
    """A checkpoint after every this many actions; 0 for none."""
    max_actions: int | None = field(default=None, validator=_whole(1, optional=True))
    """The session ends, in the same atomic step, when it holds this many; None for no end."""
    auto_record: bool = field(default=False, validator=_instance_of(bool))
    """Whether a store that has no ambient session starts one when it is opened for writing."""
    record_starts: bool = field(default=True, validator=_instance_of(bool))
    """Whether a call is durable in the log before it runs, so that what was in flight is known when
    its process died. Without that a call is one event, at its end. The file does not keep this."""


# Most sessions have this one. It is recognised by identity, which saves comparing its fields.
DEFAULT_RECORDING = RecordingConfig()


def recording_config(interval: int, most: int | None) -> RecordingConfig:
    """Return the configuration with these values; always the same object for the default."""
    if interval == 0 and most is None:
        return DEFAULT_RECORDING
    return RecordingConfig(auto_checkpoint_interval=interval, max_actions=most)


@frozen(kw_only=True, repr=False)
class Limits(_Settings):
    """Bounds on what is taken in and held. Sizes are in bytes unless the name says otherwise."""

    content_bytes: int = field(default=16 * MIB, validator=_whole(1))
    """One input or output."""
    value_bytes: int = field(default=MIB, validator=_whole(1))
    """One metadata map, one tool call's arguments, or one message, as CBOR."""
    messages_bytes: int = field(default=16 * MIB, validator=_whole(1, most=MOST_MESSAGES_BYTES))
    """All the messages of one ask together, as CBOR; at most 128 MiB, as no reader takes more."""
    name_chars: int = field(default=256, validator=_whole(1))
    """A session's name, a task, a provider, a model, a mode or a tool's name, in characters."""
    query_chars: int = field(default=8 * KIB, validator=_whole(1))
    """A query that is searched for, an ask's question included, in characters."""
    error_chars: int = field(default=8 * KIB, validator=_whole(1))
    """An action's or a session's error, in characters; a session's own is cut to it."""
    frames: int = field(default=64 * KIB, validator=_whole(1))
    """Frame ids named by one action, counted."""
    stream_bytes: int = field(default=1024 * MIB, validator=_whole(1))
    """One body of a frame that is put as a stream."""
    title_chars: int = field(default=4 * KIB, validator=_whole(1))
    """A frame's title or URI, in characters."""
    tags: int = field(default=256, validator=_whole(1))
    """Tags of one frame, counted; each has at most ``name_chars`` characters."""
    dimensions: int = field(default=16 * KIB, validator=_whole(1))
    """Numbers of one embedding, counted."""
    top_k: int = field(default=10_000, validator=_whole(1))
    """Hits of one search, counted."""
    key_chars: int = field(default=KIB, validator=_whole(1))
    """A key of a collection, or an idempotency key, in characters."""
    collections: int = field(default=4 * KIB, validator=_whole(1))
    """Collections of one store, counted."""
    changes: int = field(default=64 * KIB, validator=_whole(1))
    """Changes of one ``apply``, and items of one append to a list, counted."""
    open_memories: int = field(default=4, validator=_whole(1))
    """Memories of past moments and of forks held at once, counted; others are folded again."""
    queue_bytes: int = field(default=64 * MIB, validator=_whole(1))
    """Commands waiting for the writer; callers beyond it wait for room."""
    batch_bytes: int = field(default=4 * MIB, validator=_whole(1))
    """Commands decided and appended in one group commit."""
    tail_bytes: int = field(default=MIB, validator=_whole(1))
    """Newest events kept in memory for live subscribers; older ones are read from the file."""
    read_bytes: int = field(default=256 * KIB, validator=_whole(4 * KIB))
    """What one subscription reads ahead from the file."""
    mirror_bytes: int = field(default=64 * MIB, validator=_whole(1))
    """What a store on a stream holds of it in memory; older bytes are asked for again."""


@frozen(repr=False)
class _RandomIds:
    """The default of ``StoreConfig.id_factory``; a signature shows the name, not an address."""

    def __call__(self) -> UUID:
        return uuid.uuid4()

    def __repr__(self) -> str:
        return "uuid4"


@frozen(kw_only=True, repr=False)
class StoreConfig(_Settings):
    """How a store is opened."""

    durability: Durability = field(default=Durability.SYNC, validator=_instance_of(Durability))
    """When a call that records returns."""
    recording: RecordingConfig = field(
        default=DEFAULT_RECORDING, validator=_instance_of(RecordingConfig)
    )
    """How sessions record that bring no configuration of their own."""
    limits: Limits = field(default=Limits(), validator=_instance_of(Limits))
    """The bounds on what is taken in and held."""
    language: Literal["english", "none"] = field(
        default="english", validator=_one_of("english", "none")
    )
    """How the text of a memory is analysed: "english" is stemmed, "none" is not. A file keeps the
    one its first frame was put with."""
    embedder: Embedder | None = field(default=None, validator=_callable_or_none)
    """Called with a list of texts, it returns their embeddings in the same order, each as numbers.
    It may be async; if it is not, it runs in a thread. None: the only embeddings are those that are
    put."""
    embedding_model: str | None = None
    """The name of the embedder's model."""
    scrub: Scrub | None = field(default=None, validator=_callable_or_none)
    """Called with what is recorded (the kind of an action, or ``session``), the field's name and a
    text, it returns the text to record. It sees every text of an action, a session, a frame and a
    collection, before the text is checked, cut, encoded, hashed, indexed or previewed; bytes as
    far as they are UTF-8. It runs where the value is prepared: on the event loop for small values,
    in a thread for more than 64 KiB. When it raises, or returns another type, nothing is recorded,
    and :class:`InvalidValueError` says so. ``scrub_secrets`` is one."""
    clock: Callable[[], int] = field(default=time.time_ns, validator=_callable)
    """Returns the time in nanoseconds since the Unix epoch; read once per command."""
    id_factory: Callable[[], UUID] = field(default=_RandomIds(), validator=_callable)
    """Returns the id of a new file or session."""
    flush_interval: float = field(default=0.05, validator=_seconds())
    """How long a BUFFERED event waits for the disk at most, in seconds."""
    lock_timeout: float = field(default=10.0, validator=_seconds(finite=False))
    """How long to wait for another process's lock, in seconds."""
    poll_interval: float = field(default=0.02, validator=_seconds(above_zero=True))
    """How often a store looks for what other processes appended, in seconds: one that is
    read-only, and one that has a subscriber or was searched."""

    replicas: int | None = field(default=None, validator=_whole(1, optional=True))
    """Of a store on a stream: how many servers must have an event before it is acked. Opening
    creates the stream with as many, and refuses one with fewer. None: as many as it has; a new one
    gets one."""
    sync_interval: float | None = field(default=None, validator=_seconds(optional=True))
    """Of a store on a stream: for at most how many seconds a server may not have on its disk what
    it acknowledged; 0 for not at all. Opening asks ``nats_monitors``, refuses where it is longer,
    and warns (:class:`UnknownSyncWarning`) where it is not known. None: it is not looked at."""
    nats_monitors: tuple[str, ...] = field(default=(), validator=_addresses, repr=False)
    """Of a store on a stream: the monitoring addresses of its servers, such as
    ``http://host:8222``; or ``nats://user:password@host:4222`` of a user of the servers' system
    account, whom all of them answer."""
    server_timeout: float = field(default=30.0, validator=_seconds(above_zero=True))
    """How long a store on a stream waits for servers that do not answer, in seconds; electing a new
    leader takes them some."""
    nats_options: Mapping[str, Any] = field(
        default=MappingProxyType({}), validator=_instance_of(Mapping), eq=False, repr=False
    )
    """Of a store on a stream: what ``nats.connect()`` is called with besides the address, such as
    ``user_credentials`` or ``tls``."""

    def new_id(self) -> UUID:
        """Return an id from ``id_factory``.

        :raises InvalidValueError: when it returns anything but a UUID.
        """
        made = self.id_factory()
        if not isinstance(made, UUID):
            raise InvalidValueError(f"id_factory() returned {made!r:.80}, not a UUID")
        return made
