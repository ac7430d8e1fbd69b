"""The first 1,536 bytes of a file: what it is, and how far it is known to be durable."""

from __future__ import annotations

import struct
import zlib
from uuid import UUID

from attrs import frozen

from ..errors import CorruptFileError, NotAStoreError, UnsupportedVersionError

MAGIC = b"\x8fMVA\r\n\x1a\n"
VERSION = 2
SLOT_OFFSETS = (512, 1024)
LOG_START = 1536

_HEADER = struct.Struct("<8sHHI16s")
_CRC = struct.Struct("<I")
_GENERATION_AT = 12
MOST_GENERATIONS = 2**32 - 1
# The offset of the header's own checksum, which is the salt.
SALT_OFFSET = _HEADER.size
_SLOT = struct.Struct("<QQQ")
SLOT_SIZE = _SLOT.size + _CRC.size


@frozen
class Header:
    """What the header of a file says."""

    file_id: UUID
    """Random; the same after a compaction."""
    generation: int = 0
    """How often the file was compacted."""
    version: int = VERSION
    """The version of the format."""

    def encode(self) -> bytes:
        """Return the header's bytes, with zeros up to the log."""
        fields = _HEADER.pack(MAGIC, self.version, 0, self.generation, self.file_id.bytes)
        return (fields + _CRC.pack(zlib.crc32(fields))).ljust(LOG_START, b"\0")

    @property
    def salt(self) -> int:
        """The value from which the checksums of the file's segments and slots start."""
        return zlib.crc32(self.encode()[: _HEADER.size])


@frozen
class Slot:
    """How far the log is known to be durable, and the newest TOC below that."""

    end: int
    """The offset up to which the log was synced."""
    toc: int = 0
    """The offset of the TOC; 0 for none."""
    sequence: int = 0
    """The sequence of the last event folded into the TOC; 0 without a TOC."""

    def encode(self, salt: int) -> bytes:
        """Return the slot's 28 bytes, the checksum last."""
        fields = _SLOT.pack(self.end, self.toc, self.sequence)
        return fields + _CRC.pack(zlib.crc32(fields, salt))


def is_unfinished(start: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes that begins with ``start`` is a creation that was killed.

    That is an empty file, a prefix of a header, or a header whose data never reached the disk.
    """
    if size > LOG_START:
        return False
    if not any(start):
        return True
    # The part of the header that is there must be as this release writes it.
    known = _HEADER.pack(MAGIC, VERSION, 0, 0, bytes(16))[:_GENERATION_AT]
    if start[:_GENERATION_AT] != known[: len(start)] or size == LOG_START:
        return False
    fields = start[: _HEADER.size]
    checksum = _CRC.pack(zlib.crc32(fields)) if len(fields) == _HEADER.size else b""
    rest = start[_HEADER.size :]
    return rest == checksum.ljust(LOG_START, b"\0")[: len(rest)]


def decode_header(data: bytes) -> Header:
    """Decode the header in ``data``, the first ``LOG_START`` bytes of the file.

    :raises NotAStoreError: when it is another kind of file.
    :raises UnsupportedVersionError: when it has another format version.
    :raises CorruptFileError: when it is a damaged header.
    """
    if not data.startswith(MAGIC):
        hint = "; it is a memvid .mv2 file" if data.startswith(b"MV2") else ""
        raise NotAStoreError(f"this is not a memvid_async file{hint}")
    if len(data) < LOG_START:
        raise CorruptFileError(len(data), "the header is cut short")
    _, version, flags, generation, file_id = _HEADER.unpack_from(data)
    if version != VERSION or flags:
        newer = version > VERSION or flags
        raise UnsupportedVersionError(
            f"the file has format version {version} (flags {flags:#x}); this release reads version "
            f"{VERSION}: " + ("upgrade memvid_async" if newer else "an older release reads it")
        )
    header = Header(UUID(bytes=file_id), generation, version)
    if data[: _HEADER.size + _CRC.size] != header.encode()[: _HEADER.size + _CRC.size]:
        raise CorruptFileError(_HEADER.size, "the header's checksum does not match")
    return header


def decode_slots(data: bytes, salt: int) -> tuple[Slot | None, Slot | None]:
    """Return the two slots, None for one whose checksum does not match.

    ``data``: the first ``LOG_START`` bytes of the file.
    """

    def decode(offset: int) -> Slot | None:
        found = data[offset : offset + SLOT_SIZE]
        if len(found) < SLOT_SIZE:
            return None
        slot = Slot(*_SLOT.unpack_from(found))
        valid = found == slot.encode(salt)
        has_toc = LOG_START <= slot.toc < slot.end
        return slot if valid and slot.end >= LOG_START and (has_toc or not slot.toc) else None

    return decode(SLOT_OFFSETS[0]), decode(SLOT_OFFSETS[1])


def newest_slot(data: bytes, salt: int) -> Slot | None:
    """Return the slot that names the highest end; None when neither is valid."""
    found = [slot for slot in decode_slots(data, salt) if slot is not None]
    return max(found, key=lambda slot: slot.end, default=None)


def next_slot_offset(data: bytes, salt: int) -> int:
    """Return where the next slot goes: never over the newest, so that one is always whole."""
    first, second = decode_slots(data, salt)
    if first is not None and (second is None or second.end < first.end):
        return SLOT_OFFSETS[1]
    return SLOT_OFFSETS[0]
