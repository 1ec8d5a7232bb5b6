"""Evaluation datasets: inputs and what is expected of them."""

import json
import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.genai.rows import EvaluationDataset, Record
from everloop.catalog.tables.genai import (
    evaluation_datasets,
    evaluation_experiments,
    evaluation_records,
    evaluation_tags,
)
from everloop.catalog.tracking import experiments
from everloop.catalog.tracking.filters import Condition, parse_filter, parse_order
from everloop.catalog.tracking.points import chunks
from everloop.catalog.tracking.rows import Page
from everloop.catalog.tracking.search import Term, Vocabulary, attribute_terms, child_text, conditions_sql, fetch_page
from everloop.core.clock import Micros
from everloop.core.errors import NotFound
from everloop.core.ids import object_id, short

_USER_TAG = "mlflow.user"


def create(
    tx: Tx,
    project: str,
    name: str,
    *,
    actor: str,
    at: Micros,
    experiment_ids: Sequence[str] = (),
    tags: Mapping[str, Any] | None = None,
    schema: str | None = None,
    profile: str | None = None,
) -> EvaluationDataset:
    """Make an empty dataset; names need not be unique. Raises `NotFound` for an unknown experiment."""
    identity = f"d-{secrets.token_hex(16)}"
    author = str((tags or {}).get(_USER_TAG) or actor)
    row = {
        "project": project,
        "id": identity,
        "name": name,
        "schema": schema,
        "profile": profile,
        "digest": _digest(name, at),
        "created": at,
        "updated": at,
        "created_by": author,
        "updated_by": author,
    }
    tx.execute(insert(evaluation_datasets).values(row))
    _put_tags(tx, project, identity, tags or {})
    _link(tx, project, identity, experiment_ids)
    return get(tx, project, identity)


def get(tx: Tx, project: str, identity: str) -> EvaluationDataset:
    """The dataset with its tags and experiments; raises `NotFound`."""
    return _loaded(tx, project, [_find(tx, project, identity)])[0]


def remove(tx: Tx, project: str, identity: str) -> None:
    """Delete it and its records; one that is not there is passed over."""
    for table in (evaluation_records, evaluation_tags, evaluation_experiments):
        tx.execute(delete(table).where(table.c.project == project, table.c.dataset == identity))
    here = (evaluation_datasets.c.project == project, evaluation_datasets.c.id == identity)
    tx.execute(delete(evaluation_datasets).where(*here))


def search(
    tx: Tx,
    project: str,
    *,
    experiment_ids: Sequence[str] = (),
    filter_text: str = "",
    order_by: Sequence[str] = (),
    limit: int = 50,
    token: str = "",
) -> Page[EvaluationDataset]:
    """A page of datasets of these experiments (of all when empty), the newest first; raises `InvalidInput`."""
    numbers = sorted({int(one) for one in experiment_ids if one.isascii() and one.isdigit() and len(one) < 19})
    vocabulary = _vocabulary(project)
    statement = select(evaluation_datasets).where(
        evaluation_datasets.c.project == project, *conditions_sql(tx, vocabulary, parse_filter(filter_text))
    )
    if experiment_ids:
        linked = select(evaluation_experiments.c.dataset).where(
            evaluation_experiments.c.project == project, evaluation_experiments.c.experiment.in_(numbers)
        )
        statement = statement.where(evaluation_datasets.c.id.in_(linked))
    terms = [term for ordering in parse_order(order_by) for term in attribute_terms(vocabulary, ordering)]
    terms += [Term(evaluation_datasets.c.created, descending=True), Term(evaluation_datasets.c.id)]
    query = ["evaluation-datasets", project, numbers, filter_text, list(order_by)]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=query)
    return Page(tuple(_loaded(tx, project, found)), following)


def set_tags(tx: Tx, project: str, identity: str, tags: Mapping[str, Any], *, at: Micros) -> EvaluationDataset:
    """Set tags, a null removing one; raises `NotFound`."""
    _find(tx, project, identity)
    for key in (key for key, value in tags.items() if value is None):
        delete_tag(tx, project, identity, key)
    _put_tags(tx, project, identity, {key: value for key, value in tags.items() if value is not None})
    _touch(tx, project, identity, updated=at, **({"updated_by": str(tags[_USER_TAG])} if tags.get(_USER_TAG) else {}))
    return get(tx, project, identity)


def delete_tag(tx: Tx, project: str, identity: str, key: str) -> None:
    """Remove a tag; one that is not set is passed over. Raises `NotFound` for an unknown dataset."""
    _find(tx, project, identity)
    mine = evaluation_tags.c
    tx.execute(delete(evaluation_tags).where(mine.project == project, mine.dataset == identity, mine.key == key))


