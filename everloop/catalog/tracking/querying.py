"""The search for runs: filters and orders over the rows that summarise them, never over points."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    and_,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
)

from everloop.catalog.engine import Tx
from everloop.catalog.tables.tracking import INDEXED, datasets, run_datasets, run_params, run_tags, runs, series
from everloop.catalog.tracking.filters import Condition, Ordering, parse_filter, parse_order
from everloop.catalog.tracking.rows import Page, Run, View
from everloop.catalog.tracking.runs import NAME_TAG, loaded
from everloop.catalog.tracking.search import (
    Branch,
    Term,
    Vocabulary,
    attribute_terms,
    child_text,
    compare_number,
    compare_text,
    conditions_sql,
    fetch_branches,
    nullable,
)
from everloop.core.errors import InvalidInput

_MOST_EXPERIMENTS = 10_000
_MOST_WALKS = 64
"""Of more experiments than these, runs are sorted together instead of merged."""
_FEW = 1000
"""So many runs are sorted in no time; more are met soon when runs are tried in their order."""


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
    conditions, orderings = parse_filter(filter_text), parse_order(order_by)
    matching = _matching(tx, conditions, view)  # first: its errors say where in the filter they are
    few = _few(tx, project, numbers, conditions)
    groups, walk = [numbers], None
    if few is not None:
        matching = [*matching, runs.c.number.in_(few)]
    elif len(numbers) <= _MOST_WALKS:  # each experiment's rows lie in the order of an index: it ends with the page
        groups, walk = [[number] for number in numbers], tx.dialect.name
    branches = [branch for group in groups for branch in _branches(project, group, matching, orderings, walk)]
    query = ["runs", project, numbers, filter_text, list(order_by), view]
    found, following = fetch_branches(tx, branches, limit=limit, token=token, query=query)
    return Page(tuple(found), following)


def count(
    tx: Tx, project: str, experiments: Collection[str], *, filter_text: str = "", view: View = "active", most: int
) -> int:
    """How many runs match, counting no further than to `most` + 1."""
    numbers = _numbers(experiments)
    conditions = parse_filter(filter_text)
    clauses = [_home(project, numbers), *_matching(tx, conditions, view)]
    few = _few(tx, project, numbers, conditions)
    if few is not None:
        clauses.append(runs.c.number.in_(few))
    matching = select(runs.c.number).where(*clauses).limit(most + 1)
    return tx.execute(select(func.count()).select_from(matching.subquery())).scalar_one()


def _numbers(experiments: Collection[str]) -> list[int]:
    numbers = sorted({int(one) for one in experiments if one.isascii() and one.isdigit() and len(one) < 19})
    if len(numbers) > _MOST_EXPERIMENTS:
        raise InvalidInput(f"a search covers at most {_MOST_EXPERIMENTS} experiments", hint="search them in parts")
    return numbers


def _matching(tx: Tx, conditions: Sequence[Condition], view: View) -> list[ColumnElement[bool]]:
    """The conditions on a run beside where it lies."""
    clauses = [] if view == "all" else [runs.c.stage == view]
    return [*clauses, *conditions_sql(tx, _VOCABULARY, conditions)]


def _home(project: str, numbers: Sequence[int]) -> ColumnElement[bool]:
    place = runs.c.experiment == numbers[0] if len(numbers) == 1 else runs.c.experiment.in_(numbers)
    return and_(runs.c.project == project, place)


def _few(tx: Tx, project: str, numbers: Sequence[int], conditions: Sequence[Condition]) -> list[int] | None:
    """The runs that meet one of the conditions, where an index says that they are few; None: no condition is rare.

    A rare condition is where a search starts; without one, runs are tried in their order until a page is full.
    """
    for condition in conditions:
        meets = _by_index(project, numbers, condition)
        if meets is not None:
            found = tx.execute(meets.limit(_FEW + 1)).scalars().all()
            if len(found) <= _FEW:
                return list(found)
    return None


def _by_index(project: str, numbers: Sequence[int], condition: Condition) -> Select[Any] | None:
    """Numbers of the runs that meet a condition (and maybe others), where an index finds them."""
    entity, key = condition.field.entity, condition.field.key
    if entity == "metric" and condition.operator in {"=", "<", "<=", ">", ">="}:
        mine = (series.c.project == project, series.c.experiment.in_(numbers), series.c.key == key, series.c.nan == 0)
        return select(series.c.run).where(*mine, compare_number(series.c.value, condition))
    if condition.operator != "=" or not isinstance(condition.value, str):
        return None
    if entity == "attribute" and _VOCABULARY.attributes.get(key) is runs.c.name:
        entity, key = "tag", NAME_TAG  # a run's name is kept there too
    if entity not in {"param", "tag"}:
        return None
    table = run_params if entity == "param" else run_tags
    begins = func.substr(table.c.value, literal_column("1"), literal_column(str(INDEXED)))
    return select(table.c.parent).where(table.c.key == key, begins == condition.value[:INDEXED])


def _branches(
    project: str,
    group: Sequence[int],
    matching: Sequence[ColumnElement[bool]],
    orderings: Sequence[Ordering],
    walk: str | None,
) -> list[Branch]:
    """The search in some experiments, in parts that follow each other where the first order is a metric.

    Those are the runs with a number, with NaN, and without the metric. With `walk`, the database's dialect, a part
    names what leads the metrics' index, so that its order comes from there.
    """
    home = _home(project, group)
    last = (Term(runs.c.start, descending=True), Term(runs.c.id))
    if not orderings or orderings[0].field.entity != "metric":
        statement, terms = select(runs).where(home, *matching), list[Term]()
        for ordering in orderings:
            statement, more = _ordered(statement, ordering)
            terms.extend(more)
        return [Branch(statement, (*terms, *last))]
    key, found = orderings[0].field.key, list[Branch]()
    for stage in range(3):
        newest = series.alias("newest")
        joined = and_(newest.c.run == runs.c.number, newest.c.key == key)
        if stage < 2:
            statement = select(runs).select_from(
                runs.join(newest, _forced(newest, key) if walk == "sqlite" else joined)
            )
            # of a walk only the metric's row says where its run lies: nothing of the runs is left to start from
            lies = and_(newest.c.project == project, newest.c.experiment == group[0]) if walk else home
            statement = statement.where(newest.c.nan == stage, lies, *matching)
        else:
            statement = select(runs).where(home, *matching, ~select(literal(1)).where(joined).exists())
        terms = [Term(newest.c.value, orderings[0].descending)] if stage == 0 else []
        for ordering in orderings[1:]:
            statement, more = _ordered(statement, ordering)
            terms.extend(more)
        found.append(Branch(statement, (*terms, *last), stage))
    return found


def _forced(newest: FromClause, key: str) -> ColumnElement[bool]:
    """The join of a walk on SQLite, whose planner does not see that a page is short and would sort all runs.

    `+ 0` hides the index that leads from a run to its metrics, and leaves the one that leads from a metric to its run.
    """
    return and_(newest.c.run + literal_column("0") == runs.c.number, newest.c.key == key)


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
