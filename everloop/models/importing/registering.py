"""Logged models, registered names, their versions and aliases, as operations of an import."""

from typing import Any

from pydantic import Field

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import artifacts, logged, points, registered, registry, runs
from everloop.catalog.tracking.rows import MODEL_STATUSES, LoggedModel, Point, RegisteredModel, RegisteredVersion
from everloop.core.errors import InvalidInput, NotFound, PolicyRefused
from everloop.core.grants import Target
from everloop.models.importing.operations import LATEST, PREFIX
from everloop.models.webhooks import events

_TEXT = "mlflow.prompt.text"
_WIDEST = 1000
"""How many deleted versions in a row keep their numbers."""


class MeasurePart(Command):
    """A measure of a logged model, taken by a run."""

    key: str = Field(min_length=1)
    step: int = 0
    at: int = Field(ge=0, le=LATEST)
    value: float | str
    run: str
    dataset: str = ""
    digest: str = ""


class PutLogged(Command):
    """A logged model with all but its files."""

    model: str = Field(pattern=r"^m-[0-9a-f]{32}$")
    experiment: str
    name: str = ""
    type: str = ""
    run: str = ""
    created: int = Field(ge=0, le=LATEST)
    params: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    metrics: tuple[MeasurePart, ...] = ()
    kind: str
    source: str


class LoggedState(Answer):
    """A logged model as it stands: `new`, `copying`, `complete`, or `taken` by one that was not imported."""

    state: str
    files: dict[str, int] = Field(default_factory=dict)


class ReadyLogged(Command):
    """The files of a logged model are here."""

    model: str
    status: str = MODEL_STATUSES[1]


class PutName(Command):
    """A registered model; one that is there keeps its description."""

    name: str = Field(min_length=1, max_length=256)
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class PutVersion(Command):
    """A version of a registered model, by the number that the source gave it."""

    name: str
    number: int = Field(ge=1, lt=10_000_000)
    created: int = Field(ge=0, le=LATEST)
    description: str = ""
    stage: str = "None"
    link: str = ""
    """Where the source kept it; shown, and used by clients where no files were imported."""
    run: str = ""
    model: str = ""
    owner: str = ""
    path: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    kind: str
    source: str


class Numbered(Answer):
    """The number that a version has here, whether it is new, how many files it pins, the stage that it got."""

    number: int
    new: bool
    files: int = 0
    stage: str = "None"


class PutAlias(Command):
    """An alias, pointed to a version by its number here."""

    name: str
    alias: str
    number: int


def _on_model(_ctx: Context, cmd: Any) -> Target:
    return Target("model", cmd.name)


def _on_run(ctx: Context, cmd: Any) -> Target:
    run = cmd.run if isinstance(cmd, PutLogged) else ""
    with ctx.read() as tx:
        try:  # whose model it is counts, not whose the caller says it is
            run = logged.find(tx, ctx.project, cmd.model).run
        except NotFound:
            if isinstance(cmd, ReadyLogged):
                raise
    return Target("run", run) if run else Target("model", cmd.model)


@operation("imports.logged", needs="run.write", on=_on_run, audit="denied")
def put_logged(ctx: Context, cmd: PutLogged) -> LoggedState:
    """Make a logged model, or go on with the import of one."""
    with ctx.write() as tx:
        try:
            found = logged.find(tx, ctx.project, cmd.model)
        except NotFound:
            logged.create(
                tx,
                ctx.project,
                experiment=cmd.experiment,
                at=cmd.created,
                name=cmd.name,
                kind=cmd.type,
                run=cmd.run,
                params=cmd.params,
                tags={**cmd.tags, PREFIX + "kind": cmd.kind, PREFIX + "source": cmd.source},
                identity=cmd.model,
            )
            _measure(tx, ctx, cmd)
            return LoggedState(state="new")
        if PREFIX + "source" not in logged.get(tx, ctx.project, cmd.model).tags:
            return LoggedState(state="taken")
        _measure(tx, ctx, cmd)
        return _state(tx, ctx, found)


