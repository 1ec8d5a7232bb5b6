"""Whose rows are meant: a key, and the columns that hold it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everloop.catalog.context import Context
from everloop.catalog.erasing.mentions import Mentions
from everloop.catalog.governance import redactions
from everloop.core.errors import InvalidInput
from everloop.data.erasure.finding import values

SUBJECT_TAG = "subject"
"""The tag of a column that says whom a row is about: `tags={"customer_id": "subject"}`."""
MENTIONS_TAG = "mentions"
"""The tag of a column of free text: rows in which it speaks of a subject go with the subject."""
_FOLDER = frozenset({"path", "size", "media_type", "digest"})


@dataclass(frozen=True, slots=True)
class Subject:
    """One person, or whatever else rows are about."""

    key: str
    """As text, whatever the column's type."""
    columns: tuple[str, ...]
    """Columns that hold the key, in any table of the project."""
    words: bool = False
    """Whether the key is looked for as a word in free text."""
    files: frozenset[str] = frozenset()
    """Ids of files of folders that are about the subject."""

    @property
    def mentions(self) -> Mentions:
        """How it may be written in texts."""
        return Mentions(self.key, self.columns, self.words)

    def __post_init__(self) -> None:
        """Check both; raises `InvalidInput`."""
        if not self.key:
            raise InvalidInput("the subject's key is empty", hint="give the value of the subject column")
        if not self.columns:
            raise InvalidInput(
                "no column is known to hold subjects",
                hint=f'tag it in a source (tags={{"customer_id": "{SUBJECT_TAG}"}}), or name it with --column',
            )


def rows_about(table: pa.Table, subject: Subject, texts: Sequence[str] = ()) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of a table hold the subject's key in one of its columns, speak of it in `texts`, or name its files."""
    found = np.zeros(table.num_rows, bool)
    for name in subject.columns:
        if name in table.column_names:
            found |= values.rows(table[name], subject.key)
    for name in texts:
        if name in table.column_names:
            found |= values.speaking(table[name], subject.mentions)
    if subject.files and set(table.column_names) >= _FOLDER:
        found |= pc.is_in(table["digest"], pa.array(sorted(subject.files), table["digest"].type)).to_numpy()
    return found


def text_columns(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of a table in whose text a subject may be spoken of: those with the tag, and events that died."""
    tagged = {column for column, tag in manifest.get("tags", {}).items() if tag == MENTIONS_TAG}
    events = manifest.get("events", {})
    return tuple(sorted(tagged | ({"event", "reason"} if "of" in events else set())))


def manifests_of_tables(ctx: Context) -> dict[str, Mapping[str, Any]]:
    """The manifest of every version of the project that is a table, by id."""
    with ctx.read() as tx:
        return dict(redactions.tables(tx, ctx.project))


def tagged(manifests: Iterable[Mapping[str, Any]], named: Iterable[str] = ()) -> frozenset[str]:
    """The columns that manifests tag as subjects', and those that are named."""
    return frozenset(named) | {c for m in manifests for c, tag in m.get("tags", {}).items() if tag == SUBJECT_TAG}
