"""Logged models: what MLflow's `log_model` makes of a run's model, before anybody registers it."""

import math
import re
import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from everloop.catalog.engine import Tx
from everloop.catalog.tables.tracking import (
    logged_metrics,
    logged_models,
    logged_params,
    logged_tags,
    registered_models,
    registered_versions,
)
from everloop.catalog.tracking import experiments, runs
from everloop.catalog.tracking.filters import Condition, parse_filter, parse_order
from everloop.catalog.tracking.points import chunks
from everloop.catalog.tracking.rows import MODEL_STATUSES, LoggedModel, Page, Point
from everloop.catalog.tracking.search import (
    Term,
    Vocabulary,
    attribute_terms,
    child_text,
    compare_number,
    conditions_sql,
    fetch_page,
    nullable,
)
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput, NotFound

ID = re.compile(r"m-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Order:
    """One term of an order; a metric may be that on one dataset."""

    field: str
    descending: bool = False
    dataset: str = ""
    digest: str = ""


def create(
    tx: Tx,
    project: str,
    *,
    experiment: str,
    at: Micros,
    name: str = "",
    kind: str = "",
    run: str = "",
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    identity: str = "",
) -> LoggedModel:
    """Begin a model in an active experiment; its files come next. Raises `NotFound`, `InvalidInput`.

    An import gives the `identity` that the model had elsewhere, which must be free here.
    """
    home = experiments.active(tx, project, experiment)
    if run:
        runs.find(tx, project, run)
    identity = identity or "m-" + secrets.token_hex(16)
    row = {
        "project": project,
        "id": identity,
        "experiment": int(home.id),
        "name": name or runs.invented_name(identity[2:]),
        "type": kind,
        "run": run,
        "status": "LOGGED_MODEL_PENDING",
        "stage": "active",
        "created": at,
        "updated": at,
        "artifact_uri": f"{home.artifact_uri.rstrip('/')}/models/{identity}/artifacts",
    }
    number = tx.execute(insert(logged_models).values(row).returning(logged_models.c.number)).scalar_one()
    runs.put_values(tx, logged_params, number, params or {})
    runs.put_values(tx, logged_tags, number, tags or {})
    return get(tx, project, identity)


def get(tx: Tx, project: str, identity: str) -> LoggedModel:
    """The model, which must not be deleted; raises `NotFound`."""
    return _loaded(tx, project, [_find(tx, project, identity)])[0]


def find(tx: Tx, project: str, identity: str) -> LoggedModel:
    """The model's own row, without what hangs on it; raises `NotFound`."""
    return _model(_find(tx, project, identity))


def runs_of(tx: Tx, project: str, identities: Collection[str]) -> dict[str, str]:
    """The run that made each of these models, by model; models that are not known are left out."""
    mine = (logged_models.c.project == project, logged_models.c.id.in_(list(identities)))
    return {row.id: row.run for row in tx.execute(select(logged_models.c.id, logged_models.c.run).where(*mine))}


def finalize(tx: Tx, project: str, identity: str, status: str, *, at: Micros) -> LoggedModel:
    """Say that the files are complete (`LOGGED_MODEL_READY`) or never will be; raises `NotFound`, `InvalidInput`."""
    if status not in MODEL_STATUSES:
        raise InvalidInput(f"Invalid model status: '{status}'", hint=", ".join(MODEL_STATUSES))
    number = find(tx, project, identity).number
    tx.execute(update(logged_models).where(logged_models.c.number == number).values(status=status, updated=at))
    return get(tx, project, identity)


def delete_model(tx: Tx, project: str, identity: str, *, at: Micros) -> None:
    """Hide a model; raises `NotFound`."""
    number = find(tx, project, identity).number
    tx.execute(update(logged_models).where(logged_models.c.number == number).values(stage="deleted", updated=at))


def set_tags(tx: Tx, project: str, identity: str, tags: Mapping[str, str]) -> LoggedModel:
    """Set tags, replacing values."""
    runs.put_values(tx, logged_tags, find(tx, project, identity).number, tags)
    return get(tx, project, identity)


def delete_tag(tx: Tx, project: str, identity: str, key: str) -> None:
    """Remove a tag; raises `NotFound` when it is not set."""
    number = find(tx, project, identity).number
    gone = tx.execute(delete(logged_tags).where(logged_tags.c.parent == number, logged_tags.c.key == key))
    if gone.rowcount == 0:
        raise NotFound(f"No tag with key {key!r} found for model with ID {identity!r}.", hint="it may be gone already")


def log_params(tx: Tx, project: str, identity: str, params: Mapping[str, str]) -> None:
    """Write parameters of a model."""
    runs.put_values(tx, logged_params, find(tx, project, identity).number, params)


def search(
    tx: Tx,
    project: str,
    experiment_ids: Collection[str],
    *,
    filter_text: str = "",
    order_by: Sequence[Order] = (),
    datasets: Collection[tuple[str, str]] = (),
    limit: int = 100,
    token: str = "",
) -> Page[LoggedModel]:
    """A page of models, newest first unless `order_by` says otherwise; raises `InvalidInput`.

    With `datasets` (name, digest), conditions on metrics count only measures on one of those.
    """
    numbers = [int(one) for one in experiment_ids if one.isascii() and one.isdigit() and len(one) < 19]
    vocabulary = replace(_VOCABULARY, children={**_VOCABULARY.children, "metric": _metric_on(datasets)})
    statement = select(logged_models).where(
        logged_models.c.project == project,
        logged_models.c.experiment.in_(numbers),
        logged_models.c.stage == "active",
        *conditions_sql(tx, vocabulary, parse_filter(filter_text)),
    )
    terms: list[Term] = []
    for order in order_by:
        statement, more = _ordered(statement, order)
        terms.extend(more)
    terms += [Term(logged_models.c.created, descending=True), Term(logged_models.c.id)]
    orders = [[order.field, order.descending, order.dataset, order.digest] for order in order_by]
    query = ["logged", project, sorted(numbers), filter_text, orders, sorted(datasets)]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=query)
    return Page(tuple(_loaded(tx, project, found)), following)


