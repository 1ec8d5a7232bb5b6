"""A subject goes from every text of the catalog, whatever table a later version may add.

Texts are all columns of type `Text`, and those columns of keys that `columns.SAID` marks: names and values that people
and programs chose. What the chain of facts and the ids of versions rest on is not touched here (`payloads`); a name of
an asset, an actor or a pointer is somebody's identity and cannot be changed: `named` says where one holds the key.
"""

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, Text, and_, delete, or_, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.erasing.mentions import Mentions
from everloop.catalog.tables import metadata
from everloop.catalog.tables.columns import Key
from everloop.catalog.tables.core import checkpoints, facts, versions
from everloop.catalog.tables.genai import evaluation_records
from everloop.catalog.tables.tracking import run_params, run_tags, runs

_APART = frozenset(table.name for table in (facts, versions, checkpoints))
_WHOLE = frozenset({evaluation_records.name})
"""Tables whose rows go when they speak of the subject."""


def tables() -> Iterator[Table]:
    """The tables that hold texts of projects."""
    for table in metadata.sorted_tables:
        if table.name not in _APART and texts_of(table) and _mine(table, "") is not None:
            yield table


def erase(tx: Tx, project: str, table: Table, mentions: Mentions) -> int:
    """Take the subject from one table; returns how many rows changed or went."""
    count = 0
    for row in _candidates(tx, project, table, texts_of(table), mentions):
        said = {c.name: row[c.name] for c in texts_of(table) if row[c.name] and mentions.in_text(row[c.name])}
        if not said:
            continue
        count += 1
        here = and_(*(c == row[c.name] for c in table.primary_key))
        if table.name in _WHOLE:
            tx.execute(delete(table).where(here))
            continue
        fresh = {name: mentions.without(text) for name, text in said.items()}
        if any(table.c[name].primary_key for name in fresh):  # two keys may be one without the subject
            tx.execute(delete(table).where(here))
            tx.execute(insert_into(tx, table).on_conflict_do_nothing(), {**row, **fresh})
        else:
            tx.execute(update(table).where(here).values(**fresh))
    return count


def runs_speaking(tx: Tx, project: str, which: Collection[str], mentions: Mentions) -> bool:
    """Whether the name, a parameter or a tag of one of these runs speaks of the subject."""
    mine = select(runs.c.number).where(runs.c.project == project, runs.c.id.in_(sorted(which)))
    numbers = set(tx.execute(mine).scalars())
    for table, number in ((runs, "number"), (run_params, "parent"), (run_tags, "parent")):
        columns = texts_of(table)
        for row in _candidates(tx, project, table, columns, mentions):
            if row[number] in numbers and any(row[c.name] and mentions.in_text(row[c.name]) for c in columns):
                return True
    return False


def named(tx: Tx, project: str, mentions: Mentions) -> list[str]:
    """Where an identity holds the key as a word, as `table.column`: it stays, for history rests on it."""
    found: dict[str, None] = {}
    for table in metadata.sorted_tables:
        columns = [c for c in table.c if c.type is Key and not c.info.get("said")]
        if not columns or not mentions.words or _mine(table, "") is None:
            continue
        for row in _candidates(tx, project, table, columns, mentions):
            holding = (c for c in columns if row[c.name] and mentions.in_text(row[c.name]))
            found.update((f"{table.name}.{c.name}", None) for c in holding)
    return list(found)


def texts_of(table: Table) -> list[Column[Any]]:
    """The columns of a table that hold what people and programs wrote."""
    return [
        c for c in table.c if (isinstance(c.type, Text) and c.type is not Key) or (c.info.get("said") and c.type is Key)
    ]


def _candidates(
    tx: Tx, project: str, table: Table, columns: list[Column[Any]], mentions: Mentions
) -> list[dict[str, Any]]:
    here = _mine(table, project)
    assert here is not None
    holding = or_(*(c.contains(form, autoescape=True) for c in columns for form in mentions.forms))
    return [dict(row) for row in tx.execute(select(table).where(here, holding)).mappings()]


def _mine(table: Table, project: str) -> ColumnElement[bool] | None:
    """The condition for rows of a project: by their own column, or by the row above; None for tables of none."""
    if "project" in table.c:
        return table.c["project"] == project
    for key in sorted(table.foreign_keys, key=lambda key: key.parent.name):
        above = _mine(key.column.table, project)
        if above is not None:
            return key.parent.in_(select(key.column).where(above))
    return None
