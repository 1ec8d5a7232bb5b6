"""What is swapped: the factors of two recorded versions, and every mixture of them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.making import recipes
from everloop.core.errors import InvalidInput, NotFound

FACTORS = ("data", "evaluation", "code", "parameters", "environment")
HOLDOUT = "holdout"
"""The input of a model on which its metrics are measured."""


@dataclass(frozen=True, slots=True)
class Setting:
    """All that decides what a step gives, chance aside."""

    code: str
    """The code version."""
    environment: str
    """The runtime version."""
    data: Mapping[str, str]
    """Version of every captured table that training reads, by key."""
    evaluation: Mapping[str, str]
    """Version of every captured table that the holdout is made of, by key; empty where there is no holdout."""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters of every step, by key."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Two recorded outputs of one step, and which of their factors differ in a way that can matter."""

    step: str
    good: Setting
    bad: Setting
    players: tuple[str, ...]
    equal: Mapping[str, str]
    """Factors that are not players, with the reason."""
    needed: frozenset[str] | None = None
    """Distributions that the steps of either side need; None where that was not recorded."""


def sides(ctx: Context, good: str, bad: str) -> Sides:
    """Read what made two versions. Raises `NotFound` when no step did, `InvalidInput` when it was not the same step."""
    with ctx.read() as tx:
        made = [_recorded(tx, ctx.project, spec) for spec in (good, bad)]
        (step, first, used), (other, second, others) = made
        if step != other:
            raise InvalidInput(f"{step} and {other} are made by two steps", hint="compare two versions of one name")
        players, equal = [], dict[str, str]()
        for factor in FACTORS:
            reason = _same(factor, first, second, (used, others))
            if reason:
                equal[factor] = reason
            else:
                players.append(factor)
    packages = [one.packages for one in (used, others) if one.packages is not None]
    needed = frozenset().union(*packages) if len(packages) == 2 else None
    return Sides(step, first, second, tuple(players), equal, needed)


def mixed(good: Setting, bad: Setting, swapped: Collection[str]) -> Setting:
    """The good side with these factors of the bad one."""
    return Setting(**{factor: getattr(bad if factor in swapped else good, factor) for factor in FACTORS})


@dataclass(frozen=True, slots=True)
class _Used:
    """What of code and packages the steps of one side reach; None where that was not recorded."""

    parts: Mapping[str, str] | None
    packages: Mapping[str, str] | None


def _recorded(tx: Tx, project: str, spec: str) -> tuple[str, Setting, _Used]:
    row = versions.find(tx, project, spec)
    made = steps.made(tx, project, [row.id]).get(row.id)
    if made is None or not made.runtime:
        raise NotFound(f"no recorded step made {row.key} v{row.number}", hint="only outputs of steps can be run again")
    data, evaluation = dict[str, str](), dict[str, str]()
    parameters: dict[str, Mapping[str, Any]] = {made.step: made.params}
    chain = [made]
    for role, identity in made.inputs.items():
        found = evaluation if role == HOLDOUT else data
        for key, one, step in _sources(tx, project, identity):
            if step is None:
                found[key] = one
            else:
                chain.append(step)
                parameters[step.step] = step.params
    known = recipes.several(tx, project, [step.recipe for step in chain])
    whole = len(known) == len({step.recipe for step in chain})
    used = _Used(
        {f"{one.step} {name}": digest for one in known.values() for name, digest in one.parts.items()}
        if whole
        else None,
        {name: digest for one in known.values() for name, digest in one.packages.items()} if whole else None,
    )
    return made.step, Setting(made.code, made.runtime, data, evaluation, parameters), used


def _sources(tx: Tx, project: str, identity: str) -> Iterator[tuple[str, str, steps.StepRow | None]]:
    """The captured tables behind a version (key, id, None), and the steps between (key, id, step)."""
    waiting, seen = [identity], set[str]()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        step = steps.made(tx, project, [one]).get(one)
        if step is None or not step.runtime:
            yield versions.get(tx, project, one).key, one, None
        else:
            yield step.step, one, step
            waiting.extend(step.inputs.values())


def _same(factor: str, good: Setting, bad: Setting, used: tuple[_Used, _Used]) -> str:
    """Why a factor is no player; empty when it is one."""
    if getattr(good, factor) == getattr(bad, factor):
        return "the same on both sides"
    if factor == "code" and used[0].parts is not None and used[0].parts == used[1].parts:
        return "nothing that the steps reach differs"
    if factor == "environment" and used[0].packages is not None and used[0].packages == used[1].packages:
        return "no package that the steps need differs"
    return ""
