"""Large values are written once and mapped by their readers; they have the bytes that any writer gives."""

import io

import numpy as np
import polars as pl
import pytest

from everloop.core.ids import object_id
from everloop.flows.value import codec


def saved(bytes_of):
    buffer = io.BytesIO()
    bytes_of(buffer)
    return object_id(buffer.getvalue())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(300_000, dtype=np.int64),
        np.arange(600_000, dtype=np.float32).reshape(300, 2000),
        np.asfortranarray(np.arange(600_000, dtype=np.float64).reshape(300, 2000)),
        np.arange(900_000, dtype=np.int64)[::3],
    ],
    ids=["plain", "matrix", "fortran", "strided"],
)
def test_a_large_array_has_the_bytes_of_numpy_and_is_mapped(context, array):
    made = codec.save(array, "x", context.store, {}).version.manifest
    assert made["object"] == saved(lambda file: np.save(file, array))
    assert made["bytes"] == context.store.size(made["object"])
    read = codec.load(made, context.store, {})
    assert isinstance(read, np.memmap)
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)
    read[0] = read[-1]  # its own copy
    assert context.store.verify(made["object"])
    assert not list((context.store.root / "tmp").iterdir())


def test_a_large_frame_has_the_bytes_of_polars(context):
    frame = pl.DataFrame({"a": range(200_000), "b": [str(n) for n in range(200_000)]})
    made = codec.save(frame, "x", context.store, {}).version.manifest
    assert made["object"] == saved(frame.write_ipc)
    assert codec.load(made, context.store, {}).equals(frame)


def test_what_cannot_be_written_leaves_nothing(context):
    class Frame(pl.DataFrame):
        def write_ipc(self, file, **_options):
            file.write(b"half")
            raise ValueError("no more")

    with pytest.raises(Exception, match="cannot be written as arrow"):
        codec.save(Frame({"a": np.arange(500_000)}), "x", context.store, {})
    assert not list((context.store.root / "tmp").iterdir())
