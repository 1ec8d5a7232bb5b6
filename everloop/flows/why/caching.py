"""Why a step ran again: its two newest recipes side by side, part by part."""

from collections.abc import Iterator, Mapping

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.catalog.making import leaks, recipes
from everloop.catalog.making.leaks import Leak
from everloop.catalog.making.recipes import Ingredients
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.steps import StepRow
from everloop.core.errors import InvalidInput, NotFound
from everloop.flows.identity import explain
from everloop.flows.why.fields import text


class OfStep(Command):
    """A step by its asset's key (`model/delay`), or its bare name."""

    step: str
    recipe: str = ""
    """One of its executions, by its recipe, instead of the newest."""


class Change(Answer):
    """One part of a recipe that is another one."""

    part: str
    """code, package, parameter, input, machine, definition or reads."""
    text: str


class Explained(Answer):
    """Why the newest execution did not reuse the one before it."""

    step: str
    old: str
    """The recipe before; empty when there is only one."""
    new: str
    changes: list[Change]
    opaque: list[str]
    """Values that are pinned by how they are made, or not at all: what may change unseen."""
    leaks: list[str]
    """What the newest execution read that nobody had declared; its output is reused while that is the same."""


@operation("cache.explain", needs="read", reads=True)
def explain_step(ctx: Context, cmd: OfStep) -> Explained:
    """Say which parts of a step's recipe changed between its newest execution, or another one, and that before it."""
    return _explained(ctx, _key(ctx, cmd.step), cmd.recipe)


def _explained(ctx: Context, key: str, recipe: str, output: str = "") -> Explained:
    with ctx.read() as tx:
        found = recipes.latest(tx, ctx.project, key)
        if recipe:
            found = found[found.index(recipe) :] if recipe in found else []
        known = recipes.several(tx, ctx.project, found[:2])
        rows = [row for one in found[:2] if (row := steps.of_recipe(tx, ctx.project, one)) is not None]
        labels = versions.labels(tx, ctx.project, [i for row in rows for i in row.inputs.values()])
        held = leaks.of(tx, ctx.project, found[0]) if found else []
        ran = recipes.executed(tx, ctx.project, key) if held else []
    if not rows or rows[0].recipe not in known:
        raise NotFound(f"no execution of {key} is recorded", hint="everloop run makes one")
    new = known[rows[0].recipe]
    read = [name for leak in held for name in leak.reads]
    otherwise = list(_read_otherwise(held, ran, rows[0].recipe, output))
    if otherwise:  # the same recipe twice: what nobody had declared was another one
        rows, changes = [rows[0], rows[0]], otherwise
    else:
        changes = list(_changes(rows[1], known[rows[1].recipe], rows[0], new, labels)) if len(rows) > 1 else []
    return Explained(
        step=key,
        old=rows[1].recipe if len(rows) > 1 else "",
        new=rows[0].recipe,
        changes=changes,
        opaque=list(new.opaque),
        leaks=list(dict.fromkeys(read)),
    )


def _read_otherwise(held: list[Leak], ran: list[str], recipe: str, output: str) -> Iterator[Change]:
    """What an execution (that of `output`; else the newest) read otherwise than one of the same recipe just before."""
    place = next((n for n, leak in enumerate(held) if leak.output == output), 0)
    at = [n for n, one in enumerate(ran) if one == recipe][place : place + 1]
    if not at or ran[at[0] + 1 : at[0] + 2] != [recipe] or place + 1 >= len(held):
        return
    new, old = held[place].reads, held[place + 1].reads
    for name in sorted(new.keys() | old.keys()):
        before, after = old.get(name, ""), new.get(name, "")
        if before != after:
            how = "changed" if before and after else "was not there before" if after else "is not there any more"
            yield Change(part="reads", text=f"{name} {how}")


def reason(ctx: Context, step: str, recipe: str, output: str) -> str:
    """Why an execution did not reuse the one before it, in a line; empty where that is not known."""
    try:
        told = _explained(ctx, step, recipe, output)
    except NotFound:
        return ""
    if not told.old:
        return "first execution"
    said = [f"{one.part} {one.text}" for one in told.changes[:_NAMED]]
    more = [f"{len(told.changes) - _NAMED} more"] if told.changes[_NAMED:] else []
    return "; ".join(said + more) or "asked for again: nothing recorded differs"


_NAMED = 3
"""Changes in a line."""


def differences(old: Ingredients, new: Ingredients) -> Iterator[Change]:
    """What differs between two recipes, parameters and inputs aside."""
    yield from (Change(part="code", text=change) for change in explain(old.parts, new.parts))
    for name in sorted(old.packages.keys() | new.packages.keys()):
        before, after = (side.get(name, "none").partition(" ")[0] for side in (old.packages, new.packages))
        if old.packages.get(name) != new.packages.get(name):
            same = " (other files)" if before == after else ""
            yield Change(part="package", text=f"{name}: {before} → {after}{same}")
    for part, ours, theirs in (
        ("machine", old.host, new.host),
        ("definition", old.facts, new.facts),
        ("definition", old.how, new.how),
    ):
        yield from _fields(part, ours, theirs)


def _changes(
    before: StepRow, old: Ingredients, after: StepRow, new: Ingredients, labels: Mapping[str, str]
) -> Iterator[Change]:
    yield from differences(old, new)
    yield from _fields("parameter", before.params, after.params)
    for role in sorted(before.inputs.keys() | after.inputs.keys()):
        one, other = before.inputs.get(role, ""), after.inputs.get(role, "")
        if one != other:
            yield Change(part="input", text=f"{role}: {labels.get(one, one)} → {labels.get(other, other)}")


def _fields(part: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield Change(part=part, text=f"{name}: {text(old.get(name)) or 'none'} → {text(new.get(name)) or 'none'}")


def _key(ctx: Context, step: str) -> str:
    """The key of a step that is named without its kind: of the kind in which that name has versions."""
    if "/" in step:
        return step
    with ctx.read() as tx:
        kinds = [kind for kind in ("model", "data", "frame", "value") if step in versions.names(tx, ctx.project, kind)]
    if len(kinds) != 1:
        hint = "name its kind, as model/delay" if kinds else "everloop run builds the project's assets"
        raise InvalidInput(f"{step!r} is the name of {len(kinds)} steps", hint=hint)
    return f"{kinds[0]}/{step}"
