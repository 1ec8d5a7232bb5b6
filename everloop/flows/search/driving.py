"""One search within a run: from one wave of trials to the next, until its budget is spent.

A wave is chosen, run and told as a whole, in the order of the trials' numbers, whichever of them ended first. So what
comes next depends on what came out and not on who was faster: the same search gives the same trials, and those that
are known come from the cache. A search that was killed goes on by being run again.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.making.flows import FlowStep
from everloop.catalog.steps import StepRow
from everloop.core.clock import SECOND, Micros
from everloop.core.errors import EverloopError, InvalidInput, StepFailed
from everloop.core.ids import manifest_id
from everloop.core.ports import RunSink, Sample
from everloop.core.version import Version
from everloop.flows import search as package
from everloop.flows.assets import Asset
from everloop.flows.running.ledger import Record
from everloop.flows.running.unit import Unit
from everloop.flows.search.definitions import Search
from everloop.flows.search.marks import BEST, IMPORTANCE, PARENT, REUSED, SEARCH, SECONDS, STATE, TRIAL, WHY
from everloop.flows.search.pruning import Reports, bars, ended_at
from everloop.flows.search.trial import FACT, figures
from everloop.flows.value import codec

_EARLY = 10
"""Trials from which on a search that mostly fails is ended before its budget is."""

Price = Callable[[Asset], float | None]
"""What an hour of a step costs, by its compute; None: nobody knows."""


@dataclass(slots=True)
class Trial:
    """How far one trial is."""

    number: int
    params: Mapping[str, Any]
    run: str
    unit: Unit
    bars: Mapping[str, Any]
    began: Micros
    state: str = "running"
    output: str = ""
    values: tuple[float, ...] = ()
    reports: Reports = ()
    result: Any = None
    why: str = ""
    reused: bool = False
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Before:
    """What a run spent on a search before it was interrupted and gone on with."""

    trials: int = 0
    """How many it finished."""
    seconds: float = 0.0
    """In which at least one of them ran: the time between two drivers is nobody's."""
    work: float = 0.0
    """Of all of them together."""


def spent(rows: Iterable[FlowStep], key: str) -> Before:
    """What is known of the trials of the step `key` from the rows of its run."""
    trials = [one for one in rows if one.step.startswith(f"{key}[") and one.began is not None and one.ended is not None]
    busy, until = 0, 0
    for began, ended in sorted((one.began or 0, one.ended or 0) for one in trials):
        busy += max(0, ended - max(began, until))
        until = max(until, ended)
    work = sum((one.ended or 0) - (one.began or 0) for one in trials)
    return Before(sum(one.state in _OVER for one in trials), busy / SECOND, work / SECOND)


_OVER = ("done", "reused")


