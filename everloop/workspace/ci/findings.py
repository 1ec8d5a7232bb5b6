"""What a CI run found, as values: cases in stages, and the whole report."""

from dataclasses import dataclass
from typing import Literal

from everloop.workspace.ci.differences import Differences

CaseState = Literal["passed", "warned", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was looked at."""

    name: str
    state: CaseState
    summary: str = ""
    hint: str = ""
    details: str = ""
    """More lines for people: rows that fail (masked where tagged), the end of a test's output."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Cases of one kind."""

    name: str
    cases: tuple[Case, ...]
    seconds: float = 0.0

    @property
    def green(self) -> bool:
        """Whether nothing failed."""
        return all(case.state != "failed" for case in self.cases)


@dataclass(frozen=True, slots=True)
class Report:
    """A run of `everloop ci`."""

    project: str
    target: str
    sandbox: str
    stages: tuple[Stage, ...]
    snapshot: str = ""
    """What the build put on the sandbox; empty when there was no build."""
    differences: Differences | None = None
    change: int | None = None
    """The change that was opened or updated."""

    @property
    def green(self) -> bool:
        """Whether every stage is."""
        return all(stage.green for stage in self.stages)

    @property
    def failures(self) -> tuple[tuple[str, Case], ...]:
        """Every failed case with its stage's name."""
        return tuple((stage.name, case) for stage in self.stages for case in stage.cases if case.state == "failed")


def skipped(stage: str, why: str) -> Stage:
    """A stage that was not reached, or has nothing to look at."""
    return Stage(stage, (Case(stage, "skipped", why),))
