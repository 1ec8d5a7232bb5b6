"""What an author writes about watching: monitors, retrain rules, and what sets one off. Pure values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from everloop.core.clock import Micros, iso, parse_duration
from everloop.core.errors import InvalidInput
from everloop.core.ids import checked_name
from everloop.core.version import Version

When = Literal["every", "alarm", "rows"]
Step = Literal["ok", "suspect", "alarm", "quiet"]

ENTER, OF, LEAVE = 2, 3, 3
"""An alarm: enter on 2 flagged windows of 3, leave after 3 quiet ones."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of event time, start included, until excluded."""

    start: Micros
    until: Micros

    def __post_init__(self) -> None:
        """Refuse an empty one."""
        if self.until <= self.start:
            raise InvalidInput("the window is empty", hint="its end lies after its start")

    def earlier(self, by: Micros) -> "Window":
        """The same length, `by` microseconds before."""
        return Window(self.start - by, self.until - by)

    def __str__(self) -> str:
        """ISO times."""
        return f"{iso(self.start)} to {iso(self.until)}"


@dataclass(frozen=True, slots=True)
class Late:
    """A label that becomes known after the prediction.

    It is column `column` of `dataset`, joined by prediction id or by the entity that was asked about. After
    `delay` a cohort of predictions is mature: it is judged only then, because outcomes that come early are
    not like those that come late.
    """

    dataset: Any
    """The dataset's definition, or its name."""
    column: str
    delay: str = "1d"

    def __post_init__(self) -> None:
        """Refuse what is no name or no duration."""
        object.__setattr__(self, "dataset", name_of(self.dataset))
        duration(self.delay)

    @property
    def length(self) -> Micros:
        """The delay in microseconds."""
        return duration(self.delay)

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready; durations as text that people read."""
        return {"dataset": self.dataset, "column": self.column, "delay": self.delay}


@dataclass(frozen=True, slots=True)
class MonitorDef:
    """Watch what an endpoint is asked and answers, window by window, within a budget of false alarms."""

    name: str
    endpoint: str
    label: Late | None = None
    alarms_per_quarter: int = 1
    """How many false alarms the owner puts up with in 91 days, over all columns together."""
    window: str = "1d"
    slices: tuple[str, ...] = ()
    """Columns by whose values performance is also computed apart."""
    objective: str = ""
    """Name of the objective whose bound the live metric is held to; empty means none."""

    def __post_init__(self) -> None:
        """Refuse wrong names, durations and budgets."""
        checked_name(self.name)
        checked_name(self.endpoint)
        duration(self.window)
        if self.alarms_per_quarter < 1:
            raise InvalidInput(
                f"monitor {self.name}: a budget of {self.alarms_per_quarter} false alarms a quarter cannot be kept",
                hint="alarms_per_quarter is a whole number, at least 1",
            )

    @property
    def length(self) -> Micros:
        """The window's length in microseconds."""
        return duration(self.window)

    def manifest(self) -> dict[str, Any]:
        """The manifest of the monitor's version."""
        return {
            "endpoint": self.endpoint,
            "label": self.label.manifest() if self.label else None,
            "alarms_per_quarter": self.alarms_per_quarter,
            "window": self.window,
            "slices": list(self.slices),
            "objective": self.objective,
        }

    def version(self) -> Version:
        """The definition as a version `monitor/<name>`."""
        return Version("monitor", self.name, self.manifest())

    @classmethod
    def from_manifest(cls, name: str, manifest: Mapping[str, Any]) -> "MonitorDef":
        """Read a monitor back from its version."""
        label = manifest["label"]
        return cls(
            name=name,
            endpoint=manifest["endpoint"],
            label=Late(**label) if label else None,
            alarms_per_quarter=manifest["alarms_per_quarter"],
            window=manifest["window"],
            slices=tuple(manifest["slices"]),
            objective=manifest["objective"],
        )


@dataclass(frozen=True, slots=True)
class Trigger:
    """One reason to retrain; made by `every`, `on_alarm` and `on_new_rows`."""

    when: When
    subject: str = ""
    """The endpoint (alarm) or dataset (rows) that it listens to."""
    period: str = ""
    rows: int = 0

    def __str__(self) -> str:
        """The way the author wrote it."""
        if self.when == "every":
            return f"every {self.period}"
        return f"alarm on {self.subject}" if self.when == "alarm" else f"{self.rows:,} new rows of {self.subject}"

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready."""
        return {"when": self.when, "subject": self.subject, "period": self.period, "rows": self.rows}


def every(period: str) -> Trigger:
    """Retrain on a schedule: `every("7d")`, counted from when the live model was made or the rule last fired."""
    duration(period)
    return Trigger("every", period=period)


def on_alarm(endpoint: Any) -> Trigger:
    """Retrain when an alarm of this endpoint (a definition or its name) opens, unless a broken sensor explains it."""
    return Trigger("alarm", subject=name_of(endpoint))


def on_new_rows(dataset: Any, n: int) -> Trigger:
    """Retrain when `dataset` (a definition or its name) grew by `n` rows since the model's training data."""
    if n < 1:
        raise InvalidInput(
            f"on_new_rows({n}) would always fire", hint="give the number of new rows that is worth a run"
        )
    return Trigger("rows", subject=name_of(dataset), rows=n)


@dataclass(frozen=True, slots=True)
class RetrainDef:
    """When a model is trained again, into a sandbox of its own; what comes out still passes through a change."""

    model: str
    when: Sequence[Trigger] = field(default_factory=tuple)
    cooldown: str = "1d"
    """At least this long between two retrainings that one rule sets off."""

    def __post_init__(self) -> None:
        """Refuse a rule that never fires."""
        object.__setattr__(self, "when", tuple(self.when))
        checked_name(self.model)
        duration(self.cooldown)
        if not self.when:
            raise InvalidInput(
                f"retrain({self.model}) has no trigger", hint='for example when=[every("7d"), on_alarm(endpoint)]'
            )

    @property
    def name(self) -> str:
        """The rule is named after its model."""
        return self.model

    def manifest(self) -> dict[str, Any]:
        """The manifest of the rule's version."""
        return {"model": self.model, "when": [t.manifest() for t in self.when], "cooldown": self.cooldown}

    def version(self) -> Version:
        """The definition as a version `retrain/<model>`."""
        return Version("retrain", self.name, self.manifest())

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "RetrainDef":
        """Read a rule back from its version."""
        triggers = tuple(Trigger(**trigger) for trigger in manifest["when"])
        return cls(manifest["model"], triggers, manifest["cooldown"])


def name_of(subject: Any) -> str:
    """The name of a definition, or the name itself; raises `InvalidInput`."""
    name = subject if isinstance(subject, str) else getattr(subject, "name", None)
    if not isinstance(name, str):
        raise InvalidInput(f"{subject!r} is neither a definition nor its name")
    return checked_name(name)


def duration(text: str) -> Micros:
    """Microseconds of `12h`; raises `InvalidInput` with the allowed forms."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidInput(str(error), hint="a whole number and one of ms, s, m, h, d, w") from None


def advance(history: str) -> Step:
    """Where a cause stands after `history` (newest last; `1` flagged, `0` not), as far as windows decide it.

    `alarm`: 2 of the last 3 are flagged. `quiet`: the last 3 are not. `suspect`: something is flagged, not
    enough. `ok`: nothing flagged, fewer than three windows seen.
    """
    recent = history[-OF:]
    if recent.count("1") >= ENTER:
        return "alarm"
    if "1" in recent:
        return "suspect"
    return "quiet" if len(recent) >= LEAVE else "ok"
