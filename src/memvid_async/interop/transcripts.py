"""Files of chat transcripts, from bytes to runs: JSON or JSON lines; plain, gzip, a tar or a zip.

Nothing is extracted to the disk, and every size is checked before memory is taken for it.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, NoReturn

from attrs import Factory, evolve, frozen

from .. import InvalidValueError
from .chat_messages import is_message

MAX_TRANSCRIPT_BYTES = 256 * 1024 * 1024
"""How many bytes one transcript file may hold at most, decompressed."""

MAX_MEMBERS = 2**16
"""How many members an archive may have at most, of any kind; each takes a KiB of memory."""

MESSAGE_KEYS = ("traj", "messages", "conversations", "conversation")
"""The keys of a run's messages, where the run is an object; the first that holds a list counts."""

RUNS_KEY = "samples"
"""The key of the runs in the one object of a log of Inspect's."""

_DOCUMENT_SUFFIXES = (".json", ".jsonl", ".ndjson")
_LABEL_SUFFIXES = (*_DOCUMENT_SUFFIXES, ".gz", ".tar", ".tgz", ".traj", ".zip", ".eval")
_NO_DOCUMENT = "the archive holds no regular file named *.json, *.jsonl or *.ndjson"
_GZIP_MAGIC = b"\x1f\x8b"
_TAR_MAGIC = b"ustar"
_TAR_MAGIC_OFFSET = 257
_MOST_DIGITS = 4300  # of a number; Python reads no longer ones
_TAR_BLOCK = 512
_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_END = b"PK\x05\x06"  # of the record that ends a zip; 12 bytes on is its directory's length
_ZIP64_LOCATOR = b"PK\x06\x07"
_MOST_ZIP_DIRECTORY = 8 * 1024 * 1024  # bytes; 46 and a name for each member


class TranscriptError(InvalidValueError):
    """A transcript, or one run of it, cannot be imported; the message says which and why."""


@frozen
class Transcript:
    """One JSON document, or one series of JSON lines."""

    name: str
    """Where it came from: ``file`` or ``archive:member``."""
    data: bytes
    """Its decompressed bytes."""
    label: str
    """The name without the archive's and without the endings of formats."""


@frozen
class ChatRun:
    """One conversation of an agent, exactly as its transcript has it."""

    source: str
    """The transcript's name."""
    label: str
    """The transcript's short name."""
    number: int
    """The run's place in its transcript, from 0."""
    messages: list[Any]
    """The messages, as they were read."""
    messages_key: str | None = None
    """The key of the messages in the run's object; None for a run that is a bare list."""
    fields: dict[str, Any] = Factory(dict)
    """The other fields of the run's object."""
    notes: tuple[str, ...] = ()
    """What was odd about the transcript, though the run has all of it."""
    alone: bool = True
    """Whether the transcript holds no other run."""

    @property
    def value(self) -> Any:
        """The run as the JSON value that it was read from."""
        if self.messages_key is None:
            return self.messages
        return {**self.fields, self.messages_key: self.messages}

    @property
    def place(self) -> str:
        """The run in words, for error messages."""
        return self.source if self.alone else f"{self.source}, run {self.number}"


def open_transcripts(
    name: str, data: bytes, max_bytes: int = MAX_TRANSCRIPT_BYTES
) -> Iterator[Transcript]:
    """Iterate over the transcripts in a file: the one that it is, or all in a tar.

    ``name``: the file's name. The file and each member may be compressed by gzip. In a tar, regular
    files named ``*.json``, ``*.jsonl`` or ``*.ndjson`` are read; all others are skipped.

    :raises TranscriptError: when the compression or the archive is damaged, all transcripts
        together have more than ``max_bytes``, or an archive holds no transcript.
    """
    name = _plain_name(name)
    data = _unzip(name, data, max_bytes)
    if _is_tar(data):
        yield from _open_members(name, data, max_bytes)
    elif data.startswith(_ZIP_MAGIC):
        yield from _open_zip(name, data, max_bytes)
    else:
        yield Transcript(name, data, short_label(name))


def _is_tar(data: bytes) -> bool:
    """Whether these bytes are a tar: its first block pads its fields with NULs, as no text does."""
    return data.startswith(_TAR_MAGIC, _TAR_MAGIC_OFFSET) and b"\0" in data[:_TAR_BLOCK]


