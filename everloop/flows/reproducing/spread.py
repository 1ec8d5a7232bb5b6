"""Steps over lists, run again: every item of what came out, or the one that a version is, each by its own recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.making import recipes
from everloop.catalog.making.recipes import Ingredients
from everloop.catalog.steps import StepRow
from everloop.core.errors import NotFound
from everloop.core.ids import manifest_id
from everloop.core.ports import Job
from everloop.core.version import Version
from everloop.flows.identity.recipe import recipe
from everloop.flows.running.each import items_of, together
from everloop.flows.value import EACH, item_manifest


@dataclass(frozen=True, slots=True)
class Again:
    """One execution that is to be run again, and what came out of it then."""

    job: Job
    identity: str
    manifest: Mapping[str, Any]
    number: int | None = None
    """Its place in a list."""


def executions(ctx: Context, identity: str, row: StepRow, manifest: Mapping[str, Any], job: Job) -> list[Again]:
    """What to run again for a version: `job` itself, or a job for each item of a list that was made item by item.

    Of what a search found it is the best trial.

    Raises `NotFound` where the record of the items or the trial is gone.
    """
    if (best := _best_trial(ctx, identity, job)) is not None:
        return [best]
    whole = manifest.get("format") == EACH
    if whole and not manifest["count"]:
        return []
    with ctx.read() as tx:
        made_of = _ingredients(tx, ctx.project, identity, row, whole=whole)
        parameter = made_of.how.get("each", "") if made_of is not None else ""
        if made_of is None or not parameter:
            if whole:
                raise NotFound(f"nothing is known of how the items of {identity} were made", hint="make it again")
            return [Again(job, identity, manifest)]
        listed = row.inputs[parameter]
        over = versions.get(tx, ctx.project, listed).manifest
    jobs = [
        (number, _item(job, row, made_of, parameter, item))
        for number, item in enumerate(items_of(listed, over, ctx.store))
    ]
    if not whole:
        one = next((one for _, one in jobs if one.recipe == row.recipe), None)
        if one is None:
            raise NotFound(f"{identity} is of no item of {listed}", hint="the list's version tells its items")
        return [Again(one, identity, manifest)]
    found = []
    for number, one in jobs:
        then = item_manifest(manifest, number)
        if then is not None:  # what failed then, within what the step tolerates, is not run
            plain = {name: value for name, value in then.items() if name != "kind"}
            found.append(Again(one, Version("value", row.step.partition("/")[2], plain).id, plain, number))
    return found


def _best_trial(ctx: Context, identity: str, job: Job) -> Again | None:
    """The trial that a search's value comes from, as it was run; None for what no search found."""
    with ctx.read() as tx:
        trial = next((e.from_id for e in versions.upstream(tx, ctx.project, identity, 1) if e.role == "trial"), "")
        if not trial:
            return None
        made = steps.made(tx, ctx.project, [trial]).get(trial)
        manifest = versions.get(tx, ctx.project, trial).manifest
    if made is None:
        raise NotFound(f"nothing is known of how the best trial of {identity} was made", hint="search again")
    return Again(replace(job, params=made.params, recipe=made.recipe), trial, manifest)


def joined(name: str, count: int, made: Mapping[int, Version]) -> str:
    """The id of the list of what came out, by its places."""
    items: list[tuple[str, Mapping[str, Any]] | None] = [None] * count
    for number, version in made.items():
        items[number] = (version.id, version.manifest)
    return together(name, items, ()).id


def _ingredients(tx: Tx, project: str, identity: str, row: StepRow, *, whole: bool) -> Ingredients | None:
    """What the step's recipe is made of, or that of one of its items: it is the same for all but what they get."""
    if not whole:
        return recipes.several(tx, project, [row.recipe]).get(row.recipe)
    items = [edge.from_id for edge in versions.upstream(tx, project, identity, 1) if edge.role == "item"]
    rows = steps.made(tx, project, items[:1])
    known: Sequence[Ingredients] = list(recipes.several(tx, project, [one.recipe for one in rows.values()]).values())
    return known[0] if known else None


def _item(job: Job, row: StepRow, made_of: Ingredients, parameter: str, item: tuple[str, Mapping[str, Any]]) -> Job:
    identity, manifest = item
    key = recipe(
        closure=manifest_id({"parts": dict(made_of.parts)}),
        packages=made_of.packages,
        host=made_of.host,
        params=row.params,
        inputs={**row.inputs, parameter: identity},
        facts=made_of.facts,
        how=made_of.how,
    )
    return replace(
        job,
        inputs={**job.inputs, parameter: identity},
        manifests={**job.manifests, identity: manifest},
        facts={**job.facts, "recipe": key},
        recipe=key,
    )
