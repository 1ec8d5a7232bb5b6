"""The operations on costs and budgets: `costs.report|version`, `budgets.list|set|remove`.

Amounts of money are whole millionths of a currency; times are microseconds.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from everloop.catalog import facts, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import access
from everloop.catalog.making import budgets, uses
from everloop.catalog.making.budgets import Budget
from everloop.catalog.making.uses import Spent, Total, UseRow
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import DAY
from everloop.core.errors import InvalidInput, PermissionDenied
from everloop.core.grants import Target
from everloop.flows.compute.accounts import reached

By = Literal[
    "person", "flow", "step", "run", "model", "version", "endpoint", "profile", "environment", "month", "day", "state"
]
_SCOPE = re.compile(r"project|(person|flow)/(\*|[A-Za-z0-9_][A-Za-z0-9_.@-]*)")
_MOST_SCOPES = 200


class Report(Command):
    """What was used and paid, grouped: until `until` (the end of today, UTC), since `since` or for so many days."""

    by: tuple[By, ...] = Field(("person",), max_length=3)
    days: int = Field(30, ge=1, le=3660)
    since: int | None = None
    until: int | None = None
    person: str = ""
    flow: str = ""
    step: str = ""
    limit: int = Field(200, ge=1, le=10_000)


class CostRow(Answer):
    """A group: `keys` in the order that was asked for (a day as the time of its start)."""

    keys: tuple[str, ...]
    currency: str
    cost: int
    seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_memory: int
    written: int
    count: int
    """How many attempts of steps, or stretches of an endpoint's time, it is of."""


class CostReport(Answer):
    """Groups, the dearest first; `total` has a row for each currency."""

    since: int
    until: int
    rows: tuple[CostRow, ...]
    total: tuple[CostRow, ...]


class OfVersion(Command):
    """What it took to make a version: an id, `model/delay` or `model/delay@7`."""

    version: str


class VersionCost(Answer):
    """What a version took: `own` to make it, failed attempts too; `lineage` with all that it was made from."""

    version: str
    own: tuple[CostRow, ...]
    lineage: tuple[CostRow, ...]


class SetBudget(Command):
    """A budget of `project`, `person/<name>`, `person/*` (each without an own one), `flow/<id>` or `flow/*` (each run).

    Those of runs hold for the whole run, all others for each month. At least one limit; money as text of units of its
    currency.
    """

    scope: str
    money: str = ""
    currency: str = ""
    core_hours: float | None = Field(None, ge=0, le=1e9)
    gpu_hours: float | None = Field(None, ge=0, le=1e9)
    warn: float = Field(0.8, gt=0, le=1)


class OfBudget(Command):
    """The budget of a scope."""

    scope: str


class AllBudgets(Command):
    """Every budget, with what is left of it this month."""


class Spending(Answer):
    """How far one who has a budget is: hours and money of this month, or of the run."""

    scope: str
    period: str
    cost: int
    cpu_seconds: float
    gpu_seconds: float
    said: str
    """Which limit is reached, or of which the warning; empty for none."""
    state: Literal["ok", "warned", "spent"]


class BudgetView(Answer):
    """A budget, and the scopes that it holds with what they used; for `…/*` those without their own."""

    scope: str
    currency: str
    cost: int | None
    cpu_seconds: float | None
    gpu_seconds: float | None
    warn: float
    actor: str
    at: int
    holds: tuple[Spending, ...]


class BudgetList(Answer):
    """Every budget of the project."""

    budgets: tuple[BudgetView, ...]


def _limited(_ctx: Context, cmd: SetBudget) -> Target:
    return Target("budget", cmd.scope)


def _freed(_ctx: Context, cmd: OfBudget) -> Target:
    return Target("budget", cmd.scope)


@operation("costs.report", needs="read", on=lambda _ctx, _cmd: Target("budget", "*"), reads=True)
def report(ctx: Context, cmd: Report) -> CostReport:
    """Say what was used and paid in a time, grouped by people, runs, steps, models, endpoints, profiles or time."""
    wall = ctx.wall()
    until = wall - wall % DAY + DAY if cmd.until is None else cmd.until
    since = until - cmd.days * DAY if cmd.since is None else cmd.since
    only = {name: value for name, value in (("person", cmd.person), ("flow", cmd.flow), ("step", cmd.step)) if value}
    with ctx.read() as tx:
        rows = uses.totals(tx, ctx.project, cmd.by, since=since, until=until, limit=cmd.limit, only=only)
        total = uses.totals(tx, ctx.project, (), since=since, until=until, only=only)
    return CostReport(since=since, until=until, rows=tuple(map(_row, rows)), total=tuple(map(_row, total)))


@operation("costs.version", needs="read", reads=True)
def version_cost(ctx: Context, cmd: OfVersion) -> VersionCost:
    """Say what it took to make a version, alone and with all that it was made from."""
    with ctx.read() as tx:
        identity = versions.find(tx, ctx.project, cmd.version).id
        own, lineage = costs_of(tx, ctx.project, identity)
    return VersionCost(version=identity, own=own, lineage=lineage)


def costs_of(tx: Tx, project: str, identity: str) -> tuple[tuple[CostRow, ...], tuple[CostRow, ...]]:
    """What a version took, attempts that failed among it: to make it alone, and with all that it was made from."""
    above = {edge.from_id for edge in versions.upstream(tx, project, identity)}
    own = _recipes(steps.made(tx, project, [identity]).values())
    every = _recipes(steps.made(tx, project, [identity, *above]).values())
    held = uses.of_recipes(tx, project, every)
    return summed(row for row in held if row.recipe in own), summed(held)