def _open_members(name: str, data: bytes, max_bytes: int) -> Iterator[Transcript]:
    left = max_bytes
    found = False
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count == MAX_MEMBERS:
                    raise TranscriptError(f"{name}: it has more than {MAX_MEMBERS:,} members")
                path = PurePath(member.name)
                if not member.isreg() or path.name.startswith("._") or not _is_document(path.name):
                    continue
                found = True
                member_name = _plain_name(f"{name}:{member.name}")
                # A sparse member may claim any size, and its holes would be filled in memory.
                if member.size > left:
                    _too_large(member_name, max_bytes)
                file = archive.extractfile(member)
                content = file.read() if file else b""
                if len(content) != member.size:
                    raise TranscriptError(f"{member_name}: the archive ends in the middle of it")
                content = _unzip(member_name, content, left)
                left -= len(content)
                yield Transcript(member_name, content, short_label(_plain_name(member.name)))
    except RecursionError:
        # Python reads a header that belongs to the next one, and that one, each inside the other.
        raise TranscriptError(f"{name}: damaged tar archive: too many headers in a row") from None
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
        if isinstance(error, TranscriptError):
            raise
        raise TranscriptError(f"{name}: damaged tar archive: {error}") from None
    if not found:
        raise TranscriptError(f"{name}: {_NO_DOCUMENT}")


def _open_zip(name: str, data: bytes, max_bytes: int) -> Iterator[Transcript]:
    """Iterate over the documents of a zip; of a log of Inspect's, over those of its samples."""
    left = max_bytes
    end = data.rfind(_ZIP_END)
    directory = int.from_bytes(data[end + 12 : end + 16], "little")
    # Python reads the whole directory at once, and makes an object of each member.
    if end >= 0 and (directory > _MOST_ZIP_DIRECTORY or _ZIP64_LOCATOR in data[end - 20 : end]):
        raise TranscriptError(f"{name}: it has too many members (at most {MAX_MEMBERS:,})")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise TranscriptError(f"{name}: it has more than {MAX_MEMBERS:,} members")
            members = [m for m in members if not m.is_dir() and _is_document(m.filename)]
            samples = [m for m in members if m.filename.startswith(f"{RUNS_KEY}/")]
            for member in samples or members:
                member_name = _plain_name(f"{name}:{member.filename}")
                with archive.open(member) as file:
                    content = file.read(left + 1)
                content = _unzip(member_name, content, left)
                left -= len(content)
                yield Transcript(member_name, content, short_label(_plain_name(member.filename)))
    except (
        zipfile.BadZipFile,
        NotImplementedError,  # a compression that this Python does not have, as Zstandard
        RuntimeError,  # an encrypted member
        ValueError,
        EOFError,
        OSError,
        zlib.error,
    ) as error:
        if isinstance(error, TranscriptError):
            raise
        raise TranscriptError(f"{name}: the zip cannot be read: {error}") from None
    if not members:
        raise TranscriptError(f"{name}: {_NO_DOCUMENT}")


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
    """Return the runs of a transcript, in order; an error in place of what cannot be read.

    A transcript is a JSON list of runs, one run, JSON lines of runs, or an object with runs under
    ``samples``. A run is an object with a list of messages under one of ``MESSAGE_KEYS``, or a bare
    list of messages. JSON lines may also be the messages of one run. A line that is not JSON costs
    that line alone, as long as most are.

    :raises TranscriptError: when the transcript is neither JSON nor JSON lines.
    """
    text = _decode(transcript)
    notes: list[str] = []
    try:
        values = _split_document(_load(text))
    except ValueError as error:
        lines = _load_lines(text)
        torn = sum(isinstance(value, ValueError) for _, value in lines)
        if len(lines) < 2 or 2 * torn > len(lines):
            raise TranscriptError(f"{transcript.name}: {_not_json(transcript, error)}") from None
        values, notes = _sort_lines(lines)
    alone = sum(not isinstance(value, ValueError) for value in values) == 1
    runs = []
    for number, value in enumerate(values):
        place = transcript.name if alone else f"{transcript.name}, run {number}"
        runs.append(
            TranscriptError(f"{place}: {value}")
            if isinstance(value, ValueError)
            else _as_run(transcript, number, value, place, alone=alone)
        )
    first = runs[0] if runs else None
    if notes and isinstance(first, ChatRun):
        runs[0] = evolve(first, notes=tuple(f"{transcript.name}: {note}" for note in notes))
    return runs


