"""One trial, inside the step's process: run it, take what it reports, and end it where it is not worth going on."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from everloop.core.errors import DataError
from everloop.core.inside import reporting
from everloop.core.inside.reporting import Pruned
from everloop.flows.search.pruning import ended_at

FACT = "search"
"""Of a job: what its trial must reach (`pruning.bars`), and the sign of the reported metric."""


def attempted(call: Callable[[], Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial gives: `{"state": "done" | "pruned", "reports": [[step, value], …], "result": …}`.

    Raises `DataError` for a report that does not count up, and what the trial raises.
    """
    told = facts.get(FACT, {})
    given, sign = told.get("bars", {}), float(told.get("sign", 1.0))
    reports: list[list[Any]] = []
    signed: list[tuple[int, float]] = []

    def take(value: float, step: int) -> None:
        if signed and step <= signed[-1][0]:
            raise DataError(f"report of step {step} after {signed[-1][0]}", hint="the steps of el.report count up")
        reports.append([step, value if math.isfinite(value) else None])
        signed.append((step, sign * value))
        if ended_at(signed, given) is not None:
            raise Pruned

    try:
        with reporting.listening(take):
            result = call()
    except Pruned:
        return {"state": "pruned", "reports": reports, "result": None}
    return {"state": "done", "reports": reports, "result": result}


def figures(result: Any) -> dict[str, float]:
    """The numbers of what a trial gave, by name; of a bare number by the empty one."""
    if isinstance(result, Mapping):
        return {str(k): float(v) for k, v in result.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    if isinstance(result, int | float) and not isinstance(result, bool):
        return {"": float(result)}
    return {}
