"""What a run is asked and what it answers, as values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from everloop.catalog.making.flows import Flow
from everloop.core.version import Version
from everloop.flows.assets import Asset
from everloop.flows.compute.profiles import Profiles

State = Literal[
    "waiting", "running", "done", "reused", "failed", "skipped", "parked", "refused", "cancelled", "stopped"
]
Progress = Callable[[str, State, float], None]
"""Called with a step's key, its state and its seconds (0 until it ended), from the thread that runs the step."""


class Ended(BaseException):
    """Raised inside a step of this process when its run must end; no step may catch it as an error of its own."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the project is: its folder, and the module that defines it (`module` or `module:attribute`)."""

    root: Path
    module: str
    name: str = "project"


@dataclass(frozen=True, slots=True)
class Done:
    """A step that has its output."""

    step: str
    recipe: str
    output: str
    """The version's id."""
    reused: bool
    seconds: float
    run: str
    """The tracking run that made it; empty for steps that are not tracked."""
    leaks: tuple[str, ...] = ()
    """What it read that nobody had declared (`file:rates.csv`); the output is reused while all of it is the same."""
    failed: tuple[int, ...] = ()
    """Of a step over a list: the places of the items that failed, within what it tolerates."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a run made, in the order of the plan."""

    steps: tuple[Done, ...]
    outputs: Mapping[str, str]
    """Version id of every asset of the plan that has one, given ones too."""
    code: str
    runtime: str
    flow: str = ""
    """The id of the recorded run; empty when it is not recorded."""
    skipped: tuple[str, ...] = ()
    """Steps that a condition left out, and what needed them."""
    parked: tuple[str, ...] = ()
    """Steps that wait for a person; what needs them was not made yet."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run; everything has a sensible default."""

    given: Mapping[str, str] = field(default_factory=dict)
    """Version id of every asset that has no function."""
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values for tunable parameters, by step's key or bare name."""
    cached: bool = True
    """Whether outputs may be reused. What runs is recorded either way."""
    workers: int = 1
    """How many steps may run beside each other, where the executor isolates them."""
    tracked: frozenset[str] = frozenset({"model"})
    """Kinds of assets whose execution is a tracking run."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for the codecs of all steps, outside the recipe."""
    bound: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """More facts of single steps, by key, inside the recipe: ids of the definitions that they belong to
    (`{"model/delay": {"service_id": …, "trainer_id": …}}`), which must be in the catalog."""
    environ: Callable[[str, str], Mapping[str, str]] | None = None
    """Environment variables of a step, from its key and its tracking run."""
    code: Version | None = None
    """The code version to record; None: the working tree of the project."""
    seed: int | None = None
    """Seeds `random` and numpy in every step, inside the recipe; None: each step's seed comes from its recipe."""
    recorded: bool = True
    """Whether the run is listed, with how far each step is; experiments of ours (bisect) are not. What those make
    with a seed is named apart (`model/delay.experiment`): the newest version of a name is one that somebody wanted."""
    flow: Flow | None = None
    """A run to go on with, taken over by this process; None: a new one."""
    title: str = ""
    """What a new run is called; empty: by its last steps."""
    environment: str = ""
    price: Callable[[Asset], float | None] | None = None
    """What an hour of a step's compute costs, for searches with a budget of money; None: nobody knows."""
    profiles: Profiles | None = None
    """The compute profiles that hold; None: steps get what their assets say, and nothing is paid."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """What it takes to go on with the run in another process."""
