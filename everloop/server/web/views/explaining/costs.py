"""What was used and paid: over time, by whom and by what, and the budgets with what is left of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from starlette.responses import Response

from everloop.core.clock import DAY
from everloop.core.errors import InvalidInput, NotFound
from everloop.flows.compute.profiles import MILLION
from everloop.server.web.charts import Chart, bar_chart
from everloop.server.web.visit import Visit

GROUPS = {
    "person": "people",
    "model": "models",
    "step": "steps",
    "flow": "runs",
    "endpoint": "endpoints",
    "profile": "compute",
    "environment": "environments",
}
"""What the page can be grouped by, and how people call it."""
SPANS = (7, 30, 90, 365)
_SERIES = 5
"""Groups with a colour of their own; the others are added up."""
_ROWS = 25
_LEAST = 6
"""Days before today that the chart shows, though nothing was used."""


def index(visit: Visit) -> Response:
    """Costs of a project: the chart, the dearest, every budget."""
    by = visit.query("by", "person")
    days = visit.whole("days", 30) or 30
    if by not in GROUPS:
        raise InvalidInput(f"costs are not grouped by {by!r}", hint="one of " + ", ".join(GROUPS))
    found = visit.ask("costs.report", by=(by,), days=days, limit=_ROWS)
    other = "step" if by != "step" else "person"
    beside = visit.ask("costs.report", by=(other,), days=days, limit=10)
    currency = max(found.total, key=lambda one: one.cost, default=None)
    return visit.page(
        "costs.html",
        title="Costs",
        here="/flows",
        by=by,
        days=days,
        groups=GROUPS,
        spans=SPANS,
        rows=found.rows,
        total=found.total,
        other=other,
        beside=beside.rows,
        chart=_chart(visit, by, days, currency.currency if currency is not None else ""),
        budgets=visit.ask("budgets.list").budgets,
        profiles=visit.ask("compute.list").profiles,
        may_set=visit.may("budgets.set", scope="project"),
        money=money,
        hours=hours,
        limits=limits,
        share=share,
        link=partial(_link, visit.at),
    )


def act(visit: Visit) -> Response:
    """Set a budget, or take one away."""
    wanted, form = visit.part("act"), visit.form
    scope = form.get("scope", "").strip()
    if wanted == "set":
        numbers = {name: _number(name, form.get(name, "")) for name in ("core_hours", "gpu_hours")}
        warn = _number("warn", form.get("warn", "")) or 80.0
        visit.ask(
            "budgets.set",
            scope=scope,
            money=form.get("money", "").strip(),
            currency=form.get("currency", "").strip().upper(),
            warn=warn / 100,
            **numbers,
        )
    elif wanted == "remove":
        visit.ask("budgets.remove", scope=scope)
    else:
        raise NotFound(f"nothing can be done to a budget by {wanted!r}", hint="use the buttons of the page")
    return visit.go("costs")


def money(cost: int, currency: str) -> str:
    """An amount for people: two places, or the first two that are not 0."""
    if not currency:
        return "-"
    amount = cost / MILLION
    return f"{currency} {amount:,.2f}" if amount >= 1 or not amount else f"{currency} {amount:.6f}".rstrip("0")


def hours(seconds: float) -> str:
    """Seconds of work for people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def limits(one: Any) -> str:
    """What a budget allows."""
    said = [] if one.cost is None else [money(one.cost, one.currency)]
    said += [] if one.cpu_seconds is None else [f"{one.cpu_seconds / 3600:,.4g} core-hours"]
    said += [] if one.gpu_seconds is None else [f"{one.gpu_seconds / 3600:,.4g} GPU-hours"]
    return ", ".join(said)


def share(one: Any, held: Any) -> float:
    """How much of a budget is used, of the limit that is nearest: 0 to 1, and beyond."""
    pairs = ((one.cost, held.cost), (one.cpu_seconds, held.cpu_seconds), (one.gpu_seconds, held.gpu_seconds))
    return max((used / limit if limit else 1.0 for limit, used in pairs if limit is not None), default=0.0)


def _number(name: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"{name}={text!r} is no number", hint="leave it empty for no limit") from None


def _chart(visit: Visit, by: str, days: int, currency: str) -> Chart | None:
    """A bar a day, of money where something was paid, else of core-hours."""
    found = visit.ask("costs.report", by=("day", by), days=days, limit=10_000)
    rows = [one for one in found.rows if one.currency == currency] if currency else list(found.rows)
    if not rows:
        return None
    amounts: dict[str, dict[int, float]] = {}
    for one in rows:
        day, key = int(one.keys[0]), one.keys[1] or "none"
        held = amounts.setdefault(key, {})
        held[day] = held.get(day, 0.0) + (one.cost / MILLION if currency else one.cpu_seconds / 3600)
    first = min(day for held in amounts.values() for day in held)
    first = min(first, (found.until // DAY - _LEAST) * DAY)  # one bar alone has no axis of days
    every = range(first, found.until, DAY)
    named = sorted(amounts, key=lambda key: -sum(amounts[key].values()))
    series = {key: [(day, amounts[key].get(day, 0.0)) for day in every] for key in named[:_SERIES]}
    if named[_SERIES:]:
        series["others"] = [(day, sum(amounts[key].get(day, 0.0) for key in named[_SERIES:])) for day in every]
    return bar_chart(series, x="day (UTC)", y=currency or "core-hours", kind="time", stacked=True)


def _link(at: Callable[..., str], by: str, keys: Sequence[str]) -> str:
    """Where a group has a page of its own; empty for none."""
    name = keys[0]
    if by == "flow":
        return at("flows", name)
    if by == "model":
        return at("models", name.partition("/")[2])
    return at("endpoints", name) if by == "endpoint" else ""
