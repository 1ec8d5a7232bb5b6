"""`everloop baseline`: a table and a label in, a sound first model with a report out."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.catalog.operation import invoke
from everloop.changes import environments
from everloop.changes.environments import Commit, CreateSandbox
from everloop.core.errors import DataError, InvalidInput
from everloop.core.grants import SANDBOX
from everloop.core.version import Version
from everloop.data.capturing import capture
from everloop.data.codec import DataCodec
from everloop.data.definitions import Files, SourceDef
from everloop.data.heads import find_version
from everloop.flows.assets import plan
from everloop.flows.engine import Options, Origin, Progress, run
from everloop.flows.identity import project_tree
from everloop.flows.running.finding import placed
from everloop.models.baseline.columns import task_of
from everloop.models.baseline.definitions import OUTPUTS, TRIVIAL, installed, missing
from everloop.models.baseline.shipped import PACKAGE, shipped
from everloop.project.baselines import ROWS, Baseline
from everloop.project.loading import prefer
from everloop.workspace.codecs import CODECS
from everloop.workspace.runs import TrackedRuns
from everloop.workspace.work.executors import executor_of

MODULE = "baseline"


@dataclass(frozen=True, slots=True)
class Asked:
    """What to learn, from what."""

    table: str
    """A file (CSV, Parquet, JSON), a pattern of files, or a dataset of the workspace by name."""
    label: str
    environment: str
    time: str = ""
    group: str = ""
    name: str = ""
    """Of the model; empty: table and label."""
    task: str = ""
    """`binary`, `classes` or `numbers`; empty: read off the label."""
    seed: int = 0
    rows: int = ROWS
    algorithms: tuple[str, ...] = ()
    """Which to try beside the trivial one; empty: all that are installed."""
    cluster: str = ""
    """A Ray cluster for the steps, `host:port` of its head; empty: that of `EVERLOOP_FLOWS_RAY`, or this machine."""


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it."""

    name: str
    model: str
    """The version's id."""
    report: str
    search: str
    flow: str
    missing: Mapping[str, str]
    """Algorithms that were not tried, with the distribution that each needs."""


def baseline(
    ctx: Context, asked: Asked, *, root: Path, progress: Progress | None = None, say: Callable[[str], None] = print
) -> Made:
    """Capture the table, try every algorithm that is installed, keep the best as a model of the sandbox, and report.

    `root` is where files are looked for. Raises `InvalidInput` for an environment that is no sandbox, `NotFound` for a
    table that is none, `DataError` for a label that nothing can be learnt of, and what steps raise.
    """
    if not asked.environment.startswith(SANDBOX):
        raise InvalidInput(f"{asked.environment} is protected", hint="--on sandbox/you/first")
    _ensure(ctx, asked.environment)
    dataset, table = _table(ctx, asked, root, say)
    name = asked.name or f"{dataset}_{plain_name(asked.label)}"
    task = asked.task or _task(ctx, table, asked)
    made = Baseline(
        name,
        dataset,
        label=asked.label,
        task=task,
        time=asked.time,
        group=asked.group,
        algorithms=_algorithms(asked),
        seed=asked.seed,
        rows=asked.rows,
    )
    origin = _written(ctx, made)
    assets = _loaded(origin).assets()
    code = project_tree(origin.root, ctx.store, name)
    executor = executor_of(ctx, assets, code, asked.cluster)
    try:
        results = run(
            ctx,
            plan(assets, [f"value/{name}_report"]),
            origin=origin,
            executor=executor,
            codecs=CODECS,
            runs=TrackedRuns(ctx, "", code),
            options=Options(
                given={f"data/{dataset}": table},
                workers=2,
                code=code.version,
                title=f"baseline {name}",
                environment=asked.environment,
            ),
            progress=progress,
        )
    finally:
        executor.close()
    outputs = results.outputs
    _commit(ctx, asked, made, task, {"model": outputs[f"model/{name}"], "code": results.code})
    report, search = outputs[f"value/{name}_report"], outputs[f"value/{name}_search"]
    return Made(name, outputs[f"model/{name}"], report, search, results.flow, missing())