def upsert(
    tx: Tx, project: str, identity: str, given: Sequence[Record], *, schema: str | None, by: str, at: Micros
) -> tuple[int, int]:
    """Add records, merging those whose inputs are there already; returns how many were added and merged."""
    dataset = _find(tx, project, identity)
    added = merged = 0
    for record in given:
        digest = object_id(_text(record.inputs).encode())
        mine = evaluation_records.c
        here = (mine.project == project, mine.dataset == identity, mine.digest == digest)
        old = tx.execute(select(evaluation_records).where(*here)).first()
        if old is None:
            tx.execute(insert(evaluation_records).values(**_new(project, identity, digest, record, by=by, at=at)))
            added += 1
        else:
            tx.execute(
                update(evaluation_records).where(*here).values(**_merged(old, record), updated=at, updated_by=by)
            )
            merged += 1
    count = tx.execute(
        select(func.count())
        .select_from(evaluation_records)
        .where(evaluation_records.c.project == project, evaluation_records.c.dataset == identity)
    ).scalar_one()
    _touch(
        tx,
        project,
        identity,
        updated=at,
        updated_by=by,
        digest=_digest(dataset.name, at),
        profile=json.dumps({"num_records": count}),
        **({"schema": schema} if schema else {}),
    )
    return added, merged


def records(tx: Tx, project: str, identity: str, *, limit: int = 1000, token: str = "") -> Page[Record]:
    """A page of a dataset's records, in the order in which they came; raises `NotFound`, `InvalidInput`."""
    _find(tx, project, identity)
    mine = evaluation_records.c
    statement = select(evaluation_records).where(mine.project == project, mine.dataset == identity)
    query = ["evaluation-records", project, identity]
    found, following = fetch_page(tx, statement, [Term(mine.number)], limit=limit, token=token, query=query)
    return Page(tuple(_record(row) for row in found), following)


def remove_records(tx: Tx, project: str, identity: str, which: Sequence[str], *, at: Micros) -> int:
    """Delete records of these ids; returns how many there were. Raises `NotFound` for an unknown dataset."""
    dataset = _find(tx, project, identity)
    mine = evaluation_records.c
    gone = 0
    for part in chunks(list(which)):
        here = (mine.project == project, mine.dataset == identity, mine.id.in_(part))
        gone += tx.execute(delete(evaluation_records).where(*here)).rowcount
    if gone:
        left = json.loads(dataset.profile or "{}").get("num_records", gone) - gone
        _touch(tx, project, identity, updated=at, profile=json.dumps({"num_records": max(0, left)}))
    return gone


def link(tx: Tx, project: str, identity: str, experiment_ids: Sequence[str], *, at: Micros) -> EvaluationDataset:
    """Add it to experiments; raises `NotFound` for either."""
    _find(tx, project, identity)
    _link(tx, project, identity, experiment_ids)
    _touch(tx, project, identity, updated=at)
    return get(tx, project, identity)


def unlink(tx: Tx, project: str, identity: str, experiment_ids: Sequence[str], *, at: Micros) -> EvaluationDataset:
    """Take it out of experiments; one that it is not in is passed over. Raises `NotFound`."""
    _find(tx, project, identity)
    numbers = [int(one) for one in experiment_ids if one.isascii() and one.isdigit() and len(one) < 19]
    mine = evaluation_experiments.c
    here = (mine.project == project, mine.dataset == identity, mine.experiment.in_(numbers))
    tx.execute(delete(evaluation_experiments).where(*here))
    _touch(tx, project, identity, updated=at)
    return get(tx, project, identity)


def _find(tx: Tx, project: str, identity: str) -> Row[Any]:
    here = (evaluation_datasets.c.project == project, evaluation_datasets.c.id == identity)
    row = tx.execute(select(evaluation_datasets).where(*here)).first()
    if row is None:
        raise NotFound(f"Evaluation dataset with id '{identity}' not found", hint="is it a dataset of this project?")
    return row


def _loaded(tx: Tx, project: str, rows: Collection[Row[Any]]) -> list[EvaluationDataset]:
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    linked: dict[str, list[str]] = defaultdict(list)
    for part in chunks([row.id for row in rows]):
        mine = (evaluation_tags.c.project == project, evaluation_tags.c.dataset.in_(part))
        for row in tx.execute(select(evaluation_tags).where(*mine).order_by(evaluation_tags.c.key)):
            tags[row.dataset][row.key] = row.value
        of = (evaluation_experiments.c.project == project, evaluation_experiments.c.dataset.in_(part))
        found = tx.execute(select(evaluation_experiments).where(*of).order_by(evaluation_experiments.c.experiment))
        for row in found:
            linked[row.dataset].append(str(row.experiment))
    return [
        EvaluationDataset(
            id=row.id,
            name=row.name,
            digest=row.digest,
            created=row.created,
            updated=row.updated,
            created_by=row.created_by,
            updated_by=row.updated_by,
            schema=row.schema,
            profile=row.profile,
            tags=tags.get(row.id, {}),
            experiments=tuple(linked.get(row.id, ())),
        )
        for row in rows
    ]


