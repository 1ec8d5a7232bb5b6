"""Writing what a reader gives, as operations: whoever may write runs may import them, here and on a server.

A run keeps the identity that its reader made for it, so that a second import meets the same row. Its tags
`everloop.import.*` say where it came from and how far it got: while it is copied its state is `copying`, and only an
import of the same thing may go on with it. Beginning and end of an import are facts.
"""

import math
from typing import Any

from pydantic import Field

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operation import Answer, Command, Operation, operation
from everloop.catalog.tracking import artifacts, experiments, inputs, logged, points, runs
from everloop.catalog.tracking.rows import DatasetInput, ModelLink, Point, Run
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.grants import Target

PREFIX = "everloop.import."
"""Tags of imported runs; what a source says under `everloop.` is not taken over."""
LATEST: Micros = 253_402_300_799_999_999
"""The last microsecond of the year 9999; a later time is no time of a run."""


class Begin(Command):
    """An import that starts."""

    kind: str
    source: str
    experiments: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


class Done(Command):
    """An import that came to its end, with its report."""

    kind: str
    source: str
    imported: dict[str, int]
    unmapped: tuple[dict[str, Any], ...] = ()


class Noted(Answer):
    """The project that the import writes to."""

    project: str


class PutExperiment(Command):
    """An experiment by name; one that is there is taken as it is, with tags that it lacks added."""

    name: str = Field(min_length=1, max_length=500)
    tags: dict[str, str] = Field(default_factory=dict)


class Named(Answer):
    """The id of the experiment here."""

    experiment: str
    new: bool


class LookRun(Command):
    """Whether a run was imported, and how far it got."""

    run: str


class OpenRun(Command):
    """Make a run, or go on with the import of one."""

    run: str = Field(pattern=r"^[0-9a-f]{32}$")
    experiment: str
    name: str = Field(max_length=1000)
    start: int = Field(ge=0, le=LATEST)
    tags: dict[str, str] = Field(default_factory=dict)
    kind: str
    source: str
    source_id: str


class Standing(Answer):
    """A run as it stands: `new`, `copying`, `complete`, or `taken` by something that is no import of this."""

    state: str
    stamp: str = ""
    experiment: str = ""
    files: dict[str, int] = Field(default_factory=dict)
    """Size of each file that is there, by path."""


class SeriesPart(Command):
    """Points of one metric: step, time in microseconds, value (a text where JSON has no number for it)."""

    key: str = Field(min_length=1)
    points: tuple[tuple[int, int, float | str], ...]


class DatasetPart(Command):
    """A dataset that a run read."""

    name: str
    digest: str
    source_type: str = ""
    source: str = ""
    schema_text: str | None = None
    profile: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)


class LinkPart(Command):
    """A logged model that a run read (`in`) or wrote (`out`)."""

    direction: str = Field(pattern="^(in|out)$")
    model: str
    step: int = 0


class WriteRun(Command):
    """A part of a run's contents; what is there already is passed over."""

    run: str
    params: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    series: tuple[SeriesPart, ...] = ()
    datasets: tuple[DatasetPart, ...] = ()
    links: tuple[LinkPart, ...] = ()


class Refused(Answer):
    """Parameters that are there with another value; the rest was written."""

    params: tuple[str, ...] = ()


class CloseRun(Command):
    """All of the run is here."""

    run: str
    status: str = "FINISHED"
    end: int | None = Field(default=None, ge=0, le=LATEST)
    stamp: str = ""


class NameFile(Command):
    """A path of a run or logged model that names a stored object."""

    owner: str
    path: str
    object: str
    size: int


def _on_run(_ctx: Context, cmd: Any) -> Target:
    return Target("run", cmd.run)


def _on_experiment(_ctx: Context, _cmd: Any) -> Target:
    return Target("experiment")


@operation("imports.begin", needs="run.write", on=_on_experiment)
def begin(ctx: Context, cmd: Begin) -> Noted:
    """Note that an import starts."""
    payload = {"source": cmd.source, "experiments": list(cmd.experiments), "runs": list(cmd.runs)}
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact("import.began", f"import/{cmd.kind}", payload))
    return Noted(project=ctx.project)


@operation("imports.done", needs="run.write", on=_on_experiment)
def done(ctx: Context, cmd: Done) -> Noted:
    """Note what an import brought over, and what it did not."""
    payload = {"source": cmd.source, "imported": cmd.imported, "unmapped": list(cmd.unmapped)}
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact("import.done", f"import/{cmd.kind}", payload))
    return Noted(project=ctx.project)


@operation("imports.experiment", needs="run.write", on=_on_experiment)
def put_experiment(ctx: Context, cmd: PutExperiment) -> Named:
    """Find the experiment of that name, or make it; raises `InvalidInput` when it is deleted."""
    with ctx.write() as tx:
        experiments.ensure_default(tx, ctx.project, ctx.now())
        try:
            found = experiments.by_name(tx, ctx.project, cmd.name)
        except NotFound:
            return Named(
                experiment=experiments.create(tx, ctx.project, cmd.name, at=ctx.now(), tags=cmd.tags), new=True
            )
        experiments.active(tx, ctx.project, found.id)
        fresh = {key: value for key, value in cmd.tags.items() if key not in found.tags}
        experiments.set_tags(tx, ctx.project, found.id, fresh)
        return Named(experiment=found.id, new=False)


