"""What an author says about quality: objectives (a metric and the bound that people agreed on) and checks.

Pure values, no heavy import. Measured numbers and bounds are kept as strings in manifests, because
identity holds no floats.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from everloop.core.errors import DefinitionError, InvalidInput
from everloop.core.ids import checked_name

RESERVED = ("champion", "holdout", "frame", "champion_frame", "objective")
"""Parameter names of a check that are no assets; `subjects.py` says what each means."""


@dataclass(frozen=True, slots=True)
class ObjectiveDef:
    """A metric and its bound, with the person or team who answers for it.

    Exactly one of `at_least` and `at_most` is given. Raises `DefinitionError` otherwise.
    """

    name: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    owner: str = ""
    place: str = ""
    """`file:line` of the definition, for messages."""

    def __post_init__(self) -> None:
        """Check the name and that there is one finite bound."""
        at = f"{self.place}: " if self.place else ""
        checked_name(self.name)
        if (self.at_least is None) == (self.at_most is None):
            raise DefinitionError(
                f"{at}objective {self.name!r} needs either at_least or at_most",
                hint='for example objective("on_time", metric="roc_auc", at_least=0.70, owner="ops")',
            )
        if not Decimal(repr(float(self.bound))).is_finite():
            raise DefinitionError(f"{at}objective {self.name!r} has the bound {self.bound!r}", hint="a finite number")

    @property
    def key(self) -> str:
        """`objective/<name>`."""
        return f"objective/{self.name}"

    @property
    def bound(self) -> float:
        """The number that the metric is compared with."""
        bound = self.at_most if self.at_least is None else self.at_least
        assert bound is not None
        return bound

    def holds(self, value: float) -> bool:
        """Whether a measured value meets the objective; NaN never does."""
        return value >= self.bound if self.at_least is not None else value <= self.bound

    def __str__(self) -> str:
        """`roc_auc ≥ 0.7`."""
        return f"{self.metric} {'≥' if self.at_least is not None else '≤'} {self.bound:g}"

    def manifest(self) -> dict[str, Any]:
        """The manifest of the objective's version."""
        side = "at_least" if self.at_least is not None else "at_most"
        return {"name": self.name, "metric": self.metric, side: repr(float(self.bound)), "owner": self.owner}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "ObjectiveDef":
        """Read an objective back from its version; raises `InvalidInput` for a bound that is no number."""
        bounds: dict[str, float | None] = {}
        for side in ("at_least", "at_most"):
            text = manifest.get(side)
            try:
                bounds[side] = None if text is None else float(Decimal(str(text)))
            except InvalidOperation:
                raise InvalidInput(f"the {side} of objective {manifest.get('name')} is {text!r}") from None
        return cls(
            manifest["name"], manifest["metric"], bounds["at_least"], bounds["at_most"], manifest.get("owner", "")
        )


Objective = ObjectiveDef
"""The name by which check functions annotate their parameter `objective`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. `figures` are the numbers behind it; `details` is JSON for people."""

    passed: bool
    summary: str
    figures: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """A verdict is true when it passed."""
        return self.passed

    def __and__(self, other: "Verdict") -> "Verdict":
        """Both must pass; figures and details are joined, the other's win on equal names."""
        summary = "; ".join(v.summary for v in (self, other) if not v.passed) or f"{self.summary}; {other.summary}"
        return Verdict(
            self.passed and other.passed, summary, {**self.figures, **other.figures}, {**self.details, **other.details}
        )


class Candidate(Protocol):
    """A model as a check sees it: the proposed one, or the champion."""

    @property
    def name(self) -> str:
        """The asset's name."""
        ...

    @property
    def id(self) -> str:
        """The version's id."""
        ...

    @property
    def label(self) -> str:
        """The column that it predicts."""
        ...

    def predict(self, frame: Any) -> Any:
        """One value a row of `frame` (Polars): the probability of class 1, the class, or the number."""
        ...


@dataclass(frozen=True, slots=True)
class CheckDef:
    """A gate: a function from what is proposed to a `Verdict`, and the environments that it blocks.

    The function's parameters name what it looks at: a model, a dataset, or one of `RESERVED`.
    Raises `DefinitionError` (starting with `place`) when a parameter cannot mean anything.
    """

    name: str
    function: Callable[..., Any]
    objective: ObjectiveDef | None = None
    blocks: tuple[str, ...] = ()
    """Environments whose changes need this check to pass."""
    place: str = ""

    def __post_init__(self) -> None:
        """Check the name, the parameters and the environments."""
        object.__setattr__(self, "blocks", tuple(self.blocks))
        at = f"{self.place}: " if self.place else ""
        checked_name(self.name)
        for environment in self.blocks:
            if not environment or environment.startswith("sandbox/"):
                raise DefinitionError(
                    f"{at}check {self.name!r} cannot block {environment!r}",
                    hint='checks block protected environments: blocks=["staging", "production"]',
                )
        parameters = self.parameters
        if "objective" in parameters and self.objective is None:
            raise DefinitionError(
                f"{at}check {self.name!r} asks for its objective but names none",
                hint="@project.check(objective, blocks=[...])",
            )

    @property
    def key(self) -> str:
        """`check/<name>`."""
        return f"check/{self.name}"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what the function looks at; parameters with a default keep it and are left out."""
        found = []
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise DefinitionError(
                    f"{self.place or self.name}: check {self.name!r} takes {parameter}, which names nothing",
                    hint="parameters of a check: a model, a dataset, " + ", ".join(RESERVED),
                )
            if parameter.default is parameter.empty:
                found.append(parameter.name)
        return tuple(found)

    def manifest(self, code: str = "") -> dict[str, Any]:
        """The manifest of the check's version; `code` is the hash of the function's closure.

        With it, an edit of the function makes another version of the check, so that a proposal cannot
        weaken a check unseen.
        """
        return {
            "name": self.name,
            "function": f"{self.function.__module__}:{self.function.__qualname__}",
            "code": code,
            "parameters": list(self.parameters),
            "objective": self.objective.name if self.objective else "",
            "blocks": sorted(set(self.blocks)),
        }
