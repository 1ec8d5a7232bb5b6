"""A version as an IterableDataset of Hugging Face's."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import datasets

from everloop.data.reading.streaming import Stream

_READ = 1_024


def dataset(stream: Stream, shards: int) -> "datasets.IterableDataset":
    """Rows in the order of the stream, in `shards` that nodes and workers share out among each other.

    `split_dataset_by_node`, `DataLoader(num_workers=…)`, `state_dict` and `load_state_dict` are the library's own.
    Another epoch is another `read(…, epoch=…)`.
    """
    features = datasets.Features.from_arrow_schema(stream.schema)
    given = {"stream": stream, "shards": list(range(shards)), "of": shards}
    return datasets.IterableDataset.from_generator(_rows, features=features, gen_kwargs=given)


def _rows(stream: Stream, shards: Sequence[int], of: int) -> Iterator[dict[str, Any]]:
    for shard in shards:
        for table, _ in replace(stream, shard=stream.shard * of + shard, shards=stream.shards * of).batches(_READ):
            yield from table.to_pylist()
