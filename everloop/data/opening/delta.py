"""A Delta table: a commit for each version, oldest first; rows that are gone are deletion vectors.

Source: the Delta transaction log protocol, "Actions", "Deletion Vectors", "In-Commit Timestamps". Beside a store in a
folder the table holds links to the files, since several engines do not follow absolute addresses; beside a bucket it
holds absolute addresses.
"""

import base64
import json
import struct
import zlib
from typing import Any
from urllib.parse import quote
from uuid import UUID

from pyroaring import BitMap64

from everloop.core.ids import object_id
from everloop.data.opening.fields import delta_schema
from everloop.data.opening.pieces import Piece, Rows
from everloop.data.opening.shown import MILLI, Files, Shown, Table, link_name

_ROARING = 1681511377
"""The magic number of a bitmap of 64-bit numbers."""
_FEATURES = ("deletionVectors", "timestampNtz")
_Z85 = bytes.maketrans(  # Python's base85 has the same digits by another alphabet
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
)


class _Vectors:
    """Deletion vectors of a table: a file for each, named by what it holds."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def descriptor(self, rows: Rows) -> dict[str, Any]:
        """What the log says of the rows of a file that are gone."""
        content = struct.pack("<i", _ROARING) + BitMap64(rows.tolist()).serialize()
        identity = UUID(bytes=bytes.fromhex(object_id(content).removeprefix("b3:"))[:16])
        framed = struct.pack(">i", len(content)) + content + struct.pack(">I", zlib.crc32(content))
        self.files[f"deletion_vector_{identity}.bin"] = b"\x01" + framed
        return {
            "storageType": "u",
            "pathOrInlineDv": base64.b85encode(identity.bytes).translate(_Z85).decode(),
            "offset": 1,
            "sizeInBytes": len(content),
            "cardinality": len(rows),
        }


def files_of(table: Table) -> Files:
    """Everything in the folder of a Delta table; raises `InvalidInput` for columns that it cannot hold."""
    vectors, links = _Vectors(), {}
    commits: dict[str, bytes] = {}
    times: dict[str, int] = {}
    live: dict[tuple[str, str], dict[str, Any]] = {}
    told = ""
    schemas = [json.dumps(delta_schema(shown.columns)) for shown in table.shown]
    protocol = _protocol(table, schemas)
    for number, (shown, schema) in enumerate(zip(table.shown, schemas, strict=True)):
        at = shown.at // MILLI
        actions: list[dict[str, Any]] = [_commit_info(shown, at, first=not number)]
        if not number:
            actions.append({"protocol": protocol})
        if schema != told:
            actions.append({"metaData": _metadata(table, schema, protocol)})
            told = schema
        now: dict[tuple[str, str], dict[str, Any]] = {}
        for piece in shown.pieces:
            if table.local:
                links[link_name(piece)] = piece.object
            add = _add(table, piece, shown, vectors, at)
            now[add["path"], json.dumps(add.get("deletionVector"))] = add
        actions += [{"remove": _remove(live[key], at)} for key in live if key not in now]
        actions += [{"add": now[key]} for key in now if key not in live]
        live = {key: live.get(key, add) for key, add in now.items()}
        name = f"_delta_log/{number:020d}.json"
        commits[name] = "".join(json.dumps(action) + "\n" for action in actions).encode()
        times[name] = shown.at
    return Files({**vectors.files, **commits}, links, times)


def _protocol(table: Table, schemas: list[str]) -> dict[str, Any]:
    needed = (
        any(len(piece.deleted) for shown in table.shown for piece in shown.pieces),
        any('"timestamp_ntz"' in schema for schema in schemas),
    )
    features = [feature for feature, wanted in zip(_FEATURES, needed, strict=True) if wanted]
    told: dict[str, Any] = {"minReaderVersion": 3 if features else 1, "minWriterVersion": 7}
    if features:
        told["readerFeatures"] = features
    return {**told, "writerFeatures": [*features, "inCommitTimestamp"]}


def _metadata(table: Table, schema: str, protocol: dict[str, Any]) -> dict[str, Any]:
    settings = {"delta.enableInCommitTimestamps": "true"}
    if "deletionVectors" in protocol["writerFeatures"]:
        settings["delta.enableDeletionVectors"] = "true"
    return {
        "id": table.identity,
        "name": table.name,
        "description": f"data/{table.name} of an Everloop workspace; written by `everloop data open`",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema,
        "partitionColumns": [],
        "configuration": settings,
        "createdTime": table.shown[0].at // MILLI,
    }


def _commit_info(shown: Shown, at: int, *, first: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "inCommitTimestamp": at,
        "timestamp": at,
        "operation": "CREATE TABLE AS SELECT" if first else "WRITE",
        "operationParameters": {},
        "engineInfo": "everloop",
        "userMetadata": json.dumps(shown.label),
    }
    return {"commitInfo": told}


def _add(table: Table, piece: Piece, shown: Shown, vectors: _Vectors, at: int) -> dict[str, Any]:
    stats: dict[str, Any] = {"numRecords": piece.rows}
    if piece.part is not None:
        nulls = zip(shown.columns, piece.part["nulls"], strict=True)
        stats["nullCount"] = {name: count for (name, type_), count in nulls if not type_.num_fields}
    told: dict[str, Any] = {
        "path": link_name(piece) if table.local else quote(table.address(piece), safe="/:"),
        "partitionValues": {},
        "size": table.sizes[piece.object],
        "modificationTime": at,
        "dataChange": True,
    }
    if len(piece.deleted):
        told["deletionVector"] = vectors.descriptor(piece.deleted)
        stats["tightBounds"] = False
    return {**told, "stats": json.dumps(stats)}


def _remove(add: dict[str, Any], at: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        name: add[name] for name in ("path", "partitionValues", "size", "deletionVector") if name in add
    }
    return {**told, "deletionTimestamp": at, "dataChange": True, "extendedFileMetadata": True}
