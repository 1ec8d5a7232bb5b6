"""The answer of a bisection: as a version, whose figures are text, and in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from everloop.flows.bisect.game import Attribution
from everloop.flows.bisect.narrow import Narrowed
from everloop.flows.bisect.running import Count
from everloop.flows.bisect.settings import Sides
from everloop.flows.bisect.student import Interval


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked: two versions and a metric."""

    good: str
    bad: str
    metric: str
    seeds: int


def manifest(
    asked: Asked, sides: Sides, found: Attribution, inside: Mapping[str, Narrowed], count: Count
) -> dict[str, Any]:
    """All figures of an answer; numbers as text, because they are a part of identity."""
    return {
        "question": "bisect",
        "good": asked.good,
        "bad": asked.bad,
        "metric": asked.metric,
        "seeds": asked.seeds,
        "step": sides.step,
        "state": found.state,
        "equal": dict(sides.equal),
        "measured": {"good": _interval(found.good), "bad": _interval(found.bad), "total": _interval(found.total)},
        "contributions": [
            {
                "factors": list(one.factors),
                "value": _interval(one.value),
                "noise": one.noise,
                "swapped_in": _interval(one.swapped_in),
                "swapped_out": _interval(one.swapped_out),
            }
            for one in found.contributions
        ],
        "interactions": [
            {"first": one.first, "second": one.second, "value": _interval(one.value)} for one in found.interactions
        ],
        "joint": [found.joint.first, found.joint.second] if found.joint else [],
        "undefined": [list(one) for one in found.undefined],
        "inside": {
            factor: {
                "items": list(one.items),
                "effect": _interval(one.effect),
                "reason": one.reason,
                "probes": [
                    {"items": list(p.items), "effect": _interval(p.effect), "seeds": p.seeds} for p in one.probes
                ],
            }
            for factor, one in inside.items()
        },
        "runs": {"run": count.run, "reused": count.reused},
    }


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """An answer's manifest in words."""
    measured = told["measured"]
    yield f"{told['metric']}: {_said(measured['good'])} → {_said(measured['bad'])}"
    yield f"change {_said(measured['total'])} over {told['seeds']} paired seeds (99 %)"
    if told["state"] == "nothing":
        yield "Nothing to explain: the change is within the noise of seeds."
        return
    yield "Contribution to the change under re-execution (95 %, corrected for the number of factors):"
    for one in told["contributions"]:
        swapped = f"; alone {_mean(one['swapped_in'])}, put back {_mean(one['swapped_out'])}"
        note = "  within noise" if one["noise"] else ""
        yield f"  {' + '.join(one['factors']):<24} {_said(one['value'])}{swapped}{note}"
    if told["joint"]:
        yield f"Joint cause: {' and '.join(told['joint'])} do more together than either alone."
    for factor, reason in told["equal"].items():
        yield f"  {factor:<24} {reason}"
    for one in told["undefined"]:
        yield f"  cannot be run: {' + '.join(one) or 'nothing'} swapped"
    for factor, one in told["inside"].items():
        yield f"Inside {factor}: {', '.join(one['items'])} ({one['reason']}; {_said(one['effect'])})"
    yield f"{told['runs']['run']} steps were run, {told['runs']['reused']} reused."


def _interval(one: Interval | None) -> list[str]:
    return [] if one is None else [f"{value:.6g}" for value in (one.mean, one.low, one.high)]


def _said(one: list[str]) -> str:
    return f"{one[0]} ({one[1]} to {one[2]})" if one else "not run"


def _mean(one: list[str]) -> str:
    return one[0] if one else "not run"
