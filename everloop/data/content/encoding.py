"""How tables become Parquet: which encoding each column gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from everloop.data.content.logical import BLOCK

_SAMPLE = BLOCK


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the parts of one table are written as Parquet: settled once, by the first that has rows enough to tell.

    LZ4 takes a quarter less time than Zstandard at its lowest level. Whole numbers and times that do not repeat are
    kept as differences (DELTA_BINARY_PACKED): a sorted key takes next to nothing, and reading is faster. Statistics
    cost a tenth of the writing and serve who looks for keys and times; other columns have none.
    """

    repetitive: tuple[str, ...]
    """Columns whose values repeat: a dictionary of the others would cost three times their encoding, and bytes."""
    differences: tuple[str, ...]
    """Columns of whole numbers and times that do not."""
    searched: tuple[str, ...]
    """Columns with statistics."""
    rows: int
    """How many rows were looked at."""

    @classmethod
    def of(cls, table: pa.Table, key: Sequence[str]) -> "Encoding":
        """The way to write a table that begins with these rows."""
        sample = table.slice(0, _SAMPLE)
        flat = (f.name for f in table.schema if not pa.types.is_nested(f.type) and not pa.types.is_null(f.type))
        repetitive = [name for name in flat if pc.count_distinct(sample[name]).as_py() * 2 <= sample.num_rows]
        counting = (f.name for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_temporal(f.type))
        differences = [name for name in counting if name not in repetitive]
        times = (field.name for field in table.schema if pa.types.is_temporal(field.type))
        searched = dict.fromkeys([*key, *times])
        return cls(tuple(repetitive), tuple(differences), tuple(searched), sample.num_rows)

    def settled(self, table: pa.Table) -> bool:
        """Whether these rows would tell no more than those that were looked at."""
        return self.rows >= min(_SAMPLE, int(table.num_rows))

    def encode(self, table: pa.Table, compression: Literal["lz4", "zstd"] = "lz4") -> bytes:
        """The Parquet file of a part. Identity does not rest on its bytes, which change with PyArrow's version."""
        sink = pa.BufferOutputStream()
        pq.write_table(
            table,
            sink,
            row_group_size=BLOCK,
            version="2.6",
            compression=compression,
            use_dictionary=list(self.repetitive),
            column_encoding=dict.fromkeys(self.differences, "DELTA_BINARY_PACKED"),
            write_statistics=list(self.searched),
            data_page_version="1.0",
            store_schema=True,
        )
        return bytes(sink.getvalue())
