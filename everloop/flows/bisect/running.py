"""Run mixtures of two sides through the cache: what was run once, for this answer or another one, is not run again."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.core.errors import Conflict, DefinitionError, InvalidInput, NotFound, StepFailed
from everloop.core.ports import Executor
from everloop.core.version import Version
from everloop.flows.assets import Asset, plan
from everloop.flows.bisect.game import Subset, Values, subsets
from everloop.flows.bisect.settings import HOLDOUT, Setting, Sides, mixed
from everloop.flows.compute.profiles import Profiles
from everloop.flows.engine import Options, Origin, Results, run

SEEDED = frozenset({"seed", "random_state"})
"""Parameters that are no factor but the noise: every replicate sets them."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A code version in an environment, ready to run."""

    assets: Mapping[str, Asset]
    origin: Origin
    executor: Executor
    profiles: Profiles | None = None
    """The compute profiles that hold for it."""


Load = Callable[[str, str], Loaded]
"""From a code version and a runtime version."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Where to stop; None means nowhere."""

    runs: int | None = None
    seconds: float | None = None


@dataclass
class Count:
    """What was done so far."""

    run: int = 0
    """Steps that were executed."""
    reused: int = 0
    began: float = 0.0


class Runs:
    """Gives a metric for settings and seeds."""

    def __init__(
        self,
        ctx: Context,
        step: str,
        metric: str,
        load: Load,
        *,
        codecs: Mapping[str, str],
        budget: Budget | None = None,
    ) -> None:
        """Measure `metric` of what `step` makes."""
        self.ctx, self.step, self.metric, self.load, self.codecs = ctx, step, metric, load, codecs
        self.budget, self.count = budget or Budget(), Count(began=time.monotonic())
        self._loaded: tuple[tuple[str, str], Loaded] | None = None
        self._known: dict[tuple[str, int], float | None] = {}
        self._inputs: dict[tuple[str, ...], str] = {}
        self._codes: dict[str, Version] = {}
        self.refused: dict[str, str] = {}
        """Why mixtures could not be run, by their setting's text."""

    def __call__(self, setting: Setting, seed: int) -> float | None:
        """The metric; None when this mixture cannot be run. Raises `Conflict` when the budget is spent."""
        key = (repr(setting), seed)
        if key not in self._known:
            self._check()
            self._known[key] = self._measured(setting, seed)
        return self._known[key]

    def values(self, sides: Sides, seeds: Sequence[int], told: Callable[[int, int], None] | None = None) -> Values:
        """Every mixture of two sides for every seed, ordered so that code and environment change rarely."""
        every = subsets(sides.players)
        found: dict[Subset, list[float] | None] = {}
        order = sorted(every, key=lambda s: ("code" in s, "environment" in s, len(s), sorted(s)))
        for place, chosen in enumerate(order):
            setting, samples = mixed(sides.good, sides.bad, chosen), list[float]()
            for seed in seeds:
                value = self(setting, seed)
                if value is None:
                    break
                samples.append(value)
            found[chosen] = samples if len(samples) == len(seeds) else None
            if told is not None:
                told(place + 1, len(every))
        for ends in (frozenset[str](), frozenset(sides.players)):
            if found[ends] is None:
                which = "good" if not ends else "bad"
                why = self.refused.get(repr(mixed(sides.good, sides.bad, ends)), "")
                raise StepFailed(
                    f"the {which} side does not run as it was recorded: {why}",
                    hint="`everloop reproduce` says what is missing",
                    step=self.step,
                )
        return found

    def _check(self) -> None:
        spent = time.monotonic() - self.count.began
        if self.budget.runs is not None and self.count.run >= self.budget.runs:
            raise Conflict(f"the budget of {self.budget.runs} runs is spent", hint="ask again with more: it goes on")
        if self.budget.seconds is not None and spent >= self.budget.seconds:
            raise Conflict(f"the budget of {self.budget.seconds:g} s is spent", hint="ask again with more: it goes on")

    def _measured(self, setting: Setting, seed: int) -> float | None:
        try:
            loaded = self._load(setting)
            output = self._made(loaded, setting, seed)
        except (StepFailed, DefinitionError, InvalidInput) as error:  # this code does not fit that data, perhaps
            self.refused[repr(setting)] = error.message
            return None
        return figure(self.ctx, output, self.metric)

    def _load(self, setting: Setting) -> Loaded:
        key = (setting.code, setting.environment)
        if self._loaded is None or self._loaded[0] != key:
            if self._loaded is not None:
                self._loaded[1].executor.close()
            self._loaded = (key, self.load(*key))
        return self._loaded[1]

    def close(self) -> None:
        """End children."""
        if self._loaded is not None:
            self._loaded[1].executor.close()

    def _made(self, loaded: Loaded, setting: Setting, seed: int) -> str:
        target = loaded.assets.get(self.step)
        if target is None:
            raise DefinitionError(f"this code has no {self.step}", hint="it was added or renamed in between")
        given: dict[str, str] = {}
        upstream: dict[str, str] = {}
        for (
            role,
            key,
        ) in target.upstream.items():  # what it is judged by may come of other rows than what it learns from
            identity = self._input(loaded, setting, key, judged=role == HOLDOUT)
            upstream[role] = f"{key}.{role}"
            given[upstream[role]] = identity
        alone = replace(target, upstream=upstream)
        steps = [*(Asset(key, None) for key in given), alone]
        return self._run(loaded, steps, given, setting, seed).outputs[self.step]

    def _input(self, loaded: Loaded, setting: Setting, key: str, *, judged: bool) -> str:
        """One input of the step: made as it was recorded, with its own seed, mostly found in the cache."""
        sources = setting.evaluation if judged else setting.data
        known = (setting.code, setting.environment, repr(sources), repr(setting.parameters), key)
        if known not in self._inputs:
            done = self._run(loaded, plan(loaded.assets, [key]), sources, setting, None)
            self._inputs[known] = done.outputs[key]
        return self._inputs[known]

    def _run(
        self, loaded: Loaded, steps: Sequence[Asset], given: Mapping[str, str], setting: Setting, seed: int | None
    ) -> Results:
        params = {}
        for asset in steps:
            held = {name: one for name, one in setting.parameters.get(asset.key, {}).items() if name in asset.params}
            seeded = dict.fromkeys(SEEDED & asset.params.keys(), seed) if seed is not None else {}
            params[asset.key] = held | seeded
        sources = {asset.key: given[asset.key] for asset in steps if asset.function is None and asset.key in given}
        done = run(
            self.ctx,
            steps,
            origin=loaded.origin,
            executor=loaded.executor,
            codecs=self.codecs,
            options=Options(
                given=sources,
                params={key: values for key, values in params.items() if values},
                code=self._code(setting.code),
                seed=seed,
                recorded=False,
                profiles=loaded.profiles,
            ),
        )
        self.count.run += sum(not one.reused for one in done.steps)
        self.count.reused += sum(one.reused for one in done.steps)
        return done

    def _code(self, identity: str) -> Version:
        if identity not in self._codes:
            with self.ctx.read() as tx:
                row = versions.get(tx, self.ctx.project, identity)
            self._codes[identity] = Version("code", row.name, row.manifest)
        return self._codes[identity]


def figure(ctx: Context, identity: str, metric: str) -> float:
    """A metric of an output: of a model as it was measured, or a number of a value that is a map. Raises `NotFound`."""
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, identity)
    found: Any = row.manifest.get("metrics")
    if found is None and row.manifest.get("format") == "json":
        found = msgspec.json.decode(ctx.store.get(row.manifest["object"]))
    value = found.get(metric) if isinstance(found, Mapping) else None
    if value is None:
        known = ", ".join(sorted(found)) if isinstance(found, Mapping) else "none"
        raise NotFound(f"{row.key} v{row.number} has no metric {metric!r}", hint=f"it has {known}")
    return float(value)
