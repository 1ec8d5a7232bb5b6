"""The accounts of one run: what its steps used, whether its budgets allow the next one, and when they end what runs.

A budget is asked before each step, and every second while steps run. Both count what everybody committed, what other
runs said a moment ago that they use, and what this one uses now: so runs that share a budget go over it together by no
more than what was running when it was reached.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.making import budgets, uses
from everloop.catalog.making.budgets import Budget
from everloop.catalog.making.flows import Flow
from everloop.catalog.making.uses import PROJECT, Spent, UseRow
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput, OverBudget
from everloop.core.ports import Use
from everloop.flows.compute.profiles import MILLION, Profile
from everloop.flows.observation.using import Meter
from everloop.flows.running.unit import Unit


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One attempt that runs."""

    unit: Unit
    meter: Meter
    number: int
    recipe: str
    run: str
    began: Micros


class Accounts:
    """What a run used and may use; safe for its threads."""

    def __init__(self, ctx: Context, flow: Flow | None, profiles: Mapping[str, Profile], environment: str) -> None:
        """Of `flow`, or of a run that is not listed; `profiles` are those of its steps."""
        self._ctx, self._profiles, self._environment = ctx, profiles, environment
        self._flow = flow.id if flow is not None else ""
        self._actor = flow.actor if flow is not None else ctx.actor.name
        self._lock = threading.Lock()
        self._running: list[Attempt] = []
        self._pending: list[UseRow] = []
        self._told = False
        self._began = ctx.wall()
        self.over: OverBudget | None = None
        """Why the run must end, once a budget is spent."""
        with ctx.read() as tx:
            self._budgets = self._holding(tx)
        if flow is not None and flow.token > 1:
            with ctx.write() as tx:
                left = uses.close_up(tx, ctx.project, flow.id)
                uses.record(tx, ctx.project, [left] if left else [])
        self._same_money()

    @property
    def stopping(self) -> Literal["cancelled", "stopped"]:
        """How a step ends that ends with its run."""
        return "cancelled" if self.over is None else "stopped"

    def check(self) -> None:
        """Raise what says that the run must end."""
        if self.over is not None:
            raise self.over

    def admit(self, step: str) -> None:
        """Raise `OverBudget` when no budget is left to start `step` with."""
        self.check()
        if not self._budgets:
            return
        with self._ctx.read() as tx:
            self._budgets = self._holding(tx)
            error = self._spent(tx)
        if error is not None:
            error.details["step"] = step
            raise error

    def began(self, unit: Unit, meter: Meter, number: int, recipe: str, run: str) -> Attempt:
        """An attempt begins to run."""
        made = Attempt(unit, meter, number, recipe, run, self._ctx.wall())
        with self._lock:
            self._running.append(made)
        return made

    def ended(self, attempt: Attempt, seconds: float, state: str, output: str = "") -> None:
        """An attempt has ended; what it used is written with what it gave."""
        profile = self._profiles.get(attempt.unit.asset.key)
        use = attempt.meter.total(seconds)
        price = profile.price if profile is not None else None
        row = UseRow(
            attempt.unit.step,
            self._actor,
            attempt.began,
            self._ctx.wall(),
            flow=self._flow,
            attempt=attempt.number,
            recipe=attempt.recipe,
            output=output,
            run=attempt.run,
            environment=self._environment,
            profile=profile.name if profile is not None else "",
            price=price.json() if price is not None else {},
            currency=price.currency if price is not None else "",
            cost=price.cost(use) if price is not None else 0,
            state=state,
            seconds=use.seconds,
            cpu_seconds=use.cpu_seconds,
            peak_memory=use.peak_memory,
            gpu_seconds=use.gpu_seconds,
            written=use.written,
        )
        with self._lock:
            self._running.remove(attempt)
            self._pending.append(row)

    def look(self) -> bool:
        """Measure what runs; whether there is something to say of it."""
        with self._lock:
            running = list(self._running)
        for one in running:
            one.meter.look()
        return bool(running) or self._told

    def beat(self, tx: Tx) -> None:
        """Say what the run uses now, and see whether its budgets still allow it."""
        self._tell(tx)
        self._budgets = self._holding(tx)
        if self._budgets and self.over is None:
            self.over = self._spent(tx)

    def write(self, tx: Tx) -> list[UseRow]:
        """Write down what ended since the last time; give the answer to `written` when that is committed."""
        with self._lock:
            rows = list(self._pending)
        if rows:
            sums = uses.record(tx, self._ctx.project, rows)
            if self._budgets:
                self._warn(tx, sums)
            if self._told:
                self._tell(tx, without=rows)
        return rows

    def written(self, rows: Sequence[UseRow]) -> None:
        """These are committed."""
        gone = {id(row) for row in rows}
        with self._lock:
            self._pending = [row for row in self._pending if id(row) not in gone]

    def settle(self, *, ours: bool = True) -> None:
        """The run has ended: write what is left, whoever holds it now; `ours`: nobody else goes on with it."""
        if not self._pending and not self._told:
            return
        with self._ctx.write() as tx:
            if self._told and ours:
                uses.close_up(tx, self._ctx.project, self._flow)
                self._told = False
            rows = self.write(tx)
        self.written(rows)

    def _holding(self, tx: Tx) -> list[Budget]:
        named = [PROJECT, f"person/{self._actor}", *([f"flow/{self._flow}"] if self._flow else [])]
        return budgets.holding(tx, self._ctx.project, named)

    def _same_money(self) -> None:
        """Raise `InvalidInput` where a step is paid in other money than a budget is said in."""
        for budget in self._budgets:
            for step, profile in self._profiles.items():
                price = profile.price
                if budget.cost is not None and price is not None and price.currency != budget.currency:
                    raise InvalidInput(
                        f"{step} is paid in {price.currency}, and the budget of {budget.scope} is in {budget.currency}",
                        hint="say both in one currency",
                    )

    def _spent(self, tx: Tx) -> OverBudget | None:
        """What to raise when a budget is spent."""
        period = uses.month(self._ctx.wall())
        for budget in self._budgets:
            when = period if budget.monthly else ""
            sums = uses.spent(tx, self._ctx.project, budget.scope, when, without=self._flow)
            own = self._own()
            sums = {key: sums.get(key, Spent()).plus(own.get(key, Spent())) for key in {*sums, *own}}
            said = reached(budget, sums)
            if said:
                return OverBudget(
                    f"the budget of {budget.scope}{f' for {when}' if when else ''} is spent: {said}",
                    hint=self._way(budget),
                    scope=budget.scope,
                    period=when,
                )
        return None

    def _way(self, budget: Budget) -> str:
        on = f", then everloop flows resume {self._flow}" if self._flow else ""
        return f"what was finished is kept; whoever may raises it: everloop budget set {budget.scope} …{on}"

    def _own(self, without: Sequence[UseRow] = ()) -> dict[str, Spent]:
        """What this run uses that is not committed, by currency."""
        gone = {id(row) for row in without}
        with self._lock:
            ended = [row for row in self._pending if id(row) not in gone]
            running = [(one, one.meter.seen) for one in self._running]
        found: dict[str, Spent] = {}
        for row in ended:
            more = Spent(row.cost, row.cpu_seconds, row.gpu_seconds)
            found[row.currency] = found.get(row.currency, Spent()).plus(more)
        for one, use in running:
            profile = self._profiles.get(one.unit.asset.key)
            currency, cost = _paid(profile, use)
            more = Spent(cost, use.cpu_seconds, use.gpu_seconds)
            found[currency] = found.get(currency, Spent()).plus(more)
        return found

    def _tell(self, tx: Tx, without: Sequence[UseRow] = ()) -> None:
        """What others count of this run: the dearest currency stands for all, for a budget is said in one."""
        if not self._flow:
            return
        own = self._own(without)
        whole = Spent(0, sum(one.cpu_seconds for one in own.values()), sum(one.gpu_seconds for one in own.values()))
        currency = max(own, key=lambda key: own[key].cost, default="")
        whole = Spent(own[currency].cost if own else 0, whole.cpu_seconds, whole.gpu_seconds)
        self._told = True
        project, at = self._ctx.project, self._ctx.wall()
        uses.open_up(tx, project, self._flow, actor=self._actor, currency=currency, now=whole, span=(self._began, at))

    def _warn(self, tx: Tx, sums: Mapping[tuple[str, str, str], tuple[Spent, Spent]]) -> None:
        """A fact for each budget that goes over its warning, or its limit, with what is written now."""
        for budget in self._budgets:
            for (scope, period, currency), (before, after) in sums.items():
                if scope != budget.scope:
                    continue
                for kind, share in (("budget.warned", budget.warn), ("budget.reached", 1.0)):
                    if reached(budget, {currency: after}, share) and not reached(budget, {currency: before}, share):
                        told = {"period": period, "said": reached(budget, {currency: after}, share)}
                        facts.append(tx, self._ctx.project, self._ctx.fact(kind, f"budget/{scope}", told))


def reached(budget: Budget, sums: Mapping[str, Spent], share: float = 1.0) -> str:
    """Which limit of a budget, or which share of it, these sums (by currency) have reached; empty for none."""
    money = sums.get(budget.currency, Spent()).cost
    cores = sum(one.cpu_seconds for one in sums.values())
    gpus = sum(one.gpu_seconds for one in sums.values())
    if budget.cost is not None and money >= budget.cost * share:
        return f"{budget.currency} {money / MILLION:,.4f} of {budget.cost / MILLION:,.4f}"
    if budget.cpu_seconds is not None and cores >= budget.cpu_seconds * share:
        return f"{cores / 3600:,.4f} core-hours of {budget.cpu_seconds / 3600:,.4f}"
    if budget.gpu_seconds is not None and gpus >= budget.gpu_seconds * share:
        return f"{gpus / 3600:,.4f} GPU-hours of {budget.gpu_seconds / 3600:,.4f}"
    return ""


def _paid(profile: Profile | None, use: Use) -> tuple[str, int]:
    price = profile.price if profile is not None else None
    return ("", 0) if price is None else (price.currency, price.cost(use))
