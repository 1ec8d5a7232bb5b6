"""Parquet and Arrow: files that say their types."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.data.content.logical import BLOCK
from everloop.data.sources.places.place import Here


def parquet(here: Here) -> Iterator[pa.RecordBatch]:
    """Record batches of a Parquet file; one without rows where it has none."""
    with pq.ParquetFile(here.path, memory_map=True) as file:
        names = file.schema_arrow.names
        schema = file.schema_arrow.remove_metadata()
        none = True
        for batch in file.iter_batches(BLOCK, use_threads=False):
            none = False
            yield batch.replace_schema_metadata(None)
        if none and names:
            yield pa.RecordBatch.from_pylist([], schema=schema)


def arrow(here: Here) -> Iterator[pa.RecordBatch]:
    """Record batches of an Arrow IPC file or stream, each checked through (offsets, UTF-8)."""
    with pa.memory_map(str(here.path)) as file:
        try:
            reader = pa.ipc.open_file(file)
        except pa.ArrowInvalid:
            file.seek(0)
            stream = pa.ipc.open_stream(file)
            none, schema = True, stream.schema
            for batch in stream:
                none = False
                batch.validate(full=True)
                yield batch
        else:
            none, schema = not reader.num_record_batches, reader.schema
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                batch.validate(full=True)
                yield batch
        if none:
            yield pa.RecordBatch.from_pylist([], schema=schema)
