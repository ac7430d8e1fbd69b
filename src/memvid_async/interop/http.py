"""Recording at the HTTP transport: unmodified clients of model APIs, recorded and served.

:class:`RecordingTransport` is the transport of an ``httpx2.AsyncClient`` (or ``httpx``'s), which
the official SDKs take as ``http_client``. It imports neither: it is for whichever asks it.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from .. import Generated, InvalidValueError, MemvidAsyncError, SyncServedSession, SyncSession
from .http_library import InThreads, decoded, library_of, streams_of
from .overflow import Overflow
from .wire_formats import ModelReply, ModelRequest, is_stream, read_reply, read_request, says_end
from .wire_messages import (
    MessageReader,
    ResponseHead,
    Secrets,
    public_url,
    recordable,
    write_chunk,
    write_head,
)

if TYPE_CHECKING:
    import httpx2

    # What a type checker wants of a client's transport.
    class _Transport(httpx2.AsyncBaseTransport, httpx2.BaseTransport):
        pass
else:
    _Transport = object

_SHOWN_BODY = 64 * 1024
# Of a model's response, this many bytes are looked at for an error that it ends with.
_MOST_LOOKED_AT = 32 * 1024 * 1024
# A response that is not a stream is held back up to this many bytes, until the rest has come.
_MOST_HELD = 4 * 1024 * 1024
_MOST_TEXT_CHARS = 64 * 1024
# Of a response to a tool call, about this many bytes are recorded, as Limits.content_bytes has it.
_MOST_FETCHED = 16 * 1024 * 1024


class ReplyError(MemvidAsyncError):
    """A server answered, and its answer is an error; the message is what it said.

    ``response``: for a tool call, the recorded head and body of the answer; else empty.
    """

    response: bytes

    def __init__(self, message: str, response: bytes = b"") -> None:
        super().__init__(message, response)
        self.response = response

    def __str__(self) -> str:
        return str(self.args[0])


class RecordingTransport(_Transport):
    """A transport that records into a session, or answers from a recording.

    ``session``: a session that records, or one that serves; that of a :class:`SyncStore` for a
    synchronous client. Requests to models become asks: those of OpenAI's chat and responses and of
    Anthropic's messages, to any service that speaks like them. ``other``: what happens to all other
    requests. They are passed on, or with ``"record"`` are recorded as tool calls. ``transport``:
    what really sends requests, by default the client library's own; one that is passed in is not
    closed here.

    Recorded are the prompt, the reply, the tokens, and the response as it came. Not recorded are
    the request's headers, and of the response's those that its clients do not read; secrets of the
    address and the headers are masked wherever they come up.
    """

    def __init__(
        self, session: Any, transport: Any = None, *, other: Literal["pass", "record"] = "pass"
    ) -> None:
        if not hasattr(session, "stream_model"):
            raise InvalidValueError(
                f"session must be a session that records or serves, not {type(session).__name__}"
            )
        if other not in ("pass", "record"):
            raise InvalidValueError(f"other must be 'pass' or 'record', not {other!r:.80}")
        self._session = session
        self._transport = transport
        self._own_transport: Any = None
        self._records_others = other == "record"
        self._is_sync = isinstance(session, (SyncSession, SyncServedSession))

    def __repr__(self) -> str:
        return f"<RecordingTransport of {self._session!r}>"

    # For an asyncio client.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client library's own transport, where that was used."""
        own, self._own_transport = self._own_transport, None
        if own is not None:
            await own.aclose()

    async def handle_async_request(self, request: Any) -> Any:
        """Answer a request, as the client asks it to.

        :raises InvalidValueError: when the session is a synchronous one.
        """
        if self._is_sync:
            raise InvalidValueError("an asyncio client needs a session of an asyncio store")
        library = library_of(request)
        exchange = await _Exchange.begin(request, self._inner(library, "AsyncHTTPTransport"))
        if exchange.asked is not None:
            answer = _ReadResponse(library)
            message = self._ask(exchange)
            async for data in message:
                if answer.has_begun(data):
                    break
            return answer.response(streams_of(library)[0](answer.body(message)))
        if not self._records_others:
            return await exchange.send()
        calling = self._session.call_tool(exchange.name, exchange.arguments, exchange.fetch)
        try:
            message = await calling
        except ReplyError as error:
            message = error.response
        return _fetched_response(library, message, exchange.overflow, is_sync=False)

    # For a synchronous client.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the client library's own transport, where that was used."""
        own, self._own_transport = self._own_transport, None
        if own is not None:
            own.close()

    def handle_request(self, request: Any) -> Any:
        """Answer a request, as the client asks it to.

        :raises InvalidValueError: when the session is not a synchronous one.
        """
        if not self._is_sync:
            raise InvalidValueError("a synchronous client needs a session of a SyncStore")
        library = library_of(request)
        request.read()
        exchange = _Exchange(request, InThreads(self._inner(library, "HTTPTransport")))
        if exchange.asked is not None:
            answer = _ReadResponse(library)
            message = self._ask(exchange)
            for data in message:
                if answer.has_begun(data):
                    break
            return answer.response(streams_of(library)[1](answer.body_sync(message)))
        if not self._records_others:
            return self._inner(library, "HTTPTransport").handle_request(request)
        try:
            message = self._session.call_tool(exchange.name, exchange.arguments, exchange.fetch)
        except ReplyError as error:
            message = error.response
        return _fetched_response(library, message, exchange.overflow, is_sync=True)

    # Both.

    def _inner(self, library: ModuleType, kind: str) -> Any:
        """Return what really sends requests."""
        if self._transport is not None:
            return self._transport
        if self._own_transport is None:
            self._own_transport = getattr(library, kind)()
        return self._own_transport

    def _ask(self, exchange: _Exchange) -> Any:
        asked = exchange.asked
        assert asked is not None
        return self._session.stream_model(
            recordable(asked.messages, _MOST_TEXT_CHARS),
            exchange.generate,
            provider=asked.provider,
            model=asked.model,
            metadata={"request": asked.parameters},
            reading=exchange.read,
        )


