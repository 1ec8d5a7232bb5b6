"""Frames of a log or an inbox are written over in place, each with one of its own length."""

import os
from collections.abc import Mapping
from pathlib import Path


def overwrite(path: Path, content: bytes, changed: Mapping[int, bytes], *, growing: bool) -> None:
    """Replace frames of a file, named by where they start.

    A file that others still append to keeps its inode; a finished one is written anew from `content` and swapped in.
    """
    if growing:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            for start, frame in changed.items():
                os.pwrite(descriptor, frame, start)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    whole = bytearray(content)
    for start, frame in changed.items():
        whole[start : start + len(frame)] = frame
    half = path.with_suffix(".half")
    half.write_bytes(whole)
    half.chmod(0o600)
    half.replace(path)