def _decode(transcript: Transcript) -> str:
    # Bytes that are not UTF-8 become lone surrogates, which no UTF-8 holds.
    text = transcript.data.decode("utf-8-sig", "surrogateescape")
    if not text.strip():
        raise TranscriptError(f"{transcript.name}: not a transcript: it is empty")
    return text


def _not_json(transcript: Transcript, error: ValueError) -> str:
    try:
        transcript.data.decode("utf-8-sig")
    except UnicodeDecodeError as found:
        return f"not a transcript: byte {found.start} is not UTF-8"
    return f"not JSON: {error}"


def _load(text: str) -> Any:
    try:
        text.encode()
        return json.loads(text, parse_int=_parse_int)
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deep") from None


class VeryLongInteger:
    """Stands for an integer that Python refuses to read, with an error that does not say in which
    run it is: a later check refuses this object, and names its place."""


def _parse_int(digits: str) -> int | VeryLongInteger:
    return int(digits) if len(digits) <= _MOST_DIGITS else VeryLongInteger()


def _load_lines(text: str) -> list[tuple[int, Any]]:
    """Return the number and the value, or the ValueError, of every line that is not blank."""
    found: list[tuple[int, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append((number, _load(line)))
            except ValueError as error:
                found.append((number, ValueError(f"line {number} is not JSON: {error}")))
    return found


def _sort_lines(lines: list[tuple[int, Any]]) -> tuple[list[Any], list[str]]:
    """Return the values of lines, and notes on them.

    Where lines are messages and none is a run, all that are JSON make one run, which comes first.
    """
    values = [value for _, value in lines]
    good = [(number, value) for number, value in lines if not isinstance(value, ValueError)]
    # Programs that write their own lines among the messages give them a type.
    notes = [
        f"line {number} has no known format; it is kept as it is"
        for number, value in good
        if not _is_known(value)
    ]
    if any(map(_is_message, values)) and not any(map(_is_run, values)):
        errors = [value for value in values if isinstance(value, ValueError)]
        return [[value for _, value in good], *errors], notes
    return values, []


def _split_document(document: Any) -> list[Any]:
    if isinstance(document, list):
        messages = any(map(_is_message, document)) and not any(map(_is_run, document))
        return [document] if messages else document
    if isinstance(document, dict) and _messages_key(document) is None:
        runs = document.get(RUNS_KEY)
        if isinstance(runs, list):
            return runs
    return [[document] if _is_message(document) else document]


def _is_message(value: Any) -> bool:
    return is_message(value) and _messages_key(value) is None


def _is_known(value: Any) -> bool:
    return is_message(value) or (isinstance(value, dict) and "type" in value)


def _is_run(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and _messages_key(value) is not None)


def _messages_key(value: dict[str, Any]) -> str | None:
    return next((key for key in MESSAGE_KEYS if isinstance(value.get(key), list)), None)


def _as_run(
    transcript: Transcript, number: int, value: Any, place: str, *, alone: bool
) -> ChatRun | TranscriptError:
    source, label = transcript.name, transcript.label
    if isinstance(value, list):
        return ChatRun(source, label, number, value, alone=alone)
    key = _messages_key(value) if isinstance(value, dict) else None
    if key is None:
        keys = ", ".join(MESSAGE_KEYS)
        return TranscriptError(
            f"{place}: not a run: it needs a list of messages, bare or under one of {keys}"
        )
    fields = {name: field for name, field in value.items() if name != key}
    return ChatRun(source, label, number, value[key], key, fields, alone=alone)


def short_label(filename: str) -> str:
    """Return the name of a file, or of an archive's member, without the endings of formats."""
    label, stripped = filename, True
    while stripped:
        stripped = False
        for suffix in _LABEL_SUFFIXES:
            if label.lower().endswith(suffix) and len(label) > len(suffix):
                label, stripped = label[: -len(suffix)], True
    return label


def _plain_name(name: str) -> str:
    """Escape the controls in a file's or a member's name, for messages and names of sessions."""
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in name
    )