class _Exchange:
    """A request, and what really sends it. Its body must have been read.

    ``overflow``: what a tool call's response has beyond what is recorded of it.
    """

    def __init__(self, request: Any, transport: Any) -> None:
        self._request = request
        self._transport = transport
        self._library = library_of(request)
        url = str(request.url)
        self._secrets = Secrets(url, request.headers.multi_items())
        body = self._secrets.mask(request.content)
        host, path = request.url.host, request.url.path
        self.asked = read_request(request.method, host, path, body)
        self.name = f"{request.method} {host}"
        self.overflow = Overflow()
        self._url, self._body = url, body
        # The last response that was read, and what it says: the same one is read twice.
        self._read: tuple[bytes, ModelReply] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What a tool call has of it."""
        return {"url": public_url(self._url), **_shown_body(self._body)}

    @classmethod
    async def begin(cls, request: Any, transport: Any) -> Self:
        """Read the request's body, and return it with its transport."""
        await request.aread()
        return cls(request, transport)

    async def send(self) -> Any:
        """Send the request as it is."""
        return await self._transport.handle_async_request(self._request)

    async def _send_readable(self) -> AsyncIterator[bytes]:
        """Send the request; yield the response as it is recorded.

        A stream comes piece by piece. Any other response comes in one piece: half of it is of no
        use to a client, so a process that dies there leaves a call in flight, not a broken stream.
        """
        # What is recorded should be readable, and is no longer than what the server makes of it.
        self._request.headers["accept-encoding"] = "identity"
        response = await self.send()
        room = 0 if is_stream(response.headers.get("content-type", "")) else _MOST_HELD
        held = bytearray(
            self._secrets.mask(write_head(response.status_code, response.headers.multi_items()))
        )
        try:
            if not room:
                yield _taken(held)
            async for part in response.stream:
                if part:
                    held += write_chunk(self._secrets.mask(part))
                if len(held) > room:
                    yield _taken(held)
        except Exception:
            if held:
                yield _taken(held)
            raise
        finally:
            await response.stream.aclose()
        yield _taken(held) + write_chunk(b"")

    async def generate(self, _: object) -> AsyncIterator[bytes]:
        """Ask the model: yield the response's head and body.

        :raises ReplyError: at the end, when the answer is an error.
        """
        parts: list[bytes] = []
        room = _MOST_LOOKED_AT
        async for part in self._send_readable():
            room -= len(part)
            if room >= 0:
                parts.append(part)
            yield part
        error = self._reply(b"".join(parts)).error
        if error is not None:
            raise ReplyError(error)

    def read(self, message: bytes) -> Generated:
        """Return what a response says, as far as it came."""
        reply = self._reply(message)
        return Generated(
            reply.text,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            cached_tokens=reply.cached_tokens,
            cost_usd=reply.cost_usd,
        )

    def _reply(self, message: bytes) -> ModelReply:
        asked = self.asked
        assert isinstance(asked, ModelRequest)
        if self._read is None or self._read[0] != message:
            head, body = _read_message(self._library, message)
            reply = ModelReply()
            if head is not None:
                reply = read_reply(asked.form, head.status, head.content_type, body)
            self._read = message, reply
        return self._read[1]

    async def fetch(self, **_: object) -> bytes:
        """Send the request as a tool call, and return the response's head and body, or how they
        begin where they are too long to be recorded.

        :raises ReplyError: when the answer is an error.
        """
        parts: list[bytes] = []
        room = _MOST_FETCHED
        try:
            async for part in self._send_readable():
                if room > 0:
                    room -= len(part)
                    parts.append(part)
                else:
                    await self.overflow.add(part)
        except BaseException:
            self.overflow.close()
            raise
        message = b"".join(parts)
        head, body = _read_message(self._library, message)
        if head is not None and head.status >= 400:
            text = body[:200].decode("utf-8", "replace").strip()
            raise ReplyError(
                f"HTTP {head.status}: {text}" if text else f"HTTP {head.status}", message
            )
        return message


