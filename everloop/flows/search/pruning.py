"""Which trials are ended early, decided by numbers that are known when a wave begins.

A trial gets *bars*: what a report must reach at each step. They come from the trials of earlier waves only, so the same
search ends the same trials, on any machine and in any order, and a trial in another process needs to ask nobody. What a
known trial reported is held against the bars of the search that asks: so one that was ended elsewhere is run again only
where this search would have gone on with it.

Values are those of the metric, the smaller the better: of a metric that is maximised the negative.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.flows.search.definitions import Hyperband, Median

Reports = Sequence[tuple[int, float]]
"""Of one trial: step and value, in the order in which they were reported."""


def bars(rule: Median | Hyperband | None, number: int, past: Mapping[int, tuple[str, Reports]]) -> dict[str, Any]:
    """What trial `number` must reach: `{"best": whether its best so far counts, "at": {step: bar}}`; empty: nothing.

    `past` holds state (`done`, `pruned`) and reports of every trial of earlier waves, by number.
    """
    if rule is None:
        return {}
    return _medians(rule, past) if isinstance(rule, Median) else _rungs(rule, number, past)


def ended_at(reports: Reports, given: Mapping[str, Any]) -> int | None:
    """The step at which a trial with these reports is ended; None: it is not."""
    held = given.get("at", {})
    best = math.inf
    for step, value in reports:
        best = min(best, value) if not math.isnan(value) else best
        looked = best if given.get("best") else value
        bar = held.get(str(step))
        if bar is not None and not looked <= bar:
            return step
    return None


def _medians(rule: Median, past: Mapping[int, tuple[str, Reports]]) -> dict[str, Any]:
    finished = [reports for state, reports in past.values() if state == "done"]
    if len(finished) < rule.startup:
        return {}
    at: dict[int, list[float]] = {}
    for reports in finished:
        for step, value in reports:
            if step >= rule.warmup and not math.isnan(value):
                at.setdefault(step, []).append(value)
    return {"best": True, "at": {str(step): statistics.median(values) for step, values in sorted(at.items())}}


def _rungs(rule: Hyperband, number: int, past: Mapping[int, tuple[str, Reports]]) -> dict[str, Any]:
    mine = _bracket(rule, number)
    at: dict[str, float] = {}
    step = rule.least * rule.factor**mine
    while step < rule.most:
        reached = sorted(
            value
            for other, (_, reports) in past.items()
            if _bracket(rule, other) == mine
            for s, value in reports
            if s == step and not math.isnan(value)
        )
        go_on = max(1, (len(reached) + 1) // rule.factor)
        if len(reached) >= max(go_on, rule.factor - 1):
            at[str(step)] = reached[go_on - 1]
        step *= rule.factor
    return {"best": False, "at": at}


def _bracket(rule: Hyperband, number: int) -> int:
    """Brackets take turns, each as often as Hyperband gives it trials: the one that halves most gets most."""
    count = int(math.log(rule.most / rule.least, rule.factor) + 1e-9) + 1
    shares = [math.ceil(count * rule.factor**left / (left + 1)) for left in range(count - 1, -1, -1)]
    place = number % sum(shares)
    for bracket, share in enumerate(shares):
        if place < share:
            return bracket
        place -= share
    raise AssertionError("the shares add up")