def _ordered(statement: Select[Any], order: Order) -> tuple[Select[Any], list[Term]]:
    (ordering,) = parse_order([order.field])
    if ordering.field.entity != "metric":
        return statement, attribute_terms(_VOCABULARY, replace(ordering, descending=order.descending))
    measures = logged_metrics.alias()
    wanted = [measures.c.key == ordering.field.key]
    if order.dataset:
        wanted.append(measures.c.dataset == order.dataset)
    if order.digest:
        wanted.append(measures.c.digest == order.digest)
    # a model measured on several datasets has several values: it is placed by the best of them for this direction
    best = func.max(measures.c.value) if order.descending else func.min(measures.c.value)
    one = (
        select(measures.c.parent, best.label("value"))
        .where(*wanted, measures.c.nan == 0)
        .group_by(measures.c.parent)
        .subquery()
    )
    statement = statement.outerjoin(one, one.c.parent == logged_models.c.number)
    return statement, nullable(one.c.value, order.descending, 0.0)


def _metric_on(datasets: Collection[tuple[str, str]]) -> Any:
    def metric(_tx: Connection, condition: Condition) -> ColumnElement[bool]:
        mine = [
            logged_metrics.c.parent == logged_models.c.number,
            logged_metrics.c.key == condition.field.key,
            logged_metrics.c.nan == 0,
        ]
        if datasets:
            named = [
                and_(logged_metrics.c.dataset == name, *([logged_metrics.c.digest == digest] if digest else []))
                for name, digest in datasets
            ]
            mine.append(or_(*named))
        compared = compare_number(logged_metrics.c.value, condition)
        return select(literal(1)).select_from(logged_metrics).where(*mine, compared).exists()

    return metric