@operation("imports.look", needs="read", on=_on_run, reads=True)
def look(ctx: Context, cmd: LookRun) -> Standing:
    """Whether a run is here already; files are told when its import is not complete."""
    with ctx.read() as tx:
        try:
            found = runs.get(tx, ctx.project, cmd.run)
        except NotFound:
            return Standing(state="new")
        return _standing(tx, ctx.project, found)


@operation("imports.open", needs="run.write", on=_on_run, audit="denied")
def open_run(ctx: Context, cmd: OpenRun) -> Standing:
    """Make the run, or open it again for the import of the same thing; a run of somebody else's stays as it is."""
    marks = {"kind": cmd.kind, "source": cmd.source, "id": cmd.source_id, "state": "copying"}
    provenance = {PREFIX + name: value for name, value in marks.items()}
    with ctx.write() as tx:
        try:
            found = runs.get(tx, ctx.project, cmd.run)
        except NotFound:
            runs.create(
                tx,
                ctx.project,
                experiment=cmd.experiment,
                actor=ctx.actor.name,
                at=cmd.start,
                tags={**cmd.tags, **({runs.NAME_TAG: cmd.name} if cmd.name else {}), **provenance},
                identity=cmd.run,
            )
            return Standing(state="new", experiment=cmd.experiment)
        standing = _standing(tx, ctx.project, found)
        if found.stage != "active" or found.tags.get(PREFIX + "id") != cmd.source_id:
            return Standing(state="taken", experiment=found.experiment)
        runs.set_tags(tx, found, {**cmd.tags, **provenance})
        return standing


@operation("imports.write", needs="run.write", on=_on_run, audit="denied")
def write_run(ctx: Context, cmd: WriteRun) -> Refused:
    """Write a part of a run that is open for import; all of it, but for parameters that hold another value."""
    wanted = [_point(cmd.run, part.key, *one) for part in cmd.series for one in part.points]
    with ctx.write() as tx:
        run = _copying(tx, ctx.project, cmd.run)
        clashing = tuple(key for key, value in cmd.params.items() if run.params.get(key, value) != value)
        runs.log_params(tx, run, [(key, value) for key, value in cmd.params.items() if key not in clashing])
        points.log(tx, ctx.project, run.number, wanted)
        if cmd.tags:
            runs.set_tags(tx, run, cmd.tags)
        inputs.log_datasets(tx, ctx.project, run, [_dataset(one) for one in cmd.datasets])
        for direction in ("in", "out"):
            found = [ModelLink(one.model, one.step) for one in cmd.links if one.direction == direction]
            inputs.link_models(tx, run, direction, found)
    return Refused(params=clashing)


@operation("imports.close", needs="run.write", on=_on_run, audit="denied")
def close_run(ctx: Context, cmd: CloseRun) -> Standing:
    """Set the run's status and end, and note that its import is complete."""
    with ctx.write() as tx:
        run = _copying(tx, ctx.project, cmd.run)
        runs.change(tx, ctx.project, run.id, status=cmd.status, end=cmd.end)
        runs.set_tags(tx, run, {PREFIX + "state": "complete", PREFIX + "stamp": cmd.stamp})
    return Standing(state="complete", stamp=cmd.stamp, experiment=run.experiment)


def _name_file(ctx: Context, cmd: NameFile) -> Standing:
    """Let a path name an object that was just stored."""
    with ctx.write() as tx:
        artifacts.put(tx, ctx.project, cmd.owner, cmd.path, identity=cmd.object, size=cmd.size, at=ctx.now())
    return Standing(state="copying")


def _on_owner(ctx: Context, cmd: NameFile) -> Target:
    with ctx.read() as tx:
        if logged.ID.fullmatch(cmd.owner):
            run = logged.find(tx, ctx.project, cmd.owner).run
            return Target("run", run) if run else Target("model", cmd.owner)
        return Target("run", runs.find(tx, ctx.project, cmd.owner).id)


NAME_FILE = Operation("imports.file", _name_file, NameFile, Standing, "run.write", _on_owner, "denied", reads=False)
"""Not in the list of operations: over HTTP bytes come first, since to name a hash is no right to what it holds."""


def _standing(tx: Tx, project: str, found: Run) -> Standing:
    state = found.tags.get(PREFIX + "state", "")
    if not state:
        return Standing(state="taken", experiment=found.experiment)
    return Standing(
        state=state,
        stamp=found.tags.get(PREFIX + "stamp", ""),
        experiment=found.experiment,
        files={one.path: one.size for one in artifacts.tree(tx, project, found.id)},
    )


def _copying(tx: Tx, project: str, identity: str) -> Run:
    run = runs.get(tx, project, identity)
    if run.stage != "active" or run.tags.get(PREFIX + "state") != "copying":
        raise Conflict(
            f"run {identity} is not being imported", hint="open it by imports.open; a deleted run stays away"
        )
    return run


def _point(run: str, key: str, step: int, at: Micros, value: float | str) -> Point:
    number = float(value)
    if not -(2**63) <= step < 2**63 or not 0 <= at <= LATEST:
        raise InvalidInput(
            f"a point of {key} has no step or time that can be stored", hint="64-bit steps; years to 9999"
        )
    return Point(key, number if not math.isnan(number) else math.nan, at, step, run=run)


def _dataset(part: DatasetPart) -> DatasetInput:
    return DatasetInput(
        name=part.name,
        digest=part.digest,
        source_type=part.source_type,
        source=part.source,
        schema=part.schema_text,
        profile=part.profile,
        tags=part.tags,
    )
