"""Compressed files, read through a bound: what unpacks to far more than it is, is refused while it unpacks."""

import io
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from everloop.core.errors import DataError
from everloop.data.sources.places.place import Here

COMPRESSED = (".gz", ".zst", ".bz2", ".zip")
FREE = 64 * 2**20
"""Bytes that anything may unpack to."""
RATIO = 200
"""Beyond that, how many times its size a file may unpack to; tables of text seldom reach 50."""


class Bounded(io.RawIOBase):
    """A stream that gives `limit` bytes at most, and then raises `DataError`."""

    def __init__(self, inner: Any, name: str, limit: int) -> None:
        """Read `inner`, which is closed with this."""
        self._inner, self._name, self._left = inner, name, limit

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill `target` as far as there is something."""
        room = memoryview(target)
        content = self._inner.read(len(room))
        self._left -= len(content)
        if self._left < 0:
            raise _bomb(self._name)
        room[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Close what it reads."""
        if not self.closed:
            self._inner.close()
        super().close()


def is_compressed(path: Path) -> bool:
    """Whether the name says so."""
    return path.suffix.lower() in COMPRESSED


@contextmanager
def opened(here: Here) -> Iterator[Any]:
    """The bytes of a file, unpacked where its name says that it is packed. Raises `DataError` for a bomb."""
    if not is_compressed(here.path):
        with pa.OSFile(str(here.path)) as file:
            yield file
        return
    limit = max(FREE, RATIO * here.path.stat().st_size)
    if here.path.suffix.lower() == ".zip":
        with _archive(here) as archive, Bounded(_member(archive, here), here.name, limit) as raw:
            yield io.BufferedReader(raw, 1 << 20)
        return
    with Bounded(pa.input_stream(str(here.path), compression="detect"), here.name, limit) as raw:
        yield io.BufferedReader(raw, 1 << 20)


def unpacked(here: Here, folder: Path) -> Here:
    """The file itself, or what it unpacks to in `folder`: for formats that are not read from front to back."""
    if not is_compressed(here.path):
        return here
    target = folder / here.path.stem
    with opened(here) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    return Here(target, here.name)


def check_archive(here: Here) -> None:
    """Raise `DataError` for a file that is an archive inside (a workbook) and says that it unpacks to too much."""
    with _archive(here) as archive:
        if sum(info.file_size for info in archive.infolist()) > max(FREE, RATIO * here.path.stat().st_size):
            raise _bomb(here.name)


@contextmanager
def _archive(here: Here) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(here.path) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise DataError(f"{here.name}: a broken archive: {error}", hint="write the file again") from error


def _member(archive: zipfile.ZipFile, here: Here) -> Any:
    files = [info for info in archive.infolist() if not info.is_dir()]
    if len(files) != 1:
        raise DataError(
            f"{here.name} holds {len(files)} files", hint="an archive of a source holds one file; unpack it"
        )
    if files[0].flag_bits & 1:
        raise DataError(f"{here.name} is encrypted", hint="decrypt it first")
    return archive.open(files[0])


def _bomb(name: str) -> DataError:
    return DataError(
        f"{name} unpacks to more than {RATIO} times its size",
        hint="this looks like a zip bomb; if it is not, unpack it yourself and name the result",
    )
