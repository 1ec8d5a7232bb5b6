"""A version as an IterableDataset of PyTorch's."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from everloop.data.reading.streaming import Position, Stream

_READ = 4_096
"""Rows that are decoded at a time where rows are given one by one."""


class Rows(IterableDataset[dict[str, Any]]):
    """Rows (as dicts), or dicts of tensors with `batch` rows each, for `DataLoader(dataset, batch_size=None)`.

    Columns of numbers, booleans and their fixed-size lists become tensors, others lists; a null raises nothing: the
    column comes as a list then. Ranks (of `torch.distributed`, else of the variables RANK and WORLD_SIZE) and the
    workers of a DataLoader read shards that share no row, of equal size give or take one, decided by seed and epoch.
    `state_dict` and `load_state_dict` are those of torchdata's StatefulDataLoader, and work without it: a dataset
    that goes on gives exactly the rows that were left.
    """

    def __init__(self, stream: Stream, batch: int = 0) -> None:
        """Rows of a stream; with `batch` in batches of so many."""
        self._stream, self._batch = stream, batch
        self._start = self._position = Position()
        self._ahead = self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Another order; call it before each pass."""
        self._stream = replace(self._stream, epoch=epoch)
        self._start = self._position = Position()
        self._ahead = self._skip = 0

    def state_dict(self) -> dict[str, int]:
        """How far this process has read."""
        at = self._position
        return {"epoch": self._stream.epoch, "window": at.window, "row": at.row, "ahead": self._ahead}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where `state_dict` was taken, by the same seed, window and number of shards."""
        self._stream = replace(self._stream, epoch=state["epoch"])
        self._start = self._position = Position(state["window"], state["row"])
        self._ahead = self._skip = state["ahead"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """From where it stands; the next pass begins at the front."""
        start, skip = self._start, self._skip
        self._start, self._skip = Position(), 0
        rank, ranks = _rank()
        worker = get_worker_info()
        shard = self._stream.of(rank, ranks)
        if worker is not None:
            shard = shard.of(worker.id, worker.num_workers)
        for table, position in shard.batches(self._batch or _READ, start):
            if self._batch:
                self._position = position
                yield {name: _tensor(table[name]) for name in table.column_names}
                continue
            for number, row in enumerate(table.slice(skip).to_pylist(), skip + 1):
                self._ahead = number
                if number == table.num_rows:
                    self._position, self._ahead = position, 0
                yield row
            skip = 0


def _rank() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _tensor(column: pa.ChunkedArray) -> Any:
    """A tensor where the column is one of numbers without nulls, else a list."""
    type_ = column.type
    if column.null_count:
        return column.to_pylist()
    if pa.types.is_fixed_size_list(type_) and _number(type_.value_type):
        flat = column.combine_chunks().flatten()
        return torch.from_numpy(flat.to_numpy(zero_copy_only=False).copy()).reshape(-1, type_.list_size)
    return torch.from_numpy(column.to_numpy().copy()) if _number(type_) else column.to_pylist()


def _number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_))
