"""Reproduce a version with the code that made it: our codecs, our comparison of models, a process of its own."""

import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.catalog.making import flows, recipes
from everloop.catalog.operation import invoke
from everloop.checks import reproduced
from everloop.checks.reproduced import RecordVerdict, VerdictView
from everloop.core.errors import CorruptObject, InvalidInput, NotFound, Unavailable
from everloop.core.ids import short
from everloop.data.codec import part_paths, tables
from everloop.data.content.logical import digest_batches
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.identity import runtime
from everloop.flows.reproduce import Now, Verdict, reproduce
from everloop.flows.reproducing import environment, wheels
from everloop.models.codec import largest_difference
from everloop.workspace.codecs import CODECS

REPEATS = 5
"""Runs with other seeds, to tell a difference from noise."""


def reproduce_version(ctx: Context, spec: str, *, here: bool = False, now: Now | None = None) -> Verdict:
    """Run the recipe of a version again, uncached, in a clean child, and say how much came out the same.

    `spec` is an id, the beginning of one, `kind/name` or `kind/name@7`. The recorded environment is made again where it
    is not that of this process, unless `here`; `now` takes single things as they are at present. Raises `NotFound`,
    `Unavailable` when the environment cannot be had, or `InvalidInput` for a version that no step of the project made.
    """
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, spec)
        made = steps.made(tx, ctx.project, [row.id]).get(row.id)
        module = module_of(tx, ctx.project, made.step if made else "")
    python = sys.executable
    if made is not None and not here:
        with ctx.read() as tx:
            recorded = versions.get(tx, ctx.project, made.runtime).manifest
            needed = _needed(tx, ctx.project, made)
        python = interpreter(ctx, needed, recorded)
    executor = ProcessExecutor(python)
    try:
        verdict = reproduce(
            ctx,
            row.id,
            executor=executor,
            codecs=CODECS,
            module=module,
            compare={"model": lambda old, new: largest_difference(old, new, ctx.store)},
            verify=lambda manifest, placed: list(other_rows(ctx, manifest, placed)),
            now=now,
            repeats=REPEATS,
        )
    finally:
        executor.close()
    return replace(verdict, environment="here" if python == sys.executable else "rebuilt")


def judge(ctx: Context, spec: str) -> VerdictView:
    """Reproduce a version and record the signed verdict: for workers, who alone may."""
    verdict = reproduce_version(ctx, spec)
    return invoke(
        ctx,
        reproduced.record,
        RecordVerdict(
            version=verdict.version,
            tier=verdict.tier,
            factors=list(verdict.factors),
            again=verdict.again,
            difference="" if verdict.difference is None else f"{verdict.difference:.6g}",
            environment=verdict.environment,
        ),
    )


def mirror_wheels(ctx: Context, spec: str) -> tuple[str, int]:
    """Keep the wheels that a version's step needs in the store; returns the version that holds them, and how many."""
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, spec)
        made = steps.made(tx, ctx.project, [row.id]).get(row.id)
        if made is None or not made.runtime:
            raise NotFound(f"no recorded step made {row.key}", hint="only outputs of steps have an environment")
        needed = _needed(tx, ctx.project, made)
        recorded = versions.get(tx, ctx.project, made.runtime).manifest
    return wheels.mirror(ctx, environment.lock_of(needed, recorded))


def interpreter(ctx: Context, needed: Mapping[str, str], recorded: Mapping[str, Any], *, exact: bool = False) -> str:
    """This interpreter when it sees the `needed` packages as `recorded`, else one of an environment made of them.

    `needed` is `{name: version and digest}`, `recorded` a runtime's manifest. What cannot be had in the recorded files
    comes in others of the same version, unless it must be `exact`: then `Unavailable` is raised.
    """
    if not environment.differs(needed, runtime(), recorded["python"]):
        return sys.executable
    lock = environment.lock_of(needed, recorded)
    here, packages = runtime().distributions, recorded["packages"]
    digests = {name: packages[name]["digest"] if name in packages else here[name].digest for name in lock}
    with _kept(ctx, lock) as folder:
        python = str(environment.rebuild(ctx.home, recorded["python"], lock, folder, digests=digests))
    other = environment.other_files(python, needed) if exact else []
    if other:
        raise Unavailable(
            f"{', '.join(other)} can be had in other files only than were recorded, under the same version",
            hint="keep wheels while they can be had: everloop reproduce VERSION --mirror",
        )
    return python


@contextmanager
def _kept(ctx: Context, lock: Mapping[str, str]) -> Iterator[Path | None]:
    with tempfile.TemporaryDirectory(prefix="everloop-wheels-") as folder:
        found = wheels.fetch(ctx, dict(lock), Path(folder))
        yield Path(folder) if found else None


def _needed(tx: Any, project: str, made: steps.StepRow) -> Mapping[str, str]:
    """The step's distributions with version and digest; all of the runtime's where the recipe was not kept."""
    made_of = recipes.several(tx, project, [made.recipe]).get(made.recipe)
    if made_of is not None:
        return made_of.packages
    recorded = versions.get(tx, project, made.runtime).manifest["packages"]
    return {name: f"{one['version']} {one['digest']}" for name, one in recorded.items()}


def other_rows(ctx: Context, manifest: Mapping[str, Any], placed: Mapping[str, str]) -> Iterable[str]:
    """Parts of a table whose rows are not those that its id stands for."""
    for part in manifest.get("parts", []) if manifest.get("kind") in ("data", "frame") else []:
        try:
            (path,) = part_paths({**manifest, "parts": [part]}, ctx.store, placed, ctx.home / "cache")
            (table,) = tables([path])
            found = digest_batches(table.schema, table.to_batches()).logical
        except (CorruptObject, NotFound, ValueError) as error:
            yield f"part {short(part['logical'])} cannot be read: {error}"
            continue
        if found != part["logical"]:
            yield f"rows of part {short(part['logical'])} are not those that were recorded"


def module_of(tx: Any, project: str, step: str) -> str:
    """The module that defines a step: its trainer's or dataset's function says it, else what was run last."""
    kind, _, name = step.partition("/")
    definition = {"model": "trainer", "data": "dataset"}.get(kind, "")
    known = versions.names(tx, project, definition) if definition else []
    if name in known:
        return str(versions.find(tx, project, f"{definition}/{name}").manifest["function"]).partition(":")[0]
    asked = next((one for flow in flows.recent(tx, project) if (one := flow.request.get("module"))), "")
    trainers = versions.names(tx, project, "trainer")
    if trainers and not asked:
        asked = str(versions.find(tx, project, f"trainer/{trainers[0]}").manifest["function"]).partition(":")[0]
    if not asked:
        raise InvalidInput("nothing says which module defines this version", hint="build it with `everloop run` first")
    return str(asked)
