"""Frames of event files and W&B logs: what is whole, cut short, damaged; checked one by one and side by side."""

import io
import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from everloop.models.importing.sources.records import (
    Health,
    check_leveldb,
    check_tfrecords,
    crc32c,
    leveldb_records,
    masked,
    tfrecords,
)

CONTENTS = st.lists(st.binary(max_size=40), max_size=8)


def event_file(contents):
    """An event file of these records."""
    written = b""
    for content in contents:
        length = struct.pack("<Q", len(content))
        written += length + struct.pack("<I", masked(crc32c(length)))
        written += content + struct.pack("<I", masked(crc32c(content)))
    return written


def wandb_log(contents):
    """A W&B file of these records."""
    written = b":W&B\xe1\xbe\x00"
    for content in contents:
        left, first = content, True
        while first or left:
            room = 32768 - len(written) % 32768
            if room < 7:
                written += bytes(room)
                continue
            piece, left = left[: room - 7], left[room - 7 :]
            kind = (1 if not left else 2) if first else (4 if not left else 3)
            check = zlib.crc32(piece, zlib.crc32(bytes([kind])))
            written += struct.pack("<IHB", check, len(piece), kind) + piece
            first = False
    return written


def test_the_checksum_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4 gives the polynomial; this is its check value
    assert crc32c(b"\x00" * 32) == 0x8A9136AA


@given(CONTENTS)
def test_what_was_written_is_read(contents):
    written = event_file(contents)
    assert [frame.content for frame in tfrecords(io.BytesIO(written), len(written))] == contents
    assert check_tfrecords(io.BytesIO(written), len(written)) == Health(len(contents))
    log = wandb_log(contents)
    assert [frame.content for frame in leveldb_records(io.BytesIO(log))] == contents
    assert check_leveldb(io.BytesIO(log)) == Health(len(contents))


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=6))
def test_records_longer_than_a_block(lengths):
    contents = [bytes([place % 251]) * length for place, length in enumerate(lengths)]
    assert [frame.content for frame in leveldb_records(io.BytesIO(wandb_log(contents)))] == contents


@given(CONTENTS.filter(bool), st.data())
def test_every_cut_is_told_and_keeps_what_is_before(contents, data):
    for written, check in (
        (event_file(contents), lambda cut: check_tfrecords(io.BytesIO(cut), len(cut))),
        (wandb_log(contents), lambda cut: check_leveldb(io.BytesIO(cut))),
    ):
        cut = written[: data.draw(st.integers(0, len(written) - 1))]
        health = check(cut)
        assert not health.damage
        assert health.records < len(contents)


@given(st.integers(1, 200), st.integers(0, 100), st.data())
def test_every_flipped_bit_is_met(count, length, data):
    written = bytearray(event_file([bytes(length)] * count))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= 1 << data.draw(st.integers(0, 7))
    health = check_tfrecords(io.BytesIO(bytes(written)), len(written))
    assert health.damage
    assert health.records == place // (16 + length)


@given(st.binary(max_size=300))
def test_noise_is_no_log(noise):
    assert check_leveldb(io.BytesIO(noise)).records == 0
    assert check_leveldb(io.BytesIO(b":W&B" + noise)).records <= len(noise)
    check_tfrecords(io.BytesIO(noise), len(noise))
