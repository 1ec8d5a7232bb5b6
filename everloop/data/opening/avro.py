"""The Avro files of Iceberg tables: manifests and lists of manifests, version 2 of the format.

Source: Apache Iceberg's table specification, "Manifests" and "Manifest Lists"; field numbers are the specification's.
"""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import fastavro

_SYNC = b"everloop.iceberg"
"""Sixteen bytes between blocks; the same ones, so that the same table is the same bytes."""


def _field(name: str, number: int, type_: Any, *, optional: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name, "type": ["null", type_] if optional else type_, "field-id": number}
    return {**told, "default": None} if optional else told


def _by_column(key: int, value: int, type_: str) -> dict[str, Any]:
    entry = {
        "type": "record",
        "name": f"k{key}_v{value}",
        "fields": [_field("key", key, "int"), _field("value", value, type_)],
    }
    return {"type": "array", "logicalType": "map", "items": entry}


_DATA_FILE = {
    "type": "record",
    "name": "r2",
    "fields": [
        _field("content", 134, "int"),
        _field("file_path", 100, "string"),
        _field("file_format", 101, "string"),
        _field("partition", 102, {"type": "record", "name": "r102", "fields": []}),
        _field("record_count", 103, "long"),
        _field("file_size_in_bytes", 104, "long"),
        _field("null_value_counts", 110, _by_column(121, 122, "long"), optional=True),
        _field("lower_bounds", 125, _by_column(126, 127, "bytes"), optional=True),
        _field("upper_bounds", 128, _by_column(129, 130, "bytes"), optional=True),
        _field("referenced_data_file", 143, "string", optional=True),
    ],
}
_ENTRY = {
    "type": "record",
    "name": "manifest_entry",
    "fields": [
        _field("status", 0, "int"),
        _field("snapshot_id", 1, "long", optional=True),
        _field("sequence_number", 3, "long", optional=True),
        _field("file_sequence_number", 4, "long", optional=True),
        _field("data_file", 2, _DATA_FILE),
    ],
}
_SUMMARY = {
    "type": "record",
    "name": "r508",
    "fields": [
        _field("contains_null", 509, "boolean"),
        _field("contains_nan", 518, "boolean", optional=True),
        _field("lower_bound", 510, "bytes", optional=True),
        _field("upper_bound", 511, "bytes", optional=True),
    ],
}
_LISTED = {
    "type": "record",
    "name": "manifest_file",
    "fields": [
        _field("manifest_path", 500, "string"),
        _field("manifest_length", 501, "long"),
        _field("partition_spec_id", 502, "int"),
        _field("content", 517, "int"),
        _field("sequence_number", 515, "long"),
        _field("min_sequence_number", 516, "long"),
        _field("added_snapshot_id", 503, "long"),
        _field("added_files_count", 504, "int"),
        _field("existing_files_count", 505, "int"),
        _field("deleted_files_count", 506, "int"),
        _field("added_rows_count", 512, "long"),
        _field("existing_rows_count", 513, "long"),
        _field("deleted_rows_count", 514, "long"),
        _field("partitions", 507, {"type": "array", "items": _SUMMARY, "element-id": 508}, optional=True),
    ],
}
_READ_ENTRY, _READ_LISTED = (fastavro.parse_schema(schema) for schema in (_ENTRY, _LISTED))


def manifest(entries: Iterable[Mapping[str, Any]], told: Mapping[str, str]) -> bytes:
    """A manifest; `told` goes into the file's metadata."""
    return _written(_READ_ENTRY, entries, told)


def manifest_list(listed: Iterable[Mapping[str, Any]], told: Mapping[str, str]) -> bytes:
    """A list of manifests: a snapshot."""
    return _written(_READ_LISTED, listed, told)


def _written(schema: Any, records: Iterable[Mapping[str, Any]], told: Mapping[str, str]) -> bytes:
    sink = io.BytesIO()
    fastavro.writer(sink, schema, records, codec="deflate", metadata=dict(told), sync_marker=_SYNC)
    return sink.getvalue()
