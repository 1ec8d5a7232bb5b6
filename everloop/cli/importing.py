"""Import: experiments of other trackers come over, once or again."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.client import connect
from everloop.core.errors import InvalidInput
from everloop.features.importing.asking import described
from everloop.features.importing.feast import translated
from everloop.models.importing.copying import Plan
from everloop.models.importing.importing import import_from
from everloop.models.importing.opening import Origin, open_source
from everloop.models.importing.report import Report
from everloop.models.importing.targets import Here, Target, There
from everloop.models.importing.values import Selection
from everloop.workspace.operations import load_operations

imports = typer.Typer(
    help="Bring experiments, runs, files and models over from another tracker. Doing it again adds what is missing.",
    no_args_is_help=True,
)
Experiments = Annotated[
    list[str] | None, typer.Option("--experiment", help="Only experiments of this name or id (a glob); repeatable.")
]
Runs = Annotated[list[str] | None, typer.Option("--run", help="Only runs of this name or id (a glob); repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read all, write and fetch nothing, and tell.")]
NoFiles = Annotated[bool, typer.Option("--no-files", help="Leave files where they are.")]
Again = Annotated[bool, typer.Option("--again", help="Read runs again that are complete and unchanged.")]
Damaged = Annotated[bool, typer.Option("--damaged", help="Take what can be read of damaged runs.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(imports, name="import")


@imports.command("mlflow")
def import_mlflow(
    uri: Annotated[str, typer.Argument(help="http://server, sqlite:///file, postgresql://…, or a folder mlruns.")],
    *,
    artifacts: Annotated[
        list[str] | None,
        typer.Option("--artifacts", help="Where artifacts lie that no server proxies: a folder, s3://…; repeatable."),
    ] = None,
    experiments: Experiments = None,
    runs: Runs = None,
    dry_run: DryRun = False,
    no_files: NoFiles = False,
    again: Again = False,
) -> None:
    """An MLflow tracking server, its database, or its file store, with its model registry."""
    origin = Origin("mlflow", uri, tuple(artifacts or ()))
    _import(origin, _plan(experiments, runs, dry_run=dry_run, files=not no_files, again=again))


@imports.command("tensorboard")
def import_tensorboard(
    folder: Annotated[str, typer.Argument(metavar="LOGDIR", help="The folder given to tensorboard --logdir.")],
    *,
    name: Annotated[str, typer.Option("--as", help="The experiment; by default the folder's name.")] = "",
    runs: Runs = None,
    dry_run: DryRun = False,
    no_files: NoFiles = False,
    again: Again = False,
    damaged: Damaged = False,
) -> None:
    """A folder of TensorBoard event files; each folder that holds some is a run."""
    plan = _plan(None, runs, dry_run=dry_run, files=not no_files, again=again, damaged=damaged)
    _import(Origin("tensorboard", folder, name=name), plan)


@imports.command("wandb")
def import_wandb(
    folder: Annotated[str, typer.Argument(metavar="OFFLINE-DIR", help="The folder wandb with offline-run-*.")],
    *,
    experiments: Experiments = None,
    runs: Runs = None,
    dry_run: DryRun = False,
    no_files: NoFiles = False,
    again: Again = False,
    damaged: Damaged = False,
) -> None:
    """Runs that wandb wrote in offline mode."""
    plan = _plan(experiments, runs, dry_run=dry_run, files=not no_files, again=again, damaged=damaged)
    _import(Origin("wandb", folder), plan)


@imports.command("neptune")
def import_neptune(
    folder: Annotated[str, typer.Argument(metavar="EXPORT-DIR", help="What neptune-exporter wrote.")],
    *,
    files: Annotated[str, typer.Option("--files", help="Its --files-path; by default `files` beside `data`.")] = "",
    step_scale: Annotated[int, typer.Option(help="What decimal steps are multiplied by.")] = 1,
    experiments: Experiments = None,
    runs: Runs = None,
    dry_run: DryRun = False,
    no_files: NoFiles = False,
    again: Again = False,
) -> None:
    """The Parquet files of the public neptune-exporter."""
    origin = Origin("neptune", folder, (files,) if files else (), scale=step_scale)
    _import(origin, _plan(experiments, runs, dry_run=dry_run, files=not no_files, again=again))


@imports.command("feast")
def import_feast(
    repo: Annotated[Path, typer.Argument(help="The folder with feature_store.yaml.")],
    *,
    into: Annotated[Path, typer.Option("--into", help="The project's file to write.")] = Path("features.py"),
    python: Annotated[str, typer.Option("--python", help="An interpreter that has Feast.")] = sys.executable,
) -> None:
    """A Feast repository's definitions, as a project's file; the report says what did not come over."""
    if into.exists():
        raise InvalidInput(f"{into} is there already", hint="--into names another file")
    folder = os.path.relpath(repo.resolve(), into.parent.resolve())
    found = translated(described(repo, python), repo.resolve().name, folder)
    into.write_text(found.text)
    report = {"written": str(into), "missed": [{"what": m.what, "why": m.why} for m in found.missed]}
    lines = [f"wrote {into}", "not brought over, or not quite:", *(f"  {m.what}: {m.why}" for m in found.missed)]
    output.show(report, "\n".join(lines))


def _plan(
    experiments: list[str] | None,
    runs: list[str] | None,
    *,
    dry_run: bool,
    files: bool,
    again: bool,
    damaged: bool = False,
) -> Plan:
    selection = Selection(tuple(experiments or ()), tuple(runs or ()), damaged)
    return Plan(selection, dry_run=dry_run, files=files, again=again)


def _import(origin: Origin, plan: Plan) -> None:
    load_operations()
    with closing(open_source(origin)) as source, _target() as target, output.progress(f"reading {source.label}") as bar:

        def say(text: str, done: int, _total: int) -> None:
            bar.step(f"{done}  {text}" if done else text)

        report = import_from(source, target, plan, say)
    output.show(report.json(), "\n".join(_lines(report)))


@contextmanager
def _target() -> Iterator[Target]:
    """The server that the settings name, else the workspace's files."""
    settings = session.settings
    if settings.server:
        with connect(settings.server, token=settings.token, project=settings.project) as client:
            yield There(client.call, settings.server, settings.project, settings.token)
        return
    with session.workspace() as workspace:
        yield Here(session.context(workspace))


def _lines(report: Report) -> list[str]:
    """The report for people."""
    verb = "would be imported" if report.dry_run else "imported"
    counts = ", ".join(f"{number:,} {what}" for what, number in sorted(report.counts.items()))
    lines = [f"{verb} from {report.source}: {counts or 'nothing'}"]
    if report.lost:
        lines.append("not brought over:")
    for one in report.lost:
        names = ", ".join(one["names"]) + (", …" if one["count"] > len(one["names"]) else "")
        lines.append(f"  {one['count']} {one['kind']}: {one['reason']} ({names})")
    return [line.replace("[", r"\[") for line in lines]
