"""What runs read and wrote, as clients describe it: datasets and logged models."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import RowMapping, select, tuple_

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.tracking import datasets, run_datasets, run_models
from everloop.catalog.tracking.points import chunks
from everloop.catalog.tracking.rows import DatasetInput, ModelLink, Run

CONTEXT_TAG = "mlflow.data.context"
"""The tag of an input that says what it was read for: training, evaluation, …"""


def log_datasets(tx: Tx, project: str, run: Run, rows: Sequence[DatasetInput]) -> None:
    """Record datasets that a run read; one that is known in the experiment is not written again."""
    if not rows:
        return
    described = {
        (row.name, row.digest): {
            "project": project,
            "experiment": int(run.experiment),
            "name": row.name,
            "digest": row.digest,
            "source_type": row.source_type,
            "source": row.source,
            "schema": row.schema,
            "profile": row.profile,
        }
        for row in rows
    }
    tx.execute(insert_into(tx, datasets).on_conflict_do_nothing(), [described[place] for place in sorted(described)])
    known = select(datasets.c.name, datasets.c.digest, datasets.c.number).where(
        datasets.c.project == project,
        datasets.c.experiment == int(run.experiment),
        tuple_(datasets.c.name, datasets.c.digest).in_(list(described)),
    )
    numbers = {(row.name, row.digest): row.number for row in tx.execute(known)}
    links = [
        {
            "run": run.number,
            "dataset": numbers[row.name, row.digest],
            "context": row.tags.get(CONTEXT_TAG, ""),
            "tags": json.dumps(dict(row.tags), sort_keys=True),
        }
        for row in rows
    ]
    tx.execute(insert_into(tx, run_datasets).on_conflict_do_nothing(), links)


def link_models(tx: Tx, run: Run, direction: str, links: Sequence[ModelLink]) -> None:
    """Record logged models that a run read (`in`) or wrote (`out`)."""
    rows = [{"run": run.number, "direction": direction, "model": link.model, "step": link.step} for link in links]
    if rows:
        tx.execute(insert_into(tx, run_models).on_conflict_do_nothing(), rows)


def datasets_of(tx: Tx, numbers: Collection[int]) -> Mapping[int, tuple[DatasetInput, ...]]:
    """The datasets of these runs, by run number."""
    found: dict[int, list[DatasetInput]] = defaultdict(list)
    for part in chunks(numbers):
        statement = (
            select(run_datasets.c.run, run_datasets.c.tags, datasets)
            .join(datasets, datasets.c.number == run_datasets.c.dataset)
            .where(run_datasets.c.run.in_(part))
            .order_by(run_datasets.c.run, run_datasets.c.dataset)
        )
        for row in tx.execute(statement).mappings():
            found[row["run"]].append(_dataset(row))
    return {run: tuple(many) for run, many in found.items()}


def models_of(tx: Tx, numbers: Collection[int]) -> Mapping[tuple[int, str], tuple[ModelLink, ...]]:
    """The logged models of these runs, by run number and direction."""
    found: dict[tuple[int, str], list[ModelLink]] = defaultdict(list)
    for part in chunks(numbers):
        statement = select(run_models).where(run_models.c.run.in_(part)).order_by(run_models.c.model)
        for row in tx.execute(statement):
            found[row.run, row.direction].append(ModelLink(row.model, row.step))
    return {place: tuple(many) for place, many in found.items()}


def known_datasets(tx: Tx, project: str, experiments: Collection[int]) -> list[tuple[str, DatasetInput, str]]:
    """(experiment, dataset, context) of every dataset that runs of these experiments read."""
    statement = (
        select(datasets, run_datasets.c.context, run_datasets.c.tags)
        .join(run_datasets, run_datasets.c.dataset == datasets.c.number)
        .where(datasets.c.project == project, datasets.c.experiment.in_(list(experiments)))
        .order_by(datasets.c.number)
        .limit(1000)
    )
    found: dict[tuple[str, str, str, str], DatasetInput] = {}
    for row in tx.execute(statement).mappings():
        found.setdefault((str(row["experiment"]), row["name"], row["digest"], row["context"]), _dataset(row))
    return [(place[0], dataset, place[3]) for place, dataset in found.items()]


def _dataset(row: RowMapping) -> DatasetInput:
    return DatasetInput(
        row["name"],
        row["digest"],
        row["source_type"],
        row["source"],
        row["schema"],
        row["profile"],
        json.loads(row["tags"]),
    )
