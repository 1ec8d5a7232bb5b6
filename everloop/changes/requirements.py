"""Which checks a change needs, and what each of them must look at.

Needed are the checks that the *target* holds and that block it, those that the proposal brings and that block it,
and those that the target's policy names. Where the two sides hold different versions of a check, or of the objective
it judges by, both are needed: a proposal cannot weaken its own examination. A change that only touches what no model
or row depends on (policies, monitors, retrain rules, other checks) needs only the checks that the policy names, and
the checks that it edits or removes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from everloop.catalog import versions
from everloop.catalog.engine import Tx
from everloop.changes.heads.contracts import CONTRACT, PREFIX, contracts_due, definitions_in
from everloop.checks.subjects import Subjects, Surroundings, candidates, removed, resolve
from everloop.core.policy import Policy
from everloop.core.snapshot import Delta

_INERT = frozenset({"policy", "monitor", "retrain", "check", "objective"})
"""Kinds that change neither a model nor what it is fed."""


@dataclass(frozen=True, slots=True)
class Required:
    """One check that must pass, with what it looks at."""

    label: str
    """The check's name, with the model where it is asked about several, and whose version where there are two."""
    name: str
    check_id: str
    check: Mapping[str, Any]
    objective_id: str
    objective: Mapping[str, Any]
    origin: Literal["proposal", "target"]
    subjects: Subjects
    reason: str
    """Why it is needed, for people."""


@dataclass(frozen=True, slots=True)
class Needs:
    """All that a change needs; `unknown` are checks that the policy names and nobody defines."""

    required: tuple[Required, ...]
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A version of a check, and by whose objective it judges."""

    name: str
    check_id: str
    objective_id: str
    origin: Literal["proposal", "target"]


def required_checks(
    tx: Tx, project: str, environment: str, *, around: Surroundings, delta: Delta, policy: Policy
) -> Needs:
    """Work out what the change needs; reads the manifests of checks, objectives and models."""
    manifests = _manifests(tx, project, around)
    found: list[Required] = []
    notes: list[str] = []
    unknown = [n for n in policy.checks if f"check/{n}" not in {**around.proposed, **around.target}]
    names = sorted({k.removeprefix("check/") for k in (*around.proposed, *around.target) if k.startswith("check/")})
    for name in names:
        versions_asked = list(_asked(name, around, manifests))
        for asked in versions_asked:
            check = manifests[asked.check_id]
            reason = _reason(asked, check, environment, policy, delta)
            if not reason:
                continue
            gone = removed(tuple(check["parameters"]), around)
            if gone and not _brings_a_model(delta):  # else a renamed model would pass unexamined
                notes.append(f"check {name} has nothing left to judge: the change removes model {gone}")
                continue
            twice = len(versions_asked) > 1
            found.extend(_each(asked, manifests, around, environment if twice else "", reason))
    found.extend(_contracts(tx, project, environment, around.target, delta))
    return Needs(tuple(found), tuple(unknown), tuple(notes))


def _contracts(tx: Tx, project: str, environment: str, target: Mapping[str, str], delta: Delta) -> Iterator[Required]:
    for dataset, identity, definition, manifest in contracts_due(tx, project, target, delta):
        yield Required(
            f"{CONTRACT}[{dataset}]",
            f"{CONTRACT}.{dataset}",
            definition,
            {**manifest, "function": CONTRACT, "parameters": []},
            "",
            {},
            "target",
            Subjects({dataset: identity}, {dataset: identity}, candidate=dataset),
            f"{environment} holds the contract of {dataset}",
        )


def _asked(name: str, around: Surroundings, manifests: Mapping[str, Mapping[str, Any]]) -> Iterator[_Asked]:
    """The proposal's version, then the target's where check or objective differ from it."""
    seen: set[tuple[str, str]] = set()
    sides: tuple[tuple[Literal["proposal", "target"], Mapping[str, str]], ...] = (
        ("proposal", around.proposed),
        ("target", around.target),
    )
    for origin, entries in sides:
        identity = entries.get(f"check/{name}")
        if identity is None or identity not in manifests:
            continue
        key = f"objective/{manifests[identity].get('objective')}"
        objective = entries.get(key) or around.proposed.get(key, "")
        if (identity, objective) not in seen:
            seen.add((identity, objective))
            yield _Asked(name, identity, objective, origin)


def _brings_a_model(delta: Delta) -> bool:
    return any(key.startswith("model/") and new is not None for key, (_, new) in delta.items())


def _reason(asked: _Asked, check: Mapping[str, Any], environment: str, policy: Policy, delta: Delta) -> str:
    if asked.name in policy.checks:
        return f"the policy of {environment} names it"
    if environment not in check["blocks"]:
        return ""
    own = {f"check/{asked.name}", f"objective/{check.get('objective')}"}
    reads = {PREFIX + parameter for parameter in check["parameters"]}
    definitions = definitions_in(delta)
    if not any(key in own or key.partition("/")[0] not in _INERT for key in definitions) and not reads & delta.keys():
        return ""
    holder = environment if asked.origin == "target" else "the proposal"
    return f"{holder} holds it and it blocks {environment}"


def _each(
    asked: _Asked, manifests: Mapping[str, Mapping[str, Any]], around: Surroundings, twice: str, reason: str
) -> Iterator[Required]:
    check = manifests[asked.check_id]
    parameters = tuple(check["parameters"])
    about = candidates(parameters, around)
    for candidate in about:
        label = asked.name if len(about) == 1 else f"{asked.name}[{candidate}]"
        if twice and asked.origin == "target":
            label += f" (as {twice} holds it)"
        yield Required(
            label,
            asked.name,
            asked.check_id,
            check,
            asked.objective_id,
            manifests.get(asked.objective_id, {}),
            asked.origin,
            resolve(parameters, candidate, asked.objective_id, around),
            reason,
        )


def surroundings(
    tx: Tx, project: str, proposed: Mapping[str, str], target: Mapping[str, str], heads: Mapping[str, str]
) -> Surroundings:
    """Gather what checks see of a proposal."""
    models = {i for entries in (proposed, target) for key, i in entries.items() if key.startswith("model/")}
    return Surroundings(proposed, target, heads, versions.manifests(tx, project, models))


def _manifests(tx: Tx, project: str, around: Surroundings) -> dict[str, Mapping[str, Any]]:
    wanted = {
        identity
        for entries in (around.proposed, around.target)
        for key, identity in entries.items()
        if key.startswith(("check/", "objective/"))
    }
    return versions.manifests(tx, project, wanted)
