"""Columns of which nobody said how they are made: whether the key still stands in them, to be told and not hidden."""

from collections import Counter

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.core.errors import NotFound
from everloop.data.erasure import folders
from everloop.data.erasure.finding import following, values
from everloop.data.erasure.finding.subjects import Subject, manifests_of_tables


def left(ctx: Context, subject: Subject) -> list[str]:
    """Where values equal to the key stand in columns that may have been made from a subject's, by table and column.

    Texts were searched and their rows went. Numbers are like other numbers: who knows that they are keys names them.
    """
    tables = manifests_of_tables(ctx)
    held = following.follow(ctx, tables, subject.columns)
    some = {version: {**tables[version], "about": version} for version, one in held.items() if one.unsure}
    found: Counter[tuple[str, str]] = Counter()
    for manifest, table in folders.parts_of(ctx, some):
        for column in sorted(held[manifest["about"]].unsure & set(table.column_names)):
            if count := int(values.rows(table[column], subject.key).sum()):
                found[_name(ctx, manifest["about"]), column] += count
    return [
        f"{count} rows of {name} have such a value in {column!r}, of which nobody declared how it is made: "
        f"declare it with columns=, or erase with --column {column}"
        for (name, column), count in sorted(found.items())
    ]


def _name(ctx: Context, version: str) -> str:
    with ctx.read() as tx:
        try:
            row = versions.get(tx, ctx.project, version)
        except NotFound:
            return version
    return f"{row.kind}/{row.name}"
