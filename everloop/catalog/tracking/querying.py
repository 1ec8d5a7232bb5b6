"""The search for runs: filters and orders over the rows that summarise them, never over points."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, literal, or_, select

from everloop.catalog.engine import Tx
from everloop.catalog.tables.tracking import datasets, run_datasets, run_params, run_tags, runs, series
from everloop.catalog.tracking.filters import Condition, Ordering, parse_filter, parse_order
from everloop.catalog.tracking.rows import Page, Run, View
from everloop.catalog.tracking.runs import loaded
from everloop.catalog.tracking.search import (
    Term,
    Vocabulary,
    attribute_terms,
    child_text,
    compare_number,
    compare_text,
    conditions_sql,
    fetch_page,
    nullable,
)
from everloop.core.errors import InvalidInput

_MOST_EXPERIMENTS = 10_000


def search(
    tx: Tx,
    project: str,
    experiments: Collection[str],
    *,
    filter_text: str = "",
    order_by: Sequence[str] = (),
    view: View = "active",
    limit: int = 1000,
    token: str = "",
) -> Page[Run]:
    """A page of runs, newest first unless `order_by` says otherwise; missing values and NaN come last.

    Raises `InvalidInput` for a filter, an order or a token that is not understood.
    """
    found = search_rows(
        tx, project, experiments, filter_text=filter_text, order_by=order_by, view=view, limit=limit, token=token
    )
    return Page(tuple(loaded(tx, found.rows)), found.token)


def search_rows(
    tx: Tx,
    project: str,
    experiments: Collection[str],
    *,
    filter_text: str = "",
    order_by: Sequence[str] = (),
    view: View = "active",
    limit: int = 1000,
    token: str = "",
) -> Page[Row[Any]]:
    """The same page as rows of the table alone, for who wants little of each run."""
    numbers = _numbers(experiments)
    statement = select(runs).where(*_matching(tx, project, numbers, filter_text, view))
    terms: list[Term] = []
    for ordering in parse_order(order_by):
        statement, more = _ordered(statement, ordering)
        terms.extend(more)
    terms += [Term(runs.c.start, descending=True), Term(runs.c.id)]
    query = ["runs", project, sorted(numbers), filter_text, list(order_by), view]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=query)
    return Page(tuple(found), following)


def count(
    tx: Tx, project: str, experiments: Collection[str], *, filter_text: str = "", view: View = "active", most: int
) -> int:
    """How many runs match, counting no further than to `most` + 1."""
    numbers = _numbers(experiments)
    matching = select(runs.c.number).where(*_matching(tx, project, numbers, filter_text, view)).limit(most + 1)
    return tx.execute(select(func.count()).select_from(matching.subquery())).scalar_one()


def _numbers(experiments: Collection[str]) -> list[int]:
    numbers = [int(one) for one in experiments if one.isascii() and one.isdigit() and len(one) < 19]
    if len(numbers) > _MOST_EXPERIMENTS:
        raise InvalidInput(f"a search covers at most {_MOST_EXPERIMENTS} experiments", hint="search them in parts")
    return numbers


def _matching(tx: Tx, project: str, numbers: Sequence[int], filter_text: str, view: View) -> list[ColumnElement[bool]]:
    clauses: list[ColumnElement[bool]] = [runs.c.project == project, runs.c.experiment.in_(numbers)]
    if view != "all":
        clauses.append(runs.c.stage == view)
    return clauses + conditions_sql(tx, _VOCABULARY, parse_filter(filter_text))


def _ordered(statement: Select[Any], ordering: Ordering) -> tuple[Select[Any], list[Term]]:
    """The statement and the terms of one ordering; orders by metric, parameter or tag join the row they need."""
    entity, key = ordering.field.entity, ordering.field.key
    if entity == "attribute":
        return statement, attribute_terms(_VOCABULARY, ordering)
    if entity == "metric":
        newest = series.alias()
        statement = statement.outerjoin(newest, and_(newest.c.run == runs.c.number, newest.c.key == key))
        missing = case((newest.c.nan.is_(None), 2), (newest.c.nan == 1, 1), else_=0)
        return statement, [Term(missing), Term(func.coalesce(newest.c.value, literal(0.0)), ordering.descending)]
    if entity in {"param", "tag"}:
        table = (run_params if entity == "param" else run_tags).alias()
        statement = statement.outerjoin(table, and_(table.c.parent == runs.c.number, table.c.key == key))
        return statement, nullable(table.c.value, ordering.descending, "")
    raise InvalidInput(f"Invalid order_by entity '{entity}'", hint="order by metrics, params, tags or attributes")


def _metric(_tx: Connection, condition: Condition) -> ColumnElement[bool]:
    mine = (series.c.run == runs.c.number, series.c.key == condition.field.key)
    compared = and_(series.c.nan == 0, compare_number(series.c.value, condition))
    if condition.operator == "!=":  # NaN differs from every number
        compared = or_(series.c.nan == 1, compared)
    return select(literal(1)).select_from(series).where(*mine, compared).exists()


def _param(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    mine = [run_params.c.parent == runs.c.number, run_params.c.key == condition.field.key]
    return child_text(tx, run_params, mine, condition)


def _tag(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    mine = [run_tags.c.parent == runs.c.number, run_tags.c.key == condition.field.key]
    return child_text(tx, run_tags, mine, condition)


def _dataset(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    columns: dict[str, ColumnElement[Any]] = {
        "name": datasets.c.name,
        "digest": datasets.c.digest,
        "context": run_datasets.c.context,
    }
    if condition.field.key not in columns:
        raise InvalidInput(f"Invalid dataset key '{condition.field.key}' specified", hint="name, digest or context")
    joined = run_datasets.join(datasets, datasets.c.number == run_datasets.c.dataset)
    compared = compare_text(tx, columns[condition.field.key], condition)
    return select(literal(1)).select_from(joined).where(run_datasets.c.run == runs.c.number, compared).exists()


_VOCABULARY = Vocabulary(
    attributes={
        "run_id": runs.c.id,
        "run_name": runs.c.name,
        "Run name": runs.c.name,
        "run name": runs.c.name,
        "Run Name": runs.c.name,
        "status": runs.c.status,
        "artifact_uri": runs.c.artifact_uri,
        "user_id": runs.c.actor,
        "lifecycle_stage": runs.c.stage,
        "start_time": runs.c.start,
        "created": runs.c.start,
        "Created": runs.c.start,
        "end_time": runs.c.end,
        "duration": runs.c.end - runs.c.start,  # in seconds; ours, MLflow has none
    },
    numeric=frozenset({"start_time", "created", "Created", "end_time", "duration"}),
    scale={**dict.fromkeys(("start_time", "created", "Created", "end_time"), 1000), "duration": 1_000_000},
    children={"metric": _metric, "param": _param, "tag": _tag, "dataset": _dataset},
)
