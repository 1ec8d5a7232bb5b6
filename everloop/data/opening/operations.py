"""The operations of open tables: make the files of one, list them, close one. Whoever asks puts the files in place."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import NotFound
from everloop.core.grants import Target
from everloop.data import opening
from everloop.data.heads import find_version
from everloop.data.operations import OfData
from everloop.data.sensitive.masking import need_rows

if TYPE_CHECKING:
    from everloop.data.opening.tables import Opened


class Open(OfData):
    """Open a version as a table of another format."""

    format: str
    """`iceberg` or `delta`."""
    location: str
    """The table's folder as a URL: `file:///…`, `s3://bucket/prefix`."""
    history: int = Field(default=0, ge=0, le=1000)
    """How many versions before it are shown too; what the table showed before stays."""
    plain: bool = False
    """Write parts that lack rows whole, for engines that cannot leave rows of a file out."""
    without: list[str] = Field(default_factory=list)
    """Columns that the table does not show."""
    store: str = ""
    """Where engines find the object store, when that is not its own URL."""


class OpenTable(Answer):
    """A table that stands open."""

    table: str
    name: str
    format: str
    location: str
    versions: list[int]
    """The numbers of the versions that it shows, oldest first: Iceberg's snapshots have them as their ids."""
    rows: int
    """Of the newest."""


class OpenedView(OpenTable):
    """A table and what belongs into its folder, all of it in the store."""

    left_out: list[int]
    """Earlier versions that it cannot show: expired, or with columns that do not agree with the later ones'."""
    folded: int
    """Parts that were written whole for it, since columns of theirs lay in files of their own."""
    written: int
    """Bytes of them."""
    files: dict[str, str]
    """Name -> object, in the order in which they are to appear."""
    links: dict[str, str]
    times: dict[str, int]


class OpenTables(Answer):
    """The tables that stand open."""

    items: list[OpenTable]


class Nothing(Command):
    """No question beside the project."""


class Close(Command):
    """Close an open table."""

    table: str


def _on(ctx: Context, cmd: Open) -> Target:
    return Target("data", find_version(ctx, cmd.version, cmd.environment).name, cmd.environment)


def _on_all(_ctx: Context, _cmd: Nothing) -> Target:
    return Target("data", "*")


def _on_table(ctx: Context, cmd: Close) -> Target:
    found = opening.recorded(ctx, cmd.table)
    return Target("data", found.name if found else "*")


@operation("data.open", needs="data.capture", on=_on)
def open_data(ctx: Context, cmd: Open) -> OpenedView:
    """Make a version into an Iceberg or Delta table over its Parquet files, and keep what the table shows.

    Files cannot be masked: whoever may not see a tagged column cannot open the table.
    """
    row = find_version(ctx, cmd.version, cmd.environment)
    wanted = opening.Wanted(cmd.format, cmd.location, cmd.history, cmd.plain, tuple(cmd.without), cmd.store)  # type: ignore[arg-type]
    before = opening.recorded(ctx, opening.table_id(ctx, row.name, wanted))
    for one in opening.rows_shown(ctx, row, wanted, before):
        need_rows(ctx, one, cmd.environment)
    found = opening.open_table(ctx, row, wanted)
    assert found.files is not None
    return OpenedView(
        **_told(found),
        left_out=list(found.left_out),
        folded=found.folded,
        written=found.written,
        files={name: ctx.store.put(content) for name, content in found.files.contents.items()},
        links=dict(found.files.links),
        times=dict(found.files.times),
    )


@operation("data.opened", needs="read", on=_on_all, audit="denied", reads=True)
def opened(ctx: Context, _cmd: Nothing) -> OpenTables:
    """The tables of other formats that stand open, and the versions that are kept for them."""
    return OpenTables(items=[OpenTable(**_told(one)) for one in opening.opened(ctx)])


@operation("data.close", needs="data.capture", on=_on_table)
def close(ctx: Context, cmd: Close) -> OpenTable:
    """Forget an open table: its versions are kept for it no longer."""
    if opening.recorded(ctx, cmd.table) is None:
        raise NotFound(f"no open table is {cmd.table}", hint="`everloop data opened` lists them")
    return OpenTable(**_told(opening.close(ctx, cmd.table)))


def _told(one: "Opened") -> dict[str, Any]:
    return {
        "table": one.table,
        "name": one.name,
        "format": one.wanted.format,
        "location": one.wanted.location,
        "versions": [number for number, _ in one.shown],
        "rows": one.rows,
    }