def _param(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    mine = [logged_params.c.parent == logged_models.c.number, logged_params.c.key == condition.field.key]
    return child_text(tx, logged_params, mine, condition)


def _tag(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    mine = [logged_tags.c.parent == logged_models.c.number, logged_tags.c.key == condition.field.key]
    return child_text(tx, logged_tags, mine, condition)


_TIMES = {
    "creation_timestamp": logged_models.c.created,
    "creation_time": logged_models.c.created,
    "last_updated_timestamp": logged_models.c.updated,
    "last_updated_time": logged_models.c.updated,
}
_STATUS = case(
    (logged_models.c.status == "LOGGED_MODEL_READY", "READY"),
    (logged_models.c.status == "LOGGED_MODEL_PENDING", "PENDING"),
    else_="FAILED",
)
_VOCABULARY = Vocabulary(
    attributes={
        "model_id": logged_models.c.id,
        "name": logged_models.c.name,
        "model_name": logged_models.c.name,
        "model_type": logged_models.c.type,
        "source_run_id": logged_models.c.run,
        "status": _STATUS,
        **_TIMES,
    },
    numeric=frozenset(_TIMES),
    scale=dict.fromkeys(_TIMES, 1000),
    children={"param": _param, "tag": _tag},
)


def _find(tx: Tx, project: str, identity: str) -> Row[Any]:
    mine = (logged_models.c.project == project, logged_models.c.id == identity, logged_models.c.stage == "active")
    row = tx.execute(select(logged_models).where(*mine)).first()
    if row is None:
        raise NotFound(f"Logged model with ID '{identity}' not found.", hint="is it a model of this project?")
    return row


def _loaded(tx: Tx, project: str, rows: Collection[Row[Any]]) -> list[LoggedModel]:
    plain = [_model(row) for row in rows]
    numbers = [model.number for model in plain]
    params, tags = runs.values_below(tx, logged_params, numbers), runs.values_below(tx, logged_tags, numbers)
    metrics: dict[int, list[Point]] = defaultdict(list)
    for part in chunks(numbers):
        for row in tx.execute(select(logged_metrics).where(logged_metrics.c.parent.in_(part))):
            value = math.nan if row.nan else row.value
            point = Point(row.key, value, row.at, row.step, dataset=row.dataset, digest=row.digest, run=row.run)
            metrics[row.parent].append(point)
    named = _registrations(tx, project, [model.id for model in plain])
    return [
        replace(
            model,
            params=params.get(model.number, {}),
            tags=tags.get(model.number, {}),
            metrics=tuple(replace(point, model=model.id) for point in metrics.get(model.number, ())),
            registrations=tuple(named.get(model.id, ())),
        )
        for model in plain
    ]


def _registrations(tx: Tx, project: str, identities: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    joined = registered_versions.join(
        registered_models,
        and_(
            registered_models.c.project == registered_versions.c.project,
            registered_models.c.asset == registered_versions.c.asset,
        ),
    )
    for start in range(0, len(identities), 500):
        statement = (
            select(registered_versions.c.model, registered_models.c.name, registered_versions.c.number)
            .select_from(joined)
            .where(
                registered_versions.c.project == project,
                registered_versions.c.deleted == 0,
                registered_versions.c.model.in_(identities[start : start + 500]),
            )
            .order_by(registered_models.c.name, registered_versions.c.number)
        )
        for row in tx.execute(statement):
            found[row.model].append((row.name, row.number))
    return found


def _model(row: Row[Any]) -> LoggedModel:
    return LoggedModel(
        number=row.number,
        id=row.id,
        experiment=str(row.experiment),
        name=row.name,
        type=row.type,
        run=row.run,
        status=row.status,
        created=row.created,
        updated=row.updated,
        artifact_uri=row.artifact_uri,
    )