def _new(project: str, dataset: str, digest: str, record: Record, *, by: str, at: Micros) -> dict[str, Any]:
    author = str((record.tags or {}).get(_USER_TAG) or by)
    return {
        "project": project,
        "dataset": dataset,
        "id": f"dr-{secrets.token_hex(16)}",
        "digest": digest,
        "inputs": _text(record.inputs),
        "outputs": None if record.outputs is None else _text(record.outputs),
        "expectations": None if record.expectations is None else _text(record.expectations),
        "tags": _text(record.tags or {}),
        "source": None if record.source is None else _text(record.source),
        "source_type": record.source_type,
        "source_id": record.source_id,
        "created": at,
        "updated": at,
        "created_by": author,
        "updated_by": author,
    }


def _merged(old: Row[Any], new: Record) -> dict[str, Any]:
    """Expectations and tags are joined, the newer one winning; outputs are replaced; the source stays the first."""
    values: dict[str, Any] = {}
    if new.expectations is not None:
        values["expectations"] = _text({**json.loads(old.expectations or "{}"), **new.expectations})
    if new.tags:
        values["tags"] = _text({**json.loads(old.tags or "{}"), **new.tags})
    if new.outputs is not None:
        values["outputs"] = _text(new.outputs)
    if old.source is None and new.source is not None:
        values |= {"source": _text(new.source), "source_type": new.source_type, "source_id": new.source_id}
    return values


def _record(row: Row[Any]) -> Record:
    return Record(
        inputs=json.loads(row.inputs),
        outputs=None if row.outputs is None else json.loads(row.outputs),
        expectations=None if row.expectations is None else json.loads(row.expectations),
        tags=None if row.tags is None else json.loads(row.tags),
        source=None if row.source is None else json.loads(row.source),
        source_type=row.source_type,
        source_id=row.source_id,
        id=row.id,
        dataset=row.dataset,
        created=row.created,
        updated=row.updated,
        created_by=row.created_by,
        updated_by=row.updated_by,
    )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _digest(name: str, at: Micros) -> str:
    return short(object_id(f"{name}:{at}".encode()))


def _touch(tx: Tx, project: str, identity: str, **values: Any) -> None:
    here = (evaluation_datasets.c.project == project, evaluation_datasets.c.id == identity)
    tx.execute(update(evaluation_datasets).where(*here).values(**values))


def _put_tags(tx: Tx, project: str, identity: str, tags: Mapping[str, Any]) -> None:
    rows = [
        {
            "project": project,
            "dataset": identity,
            "key": key,
            "value": tags[key] if isinstance(tags[key], str) else _text(tags[key]),
        }
        for key in sorted(tags)
    ]
    if rows:
        put = insert_into(tx, evaluation_tags)
        keys = ["project", "dataset", "key"]
        tx.execute(put.on_conflict_do_update(index_elements=keys, set_={"value": put.excluded.value}), rows)


def _link(tx: Tx, project: str, identity: str, experiment_ids: Sequence[str]) -> None:
    rows = [
        {"project": project, "dataset": identity, "experiment": int(experiments.get(tx, project, one).id)}
        for one in sorted(set(experiment_ids))
    ]
    if rows:
        tx.execute(insert_into(tx, evaluation_experiments).on_conflict_do_nothing(), rows)


def _vocabulary(project: str) -> Vocabulary:
    mine = evaluation_datasets.c

    def tag(tx: Connection, condition: Condition) -> ColumnElement[bool]:
        here = [
            evaluation_tags.c.project == project,
            evaluation_tags.c.dataset == mine.id,
            evaluation_tags.c.key == condition.field.key,
        ]
        return child_text(tx, evaluation_tags, here, condition)

    times = {"created_time": mine.created, "last_update_time": mine.updated}
    return Vocabulary(
        attributes={
            "name": mine.name,
            "dataset_id": mine.id,
            "digest": mine.digest,
            "created_by": mine.created_by,
            "last_updated_by": mine.updated_by,
            **times,
        },
        numeric=frozenset(times),
        scale=dict.fromkeys(times, 1000),
        children={"tag": tag},
    )
