"""Which trials come next, by Optuna: the only module that imports it.

The study is in memory and made anew by every run of a search: the same seed and the same results give the same trials,
and results that are known come from the cache. So there is no second store of trials to keep in step.
"""

import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from everloop.flows.search.definitions import Dimension, Search

_ENOUGH = 8
"""Trials below which nothing is said of importance."""


@dataclass(frozen=True, slots=True)
class Suggested:
    """A trial to run."""

    number: int
    params: Mapping[str, Any]


class Sampler:
    """Suggests trials of one search, and hears what became of them in the order of their numbers."""

    def __init__(self, search: Search) -> None:
        """Begin the search anew."""
        optuna.logging.set_verbosity(logging.ERROR)
        self._search = search
        directions = ["maximize" if way == "max" else "minimize" for _, way in search.metrics]
        self._study = optuna.create_study(sampler=_sampler(search), directions=directions)
        self._open: dict[int, optuna.Trial] = {}
        self._grid: Iterator[dict[str, Any]] | None = search.grid() if search.sampler == "grid" else None

    def ask(self, count: int) -> list[Suggested]:
        """The next wave; fewer, or none, when a grid is at its end."""
        if self._grid is None:
            return [self._suggested() for _ in range(count)]
        points = list(itertools.islice(self._grid, count))
        for point in points:
            self._study.enqueue_trial(point)
        return [self._suggested() for _ in points]

    def tell(self, number: int, state: str, values: Sequence[float], reports: Sequence[tuple[int, float]]) -> None:
        """What became of a trial: `done` with a value for each metric, `pruned` or `failed`."""
        trial = self._open.pop(number)
        for step, value in reports:
            if len(self._search.metrics) == 1:
                trial.report(value, step)
        if state == "done":
            self._study.tell(trial, list(values))
        else:
            self._study.tell(trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def front(self) -> list[int]:
        """Numbers of the best trials: one, or those that no other is better than in every metric; the first leads."""
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not done:
            return []
        signs = [-1.0 if way == "max" else 1.0 for _, way in self._search.metrics]
        best = done if len(signs) == 1 else self._study.best_trials

        def rank(trial: Any) -> tuple[Any, ...]:
            return (*(sign * value for sign, value in zip(signs, trial.values, strict=True)), trial.number)

        found = [trial.number for trial in sorted(best, key=rank)]
        return found[:1] if len(signs) == 1 else found

    def importance(self) -> dict[str, dict[str, float]]:
        """For each metric the share of each parameter in how good the best trials are; empty for too few trials.

        PED-ANOVA of Watanabe et al. (2023), in its form for parameters that are only there under a condition (2026).
        """
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found: dict[str, dict[str, float]] = {}
        for place, (name, way) in enumerate(self._search.metrics):
            if len(done) < _ENOUGH or len({trial.values[place] for trial in done}) < 2:
                continue
            sign = -1.0 if way == "max" else 1.0  # with a target the smaller is the better
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # parameters that few trials varied
                shares = get_param_importances(
                    self._study,
                    evaluator=PedAnovaImportanceEvaluator(),
                    target=lambda trial, place=place, sign=sign: sign * float(trial.values[place]),
                )
            found[name] = {name: round(float(share), 6) for name, share in shares.items()}
        return found

    def _suggested(self) -> Suggested:
        trial = self._study.ask()
        self._open[trial.number] = trial
        chosen: dict[str, Any] = {}
        for name, one in self._search.space.items():
            if one.active(chosen):
                chosen[name] = _suggest(trial, name, one)
        return Suggested(trial.number, chosen)


def _sampler(search: Search) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some releases call the constant liar an experiment
        if search.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=search.seed, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=search.seed)


def _suggest(trial: optuna.Trial, name: str, one: Dimension) -> Any:
    if one.kind == "choice":
        return trial.suggest_categorical(name, list(one.options))
    if one.kind == "ints":
        return trial.suggest_int(name, int(one.low), int(one.high), step=int(one.step or 1), log=one.log)
    return trial.suggest_float(name, one.low, one.high, step=one.step, log=one.log)
