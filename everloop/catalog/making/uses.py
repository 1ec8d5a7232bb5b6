"""What was used and what it cost: a row for each attempt of a step, and sums that budgets are held against.

Sums are written in the transaction of the rows, so that whoever reads them sees every use that was committed. What runs
now is told every second by who runs it (`open_up`), and counts too.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Executable, Row, and_, case, delete, func, select

from everloop.catalog.engine import Tx, insert_for, insert_into
from everloop.catalog.tables.spending import open_uses, spending, uses
from everloop.core.clock import DAY, SECOND, Micros

_CHUNK = 500
PROJECT = "project"
"""The scope of all that a project uses; `person/<name>` and `flow/<id>` are parts of it."""


@dataclass(frozen=True, slots=True)
class UseRow:
    """One attempt of a step, or a stretch of time of an endpoint's workers. Cost in millionths of the currency."""

    step: str
    """Of an endpoint's workers: its name."""
    actor: str
    """Who started the run; empty for an endpoint, which nobody pays for but the project."""
    began: Micros
    ended: Micros
    kind: str = "step"
    flow: str = ""
    attempt: int = 1
    recipe: str = ""
    output: str = ""
    run: str = ""
    environment: str = ""
    profile: str = ""
    price: Mapping[str, str] = field(default_factory=dict)
    """What was in force when it ran; empty: it cost nothing."""
    currency: str = ""
    cost: int = 0
    state: str = "done"
    """done, failed, cancelled, stopped (by a budget), or lost: its driver died, and this is what it told last."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    gpu_seconds: float = 0.0
    written: int = 0

    @property
    def period(self) -> str:
        """The month in which it ended."""
        return month(self.ended)


@dataclass(frozen=True, slots=True)
class Spent:
    """A sum."""

    cost: int = 0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def plus(self, other: "Spent") -> "Spent":
        """Both together."""
        return Spent(self.cost + other.cost, self.cpu_seconds + other.cpu_seconds, self.gpu_seconds + other.gpu_seconds)


@dataclass(frozen=True, slots=True)
class Total:
    """What a group of uses comes to."""

    keys: tuple[str, ...]
    currency: str
    cost: int
    seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_memory: int
    written: int
    count: int


@lru_cache(maxsize=16)
def _month(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m")


def month(at: Micros) -> str:
    """The month of a time, as `2026-11` (UTC)."""
    return _month(at // DAY)


def scopes(actor: str, flow: str, period: str) -> list[tuple[str, str]]:
    """(scope, period) of the sums that a use is part of."""
    people = [(f"person/{actor}", period)] if actor else []
    return [(PROJECT, period), *people, *([(f"flow/{flow}", "")] if flow else [])]


def record(tx: Tx, project: str, rows: Sequence[UseRow]) -> dict[tuple[str, str, str], tuple[Spent, Spent]]:
    """Write uses down and add them up; the sums (scope, period, currency) before and after."""
    if not rows:
        return {}
    tx.execute(_RECORD, [_values(project, row) for row in rows])
    more: dict[tuple[str, str, str], Spent] = {}
    for row in rows:
        own = Spent(row.cost, row.cpu_seconds, row.gpu_seconds)
        for scope, period in scopes(row.actor, row.flow, row.period):
            key = (scope, period, row.currency)
            more[key] = more.get(key, Spent()).plus(own)
    return {key: _add(tx, project, key, more[key]) for key in sorted(more)}


def spent(tx: Tx, project: str, scope: str, period: str, *, without: str = "") -> dict[str, Spent]:
    """What a scope used so far, by currency: what is committed, and what runs now as far as it was told.

    A run (`without`) that knows better itself what it uses now leaves out what it told.
    """
    mine = (spending.c.project == project, spending.c.scope == scope, spending.c.period == period)
    query = select(spending.c.currency, spending.c.cost, spending.c.cpu_seconds, spending.c.gpu_seconds).where(*mine)
    found = {row[0]: Spent(*row[1:]) for row in tx.execute(query)}
    others = (open_uses.c.project == project, open_uses.c.flow != without, *_open_in(scope))
    for row in tx.execute(select(open_uses).where(*others)):
        if not period or month(row.at) == period:
            running = Spent(row.cost, row.cpu_seconds, row.gpu_seconds)
            found[row.currency] = found.get(row.currency, Spent()).plus(running)
    return found


def open_up(
    tx: Tx, project: str, flow: str, *, actor: str, currency: str, now: Spent, span: tuple[Micros, Micros]
) -> None:
    """Say what a run uses that is not written down yet, between two times; in the place of what it said before."""
    began, at = span
    said = {"cost": now.cost, "cpu_seconds": now.cpu_seconds, "gpu_seconds": now.gpu_seconds, "at": at}
    row = {"project": project, "flow": flow, "actor": actor, "currency": currency, "began": began, **said}
    made = insert_into(tx, open_uses).values(**row)
    tx.execute(made.on_conflict_do_update(index_elements=["project", "flow"], set_={**said, "currency": currency}))


def close_up(tx: Tx, project: str, flow: str) -> UseRow | None:
    """Take back what a run said; as a use it is what is left of a driver that died."""
    row = tx.execute(
        delete(open_uses).where(open_uses.c.project == project, open_uses.c.flow == flow).returning(open_uses)
    ).first()
    if row is None or not (row.cost or row.cpu_seconds):
        return None
    return UseRow(
        "",
        row.actor,
        row.began,
        row.at,
        flow=flow,
        currency=row.currency,
        cost=row.cost,
        state="lost",
        seconds=(row.at - row.began) / SECOND,
        cpu_seconds=row.cpu_seconds,
        gpu_seconds=row.gpu_seconds,
    )


def of_flow(tx: Tx, project: str, flow: str) -> list[UseRow]:
    """Every use of a run, in the order of their ends."""
    mine = (uses.c.project == project, uses.c.flow == flow)
    return [_use(row) for row in tx.execute(select(uses).where(*mine).order_by(uses.c.id))]


def of_recipes(tx: Tx, project: str, recipes: Collection[str]) -> list[UseRow]:
    """Every use of these recipes, attempts that failed among them."""
    wanted, found = sorted(recipes), []
    for start in range(0, len(wanted), _CHUNK):
        mine = (uses.c.project == project, uses.c.recipe.in_(wanted[start : start + _CHUNK]))
        found += [_use(row) for row in tx.execute(select(uses).where(*mine).order_by(uses.c.id))]
    return found


def named(tx: Tx, project: str, kind: str, period: str, *, limit: int) -> list[str]:
    """Scopes that used something in a period and begin with `kind` (`person/`), the dearest first."""
    mine = (spending.c.project == project, spending.c.period == period, spending.c.scope.like(f"{kind}%"))
    query = select(spending.c.scope).where(*mine).group_by(spending.c.scope)
    ordered = query.order_by(func.sum(spending.c.cost).desc(), func.sum(spending.c.cpu_seconds).desc())
    return list(tx.execute(ordered.limit(limit)).scalars())


def totals(
    tx: Tx,
    project: str,
    by: Sequence[str],
    *,
    since: Micros,
    until: Micros,
    limit: int = 1000,
    only: Mapping[str, str] | None = None,
) -> list[Total]:
    """What the uses that ended within a time come to, grouped; the dearest first, then the longest.

    `by` and `only` (values that are asked for) name `person`, `flow`, `step`, `run`, `model`, `version` (of a model),
    `endpoint`, `profile`, `environment`, `state`, `month`, `day`. What belongs to no such group is left out.
    """
    where = [uses.c.project == project, uses.c.ended >= since, uses.c.ended < until]
    where += [_column(name) == value for name, value in (only or {}).items()]
    where += [_column(name) != "" for name in by if name not in ("day", "profile", "environment")]
    groups = [_column(name).label(f"k{place}") for place, name in enumerate(by)]
    sums = [func.sum(uses.c[name]) for name in ("cost", "seconds", "cpu_seconds", "gpu_seconds")]
    shown = [*sums, func.max(uses.c.peak_memory), func.sum(uses.c.written), func.count()]
    query = select(*groups, uses.c.currency, *shown).where(*where).group_by(*groups, uses.c.currency)
    ordered = query.order_by(sums[0].desc(), sums[2].desc(), *groups).limit(limit)
    width = len(by)
    return [
        Total(
            tuple(str(one) for one in row[:width]),
            row[width],
            int(row[width + 1]),
            float(row[width + 2]),
            float(row[width + 3]),
            float(row[width + 4]),
            int(row[width + 5]),
            int(row[width + 6]),
            row[width + 7],
        )
        for row in tx.execute(ordered)
    ]


def _column(name: str) -> ColumnElement[Any]:
    if name == "day":
        return uses.c.ended - uses.c.ended % (86_400 * SECOND)
    if name == "step":  # items of a list and trials of a search are their step's
        whole = func.rtrim(func.rtrim(func.rtrim(uses.c.step, "]"), "0123456789"), "[")
        return case((uses.c.kind != name, ""), (uses.c.step.like("%]"), whole), else_=uses.c.step)
    if name == "endpoint":
        return case((uses.c.kind == name, uses.c.step), else_="")
    if name in ("model", "version"):
        trained = (uses.c.kind == "step", uses.c.step.like("model/%"))
        return case((and_(*trained), uses.c.step if name == "model" else uses.c.output), else_="")
    return uses.c[_NAMED.get(name, name)]


_NAMED = {"person": "actor", "month": "period"}


def _open_in(scope: str) -> list[ColumnElement[bool]]:
    kind, _, name = scope.partition("/")
    if kind == "person":
        return [open_uses.c.actor == name]
    return [open_uses.c.flow == name] if kind == "flow" else []


def _add(tx: Tx, project: str, key: tuple[str, str, str], more: Spent) -> tuple[Spent, Spent]:
    scope, period, currency = key
    values = {"project": project, "scope": scope, "period": period, "currency": currency}
    amounts = {name: getattr(more, name) for name in _SUMS}
    after = Spent(*tx.execute(_adding(tx.dialect.name), {**values, **amounts}).one())
    return Spent(*(getattr(after, name) - amounts[name] for name in _SUMS)), after


_SUMS = ("cost", "cpu_seconds", "gpu_seconds")


@lru_cache(maxsize=2)
def _adding(dialect: str) -> Executable:
    """Adds to a sum and gives it; built once, for it runs with every few steps."""
    made = insert_for(dialect, spending)
    added = {name: spending.c[name] + made.excluded[name] for name in _SUMS}
    whole = made.on_conflict_do_update(index_elements=["project", "scope", "period", "currency"], set_=added)
    return whole.returning(*(spending.c[name] for name in _SUMS))


_RECORD = uses.insert()
_NAMES = (*UseRow.__slots__, "period")
_FIELDS = attrgetter(*_NAMES)


def _values(project: str, row: UseRow) -> dict[str, Any]:
    found = dict(zip(_NAMES, _FIELDS(row), strict=True))
    found["project"], found["price"] = project, _text(row.price)
    return found


def _text(price: Mapping[str, str]) -> str:
    return json.dumps(dict(price), sort_keys=True) if price else ""


def _use(row: Row[Any]) -> UseRow:
    values = {name: getattr(row, name) for name in UseRow.__slots__}
    return UseRow(**values | {"price": json.loads(row.price) if row.price else {}})
