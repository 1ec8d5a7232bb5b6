"""Where a run comes from and what came of it: code, environment, inputs, outputs, parent and children."""

from collections.abc import Iterable

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import artifacts, querying, registered, runs
from everloop.core.errors import NotFound
from everloop.core.grants import Target
from everloop.models.tracking.editing import NOTE

UNCOMMITTED = "code/uncommitted.diff"
"""The file of a run that holds what its code differs in from the commit."""
_MOST = 200
_PARENT = "mlflow.parentRunId"
_SOURCE = "mlflow.source."


class OriginOfRun(Command):
    """A run, by its id."""

    run: str


class VersionLink(Answer):
    """A version that a run read or made."""

    role: str
    id: str
    kind: str
    label: str
    """`data/flights v3`."""


class RunLink(Answer):
    """Another run."""

    id: str
    name: str
    status: str


class RegisteredLink(Answer):
    """A registered version that was made of this run."""

    name: str
    number: int


class Origin(Answer):
    """What is known of how a run came to be."""

    commit: str
    branch: str
    repository: str
    source: str
    """The program that ran."""
    entry: str
    """The asset whose step it was; empty for a run that no flow made."""
    code: VersionLink | None
    """The code version, where Everloop ran the code."""
    before: VersionLink | None
    """The code version before that one."""
    runtime: VersionLink | None
    uncommitted: bool
    """Whether the run kept what was not committed, as the file `code/uncommitted.diff`."""
    inputs: tuple[VersionLink, ...]
    outputs: tuple[VersionLink, ...]
    registered: tuple[RegisteredLink, ...]
    parent: RunLink | None
    children: tuple[RunLink, ...]
    note: str


def _on(_ctx: Context, cmd: OriginOfRun) -> Target:
    return Target("run", cmd.run)


@operation("runs.origin", needs="read", on=_on, reads=True)
def origin_of_run(ctx: Context, cmd: OriginOfRun) -> Origin:
    """Tell code, environment, inputs, outputs and relatives of a run."""
    with ctx.read() as tx:
        run = runs.get(tx, ctx.project, cmd.run)
        tags = run.tags
        step = steps.lookup(tx, ctx.project, tags["everloop.recipe"]) if "everloop.recipe" in tags else None
        if step is not None and step.run != run.id:  # another run of the same recipe made it
            step = None
        code = step.code if step else tags.get("everloop.code", "")
        mine = registered.search_versions(tx, ctx.project, filter_text=f"run_id = '{run.id}'", limit=_MOST)
        children = querying.search_rows(
            tx, ctx.project, [run.experiment], filter_text=f"tags.`{_PARENT}` = '{run.id}'", limit=_MOST
        )
        return Origin(
            commit=tags.get(_SOURCE + "git.commit", ""),
            branch=tags.get(_SOURCE + "git.branch", ""),
            repository=tags.get(_SOURCE + "git.repoURL", ""),
            source=tags.get(_SOURCE + "name", ""),
            entry=tags.get("everloop.step", ""),
            code=_link(tx, ctx.project, "code", code),
            before=_before(tx, ctx.project, code),
            runtime=_link(tx, ctx.project, "runtime", step.runtime if step else ""),
            uncommitted=_kept(tx, ctx.project, run.id),
            inputs=_links(tx, ctx.project, step.inputs.items() if step else ()),
            outputs=_links(tx, ctx.project, [("output", step.output)] if step and step.output else []),
            registered=tuple(RegisteredLink(name=one.name, number=one.number) for one in mine.rows),
            parent=_parent(tx, ctx.project, tags.get(_PARENT, "")),
            children=tuple(RunLink(id=row.id, name=row.name, status=row.status) for row in children.rows),
            note=tags.get(NOTE, ""),
        )


def _kept(tx: Tx, project: str, run: str) -> bool:
    try:
        artifacts.get(tx, project, run, UNCOMMITTED)
    except NotFound:
        return False
    return True


def _links(tx: Tx, project: str, linked: Iterable[tuple[str, str]]) -> tuple[VersionLink, ...]:
    listed = list(linked)
    labels = versions.labels(tx, project, [identity for _, identity in listed])
    return tuple(
        VersionLink(role=role, id=identity, kind=labels[identity].partition("/")[0], label=labels[identity])
        for role, identity in listed
        if identity in labels
    )


def _link(tx: Tx, project: str, role: str, identity: str) -> VersionLink | None:
    return next(iter(_links(tx, project, [(role, identity)])), None) if identity else None


def _before(tx: Tx, project: str, code: str) -> VersionLink | None:
    """The version of the same name before `code`."""
    if not code:
        return None
    try:
        row = versions.get(tx, project, code)
    except NotFound:
        return None
    older = versions.history(tx, project, row.kind, row.name, limit=1, before=row.number)
    return _link(tx, project, "code", older[0].id) if older else None


def _parent(tx: Tx, project: str, identity: str) -> RunLink | None:
    if not identity:
        return None
    try:
        row = runs.find(tx, project, identity)
    except NotFound:
        return None
    return RunLink(id=row.id, name=row.name, status=row.status)
