"""The operations of editing: append, upsert and delete rows of a dataset."""

from typing import Any

from pydantic import Field

from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target
from everloop.data import editing
from everloop.data.definitions import Contract
from everloop.data.evolution import Evolution


class Rows(Command):
    """Rows for a dataset: as `rows`, or as the id of an object in the store (Parquet, or an Arrow IPC file)."""

    dataset: str
    environment: str
    """Whose head is edited, and moves."""
    rows: list[dict[str, Any]] = Field(default_factory=list)
    object: str = ""
    drop: list[str] = Field(default_factory=list)
    """Columns that go (see `data.evolve`)."""
    rename: dict[str, str] = Field(default_factory=dict)
    retype: dict[str, str] = Field(default_factory=dict)


class Evolve(Command):
    """What becomes of the columns of a dataset; its rows stay."""

    dataset: str
    environment: str
    drop: list[str] = Field(default_factory=list)
    rename: dict[str, str] = Field(default_factory=dict)
    """New names by old ones."""
    retype: dict[str, str] = Field(default_factory=dict)
    """Types by name, as `data.show` names them."""


class Append(Rows):
    """Rows to add. The first ones make the dataset, by what is said here or by the source of that name."""

    key: list[str] = Field(default_factory=list)
    event_time: str = ""
    known_time: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class EditedView(Answer):
    """What an edit made."""

    id: str
    name: str
    number: int
    rows: int
    new: bool
    parts_kept: int
    parts_new: int
    results: list[dict[str, Any]]


def _on(_ctx: Context, cmd: Rows) -> Target:
    return Target("data", cmd.dataset, cmd.environment)


def _on_append(ctx: Context, cmd: Append) -> Target:
    return _on(ctx, cmd)


def _on_evolve(_ctx: Context, cmd: Evolve) -> Target:
    return Target("data", cmd.dataset, cmd.environment)


def _edited(ctx: Context, cmd: Rows, mode: editing.Mode, contract: Contract | None = None) -> EditedView:
    if bool(cmd.rows) == bool(cmd.object):
        raise InvalidInput("give the rows, or the object that holds them", hint="one of `rows` and `object`")
    table = editing.rows_of_object(ctx, cmd.object) if cmd.object else editing.rows_of_json(cmd.rows)
    evolution = Evolution(cmd.drop, cmd.rename, cmd.retype)
    found = editing.edit(ctx, cmd.dataset, table, mode, cmd.environment, contract=contract, evolution=evolution)
    return _view(cmd.dataset, found)


def _view(name: str, found: "editing.Edited") -> EditedView:
    return EditedView(
        id=found.id,
        name=name,
        number=found.number,
        rows=found.rows,
        new=found.new,
        parts_kept=found.parts_kept,
        parts_new=found.parts_new,
        results=[result.payload() for result in found.results],
    )


@operation("data.append", needs="data.capture", on=_on_append)
def append(ctx: Context, cmd: Append) -> EditedView:
    """Add rows to a dataset; the head moves when the blocking expectations hold."""
    said = Contract.of(cmd.key, cmd.event_time or None, cmd.known_time or None, cmd.tags)
    return _edited(ctx, cmd, "append", said if cmd.key or cmd.event_time else None)


@operation("data.upsert", needs="data.capture", on=_on)
def upsert(ctx: Context, cmd: Rows) -> EditedView:
    """Put rows in the place of those that have their keys, or beside them."""
    return _edited(ctx, cmd, "upsert")


@operation("data.delete", needs="data.capture", on=_on)
def delete(ctx: Context, cmd: Rows) -> EditedView:
    """Remove the rows that have these keys from the next version; earlier versions keep them (see erasure)."""
    return _edited(ctx, cmd, "delete")


@operation("data.evolve", needs="data.capture", on=_on_evolve)
def evolve(ctx: Context, cmd: Evolve) -> EditedView:
    """Drop, rename or convert columns of a dataset in the next version; earlier versions keep theirs."""
    found = editing.evolve(ctx, cmd.dataset, cmd.environment, Evolution(cmd.drop, cmd.rename, cmd.retype))
    return _view(cmd.dataset, found)
