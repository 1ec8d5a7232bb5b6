"""A disk that is really full: a file system of a few megabytes, where this machine lets us mount one."""

import contextlib
import functools
import subprocess
import tempfile
from pathlib import Path


@contextlib.contextmanager
def small_disk(place, megabytes):
    """Mount a file system of so many megabytes at `place`."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place], check=True, capture_output=True
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, capture_output=True)


@functools.cache
def mountable():
    """Whether we may mount; where we may not, a limit on the size of files stands for a full disk."""
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk", 1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def filled(place, left=0):
    """Fill the disk but for `left` bytes, as long as the block runs."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    with ballast.open("r+b") as file:
        file.truncate(max(0, ballast.stat().st_size - left))
    try:
        yield
    finally:
        ballast.unlink()