@operation("imports.ready", needs="run.write", on=_on_run, audit="denied")
def ready_logged(ctx: Context, cmd: ReadyLogged) -> LoggedState:
    """Say that the files of a logged model are complete, or will never be."""
    with ctx.write() as tx:
        return _state(tx, ctx, logged.finalize(tx, ctx.project, cmd.model, cmd.status, at=ctx.now()))


@operation("imports.name", needs="run.write", on=_on_model)
def put_name(ctx: Context, cmd: PutName) -> Numbered:
    """Make a registered model, or take the one of that name; its tags are added where they lack."""
    with ctx.write() as tx:
        found = registered.find(tx, ctx.project, cmd.name)
        if found is None:
            made = registry.register(
                tx,
                ctx.project,
                cmd.name,
                actor=ctx.actor.name,
                at=ctx.now(),
                description=cmd.description,
                tags=cmd.tags,
            )
            told = {"tags": dict(made.tags), "description": made.description}
            events.record(ctx, tx, "model", "created", made.name, prompt=registered.is_prompt(made), **told)
            return Numbered(number=len(made.aliases), new=True)
        fresh = {key: value for key, value in cmd.tags.items() if key not in found.tags}
        registry.set_tags(tx, ctx.project, found.asset, 0, fresh)
        return Numbered(number=max((one.number for one in found.latest), default=0), new=False)


@operation("imports.version", needs="run.write", on=_on_model)
def put_version(ctx: Context, cmd: PutVersion) -> Numbered:
    """Register a version under its own number, or the next one where that is taken; one that is here stays as it is."""
    mark = f"{cmd.name}/{cmd.number}"
    with ctx.write() as tx:
        model = registered.get(tx, ctx.project, cmd.name)
        known = _known(tx, ctx.project, cmd.name, mark)
        if known is not None:
            held = len(registered.files(tx, ctx.project, known))
            return Numbered(number=known.number, new=False, files=held, stage=known.stage)
        files = _files(tx, ctx.project, cmd)
        _fill(tx, ctx, model, cmd)
        made = registry.create_version(
            tx,
            ctx.project,
            model,
            source=_source(cmd) if files else cmd.link,
            actor=ctx.actor.name,
            at=cmd.created,
            run=cmd.run,
            logged=cmd.model,
            description=cmd.description,
            files=files,
            tags={
                **cmd.tags,
                PREFIX + "kind": cmd.kind,
                PREFIX + "source": cmd.source,
                PREFIX + "id": mark,
            },
        )
        prompt = registered.is_prompt(model)
        told = {"version": str(made.number), "tags": dict(made.tags), "description": made.description}
        about = {"template": made.tags.get(_TEXT, "")} if prompt else {"source": made.source, "run_id": made.run}
        events.record(ctx, tx, "version", "created", made.name, prompt=prompt, **told, **about)
        stage = _staged(tx, ctx, cmd, made.number)
        return Numbered(number=made.number, new=True, files=len(files), stage=stage)


@operation("imports.alias", needs="run.write", on=_on_model)
def put_alias(ctx: Context, cmd: PutAlias) -> Numbered:
    """Point an alias to a version; one that points elsewhere here stays, and protected ones move by changes only."""
    with ctx.write() as tx:
        held = registered.get(tx, ctx.project, cmd.name).aliases.get(cmd.alias)
        if held is not None and held != cmd.number:
            raise InvalidInput(
                f"the alias {cmd.alias} of {cmd.name} points to version {held} here", hint="move it by hand if you want"
            )
        if held is None:
            registry.set_alias(tx, ctx.project, cmd.name, cmd.alias, cmd.number, actor=ctx.actor.name, at=ctx.now())
            model = registered.get(tx, ctx.project, cmd.name)
            told = {"alias": cmd.alias, "version": str(cmd.number)}
            events.record(ctx, tx, "alias", "created", model.name, prompt=registered.is_prompt(model), **told)
    return Numbered(number=cmd.number, new=held is None)


