"""Whose rows are meant: a key, and the columns that hold it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.core.errors import InvalidInput

SUBJECT_TAG = "subject"
"""The tag of a column that says whom a row is about: `tags={"customer_id": "subject"}`."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One person, or whatever else rows are about."""

    key: str
    """As text, whatever the column's type."""
    columns: tuple[str, ...]
    """Columns that hold the key, in any table of the project."""

    def __post_init__(self) -> None:
        """Check both; raises `InvalidInput`."""
        if not self.key:
            raise InvalidInput("the subject's key is empty", hint="give the value of the subject column")
        if not self.columns:
            raise InvalidInput(
                "no column is known to hold subjects",
                hint=f'tag it in a source (tags={{"customer_id": "{SUBJECT_TAG}"}}), or name it with --column',
            )


def rows_about(table: pa.Table, subject: Subject) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of a table hold the subject's key in one of its columns."""
    found = np.zeros(table.num_rows, bool)
    for name in subject.columns:
        if name in table.column_names:
            text = keys_as_text(table[name])
            if text is not None:
                found |= pc.fill_null(pc.equal(text, subject.key), False).to_numpy().astype(bool)
    return found


def keys_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A column of keys as text; None for types that hold no key (floats, lists, times)."""
    type_ = column.type
    if pa.types.is_dictionary(type_):
        return keys_as_text(column.cast(type_.value_type))
    if pa.types.is_integer(type_) or pa.types.is_decimal(type_):
        return column.cast(pa.string())
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return column.cast(pa.large_string())
    return None


def manifests_of_tables(ctx: Context) -> dict[str, Mapping[str, Any]]:
    """The manifest of every version of the project that is a table, by id."""
    with ctx.read() as tx:
        return dict(redactions.tables(tx, ctx.project))


def subject_columns(manifests: Iterable[Mapping[str, Any]], named: Sequence[str] = ()) -> tuple[str, ...]:
    """Every column that a table of the project tags as a subject's, and those that are named: in order of name.

    A column that is tagged in one table counts in all of them, so that tables which were made from it are found too.
    """
    tagged = {c for m in manifests for c, tag in m.get("tags", {}).items() if tag == SUBJECT_TAG}
    return tuple(sorted(tagged | set(named)))


def in_manifest(manifest: Mapping[str, Any], key: str) -> bool:
    """Whether a manifest itself says the key: as the first or the last key of a part."""
    if key not in json.dumps(manifest, ensure_ascii=False):
        return False
    return any(key in part.get(end, ()) for part in manifest["parts"] for end in ("key_min", "key_max"))
