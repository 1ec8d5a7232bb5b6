"""What must be checked, as a value that travels to whoever runs it, and what came out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from everloop.checks.definitions import ObjectiveDef

State = Literal["passed", "failed", "error"]


TASK = "checks.run"
"""The kind of the tasks that run checks."""


def request_key(delta_id: str, check_id: str, objective_id: str, candidate: str) -> str:
    """See `CheckRequest.key`."""
    return f"{delta_id}:{check_id}:{objective_id}:{candidate}"


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """One check on one delta. JSON-ready by `to_json`, so that it can be a task's payload."""

    change: int
    environment: str
    """The target, whose champion and heads are meant."""
    source: str
    """The environment that the proposal came from; empty when a snapshot was proposed."""
    head: str
    """The proposed snapshot: whose code and definitions are meant."""
    delta_id: str
    name: str
    check_id: str
    function: str
    """`module:qualname` of the check function."""
    parameters: tuple[str, ...]
    subjects: Mapping[str, str]
    heads: Mapping[str, str]
    objective_id: str = ""
    objective: Mapping[str, Any] = field(default_factory=dict)
    """The manifest of the objective."""
    candidate: str = ""
    origin: Literal["proposal", "target"] = "proposal"
    """Whose version of the check it is; `target`: the proposal holds another one, or none."""
    origin_snapshot: str = ""
    """The snapshot that holds this version of the check: run the code of that one."""

    @property
    def key(self) -> str:
        """What makes two requests the same work: one task does it."""
        return request_key(self.delta_id, self.check_id, self.objective_id, self.candidate)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "parameters": list(self.parameters)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "CheckRequest":
        """Read what `to_json` wrote."""
        return cls(**{**body, "parameters": tuple(body["parameters"])})

    def objective_def(self) -> ObjectiveDef | None:
        """The objective as the check function gets it."""
        return ObjectiveDef.from_manifest(self.objective) if self.objective else None


@dataclass(frozen=True, slots=True)
class Finding:
    """What running a check gave. `figures` are texts of numbers; `report` is JSON for people."""

    state: State
    summary: str
    figures: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Finding":
        """Read what `to_json` wrote."""
        return cls(**body)
