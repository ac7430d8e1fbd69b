"""Files of chat transcripts, from bytes to runs: JSON or JSON lines; plain, gzip, or a tar of them.

Nothing is ever extracted to the disk, and every size is bounded before memory is taken for it.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, NoReturn

from attrs import Factory, frozen

from ..errors import InvalidValueError

MAX_TRANSCRIPT_BYTES = 256 * 1024 * 1024
"""The most that one transcript file may hold, decompressed."""

MESSAGE_KEYS = ("traj", "messages")
"""Where a run that is an object may keep its messages; the first that holds a list is taken."""

_DOCUMENT_SUFFIXES = (".json", ".jsonl", ".ndjson")
_LABEL_SUFFIXES = (*_DOCUMENT_SUFFIXES, ".gz", ".tar", ".tgz", ".traj")
_GZIP_MAGIC = b"\x1f\x8b"
_TAR_MAGIC = b"ustar"
_TAR_MAGIC_OFFSET = 257
_WIDEST_INT = 20  # characters of -2**63 and of 2**64 - 1


class TranscriptError(InvalidValueError):
    """A transcript, or one run of it, cannot be imported; the message names both and says why."""


@frozen
class Transcript:
    """One JSON document, or one series of JSON lines.

    ``name`` says where it came from (``file`` or ``archive:member``); ``data`` is decompressed.
    """

    name: str
    data: bytes


@frozen
class ChatRun:
    """One conversation of an agent, exactly as it stood in its transcript.

    ``source`` is the transcript's name and ``index`` the run's place in it, from 0; ``alone`` tells
    that the transcript holds no other. ``messages_key`` is where ``fields`` left the messages out,
    or None for a run that is a bare list of messages.
    """

    source: str
    index: int
    messages: list[Any]
    messages_key: str | None = None
    fields: dict[str, Any] = Factory(dict)
    alone: bool = True

    @property
    def value(self) -> Any:
        """The run as the JSON value that it was read from."""
        if self.messages_key is None:
            return self.messages
        return {**self.fields, self.messages_key: self.messages}

    @property
    def place(self) -> str:
        """The run in words, for messages."""
        return self.source if self.alone else f"{self.source}, run {self.index}"


def open_transcripts(
    name: str, data: bytes, max_bytes: int = MAX_TRANSCRIPT_BYTES
) -> Iterator[Transcript]:
    """Unwrap a file: one transcript, or every one in a tar.

    ``name`` is the file's name. Each part may be gzip-compressed. Of a tar only regular files named
    ``*.json``, ``*.jsonl`` or ``*.ndjson`` are read; links, devices and others are passed over.

    :raises TranscriptError: damaged compression or archive, more than ``max_bytes`` in all, or an
        archive without a transcript.
    """
    name = _plain_name(name)
    data = _unzip(name, data, max_bytes)
    if data[_TAR_MAGIC_OFFSET:].startswith(_TAR_MAGIC):
        yield from _open_members(name, data, max_bytes)
    else:
        yield Transcript(name, data)


def _open_members(name: str, data: bytes, max_bytes: int) -> Iterator[Transcript]:
    left = max_bytes
    found = False
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                path = PurePath(member.name)
                if not member.isreg() or path.name.startswith("._") or not _is_document(path.name):
                    continue
                found = True
                member_name = _plain_name(f"{name}:{member.name}")
                # A sparse member claims any size; its holes would be filled in memory.
                if member.size > left:
                    _too_large(member_name, max_bytes)
                file = archive.extractfile(member)
                content = file.read() if file else b""
                if len(content) != member.size:
                    raise TranscriptError(f"{member_name}: the archive ends in the middle of it")
                content = _unzip(member_name, content, left)
                left -= len(content)
                yield Transcript(member_name, content)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
        if isinstance(error, TranscriptError):
            raise
        raise TranscriptError(f"{name}: damaged tar archive: {error}") from None
    if not found:
        raise TranscriptError(
            f"{name}: the archive holds no regular file named *.json, *.jsonl or *.ndjson"
        )


def _is_document(filename: str) -> bool:
    return filename.lower().removesuffix(".gz").endswith(_DOCUMENT_SUFFIXES)


def _unzip(name: str, data: bytes, max_bytes: int) -> bytes:
    if data.startswith(_GZIP_MAGIC):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(max_bytes + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise TranscriptError(f"{name}: damaged gzip data: {error}") from None
    if len(data) > max_bytes:
        _too_large(name, max_bytes)
    return data


def _too_large(name: str, max_bytes: int) -> NoReturn:
    raise TranscriptError(
        f"{name}: holds more than {max_bytes} bytes; split it, or allow more with --max-bytes"
    )


def parse_runs(transcript: Transcript) -> list[ChatRun | TranscriptError]:
    """The runs of a transcript, in order; in place of one that cannot be read, the error.

    A transcript is a JSON list of runs, one run, or JSON lines of runs; a run is an object with a
    list of messages under ``traj`` or ``messages``, or a bare list of messages. JSON lines may also
    be the messages of one run.

    :raises TranscriptError: the whole is neither JSON nor JSON lines.
    """
    text = _decode(transcript)
    try:
        values = _split_document(_load(text))
    except ValueError as error:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2 or not _is_value(lines[0]):
            raise TranscriptError(f"{transcript.name}: not JSON: {error}") from None
        values = _parse_lines(text)
    alone = len(values) == 1
    runs = []
    for index, value in enumerate(values):
        place = transcript.name if alone else f"{transcript.name}, run {index}"
        runs.append(
            TranscriptError(f"{place}: {value}")
            if isinstance(value, ValueError)
            else _as_run(transcript.name, index, value, place, alone=alone)
        )
    return runs


def _decode(transcript: Transcript) -> str:
    try:
        text = transcript.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TranscriptError(
            f"{transcript.name}: not a transcript: byte {error.start} is not UTF-8"
        ) from None
    if not text.strip():
        raise TranscriptError(f"{transcript.name}: not a transcript: it is empty")
    return text


def _load(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_parse_int)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _parse_int(digits: str) -> int:
    # Python refuses to read very long numbers, and then could not say in which run one is. Any int
    # that is too wide to be recorded does as well, for it is refused later, by its place.
    return int(digits) if len(digits) <= _WIDEST_INT else 2**64


def _is_value(line: str) -> bool:
    try:
        _load(line)
    except ValueError:
        return False
    return True


def _parse_lines(text: str) -> list[Any]:
    """The value of every line that is not blank, or its ValueError; lone messages make one run."""
    values: list[Any] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                values.append(_load(line))
            except ValueError as error:
                values.append(ValueError(f"line {number} is not JSON: {error}"))
    return [values] if all(map(_is_message, values)) else values


def _split_document(document: Any) -> list[Any]:
    if isinstance(document, list) and not (document and all(map(_is_message, document))):
        return document
    return [[document] if _is_message(document) else document]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and _messages_key(value) is None


def _messages_key(value: dict[str, Any]) -> str | None:
    return next((key for key in MESSAGE_KEYS if isinstance(value.get(key), list)), None)


def _as_run(
    source: str, index: int, value: Any, place: str, *, alone: bool
) -> ChatRun | TranscriptError:
    if isinstance(value, list):
        return ChatRun(source, index, value, alone=alone)
    key = _messages_key(value) if isinstance(value, dict) else None
    if key is None:
        return TranscriptError(
            f"{place}: not a run: it needs a list of messages, bare or under 'traj' or 'messages'"
        )
    fields = {name: field for name, field in value.items() if name != key}
    return ChatRun(source, index, value[key], key, fields, alone)


def short_label(source: str) -> str:
    """A transcript's name without its archive's and without the endings that say its format."""
    label = source.rpartition(":")[2] or source
    stripped = True
    while stripped:
        stripped = False
        for suffix in _LABEL_SUFFIXES:
            if label.lower().endswith(suffix) and len(label) > len(suffix):
                label, stripped = label[: -len(suffix)], True
    return label


def _plain_name(name: str) -> str:
    """A name from a file system or an archive, made fit for a message and for a session's name."""
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in name
    )
