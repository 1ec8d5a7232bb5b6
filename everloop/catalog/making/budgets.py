"""Budgets: how much a project, a person or a run may use, in money and in hours of cores and GPUs."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, delete, select

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.spending import budgets
from everloop.core.clock import Micros
from everloop.core.errors import NotFound


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit, or several, of one scope. Money in millionths of its currency."""

    scope: str
    """`project` and `person/<name>` for a month; `flow/<id>` for one run; `person/*`, `flow/*` for each without its
    own."""
    currency: str = ""
    cost: int | None = None
    cpu_seconds: float | None = None
    gpu_seconds: float | None = None
    warn: float = 0.8
    """The share of a limit from which people are told."""
    actor: str = ""
    at: Micros = 0

    @property
    def monthly(self) -> bool:
        """Whether it begins anew each month."""
        return not self.scope.startswith("flow/")


def put(tx: Tx, project: str, budget: Budget) -> None:
    """Set the budget of a scope, in the place of the one before."""
    values = {name: getattr(budget, name) for name in Budget.__slots__}
    made = insert_into(tx, budgets).values(project=project, **values)
    set_ = {name: value for name, value in values.items() if name != "scope"}
    tx.execute(made.on_conflict_do_update(index_elements=["project", "scope"], set_=set_))


def remove(tx: Tx, project: str, scope: str) -> None:
    """Take the budget of a scope away; raises `NotFound`."""
    if tx.execute(delete(budgets).where(budgets.c.project == project, budgets.c.scope == scope)).rowcount == 0:
        raise NotFound(f"there is no budget for {scope}", hint="everloop budget list")


def every(tx: Tx, project: str) -> list[Budget]:
    """All of a project's budgets, by scope."""
    rows = tx.execute(select(budgets).where(budgets.c.project == project).order_by(budgets.c.scope))
    return [_budget(row) for row in rows]


_HOLDING = select(budgets).where(  # built once: every run asks it
    budgets.c.project == bindparam("p"), budgets.c.scope.in_(bindparam("scopes", expanding=True))
)


def holding(tx: Tx, project: str, scopes: list[str]) -> list[Budget]:
    """The budgets that hold these scopes, each said for the scope itself: its own, or that of each of its kind."""
    anybody = {scope: f"{scope.partition('/')[0]}/*" for scope in scopes if "/" in scope}
    wanted = sorted({*scopes, *anybody.values()})
    rows = tx.execute(_HOLDING, {"p": project, "scopes": wanted})
    found = {row.scope: row for row in rows}
    held = [(scope, found.get(scope) or found.get(anybody.get(scope, ""))) for scope in scopes]
    return [_budget(row, scope) for scope, row in held if row is not None]


def _budget(row: Row[Any], scope: str = "") -> Budget:
    values = {name: getattr(row, name) for name in Budget.__slots__}
    return Budget(**values | ({"scope": scope} if scope else {}))
