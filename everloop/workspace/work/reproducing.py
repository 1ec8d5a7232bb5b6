"""Reproduce a version with the code that made it: our codecs, our comparison of models, a process of its own."""

from typing import Any

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.core.errors import InvalidInput
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.reproduce import Verdict, reproduce
from everloop.models.codec import largest_difference
from everloop.workspace.codecs import CODECS


def reproduce_version(ctx: Context, spec: str) -> Verdict:
    """Run the recipe of a version again, uncached, in a clean child, and say how much came out the same.

    `spec` is an id, the beginning of one, `kind/name` or `kind/name@7`. Raises `NotFound`, or `InvalidInput` for a
    version that no step of the project's code made.
    """
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, spec)
        made = steps.of_output(tx, ctx.project, row.id)
        module = _module(tx, ctx.project, made[0].step if made else "")
    executor = ProcessExecutor()
    try:
        return reproduce(
            ctx,
            row.id,
            executor=executor,
            codecs=CODECS,
            module=module,
            compare={"model": lambda old, new: largest_difference(old, new, ctx.store)},
        )
    finally:
        executor.close()


def _module(tx: Any, project: str, step: str) -> str:
    """The module that defines a step: its trainer's or dataset's function says it, or any trainer's."""
    kind, _, name = step.partition("/")
    definition = {"model": "trainer", "data": "dataset"}.get(kind, "")
    known = versions.names(tx, project, definition) if definition else []
    chosen = f"{definition}/{name}" if name in known else ""
    if not chosen:
        trainers = versions.names(tx, project, "trainer")
        chosen = f"trainer/{trainers[0]}" if trainers else ""
    if not chosen:
        raise InvalidInput("nothing says which module defines this version", hint="build it with `everloop run` first")
    return str(versions.find(tx, project, chosen).manifest["function"]).partition(":")[0]
