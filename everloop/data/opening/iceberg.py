"""An Iceberg table, version 2: a snapshot for each version, whose number is the snapshot's id.

Source: Apache Iceberg's table specification. Files carry no numbers of columns, so the table maps names to numbers;
rows that are gone are position deletes, one small file for each file that lacks rows.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.core.ids import object_id
from everloop.data.opening import avro
from everloop.data.opening.fields import IcebergFields
from everloop.data.opening.pieces import Piece, Rows
from everloop.data.opening.shown import MILLI, Files, Shown, Table, link_name

DATA, DELETES = 0, 1
"""What a manifest lists; the same numbers say what a file holds."""
_EXISTING, _ADDED = 0, 1
_PATH, _POSITION = 2147483546, 2147483545
"""Numbers of the columns of a file of position deletes."""
HINT = "metadata/version-hint.text"


class _Writing:
    """The state of one table while its snapshots are written, oldest first."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.fields = IcebergFields()
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.schemas: list[dict[str, Any]] = []
        self.live: dict[str, tuple[int, int]] = {}
        """Files of the snapshot before: (sequence number, snapshot that brought them)."""

    def schema_id(self, shown: Shown) -> int:
        fields = self.fields.schema(shown.columns)
        for schema in self.schemas:
            if schema["fields"] == fields:
                return int(schema["schema-id"])
        self.schemas.append({"type": "struct", "schema-id": len(self.schemas), "fields": fields})
        return len(self.schemas) - 1

    def snapshot(self, shown: Shown, sequence: int, parent: int | None) -> dict[str, Any]:
        schema = self.schema_id(shown)
        before, self.live = self.live, {}
        data, deletes = [], []
        for piece in shown.pieces:
            self.fields.pass_over(piece.extra)
            path = self.table.address(piece)
            if piece.copy:
                self.links[link_name(piece)] = piece.object
            data.append(self.entry(_data_file(self, piece, path, shown), sequence, shown.number, before))
            if len(piece.deleted):
                deletes.append(self.entry(self.deletion(path, piece.deleted), sequence, shown.number, before))
        lists = [
            self.manifest(entries, content, shown.number, sequence, schema)
            for content, entries in ((DATA, data), (DELETES, deletes))
            if entries
        ]
        told = {
            "snapshot-id": str(shown.number),
            "parent-snapshot-id": "null" if parent is None else str(parent),
            "sequence-number": str(sequence),
            "format-version": "2",
        }
        content = avro.manifest_list(lists, told)
        name = f"metadata/snap-{shown.number}-{_digest(content)}.avro"
        self.files[name] = content
        return {
            "snapshot-id": shown.number,
            **({} if parent is None else {"parent-snapshot-id": parent}),
            "sequence-number": sequence,
            "timestamp-ms": shown.at // MILLI,
            "manifest-list": f"{self.table.location}/{name}",
            "summary": _summary(shown, len(deletes), first=parent is None),
            "schema-id": schema,
        }

    def entry(
        self, file: dict[str, Any], sequence: int, number: int, before: Mapping[str, tuple[int, int]]
    ) -> dict[str, Any]:
        path = file["file_path"]
        brought = before.get(path)
        self.live[path] = brought or (sequence, number)
        since, snapshot = self.live[path]
        return {
            "status": _EXISTING if brought else _ADDED,
            "snapshot_id": snapshot,
            "sequence_number": since,
            "file_sequence_number": since,
            "data_file": file,
        }

    def deletion(self, path: str, rows: Rows) -> dict[str, Any]:
        content = _position_deletes(path, rows)
        name = f"deletes/{_digest(content)}.parquet"
        self.files[name] = content
        bound = [{"key": _PATH, "value": path.encode()}]
        return {
            "content": DELETES,
            "file_path": f"{self.table.location}/{name}",
            "file_format": "PARQUET",
            "partition": {},
            "record_count": len(rows),
            "file_size_in_bytes": len(content),
            "lower_bounds": bound,
            "upper_bounds": bound,
            "referenced_data_file": path,
        }

    def manifest(
        self, entries: list[dict[str, Any]], content: int, number: int, sequence: int, schema: int
    ) -> dict[str, Any]:
        told = {
            "schema": json.dumps(self.schemas[schema]),
            "schema-id": str(schema),
            "partition-spec": "[]",
            "partition-spec-id": "0",
            "format-version": "2",
            "content": ("data", "deletes")[content],
        }
        written = avro.manifest(entries, told)
        name = f"metadata/{_digest(written)}-m{content}.avro"
        self.files[name] = written
        rows = {
            status: sum(e["data_file"]["record_count"] for e in entries if e["status"] == status) for status in (0, 1)
        }
        count = {status: sum(e["status"] == status for e in entries) for status in (0, 1)}
        return {
            "manifest_path": f"{self.table.location}/{name}",
            "manifest_length": len(written),
            "partition_spec_id": 0,
            "content": content,
            "sequence_number": sequence,
            "min_sequence_number": min(entry["sequence_number"] for entry in entries),
            "added_snapshot_id": number,
            "added_files_count": count[_ADDED],
            "existing_files_count": count[_EXISTING],
            "deleted_files_count": 0,
            "added_rows_count": rows[_ADDED],
            "existing_rows_count": rows[_EXISTING],
            "deleted_rows_count": 0,
            "partitions": [],
        }


