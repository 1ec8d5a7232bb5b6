"""Data: versions, profiles, differences, expectations, samples."""

import json
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from everloop.cli.data_erasure import check_proof, expire, hold, holds, proof, retain, sweep, usage
from everloop.cli.data_failing import failing
from everloop.cli.data_files import checkout, files
from everloop.cli.data_open import close, open_table, opened
from everloop.cli.data_status import status
from everloop.cli.data_tables import show_sample, show_version
from everloop.cli.data_transfer import evolve, pull, push
from everloop.cli.output import output
from everloop.cli.session import session
from everloop.data.definitions import Files
from everloop.data.editing.applying import put_table
from everloop.data.sources.files import FileSource

data = typer.Typer(help="Datasets and their versions.", no_args_is_help=True)
Version = Annotated[
    str, typer.Argument(help="An id, a dataset's name, name@7, name@staging or name@2026-01-31T12:00Z.")
]
Where = Annotated[str, typer.Option("--env", help="Whose head a bare name means.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    data.command("files")(files)
    data.command("checkout")(checkout)
    data.command("status")(status)
    data.command("proof")(proof)
    data.command("usage")(usage)
    data.command("sweep")(sweep)
    data.command("holds")(holds)
    data.command("expire")(expire)
    data.command("hold")(hold)
    data.command("retain")(retain)
    data.command("check-proof")(check_proof)
    data.command("failing")(failing)
    data.command("open")(open_table)
    data.command("opened")(opened)
    data.command("close")(close)
    for command in (push, pull, evolve):
        data.command()(command)
    app.add_typer(data, name="data")


@data.command("list")
def list_data(name: Annotated[str, typer.Argument(help="A dataset; empty lists all.")] = "") -> None:
    """Datasets, or the versions of one."""
    with session.client() as client:
        found = client.call("data.list", name=name).model_dump(mode="json")
    rows = next(iter(v for v in found.values() if isinstance(v, list)), [])
    output.rows(rows, ["name", "number", "rows", "at", "actor", "id"], empty="no data yet: everloop run")


@data.command("capture")
def capture(
    source: Annotated[str, typer.Argument(help="A source that a build has recorded.")],
    environment: Annotated[str, typer.Option("--env", help="Whose head moves; none when left out.")] = "",
) -> None:
    """Read a source into a version; what did not change is not read again."""
    with session.client() as client, output.progress(f"capturing {source}"):
        output.show(client.call("data.capture", source=source, environment=environment))


@data.command("show")
def show(version: Version, environment: Where = "production") -> None:
    """One version: where it is the head, and a line for each column; everything under --json."""
    with session.client() as client:
        show_version(client.call("data.show", version=version, environment=environment))


@data.command("diff")
def diff(
    old: Version,
    new: Version,
    environment: Where = "production",
    exact: Annotated[bool, typer.Option("--exact", help="Also show rows that changed, which reads parts.")] = False,
) -> None:
    """What differs between two versions: rows by key and columns; counts are exact, from manifests where they tell."""
    with session.client() as client:
        output.show(client.call("data.compare", old=old, new=new, environment=environment, examples=exact))


@data.command("drift")
def drift(old: Version, new: Version, environment: Where = "production") -> None:
    """How far the distributions of two versions lie apart, column by column, off their profiles."""
    with session.client() as client:
        found = client.call("data.drift", old=old, new=new, environment=environment)
    output.rows(found.columns, ["name", "distance", "test"], empty="no column that both have can be compared")


@data.command("contract")
def contract(dataset: Annotated[str, typer.Argument()], environment: Where = "production") -> None:
    """What is promised of a dataset, and how the newest version that was checked kept it."""
    with session.client() as client:
        output.show(client.call("data.contract", name=dataset, environment=environment))


@data.command("propose")
def propose(
    versions: Annotated[list[str], typer.Argument(help="Data versions: ids, or name@7; one for each dataset.")],
    target: Annotated[str, typer.Option("--to", help="The protected environment.")] = "production",
    title: Annotated[str, typer.Option()] = "",
    description: Annotated[str, typer.Option()] = "",
) -> None:
    """Open a change that moves heads to these versions, where the policy leaves data to changes."""
    with session.client() as client:
        output.show(
            client.call("changes.propose_data", versions=versions, target=target, title=title, description=description)
        )


@data.command("expect")
def expect(version: Version, environment: Where = "production") -> None:
    """A first draft of expectations, read off a version's profile."""
    with session.client() as client:
        output.show(client.call("data.expect", version=version, environment=environment))


@data.command("sample")
def sample(
    version: Version,
    environment: Where = "production",
    rows: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="How many to pass over.")] = 0,
) -> None:
    """Some rows, a line each; columns with tags are masked."""
    with session.client() as client:
        show_sample(client.call("data.sample", version=version, environment=environment, rows=rows, offset=offset))


Dataset = Annotated[str, typer.Argument(help="A dataset that no function makes.")]
RowsFile = Annotated[str, typer.Argument(help="Parquet, CSV, JSON lines or Arrow, by its suffix.")]
Edits = Annotated[str, typer.Option("--env", help="Whose head is edited, and moves.")]


@data.command("append")
def append(
    dataset: Dataset,
    file: RowsFile,
    environment: Edits = "production",
    key: Annotated[list[str] | None, typer.Option(help="Key of a new dataset; may be given twice.")] = None,
    event_time: Annotated[str, typer.Option(help="Event time of a new dataset.")] = "",
) -> None:
    """Add rows to a dataset, or make it."""
    _edit("data.append", dataset, file, environment, key=key or [], event_time=event_time)


@data.command("upsert")
def upsert(dataset: Dataset, file: RowsFile, environment: Edits = "production") -> None:
    """Put rows in the place of those with their keys, or beside them."""
    _edit("data.upsert", dataset, file, environment)


@data.command("delete")
def delete(dataset: Dataset, file: RowsFile, environment: Edits = "production") -> None:
    """Remove the rows that have the keys in a file; earlier versions keep them."""
    _edit("data.delete", dataset, file, environment)


def _edit(operation: str, dataset: str, file: str, environment: str, **more: Any) -> None:
    """Rows travel in the store where it is at hand, else in the call."""
    table = pa.Table.from_batches(list(FileSource(Path.cwd(), Files(file)).read()))
    if session.settings.server:
        fields: dict[str, Any] = {"rows": json.loads(json.dumps(table.to_pylist(), default=str))}
    else:
        with session.workspace() as workspace:
            fields = {"object": put_table(workspace.store, table)}
    with session.client() as client, output.progress(f"{operation} {dataset}"):
        output.show(client.call(operation, dataset=dataset, environment=environment, **fields, **more))
