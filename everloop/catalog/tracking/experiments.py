"""Experiments: the named groups of runs of a project. Experiment "0", named Default, always exists."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, String, cast, delete, func, insert, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.tracking import experiment_tags, experiments
from everloop.catalog.tracking.filters import Condition, Ordering, parse_filter, parse_order
from everloop.catalog.tracking.rows import Experiment, Page, View
from everloop.catalog.tracking.search import (
    Term,
    Vocabulary,
    attribute_terms,
    child_text,
    conditions_sql,
    fetch_page,
)
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, InvalidInput, NotFound

DEFAULT = 0
"""The experiment that is there from the start."""


def ensure_default(tx: Tx, project: str, at: Micros) -> None:
    """Make the Default experiment if the project has none."""
    row = _row(project, DEFAULT, "Default", "", at)
    tx.execute(insert_into(tx, experiments).values(row).on_conflict_do_nothing())


def has_default(tx: Tx, project: str) -> bool:
    """Whether the Default experiment is there."""
    found = select(experiments.c.id).where(experiments.c.project == project, experiments.c.id == DEFAULT)
    return tx.execute(found).first() is not None


def projects(tx: Tx) -> list[str]:
    """Every project that keeps runs, by name."""
    statement = select(experiments.c.project).where(experiments.c.id == DEFAULT).order_by(experiments.c.project)
    return list(tx.execute(statement).scalars())


def create(
    tx: Tx, project: str, name: str, *, at: Micros, artifact_uri: str = "", tags: Mapping[str, str] | None = None
) -> str:
    """Make an experiment and return its id; raises `Conflict` when the name is taken, by a deleted one too."""
    ensure_default(tx, project, at)
    # the Default row is the lock under which ids count up
    first = select(experiments.c.id).where(experiments.c.project == project, experiments.c.id == DEFAULT)
    tx.execute(first.with_for_update())
    taken = select(experiments.c.stage).where(experiments.c.project == project, experiments.c.name == name)
    if (stage := tx.execute(taken).scalar()) is not None:
        raise _taken(name, stage)
    last = tx.execute(select(func.max(experiments.c.id)).where(experiments.c.project == project)).scalar_one()
    number: int = last + 1
    tx.execute(insert(experiments), [_row(project, number, name, artifact_uri, at)])
    set_tags(tx, project, str(number), tags or {})
    return str(number)


def get(tx: Tx, project: str, identity: str) -> Experiment:
    """The experiment, deleted or not; raises `NotFound`."""
    found = _load(tx, project, tx.execute(_selected(project, _number(identity))).all())
    if not found:
        raise _absent(identity)
    return found[0]


def active(tx: Tx, project: str, identity: str) -> Experiment:
    """The experiment, which must not be deleted; raises `NotFound` or `InvalidInput`."""
    artifact_root(tx, project, identity)
    return get(tx, project, identity)


def artifact_root(tx: Tx, project: str, identity: str) -> str:
    """Where an experiment that is not deleted keeps artifacts; raises `NotFound` or `InvalidInput`."""
    row = tx.execute(_selected(project, _number(identity))).first()
    if row is None:
        raise _absent(identity)
    if row.stage != "active":
        raise InvalidInput(
            f"The experiment {identity} must be in the 'active' state. Current state is {row.stage}.",
            hint="restore it first",
        )
    root: str = row.artifact_uri
    return root


def names(tx: Tx, project: str) -> dict[str, str]:
    """The name of every experiment, by id."""
    statement = select(experiments.c.id, experiments.c.name).where(experiments.c.project == project)
    return {str(row.id): row.name for row in tx.execute(statement)}


def by_name(tx: Tx, project: str, name: str) -> Experiment:
    """The experiment of that name, deleted or not; raises `NotFound`."""
    statement = select(experiments).where(experiments.c.project == project, experiments.c.name == name)
    found = _load(tx, project, tx.execute(statement).all())
    if not found:
        raise NotFound(f"Could not find experiment with name '{name}'", hint="names mind case")
    return found[0]


def rename(tx: Tx, project: str, identity: str, name: str, *, at: Micros) -> None:
    """Give it another name; raises `NotFound`, `InvalidInput` when it is deleted, `Conflict` when the name is taken."""
    active(tx, project, identity)
    taken = select(experiments.c.id, experiments.c.stage).where(
        experiments.c.project == project, experiments.c.name == name
    )
    other = tx.execute(taken).first()
    if other is not None and other.id != _number(identity):
        raise _taken(name, other.stage)
    _change(tx, project, identity, name=name, updated=at)


def delete_experiment(tx: Tx, project: str, identity: str, *, at: Micros) -> None:
    """Hide it; raises `NotFound` when it is not active, `InvalidInput` for the Default experiment."""
    if _number(identity) == DEFAULT:
        raise InvalidInput("The Default experiment cannot be deleted", hint="delete its runs instead")
    if get(tx, project, identity).stage != "active":
        raise NotFound(f"No Experiment with id={identity} exists", hint="it is deleted already")
    _change(tx, project, identity, stage="deleted", updated=at)


def restore(tx: Tx, project: str, identity: str, *, at: Micros) -> None:
    """Show a deleted one again; raises `NotFound` when there is no deleted one of that id."""
    if get(tx, project, identity).stage != "deleted":
        raise NotFound(f"No Experiment with id={identity} exists in deleted state", hint="it is not deleted")
    _change(tx, project, identity, stage="active", updated=at)


def set_tags(tx: Tx, project: str, identity: str, tags: Mapping[str, str]) -> None:
    """Set tags, replacing values."""
    number = _number(identity)
    rows = [{"project": project, "experiment": number, "key": key, "value": value} for key, value in tags.items()]
    if rows:
        put = insert_into(tx, experiment_tags)
        tx.execute(
            put.on_conflict_do_update(
                index_elements=["project", "experiment", "key"], set_={"value": put.excluded.value}
            ),
            rows,
        )


def delete_tag(tx: Tx, project: str, identity: str, key: str) -> None:
    """Remove a tag; raises `NotFound` when it is not set."""
    gone = tx.execute(
        delete(experiment_tags).where(
            experiment_tags.c.project == project,
            experiment_tags.c.experiment == _number(identity),
            experiment_tags.c.key == key,
        )
    )
    if gone.rowcount == 0:
        raise NotFound(f"No tag with name: {key} in experiment with id {identity}", hint="it may be gone already")


def search(
    tx: Tx,
    project: str,
    *,
    filter_text: str = "",
    order_by: Sequence[str] = (),
    view: View = "active",
    limit: int = 1000,
    token: str = "",
) -> Page[Experiment]:
    """A page of experiments; newest first unless `order_by` says otherwise. Raises `InvalidInput`."""
    statement = select(experiments).where(experiments.c.project == project)
    if view != "all":
        statement = statement.where(experiments.c.stage == view)
    statement = statement.where(*conditions_sql(tx, _VOCABULARY, parse_filter(filter_text)))
    ordering = parse_order(order_by)
    terms = [term for one in ordering for term in _terms(one)]
    if not ordering:
        terms.append(Term(experiments.c.created, descending=True))
    terms.append(Term(experiments.c.id, descending=True))
    query = ["experiments", project, filter_text, list(order_by), view]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=query)
    return Page(tuple(_load(tx, project, found)), following)


def _terms(ordering: Ordering) -> list[Term]:
    if ordering.field.key == "experiment_id":
        return [Term(experiments.c.id, ordering.descending)]
    return attribute_terms(_VOCABULARY, ordering)


def _tag(tx: Connection, condition: Condition) -> Any:
    mine = [
        experiment_tags.c.project == experiments.c.project,
        experiment_tags.c.experiment == experiments.c.id,
        experiment_tags.c.key == condition.field.key,
    ]
    return child_text(tx, experiment_tags, mine, condition)


_VOCABULARY = Vocabulary(
    attributes={
        "name": experiments.c.name,
        "experiment_id": cast(experiments.c.id, String),
        "creation_time": experiments.c.created,
        "last_update_time": experiments.c.updated,
    },
    numeric=frozenset({"creation_time", "last_update_time"}),
    scale={"creation_time": 1000, "last_update_time": 1000},
    children={"tag": _tag},
)


def _selected(project: str, number: int) -> Any:
    return select(experiments).where(experiments.c.project == project, experiments.c.id == number)


def _number(identity: str) -> int:
    if identity.isascii() and identity.isdigit() and len(identity) < 19:
        return int(identity)
    return -1  # no experiment has it


def _change(tx: Tx, project: str, identity: str, **values: Any) -> None:
    mine = (experiments.c.project == project, experiments.c.id == _number(identity))
    tx.execute(update(experiments).where(*mine).values(**values))


def _row(project: str, number: int, name: str, artifact_uri: str, at: Micros) -> dict[str, Any]:
    return {
        "project": project,
        "id": number,
        "name": name,
        "artifact_uri": artifact_uri or f"mlflow-artifacts:/{number}",
        "stage": "active",
        "created": at,
        "updated": at,
    }


def _absent(identity: str) -> NotFound:
    return NotFound(f"No Experiment with id={identity} exists", hint="list them: experiments/search")


def _taken(name: str, stage: str) -> Conflict:
    deleted = " in deleted state" if stage == "deleted" else ""
    return Conflict(f"Experiment(name={name}) already exists{deleted}.", hint="restore it, or choose another name")


def _load(tx: Tx, project: str, rows: Collection[Row[Any]]) -> list[Experiment]:
    tags: dict[int, dict[str, str]] = defaultdict(dict)
    if rows:
        numbers = [row.id for row in rows]
        for start in range(0, len(numbers), 500):
            statement = select(experiment_tags).where(
                experiment_tags.c.project == project, experiment_tags.c.experiment.in_(numbers[start : start + 500])
            )
            for tag in tx.execute(statement):
                tags[tag.experiment][tag.key] = tag.value
    return [
        Experiment(
            str(row.id), row.name, row.artifact_uri, row.stage, row.created, row.updated, dict(tags.get(row.id, {}))
        )
        for row in rows
    ]