def _fill(tx: Tx, ctx: Context, model: RegisteredModel, cmd: PutVersion) -> None:
    """Use up the numbers that the source gave to versions that it deleted: numbers here have no gap.

    What stands at such a number is hidden, as a deleted version of our own is. A gap too wide is not filled.
    """
    newest = versions.history(tx, ctx.project, "model", model.asset, limit=1)
    last = newest[0].number if newest else 0
    if cmd.number - last > _WIDEST:
        return
    for number in range(last + 1, cmd.number):
        gone = registry.create_version(
            tx,
            ctx.project,
            model,
            source="",
            actor=ctx.actor.name,
            at=cmd.created,
            description="deleted in the source, before the import",
            tags={PREFIX + "kind": cmd.kind, PREFIX + "source": cmd.source, PREFIX + "id": f"{cmd.name}/{number}"},
        )
        registry.delete_version(tx, ctx.project, cmd.name, gone.number, actor=ctx.actor.name, at=ctx.now())


def _staged(tx: Tx, ctx: Context, cmd: PutVersion, number: int) -> str:
    """The stage that a new version has: that of the source, unless a policy guards it here."""
    if cmd.stage in {"", "None"}:
        return "None"
    try:
        return registry.transition(
            tx, ctx.project, cmd.name, number, cmd.stage, archive=False, actor=ctx.actor.name, at=ctx.now()
        ).stage
    except PolicyRefused:
        return "None"


def _measure(tx: Tx, ctx: Context, cmd: PutLogged) -> None:
    """Measures of the model that runs of this project took; the point is part of its run already."""
    for run in sorted({one.run for one in cmd.metrics}):
        rows = [
            Point(one.key, float(one.value), one.at, one.step, cmd.model, one.dataset, one.digest, run)
            for one in cmd.metrics
            if one.run == run
        ]
        try:
            points.log(tx, ctx.project, runs.active(tx, ctx.project, run).number, rows)
        except NotFound:
            continue  # measured by a run that was not wanted


def _state(tx: Tx, ctx: Context, found: LoggedModel) -> LoggedState:
    files = {one.path: one.size for one in artifacts.tree(tx, ctx.project, found.id)}
    return LoggedState(state="copying" if found.status == MODEL_STATUSES[0] else "complete", files=files)


def _known(tx: Tx, project: str, name: str, mark: str) -> RegisteredVersion | None:
    """The version here that was imported as `mark`, under its own number or another one."""
    tag = f"tags.`{PREFIX}id`"
    # the filter language has no escape for quotes: a name with one is looked for among all that were imported
    wanted = f"{tag} LIKE '%'" if "'" in name else f"name = '{name}' AND {tag} = '{mark}'"
    for asked in (wanted, f"{wanted} AND tags.`{registered.PROMPT_TAG}` = 'true'"):  # searches hide prompts
        for one in registered.search_versions(tx, project, filter_text=asked).rows:
            if one.name == name and one.tags.get(PREFIX + "id") == mark:
                return one
    return None


def _files(tx: Tx, project: str, cmd: PutVersion) -> dict[str, str]:
    """What the version holds, by path; files of another project cannot be named."""
    if not cmd.owner:
        return {}
    start = len(cmd.path) + 1 if cmd.path else 0
    return {one.path[start:]: one.object for one in artifacts.tree(tx, project, cmd.owner, cmd.path)}


def _source(cmd: PutVersion) -> str:
    if cmd.owner.startswith("m-"):
        return f"models:/{cmd.owner}" + (f"/{cmd.path}" if cmd.path else "")
    return f"runs:/{cmd.owner}" + (f"/{cmd.path}" if cmd.path else "")
