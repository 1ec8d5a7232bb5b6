"""Frames of two log formats, checked: TFRecord (event files) and LevelDB's log (W&B's files).

A file is walked twice: once to see whether it is whole, once to read it. What a crash or a live writer leaves is a
record cut short at the end; anything else that does not check out is damage.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

_TABLE = np.zeros(256, dtype=np.uint32)
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = (_value >> 1) ^ (0x82F63B78 if _value & 1 else 0)
    _TABLE[_byte] = _value
_PLAIN = [int(value) for value in _TABLE]
_MANY = 64
"""Records of one length from which on checking them side by side pays."""
_BATCH_BYTES = 4 << 20
LARGEST = 1 << 30
"""Bytes of the largest record that is read; no writer makes one of a gigabyte."""

_BLOCK = 32 * 1024
_HEADER = 7
_WHOLE, _FIRST, _LAST = 1, 2, 4
"""Kinds of a piece of a record; 3 is one in the middle."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a walk through a file found: whole records, and how it ends."""

    records: int
    truncated: bool = False
    """The last record is cut short, as a crash leaves it."""
    damage: str = ""
    """What does not check out, and where; the records before it are whole."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A record and the place of its first byte; `masked` is the checksum that stands with it (TFRecord)."""

    offset: int
    content: bytes
    masked: int = 0


class BrokenFrameError(Exception):
    """A frame that does not check out; stays within this package. `truncated` where the file just ends."""

    def __init__(self, reason: str, *, truncated: bool = False) -> None:
        super().__init__(reason)
        self.truncated = truncated


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli) of some bytes."""
    value = 0xFFFFFFFF
    for byte in content:
        value = _PLAIN[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def masked(value: int) -> int:
    """A checksum as TFRecord stores it."""
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecords(stream: BinaryIO, size: int) -> Iterator[Frame]:
    """The frames of an event file; lengths are checked, contents not yet. Raises `BrokenFrameError`."""
    offset = 0
    while header := stream.read(12):
        if len(header) < 12:
            raise BrokenFrameError(f"the record at byte {offset} is cut short", truncated=True)
        length, check = struct.unpack("<QI", header)
        if masked(crc32c(header[:8])) != check:
            raise BrokenFrameError(f"the length of the record at byte {offset} does not match its checksum")
        if length > size - offset - 16:
            raise BrokenFrameError(f"the record at byte {offset} is cut short", truncated=True)
        if length > LARGEST:
            raise BrokenFrameError(f"the record at byte {offset} has {length} bytes, more than is read")
        content, tail = stream.read(length), stream.read(4)
        if len(content) < length or len(tail) < 4:
            raise BrokenFrameError(f"the record at byte {offset} is cut short", truncated=True)
        yield Frame(offset, content, struct.unpack("<I", tail)[0])
        offset += 16 + length


def check_tfrecords(stream: BinaryIO, size: int) -> Health:
    """Walk an event file and check every record."""
    frames, records, ending = tfrecords(stream, size), 0, None
    more = True
    while more:
        waiting: list[Frame] = []
        held = 0
        try:
            for frame in frames:
                waiting.append(frame)
                held += len(frame.content)
                if held >= _BATCH_BYTES:
                    break
            else:
                more = False
        except BrokenFrameError as error:
            ending, more = error, False
        whole, damage = _checked(waiting)
        records += whole
        if damage:
            return Health(records, damage=damage)
    if ending is None:
        return Health(records)
    return Health(records, truncated=ending.truncated, damage="" if ending.truncated else str(ending))


def leveldb_records(stream: BinaryIO) -> Iterator[Frame]:
    """The records of a W&B file, whole and checked. Raises `BrokenFrameError`."""
    parts: list[bytes] = []
    start = 0
    for offset, kind, content in _pieces(stream):
        if (kind in {_WHOLE, _FIRST}) == bool(parts):
            raise BrokenFrameError(f"the record at byte {offset} begins or goes on where none does")
        start = start if parts else offset
        parts.append(content)
        if offset - start > LARGEST:
            raise BrokenFrameError(f"the record at byte {start} has more than {LARGEST} bytes, more than is read")
        if kind in {_WHOLE, _LAST}:
            yield Frame(start, b"".join(parts))
            parts = []
    if parts:
        raise BrokenFrameError(f"the record at byte {start} is cut short", truncated=True)


def _pieces(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(offset, kind, content) of each piece of a record; none crosses the border of a block."""
    header = stream.read(_HEADER)
    if len(header) < _HEADER:
        raise BrokenFrameError("the file is empty or cut short", truncated=True)
    if header[:4] != b":W&B":
        raise BrokenFrameError("it is no W&B log: its first bytes are others")
    offset = _HEADER
    while True:
        left = _BLOCK - offset % _BLOCK
        if left < _HEADER:
            offset += len(stream.read(left))
            left = _BLOCK
        head = stream.read(_HEADER)
        if not head:
            return
        if len(head) < _HEADER:
            raise BrokenFrameError(f"the record at byte {offset} is cut short", truncated=True)
        check, length, kind = struct.unpack("<IHB", head)
        if length > left - _HEADER or not _WHOLE <= kind <= _LAST:
            raise BrokenFrameError(f"the record at byte {offset} has a header that cannot be")
        content = stream.read(length)
        if len(content) < length:
            raise BrokenFrameError(f"the record at byte {offset} is cut short", truncated=True)
        if zlib.crc32(content, zlib.crc32(bytes([kind]))) != check:
            raise BrokenFrameError(f"the record at byte {offset} does not match its checksum")
        yield offset, kind, content
        offset += _HEADER + length


def check_leveldb(stream: BinaryIO) -> Health:
    """Walk a W&B file and check every record."""
    records = 0
    try:
        for _ in leveldb_records(stream):
            records += 1
    except BrokenFrameError as error:
        return Health(records, truncated=error.truncated, damage="" if error.truncated else str(error))
    return Health(records)


def _checked(frames: list[Frame]) -> tuple[int, str]:
    """How many frames come before the first whose checksum does not match, and what is to be said of that one.

    Frames of one length are checked side by side, a byte of all of them at a time.
    """
    by_length: dict[int, list[int]] = {}
    for index, frame in enumerate(frames):
        by_length.setdefault(len(frame.content), []).append(index)
    wrong: list[int] = []
    for length, same in by_length.items():
        if len(same) < _MANY:
            wrong.extend(one for one in same if masked(crc32c(frames[one].content)) != frames[one].masked)
            continue
        content = b"".join(frames[one].content for one in same)
        table = np.frombuffer(content, dtype=np.uint8).reshape(len(same), length)
        value = np.full(len(same), 0xFFFFFFFF, dtype=np.uint32)
        for place in range(length):
            value = _TABLE[(value ^ table[:, place]) & 0xFF] ^ (value >> 8)
        value ^= np.uint32(0xFFFFFFFF)
        found = ((value >> 15) | (value << 17)) + np.uint32(0xA282EAD8)
        stored = np.array([frames[one].masked for one in same], dtype=np.uint32)
        wrong.extend(same[place] for place in np.flatnonzero(found != stored))
    if not wrong:
        return len(frames), ""
    return min(wrong), f"the record at byte {frames[min(wrong)].offset} does not match its checksum"
