"""A version with other columns: its parts, each rewritten as layers where only a column came, went or was converted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import types

from everloop.core.errors import InvalidInput
from everloop.core.ports import Blobs
from everloop.data.codec import check_contract
from everloop.data.content.parts import Known, Stored, add_part, store_table
from everloop.data.content.predecessor import Predecessor
from everloop.data.content.schema import schema_fields
from everloop.data.definitions import Contract
from everloop.data.evolution import Evolution
from everloop.data.evolution.rules import evolved


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where parts are read from and written to."""

    blobs: Blobs
    read: Callable[[int], pa.Table]
    """The rows of a part of the version before."""
    before: Predecessor
    known: Known
    scratch: Path


def rewritten(
    manifest: Mapping[str, Any], schema: pa.Schema, target: pa.Schema, evolution: Evolution, shelf: Shelf
) -> tuple[dict[str, Any], Stored]:
    """The manifest of all rows in the columns of `target`, and what was stored for it.

    The key, times and tags follow renamed columns. Raises `InvalidInput` when a column that they name would go, and
    `DataError` for values that do not convert.
    """
    changed = {**manifest, **contract_then(manifest, evolution)}
    check_contract(target, Contract.from_manifest(changed), "the dataset")
    key = list(changed["key"])
    stored = Stored(target, int(manifest["cut"]))
    tables = (evolved(shelf.read(number), target, evolution) for number in range(len(manifest["parts"])))
    if key and _moves_rows(manifest, schema, target, evolution):
        batches = (batch for table in tables for batch in table.to_batches())
        stored = store_table(
            batches, target, key, shelf.blobs, scratch=shelf.scratch, known=shelf.known, before=shelf.before
        )
    else:
        for table in tables:
            add_part(stored, table, key, shelf.blobs, known=shelf.known, before=shelf.before)
    parts = [part.manifest() for part in stored.parts]
    changed |= {"schema_fields": schema_fields(target), "cut": stored.cut, "rows": stored.rows, "parts": parts}
    return changed, stored


def contract_then(manifest: Mapping[str, Any], evolution: Evolution) -> dict[str, Any]:
    """Key, times and tags of a manifest by the new names; raises `InvalidInput` when one of them would go."""
    times = {which: manifest[which] for which in ("event_time", "known_time")}
    named = [*manifest["key"], *(time for time in times.values() if time), *manifest["tags"]]
    gone = next((column for column in named if column in evolution.drop), None)
    if gone is not None:
        raise InvalidInput(f"the column {gone!r} is the dataset's key, time or is tagged", hint="it cannot be dropped")
    return {
        "key": [evolution.name(column) for column in manifest["key"]],
        **{which: evolution.name(column) if column else column for which, column in times.items()},
        "tags": {evolution.name(column): tag for column, tag in manifest["tags"].items()},
    }


def _moves_rows(manifest: Mapping[str, Any], schema: pa.Schema, target: pa.Schema, evolution: Evolution) -> bool:
    """Whether rows may have another order, or parts other ends: both follow from the key, then from all columns."""
    if evolution.drop or evolution.retype:
        return True
    for column in manifest["key"]:
        old, new = schema.field(column).type, target.field(evolution.name(column)).type
        if not old.equals(new) and not (types.is_integer(old) and types.is_integer(new)):
            return True
    return False