def files_of(table: Table) -> Files:
    """Everything in the folder of an Iceberg table; raises `InvalidInput` for columns that it cannot hold."""
    writing = _Writing(table)
    snapshots: list[dict[str, Any]] = []
    for sequence, shown in enumerate(table.shown, 1):
        parent = snapshots[-1]["snapshot-id"] if snapshots else None
        snapshots.append(writing.snapshot(shown, sequence, parent))
    name = f"metadata/v{table.generation}.metadata.json"
    writing.files[name] = json.dumps(_metadata(writing, snapshots), indent=1).encode()
    writing.files[HINT] = str(table.generation).encode()
    return Files(writing.files, writing.links)


def _metadata(writing: _Writing, snapshots: list[dict[str, Any]]) -> dict[str, Any]:
    table, last = writing.table, snapshots[-1]
    refs = {"main": {"snapshot-id": last["snapshot-id"], "type": "branch"}}
    for shown in table.shown:
        for name in (f"v{shown.number}", *shown.heads):
            refs.setdefault(name, {"snapshot-id": shown.number, "type": "tag"})
    return {
        "format-version": 2,
        "table-uuid": table.identity,
        "location": table.location,
        "last-sequence-number": len(snapshots),
        "last-updated-ms": last["timestamp-ms"],
        "last-column-id": writing.fields.last,
        "current-schema-id": last["schema-id"],
        "schemas": writing.schemas,
        "default-spec-id": 0,
        "partition-specs": [{"spec-id": 0, "fields": []}],
        "last-partition-id": 999,
        "default-sort-order-id": 0,
        "sort-orders": [{"order-id": 0, "fields": []}],
        "properties": {
            "schema.name-mapping.default": json.dumps(writing.fields.mapping()),
            "gc.enabled": "false",  # the files are the store's: engines that clean up must not take them
            "comment": f"data/{table.name} of an Everloop workspace; written by `everloop data open`",
        },
        "current-snapshot-id": last["snapshot-id"],
        "snapshots": snapshots,
        "snapshot-log": [{"timestamp-ms": s["timestamp-ms"], "snapshot-id": s["snapshot-id"]} for s in snapshots],
        "metadata-log": [],
        "refs": refs,
    }


def _data_file(writing: _Writing, piece: Piece, path: str, shown: Shown) -> dict[str, Any]:
    told: dict[str, Any] = {
        "content": DATA,
        "file_path": path,
        "file_format": "PARQUET",
        "partition": {},
        "record_count": piece.rows,
        "file_size_in_bytes": writing.table.sizes[piece.object],
    }
    if piece.part is None:
        return told
    numbers = [writing.fields.number(name) for name, _ in shown.columns]
    told["null_value_counts"] = [
        {"key": number, "value": nulls} for number, nulls in zip(numbers, piece.part["nulls"], strict=True)
    ]
    type_ = dict(shown.columns)[shown.key[0]] if shown.key and shown.bounded else None
    if type_ is not None and piece.part.get("key_min"):
        ends = [_bound(piece.part[end][0], type_) for end in ("key_min", "key_max")]
        if all(end is not None for end in ends):
            key = writing.fields.number(shown.key[0])
            told["lower_bounds"], told["upper_bounds"] = ([{"key": key, "value": end}] for end in ends)
    return told


def _bound(text: str, type_: pa.DataType) -> bytes | None:
    """A value of the key as Iceberg writes single values; None for types that have no bounds here."""
    if pa.types.is_large_string(type_):
        return text.encode()
    if pa.types.is_int64(type_):
        return struct.pack("<q", int(text))
    return struct.pack("<i", int(text)) if pa.types.is_integer(type_) and type_.bit_width <= 32 else None


def _position_deletes(path: str, rows: Rows) -> bytes:
    fields = [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": str(_PATH)}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": str(_POSITION)}),
    ]
    table = pa.table([pa.array([path] * len(rows)), pa.array(np.asarray(rows, np.int64))], schema=pa.schema(fields))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    return bytes(sink.getvalue())


def _summary(shown: Shown, deletes: int, *, first: bool) -> dict[str, str]:
    return {
        "operation": "append" if first else "overwrite",
        "total-records": str(sum(piece.rows for piece in shown.pieces)),
        "total-data-files": str(len(shown.pieces)),
        "total-delete-files": str(deletes),
        "total-position-deletes": str(sum(len(piece.deleted) for piece in shown.pieces)),
        "total-equality-deletes": "0",
        **shown.label,
    }


def _digest(content: bytes) -> str:
    return object_id(content).removeprefix("b3:")[:32]
