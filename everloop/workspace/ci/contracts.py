"""Data contracts: every source captured, every dataset made, every expectation checked; no head moves."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from everloop.catalog.context import Context
from everloop.core.errors import EverloopError
from everloop.core.ports import Executor
from everloop.data.capturing import capture
from everloop.data.checking import check_expectations
from everloop.data.codec import manifest_of, paths_of
from everloop.data.definitions import DatasetDef, SourceDef
from everloop.data.expect import ExpectationResult
from everloop.flows.assets import plan
from everloop.flows.engine import Options, Origin, run
from everloop.project import Project
from everloop.workspace.ci.findings import Case, Stage
from everloop.workspace.codecs import CODECS

NAME = "data contracts"


def check_contracts(ctx: Context, project: Project, origin: Origin, executor: Executor) -> Stage:
    """Check all contracts on the data as it is now; one case an expectation, one a table that cannot be made.

    A table that fails takes along only those that are made from it, so that one run tells everything.
    """
    began = time.monotonic()
    made: dict[str, str] = {}
    cases: list[Case] = []
    for name, table in project.tables.items():
        if isinstance(table, SourceDef):
            try:
                made[name] = capture(ctx, table, root=Path(ctx.bindings["files"])).id
            except EverloopError as error:
                cases.append(Case(name, "failed", error.message, error.hint))
    for name, table in project.tables.items():
        if isinstance(table, DatasetDef):
            cases += _make(ctx, project, origin, executor, name=name, made=made)
    for name, identity in made.items():
        cases += _check(ctx, project, name, identity)
    return Stage(NAME, tuple(cases), time.monotonic() - began)


def _make(
    ctx: Context, project: Project, origin: Origin, executor: Executor, *, name: str, made: dict[str, str]
) -> Iterator[Case]:
    steps = plan(project.assets(), [f"data/{name}"])
    sources = [a.name for a in steps if isinstance(project.tables.get(a.name), SourceDef)]
    absent = [source for source in sources if source not in made]
    if absent:
        yield Case(name, "skipped", f"{', '.join(absent)} could not be captured")
        return
    options = Options(given={f"data/{source}": made[source] for source in sources})
    try:
        results = run(ctx, steps, origin=origin, executor=executor, codecs=CODECS, options=options)
    except EverloopError as error:
        yield Case(name, "failed", error.message, error.hint, str(error.details.get("traceback", "")))
        return
    made[name] = results.outputs[f"data/{name}"]


def _check(ctx: Context, project: Project, name: str, identity: str) -> Iterator[Case]:
    contract = project.tables[name].contract
    manifest = manifest_of(ctx, identity)
    if not contract.expect:
        yield Case(name, "passed", f"{manifest['rows']:,} rows; the contract expects nothing")
        return
    try:
        results = check_expectations(
            paths_of(ctx, manifest), contract.expect, tags=manifest["tags"], key=manifest["key"], now=ctx.now()
        )
    except EverloopError as error:
        yield Case(name, "failed", error.message, error.hint)
        return
    yield from (_case(name, result) for result in results)


def _case(name: str, result: ExpectationResult) -> Case:
    state = "passed" if result.passed else "failed" if result.blocks else "warned"
    rows = "\n".join(_row(example) for example in result.examples)
    return Case(f"{name}: {result.expectation}", state, result.observed, details=rows)  # type: ignore[arg-type]


def _row(example: Mapping[str, str]) -> str:
    return ", ".join(f"{column}={value}" for column, value in example.items())