def _taken(held: bytearray) -> bytes:
    """Return what was held back, which is held no longer."""
    taken = bytes(held)
    held.clear()
    return taken


def _read_message(library: ModuleType, message: bytes) -> tuple[ResponseHead | None, bytes]:
    """Return a recorded response's head and its body without an encoding, as far as it came."""
    reader = MessageReader()
    try:
        body = b"".join(reader.feed(message))
    except ValueError:
        return None, b""
    head = reader.head
    if head is not None and any(name.lower() == "content-encoding" for name, _ in head.headers):
        try:
            body = decoded(library, head.headers, body, _MOST_LOOKED_AT)
        except library.DecodingError:
            # It came only in part, or is something else.
            body = b""
    return head, body


class _ReadResponse:
    """A recorded response, read piece by piece, as the client library's."""

    def __init__(self, library: ModuleType) -> None:
        self._library = library
        self._reader = MessageReader()
        self._parts: list[bytes] = []
        self._says_end = False

    def has_begun(self, data: bytes) -> bool:
        """Take in a piece; return whether the head has come."""
        self._parts += self._reader.feed(data)
        return self._reader.head is not None

    def response(self, stream: Any) -> Any:
        """Return the response; its body is to be read from the stream."""
        head = self._begun()
        return self._library.Response(head.status, headers=head.headers, stream=stream)

    def _begun(self) -> ResponseHead:
        head = self._reader.head
        if head is None:
            # The call was broken off before anything came.
            raise self._error("the recording holds no response to this request")
        return head

    def whole(self) -> Any:
        """Return the response, of which all has come."""
        head = self._begun()
        self._check_whole()
        body = b"".join(self._parts)
        return self._library.Response(head.status, headers=head.headers, content=body)

    async def body(self, message: Any) -> AsyncIterator[bytes]:
        """Yield the parts of the body."""
        try:
            for part in self._noted(self._parts):
                yield part
            async for data in message:
                for part in self._noted(self._reader.feed(data)):
                    yield part
        except ReplyError:
            # It is for the client to say that this answer is an error.
            return
        except ConnectionResetError as error:
            self._break_off(error)
        finally:
            if self._has_ended:
                # Its reader may leave then. What is left is the end, and belongs to it.
                with suppress(ReplyError, ConnectionResetError):
                    async for _ in message:
                        pass
            await message.aclose()
        self._check_whole()

    def body_sync(self, message: Any) -> Iterator[bytes]:
        """Yield the parts of the body."""
        try:
            yield from self._noted(self._parts)
            for data in message:
                yield from self._noted(self._reader.feed(data))
        except ReplyError:
            return
        except ConnectionResetError as error:
            self._break_off(error)
        finally:
            if self._has_ended:
                with suppress(ReplyError, ConnectionResetError):
                    deque(message, maxlen=0)
            message.close()
        self._check_whole()

    def _noted(self, parts: list[bytes]) -> list[bytes]:
        """Return parts of the body, and note whether a stream says in them that it ends."""
        self._says_end = self._says_end or any(map(says_end, parts))
        return parts

    @property
    def _has_ended(self) -> bool:
        return self._says_end or self._reader.is_whole

    def _break_off(self, error: ConnectionResetError) -> None:
        """Raise the client library's error for a connection that broke off in this response."""
        if not self._reader.is_whole:
            raise self._library.ReadError(str(error)) from error

    def _check_whole(self) -> None:
        if not self._reader.is_whole:
            # Its reader had left it here, or it is longer than what is recorded.
            raise self._error("the recording of this response ends here")

    def _error(self, problem: str) -> Exception:
        error: Exception = self._library.RemoteProtocolError(problem)
        return error


def _fetched_response(
    library: ModuleType, message: bytes | str, overflow: Overflow, *, is_sync: bool
) -> Any:
    """Return the response to a tool call, with what of it is not recorded."""
    answer = _ReadResponse(library)
    answer.has_begun(message.encode() if isinstance(message, str) else message)
    if overflow.is_empty:
        return answer.whole()
    of_loop, of_thread = streams_of(library)
    if is_sync:
        return answer.response(of_thread(answer.body_sync(overflow.pieces())))
    return answer.response(of_loop(answer.body(overflow.pieces_in_threads())))


def _shown_body(body: bytes) -> dict[str, Any]:
    """Return a request's body as an argument: JSON, text, or the digest of what is neither."""
    if not body:
        return {}
    if len(body) <= _SHOWN_BODY:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            pass
        else:
            try:
                return {"body": json.loads(text, parse_constant=_refuse)}
            except (ValueError, RecursionError):
                return {"body": text}
    digest = hashlib.blake2b(body, digest_size=32).hexdigest()
    return {"body_bytes": len(body), "body_digest": digest}


def _refuse(name: str) -> None:
    raise ValueError(name)
