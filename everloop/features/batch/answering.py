"""Training frames on request: the questions of a file, answered from the data that an environment holds."""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from everloop import data, features
from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.core.errors import DataError, NotFound
from everloop.core.grants import Target
from everloop.data.heads import head
from everloop.data.sensitive.masking import need_rows
from everloop.features.batch.history import history
from everloop.features.definitions import by_dataset
from everloop.features.operations import pinned, service_in

if TYPE_CHECKING:
    from everloop.features.batch.cluster import Cluster


def answered(
    ctx: Context, environment: str, service: str, questions: Path, at: str, *, cluster: "Cluster | None" = None
) -> pl.DataFrame:
    """The rows of a Parquet or CSV file with the features of a service, as known before the time in column `at`.

    With `cluster` a Ray cluster computes it, whose nodes must be able to read the workspace's files.

    Raises `NotFound` for what the environment does not hold, `DataError` for a file that cannot be read,
    `PermissionDenied` for who may not read the data.
    """
    ctx.need("read", Target("service", service, environment))
    found = service_in(ctx, environment, service).service
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, pinned(ctx, environment, "service")[service][0])
    need_rows(ctx, row, environment)
    paths = {}
    for name in by_dataset(found.views):
        version = head(ctx, environment, name)
        if version is None:
            raise NotFound(f"{environment} holds no data of {name!r}", hint=f"everloop refresh --env {environment}")
        paths[name] = data.paths(ctx, version)
    try:
        spine = (
            pl.read_csv(questions, try_parse_dates=True) if questions.suffix == ".csv" else pl.read_parquet(questions)
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{questions} cannot be read: {error}", hint="a Parquet or CSV file") from error
    if cluster is None:
        return history(found, spine, paths, at=at)
    return features.cluster.history_across(cluster, found, spine, paths, at=at)