def plain_name(text: str) -> str:
    """A text as a part of a name: letters, digits and underscores."""
    return "".join(one if one.isascii() and one.isalnum() else "_" for one in text).strip("_").lower()


def _algorithms(asked: Asked) -> tuple[str, ...]:
    here = installed()
    strange = next((one for one in asked.algorithms if one not in here), None)
    if strange is not None:
        package = missing().get(strange)
        hint = f"it needs {package}" if package else "one of " + ", ".join(here)
        raise InvalidInput(f"{strange!r} cannot be tried", hint=hint)
    return here if not asked.algorithms else tuple(dict.fromkeys([TRIVIAL, *asked.algorithms]))


def _ensure(ctx: Context, environment: str) -> None:
    with ctx.read() as tx:
        there = refs.get(tx, ctx.project, refs.env_ref(environment)) is not None
    if not there:
        invoke(ctx, environments.create_sandbox, CreateSandbox(environment=environment, base="production"))


def _table(ctx: Context, asked: Asked, root: Path, say: Callable[[str], None]) -> tuple[str, str]:
    """Name and version of the table: a dataset that is there, or files that are captured now."""
    whole = root / asked.table
    if not whole.exists() and not any(mark in asked.table for mark in "*?[/.\\"):
        return asked.table, find_version(ctx, asked.table, asked.environment).id
    stem = plain_name(Path(asked.table).name.partition(".")[0]) or "table"
    name = f"{stem}_table" if stem == asked.name else stem
    say(f"capturing {asked.table} as data/{name}")
    source = SourceDef(name, Files(asked.table), ())
    return name, capture(ctx, source, asked.environment, root=root).id


def _task(ctx: Context, table: str, asked: Asked) -> str:
    with ctx.read() as tx:
        manifest = versions.get(tx, ctx.project, table).manifest
        where = placed(tx, ctx.project, [manifest])
    frame = DataCodec().load(manifest, ctx.store, where)
    if asked.label not in frame.collect_schema().names():
        known = ", ".join(frame.collect_schema().names())
        raise DataError(f"the table has no column {asked.label!r}", hint=f"it has {known}")
    return task_of(frame.select(asked.label).collect()[asked.label])


def _written(ctx: Context, made: Baseline) -> Origin:
    """The project of a few lines, in the workspace: children import it, and its files are the code version."""
    folder = ctx.home / "baselines" / ctx.project / made.name
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in {f"{MODULE}.py": made.text(), **shipped()}.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    return Origin(folder, MODULE, made.name)


def _loaded(origin: Origin) -> Baseline:
    """The set as the file defines it: what is recorded of its code is what children run."""
    for name in [one for one in sys.modules if one.partition(".")[0] in (MODULE, PACKAGE)]:
        del sys.modules[name]  # written anew
    prefer(origin.root, MODULE)
    found: Baseline = import_module(MODULE).project
    return found


def _commit(ctx: Context, asked: Asked, made: Baseline, task: str, ids: Mapping[str, str]) -> None:
    manifest = {
        "name": made.name,
        "function": f"{MODULE}:fit",
        "label": asked.label,
        "spine": made.table,
        "task": task,
        "output": OUTPUTS[task],
        "holdout": "the newest fifth" if asked.time else "a fifth",
        "algorithms": list(made.algorithms),
    }
    trainer = Version("trainer", made.name, manifest)
    with ctx.write() as tx:
        versions.put(tx, ctx.project, trainer, actor=ctx.actor.name, at=ctx.now())
    entries: dict[str, str | None] = {
        f"model/{made.name}": ids["model"],
        f"trainer/{made.name}": trainer.id,
        f"code/{made.name}": ids["code"],
    }
    message = f"First model of {asked.label}, from {made.table}"
    invoke(ctx, environments.commit, Commit(environment=asked.environment, entries=entries, message=message))
