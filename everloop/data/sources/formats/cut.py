"""Whether a CSV file ends inside of a quoted field, which its reader takes for the end of that field.

Such a field is the last of the last row: were it another, the row would have too few fields. So the end of the file is
compared with the last value, and nothing else is read: a value whose quote is open is written there as a quote and the
value itself, whereas behind a closed one comes another quote, and before one without quotes none.
"""

import io
from collections import deque
from typing import Any

import pyarrow as pa

from everloop.core.errors import DataError
from everloop.data.sources.places.place import Here

_QUOTE = '"'


class Remembered(io.RawIOBase):
    """A stream that keeps the last `length` bytes, or some more, of what was read of it."""

    def __init__(self, inner: Any, length: int) -> None:
        """Read `inner`, which somebody else closes."""
        self._inner, self._length = inner, length
        self._kept: deque[bytes] = deque()
        self._size = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As much of it as is asked for, as far as there is something."""
        content = bytes(self._inner.read(size))
        self._kept.append(content)
        self._size += len(content)
        while self._size - len(self._kept[0]) >= self._length:
            self._size -= len(self._kept.popleft())
        return content

    def last(self, length: int) -> bytes:
        """The last bytes, as many as are asked for or were kept."""
        return b"".join(self._kept)[-length:]


def refuse_cut(here: Here, file: Any, batch: pa.RecordBatch, delimiter: str, encoding: str) -> None:
    """Raise `DataError` when `file`, read to its end with `batch` as its last, ends in a quoted field."""
    value = batch.column(batch.num_columns - 1)[batch.num_rows - 1].as_py()
    if isinstance(value, str):
        written = _bytes(_QUOTE + value.replace(_QUOTE, _QUOTE * 2), encoding)
        before = max(len(_bytes(one, encoding)) for one in (delimiter, "\n"))
        found = _last(file, len(written) + before)
        starts = tuple(_bytes(one, encoding) for one in (delimiter, "\n", "\r"))
        is_open = found.endswith(written) and found[: len(found) - len(written)].endswith(starts)
    else:  # a number, a time: it holds no delimiter and no quote
        field = _last(file, 200).decode(encoding, "replace").replace("\r", "\n").replace(delimiter, "\n")
        is_open = field.rpartition("\n")[2].count(_QUOTE) == 1
    if is_open:
        raise DataError(
            f"{here.name}: the file ends within a quoted field of its last row",
            hint="the file was cut off while it was written, or a quote inside of a field is not doubled",
        )


def _bytes(text: str, encoding: str) -> bytes:
    """A text as it stands within a file: without the mark of byte order that some encodings begin with."""
    return text.encode(encoding, "replace")[len("".encode(encoding)) :]


def _last(file: Any, length: int) -> bytes:
    if isinstance(file, Remembered):
        return file.last(length)
    size = file.size()
    file.seek(max(0, size - length))
    return bytes(file.read(length))