class Searching:
    """The state of one search. Not for several threads: its driver's asks it."""

    def __init__(
        self,
        ctx: Context,
        whole: Unit,
        search: Search,
        *,
        runs: RunSink | None,
        load: Callable[[str], Any],
        price: Price | None,
        recipe: str,
        recipe_of: Callable[[Asset], str],
        before: "Before | None" = None,
    ) -> None:
        """Search over `whole`, the search's own unit; `load` reads a trial's output by its id.

        `before` is what this very run spent on it until it was interrupted.
        """
        self._recipe_of = recipe_of
        self._ctx, self.whole, self._search, self._runs, self._load = ctx, whole, search, runs, load
        self.recipe = recipe
        self._sampler = package.sampling.Sampler(search)
        self._signs = [-1.0 if way == "max" else 1.0 for _, way in search.metrics]
        self.trials: dict[int, Trial] = {}
        self._wave: list[int] = []
        self._open = 0
        self._before = before or Before()
        self._began = time.monotonic() - self._before.seconds
        self._price = 0.0
        if search.money is not None:
            known = price(whole.asset) if price is not None else None
            if known is None:
                raise InvalidInput(
                    f"{whole.asset.key} is searched for {search.money:g}, and nobody knows what its compute costs",
                    hint="give the compute a price, or a budget of trials or time",
                )
            self._price = known
        tags = {SEARCH: json.dumps(search.manifest(), sort_keys=True)}
        self.run = runs.start(whole.asset.key, {}, {**tags, "everloop.recipe": recipe}) if runs is not None else ""

    @property
    def waits(self) -> bool:
        """Whether trials of the wave still run."""
        return self._open > 0

    def next(self) -> list[Unit]:
        """The units to do now: the next wave, trials that must be run after all, or nothing when it is enough.

        Raises `StepFailed` when too many trials failed.
        """
        if again := [self._again(self.trials[n]) for n in self._wave if self.trials[n].state == "again"]:
            self._open = len(again)
            return again
        self._tell()
        count = self._left()
        self._check(over=count < 1)
        past = {one.number: (one.state, one.reports) for one in self.trials.values() if one.state != "failed"}
        for chosen in self._sampler.ask(count) if count > 0 else ():
            given = bars(self._search.prune, chosen.number, past)
            self.trials[chosen.number] = self._started(chosen.number, chosen.params, given)
            self._wave.append(chosen.number)
        self._check(over=not self._wave)
        self._open = len(self._wave)
        return [self.trials[number].unit for number in self._wave]

    def took(self, unit: Unit, output: str, *, reused: bool, seconds: float) -> None:
        """A trial has its output: what it gave, held against what it must reach now."""
        assert unit.item is not None
        trial = self.trials[unit.item]
        self._open -= 1
        said = self._load(output)
        reports = [(int(step), self._signs[0] * float("nan" if v is None else v)) for step, v in said["reports"]]
        ended = ended_at(reports, trial.bars)
        if said["state"] == "pruned" and ended is None:
            trial.state = "again"  # ended elsewhere, by another search's bars
            return
        trial.output, trial.reused, trial.seconds = output, reused, seconds
        if ended is not None:
            trial.state, trial.reports = "pruned", [one for one in reports if one[0] <= ended]
            trial.why = f"ended at step {ended}"
        else:
            trial.reports, trial.result = reports, said["result"]
            self._judge(trial, said["result"])
        self._finish(trial)

    def failed(self, unit: Unit, error: EverloopError) -> None:
        """A trial ended with an error."""
        assert unit.item is not None
        trial = self.trials[unit.item]
        self._open -= 1
        trial.state, trial.why = "failed", error.message
        self._finish(trial)

    def close(self, status: str) -> None:
        """End the runs that are still open: what the search found so far is said."""
        if self._runs is None:
            return
        for trial in self.trials.values():
            if trial.state in ("running", "again"):
                self._runs.finish(trial.run, status="KILLED", metrics={}, tags={STATE: "killed"})
        if self.run:
            front = self._sampler.front()
            tags = {BEST: json.dumps(front), IMPORTANCE: json.dumps(self._sampler.importance())}
            metrics = {"trials": float(len(self.trials)), **self._counts()}
            if front:
                best = self.trials[front[0]]
                metrics |= {f"best_{n}": v for (n, _), v in zip(self._search.metrics, best.values, strict=True)}
            self._runs.finish(self.run, status=status, metrics=metrics, tags=tags)
            self.run = ""

    def value(self) -> dict[str, Any]:
        """What the search gives; it changes only when the best does. Raises `StepFailed` where none was finished."""
        front = self._sampler.front()
        if not front:
            why = next((one.why for one in self.trials.values() if one.state == "failed"), "all were ended early")
            raise StepFailed(
                f"{self.whole.asset.key}: none of {len(self.trials)} trials was finished: {why}",
                hint="the runs of the trials say why each ended",
                step=self.whole.asset.key,
            )
        described = [self._described(self.trials[number]) for number in front]
        first = self.trials[front[0]]
        return {**described[0], "result": first.result, "front": described}

    def record(self, code: str, runtime: str, *, known: bool) -> tuple[Record, str]:
        """What to write down of the search itself, and what became of its trials in words.

        It is found again as a whole only where that is `known`: no trial read what nobody had declared. Raises what
        `value` raises.
        """
        asset, whole = self.whole.asset, self.whole
        saved = codec.save(self.value(), asset.name, self._ctx.store, {"format": "json"})
        sources = [*whole.lineage.items(), ("code", code), ("runtime", runtime), *self.made_from()]
        version = Version("value", asset.name, saved.version.manifest, tuple(dict.fromkeys(sources)))
        recipe = (
            self.recipe if known else manifest_id({"search": self.recipe, "trials": [o for _, o in self.made_from()]})
        )
        row = StepRow(
            recipe,
            asset.key,
            version.id,
            code,
            runtime,
            dict(asset.params),
            whole.lineage,
            self._ctx.now(),
            seconds=sum(one.seconds for one in self.trials.values()),
            run=self.run,
        )
        return Record(row, version), self.said()

    def made_from(self) -> list[tuple[str, str]]:
        """The outputs that the best came from, for its lineage."""
        return [("trial", self.trials[number].output) for number in self._sampler.front()]

    def said(self) -> str:
        """What became of the trials, in words."""
        counts = {name: int(count) for name, count in self._counts().items() if count}
        return f"{len(self.trials)} trials: " + ", ".join(f"{count} {name}" for name, count in counts.items())

    def _described(self, trial: Trial) -> dict[str, Any]:
        values = {name: value for (name, _), value in zip(self._search.metrics, trial.values, strict=True)}
        return {"trial": trial.number, "params": dict(trial.params), "values": values}

    def _counts(self) -> dict[str, float]:
        every = list(self.trials.values())
        counted = {state: float(sum(one.state == state for one in every)) for state in ("done", "pruned", "failed")}
        return {**counted, "reused": float(sum(one.reused for one in every))}

    def _started(self, number: int, params: Mapping[str, Any], given: Mapping[str, Any]) -> Trial:
        asset = self.whole.asset
        tried, run = replace(asset, params={**asset.params, **params}), ""
        if self._runs is not None:
            named = {PARENT: self.run, TRIAL: str(number), "mlflow.runName": f"{asset.name} {number}"}
            run = self._runs.start(asset.key, params, {**named, "everloop.recipe": self._recipe_of(tried)})
        unit = replace(
            self.whole,
            asset=tried,
            step=f"{asset.key}[{number}]",
            item=number,
            run=run,
            facts={FACT: {"bars": dict(given), "sign": self._signs[0]}},
        )
        return Trial(number, params, run, unit, given, self._ctx.now())

    def _again(self, trial: Trial) -> Unit:
        trial.state = "running"
        trial.unit = replace(trial.unit, again=True)
        return trial.unit

    def _judge(self, trial: Trial, result: Any) -> None:
        trial.metrics = figures(result)
        found = trial.metrics
        if list(found) == [""]:  # a bare number is the one metric
            found = trial.metrics = {self._search.metrics[0][0]: found[""]}
        values = [found.get(name) for name, _ in self._search.metrics]
        strange = next(
            (n for (n, _), v in zip(self._search.metrics, values, strict=True) if v is None or math.isnan(v)), None
        )
        if strange is not None:
            known = ", ".join(sorted(found)) or "no number at all"
            trial.state, trial.why = "failed", f"it gives no {strange}, or NaN; it gives {known}"
            return
        trial.state, trial.values = "done", tuple(float(value) for value in values if value is not None)

    def _finish(self, trial: Trial) -> None:
        if self._runs is None:
            return
        name = self._search.metrics[0][0]
        at = self._ctx.now()
        samples = [Sample(at, step, {name: self._signs[0] * value}) for step, value in trial.reports]
        if samples and trial.state != "failed":
            self._runs.log(trial.run, samples)
        status = "FAILED" if trial.state == "failed" else "FINISHED"
        tags = {STATE: trial.state, **({} if trial.reused else {SECONDS: f"{trial.seconds:.3f}"})}
        tags |= {REUSED: "true"} if trial.reused else {}
        tags |= {WHY: trial.why[:1000]} if trial.why else {}
        last = max((step for step, _ in trial.reports), default=0)
        self._runs.log(trial.run, [Sample(at, last + 1, dict(trial.metrics))] if trial.metrics else [])
        self._runs.finish(trial.run, status=status, metrics={}, tags=tags)

    def _tell(self) -> None:
        for number in self._wave:
            trial = self.trials[number]
            self._sampler.tell(
                number,
                trial.state,
                trial.values,
                [(s, self._signs[0] * v) for s, v in trial.reports if not math.isnan(v)],
            )
        self._wave = []

    def _check(self, *, over: bool) -> None:
        failed = [one for one in self.trials.values() if one.state == "failed"]
        ended = sum(one.state != "running" for one in self.trials.values())
        if failed and (ended >= _EARLY or over) and len(failed) > self._search.tolerate * ended:
            raise StepFailed(
                f"{self.whole.asset.key}: {len(failed)} of {ended} trials failed, the first: {failed[0].why}",
                hint="trials that came through are reused; tolerate= says which share may fail",
                step=self.whole.asset.key,
            )

    def _left(self) -> int:
        """How many trials may be started now."""
        search, left = self._search, self._search.at_once
        if search.trials is not None:
            left = min(left, search.trials - len(self.trials))
        if len(self.trials) < self._before.trials:  # these are paid for: they are reused, whatever is left to spend
            return left
        if search.seconds is not None and time.monotonic() - self._began >= search.seconds:
            return 0
        if search.money is not None:
            seconds = self._before.work + sum(one.seconds for one in self.trials.values())
            spent = seconds / 3600 * self._price
            if spent >= search.money:
                return 0
        return left


def check_params(asset: Asset, wanted: Sequence[str]) -> None:
    """Raise `InvalidInput` for a parameter that is set and searched."""
    both = next((name for name in wanted if asset.search is not None and name in asset.search.space), None)
    if both is not None:
        raise InvalidInput(f"{asset.key} searches {both}: it cannot be set", hint="take it out of the space, or --set")
