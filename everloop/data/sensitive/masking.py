"""Who sees which values: the one place that decides what is masked, for every face that shows rows.

A value of a tagged column is shown to whoever holds `read kind/name@environment#tag` for each of its tags. Everybody
else sees a mask. So the roles viewer, contributor, approver and admin see masks; steward and auditor see values.
"""

from collections.abc import Collection, Mapping
from typing import Any

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.versions import VersionRow
from everloop.core.errors import PermissionDenied
from everloop.data.expect import MASK
from everloop.data.sensitive.carrying import closed, guarded
from everloop.data.sensitive.tags import ColumnTags, tags_of


def column_tags(ctx: Context, row: VersionRow) -> ColumnTags:
    """Column -> tags in force of a version."""
    with ctx.read() as tx:
        return tags_of(tx, ctx.project, row)


def in_force(ctx: Context, version: str) -> dict[str, str]:
    """Column -> tags that hide it from somebody: for what is written down once, to be read by anybody."""
    with ctx.read() as tx:
        tags = tags_of(tx, ctx.project, versions.get(tx, ctx.project, version))
    return {column: ", ".join(sorted(closed(carried))) for column, carried in tags.items() if closed(carried)}


def hidden(ctx: Context, kind: str, name: str, environment: str, tags: ColumnTags) -> frozenset[str]:
    """The columns whose values the actor may not see."""
    return frozenset(
        column
        for column, carried in tags.items()
        if closed(carried) and not ctx.actor.may("read", guarded(kind, name, environment, carried))
    )


def hidden_of(ctx: Context, row: VersionRow, environment: str = "") -> frozenset[str]:
    """The columns of a version whose values the actor may not see."""
    return hidden(ctx, row.kind, row.name, environment, column_tags(ctx, row))


def masked(values: Mapping[str, Any], columns: Collection[str]) -> dict[str, Any]:
    """A row with a mask in place of each hidden value; what is null stays null."""
    return {name: MASK if name in columns and value is not None else value for name, value in values.items()}


def need_rows(ctx: Context, row: VersionRow, environment: str = "") -> None:
    """Raise `PermissionDenied` where a file of whole rows holds a column that the actor may not see.

    Bytes cannot be masked: they are given whole or not at all.
    """
    closed_to = hidden_of(ctx, row, environment)
    if closed_to:
        tags = closed(frozenset().union(*(column_tags(ctx, row)[column] for column in closed_to)))
        raise PermissionDenied(
            f"{row.key} holds values of {', '.join(sorted(closed_to))}, tagged {', '.join(sorted(tags))}",
            hint=f"ask for the grant: {' , '.join(f'read {row.key}@*#{tag}' for tag in sorted(tags))}",
            columns=sorted(closed_to),
        )


EXAMPLES = frozenset({"example.json", "input_example.json", "serving_input_example.json"})
"""Files of a model version that hold rows of its frame."""


def need_file(ctx: Context, version: str, path: str) -> None:
    """Raise `PermissionDenied` where a file of a model version holds rows that the actor may not see."""
    if path.rpartition("/")[2] in EXAMPLES:
        with ctx.read() as tx:
            row = versions.get(tx, ctx.project, version)
        need_rows(ctx, row)
