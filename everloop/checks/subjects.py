"""What a check's parameters mean for a proposal: which versions it will look at. Pure.

| parameter | what the function gets |
|---|---|
| a model's name | the proposed model |
| `champion` | the model of that name that the target holds now, or None |
| `holdout`, `frame` | the candidate's holdout rows, and the rows it was trained on |
| `champion_frame` | the rows that the champion was trained on, or None |
| `objective` | the check's objective |
| a dataset's or source's name | its rows, at the head of the target (of the source where the target has none) |
| a service's, view's or endpoint's name | its manifest |

The candidate is the first parameter that names a model; a check without one is asked once for every model
that the proposal changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.checks.definitions import RESERVED

_DATA_KINDS = ("dataset", "source")
_OTHER_KINDS = ("service", "view", "endpoint", "trainer", "value")
_OF_CANDIDATE = ("champion", "holdout", "frame", "champion_frame")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a proposal looks like to a check: entries before and after, heads, and the manifests of models."""

    proposed: Mapping[str, str]
    target: Mapping[str, str]
    heads: Mapping[str, str]
    """Data version of each dataset."""
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Manifests of the models of both, by id."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """The versions behind a check's parameters. `ids` holds "" where there is none (no champion yet)."""

    ids: Mapping[str, str]
    heads: Mapping[str, str]
    """Data versions by dataset; apart, because data moves on while evidence stays what it was."""
    problems: tuple[str, ...] = ()
    """Why the check cannot run; empty when it can."""
    candidate: str = ""
    """Name of the model that it judges."""


def candidates(parameters: tuple[str, ...], around: Surroundings) -> tuple[str, ...]:
    """The models that the check must be asked about, one after the other; ("",) when it is about none.

    An empty tuple means that there is nothing to ask: it judges models, and no model changes.
    """
    named = next((p for p in parameters if p not in RESERVED and _is_model(p, around)), None)
    if named is not None:
        return (named,)  # also when the proposal removes it: then `resolve` says what is missing
    unknown = [p for p in parameters if p not in RESERVED and p not in around.heads and not _named(p, around.proposed)]
    if unknown or not any(p in _OF_CANDIDATE for p in parameters):
        return ("",)
    return tuple(
        key.removeprefix("model/")
        for key in sorted(around.proposed)
        if key.startswith("model/") and around.proposed[key] != around.target.get(key)
    )


def resolve(parameters: tuple[str, ...], candidate: str, objective: str, around: Surroundings) -> Subjects:
    """Find the version of each parameter. Never raises: what is missing is a problem to show."""
    ids: dict[str, str] = {}
    heads: dict[str, str] = {}
    problems: list[str] = []
    model = around.proposed.get(f"model/{candidate}", "") if candidate else ""
    champion = around.target.get(f"model/{candidate}", "") if candidate else ""
    for parameter in parameters:
        if parameter in RESERVED:
            found = _reserved(parameter, model, champion, objective, around)
            if found is None:
                problems.append(f"there is no {parameter} to look at: {_why(parameter, candidate, model)}")
            ids[parameter] = found or ""
        elif parameter in around.heads and not _is_model(parameter, around):
            heads[parameter] = around.heads[parameter]
        else:
            found = _named(parameter, around.proposed)
            if found is None:
                problems.append(f"nothing in the proposal is named {parameter!r}")
            ids[parameter] = found or ""
    return Subjects(ids, heads, tuple(problems), candidate)


def removed(parameters: tuple[str, ...], around: Surroundings) -> str:
    """The model that the check judges and the proposal removes, or ""."""
    for parameter in parameters:
        key = f"model/{parameter}"
        if parameter not in RESERVED and key in around.target and key not in around.proposed:
            return parameter
    return ""


def _is_model(name: str, around: Surroundings) -> bool:
    return f"model/{name}" in around.proposed or f"model/{name}" in around.target


def _reserved(parameter: str, model: str, champion: str, objective: str, around: Surroundings) -> str | None:
    match parameter:
        case "objective":
            return objective or None
        case "champion":
            return champion
        case "champion_frame":
            return str(around.models.get(champion, {}).get("frame") or "")
        case _:
            return str(around.models.get(model, {}).get(parameter) or "") or None


def _named(name: str, entries: Mapping[str, str]) -> str | None:
    for kind in ("model", *_OTHER_KINDS):
        if f"{kind}/{name}" in entries:
            return entries[f"{kind}/{name}"]
    return None


def _why(parameter: str, candidate: str, model: str) -> str:
    if parameter == "objective":
        return "the objective of the check is not in the snapshot"
    if not candidate:
        return "no parameter of the check names a model"
    return f"model {candidate} recorded none" if model else f"the proposal holds no model {candidate}"