@operation("budgets.list", needs="read", on=lambda _ctx, _cmd: Target("budget", "*"), reads=True)
def list_budgets(ctx: Context, cmd: AllBudgets) -> BudgetList:  # noqa: ARG001 - every operation has a command
    """Show every budget with what was used of it and what runs now."""
    period = uses.month(ctx.wall())
    with ctx.read() as tx:
        held = budgets.every(tx, ctx.project)
        own = {one.scope for one in held}
        found = []
        for one in held:
            when = period if one.monthly else ""
            scopes = [one.scope]
            if one.scope.endswith("/*"):
                kind = one.scope.removesuffix("*")
                named = uses.named(tx, ctx.project, kind, when, limit=_MOST_SCOPES)
                scopes = [scope for scope in named if scope not in own]
            holds = [_spending(one, scope, when, uses.spent(tx, ctx.project, scope, when)) for scope in scopes]
            found.append(_view(one, holds))
    order = ("project", "person", "flow")
    found.sort(key=lambda one: order.index(one.scope.partition("/")[0]))
    return BudgetList(budgets=tuple(found))


@operation("budgets.set", needs="budget.write", on=_limited)
def set_budget(ctx: Context, cmd: SetBudget) -> BudgetView:
    """Set a budget in the place of the one before; runs that it holds see it within a second.

    Nobody sets their own while another admin is there to do it.
    """
    budget = _asked(ctx, cmd)
    with ctx.write() as tx:
        _refuse_own(ctx, cmd.scope, access.all_users(tx))
        budgets.put(tx, ctx.project, budget)
        limits = {"cost": budget.cost, "core_hours": cmd.core_hours, "gpu_hours": cmd.gpu_hours}
        told = {**limits, "currency": budget.currency, "warn": budget.warn}
        facts.append(tx, ctx.project, ctx.fact("budget.set", f"budget/{cmd.scope}", told))
    return _view(budget, [])


@operation("budgets.remove", needs="budget.write", on=_freed)
def remove_budget(ctx: Context, cmd: OfBudget) -> BudgetList:
    """Take a budget away."""
    with ctx.write() as tx:
        _refuse_own(ctx, cmd.scope, access.all_users(tx))
        budgets.remove(tx, ctx.project, cmd.scope)
        facts.append(tx, ctx.project, ctx.fact("budget.removed", f"budget/{cmd.scope}", {}))
    return BudgetList(budgets=())


def summed(rows: Iterable[UseRow]) -> tuple[CostRow, ...]:
    """Uses added up, a row for each currency; what cost nothing first."""
    found: dict[str, list[UseRow]] = {}
    for row in rows:
        found.setdefault(row.currency, []).append(row)
    return tuple(
        CostRow(
            keys=(),
            currency=currency,
            cost=sum(one.cost for one in many),
            seconds=sum(one.seconds for one in many),
            cpu_seconds=sum(one.cpu_seconds for one in many),
            gpu_seconds=sum(one.gpu_seconds for one in many),
            peak_memory=max(one.peak_memory for one in many),
            written=sum(one.written for one in many),
            count=len(many),
        )
        for currency, many in sorted(found.items())
    )


def _asked(ctx: Context, cmd: SetBudget) -> Budget:
    if _SCOPE.fullmatch(cmd.scope) is None:
        raise InvalidInput(
            f"{cmd.scope!r} has no budget", hint="project, person/<name>, person/*, flow/<run> or flow/*"
        )
    cost = None
    if cmd.money:
        if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", cmd.money) is None:
            raise InvalidInput(f"{cmd.money!r} is no amount of money", hint="250 or 12.50")
        if re.fullmatch("[A-Z]{3}", cmd.currency) is None:
            raise InvalidInput(f"{cmd.currency!r} is no currency", hint="its three letters: EUR")
        whole, _, rest = cmd.money.partition(".")
        cost = int(whole) * 10**6 + int(rest.ljust(6, "0") or 0)
    if cost is None and cmd.core_hours is None and cmd.gpu_hours is None:
        raise InvalidInput("a budget without a limit holds nothing", hint="money, core_hours or gpu_hours")
    cores, gpus = (None if hours is None else hours * 3600 for hours in (cmd.core_hours, cmd.gpu_hours))
    currency = cmd.currency if cost is not None else ""
    return Budget(cmd.scope, currency, cost, cores, gpus, cmd.warn, ctx.actor.name, ctx.wall())


def _refuse_own(ctx: Context, scope: str, users: Sequence[access.User]) -> None:
    if scope != f"person/{ctx.actor.name}":
        return
    others = [one.name for one in users if one.name != ctx.actor.name and "admin" in one.roles and not one.disabled]
    if others:
        raise PermissionDenied("nobody sets their own budget", hint=f"ask another admin: {', '.join(others[:3])}")


def _recipes(rows: Iterable[steps.StepRow]) -> set[str]:
    return {row.recipe for row in rows}


def _spending(budget: Budget, scope: str, period: str, sums: dict[str, Spent]) -> Spending:
    said, warned = reached(budget, sums), reached(budget, sums, budget.warn)
    return Spending(
        scope=scope,
        period=period,
        cost=sums.get(budget.currency, Spent()).cost,
        cpu_seconds=sum(one.cpu_seconds for one in sums.values()),
        gpu_seconds=sum(one.gpu_seconds for one in sums.values()),
        said=said or warned,
        state="spent" if said else "warned" if warned else "ok",
    )


def _view(budget: Budget, holds: Sequence[Spending]) -> BudgetView:
    return BudgetView(**{name: getattr(budget, name) for name in Budget.__slots__}, holds=tuple(holds))


def _row(total: Total) -> CostRow:
    return CostRow(**{name: getattr(total, name) for name in Total.__slots__})
