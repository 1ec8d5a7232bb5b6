"""A sample of served feature vectors, computed again in batch as of their time: they must be equal, bit for bit.

The prediction log holds what the model saw: entity keys, the time of the look-up, every feature. `history` answers the
same questions from the environment's data heads, by the view versions that the revision pins. A question later than the
newest head cannot be judged yet, for the heads do not hold what was known then; it is counted as `later`.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from everloop import data
from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.operating import alarms as alarm_rows
from everloop.catalog.operating import predictions
from everloop.catalog.operating.alarms import Evaluation
from everloop.catalog.operating.predictions import PredictionRow
from everloop.core.clock import Micros
from everloop.core.errors import DataError
from everloop.core.version import Version
from everloop.features.batch.frames import spread
from everloop.features.batch.history import history
from everloop.features.definitions import FeatureServiceDef, by_dataset
from everloop.serving.log import Entry
from everloop.serving.segments import entries
from everloop.watch import alarms
from everloop.watch.alarms import Sight, Signal

_AT = "everloop_at"
SHOWN = 20
"""Rows that differ which a report names."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One served value that batch does not agree with."""

    prediction: str
    at: Micros
    entity: Mapping[str, str]
    column: str
    served: Any
    batch: Any


@dataclass(slots=True)
class Replayed:
    """What a replay found."""

    endpoint: str
    start: Micros
    until: Micros
    sampled: int = 0
    judged: int = 0
    """Rows whose features were compared."""
    values: int = 0
    later: int = 0
    """Rows asked after the newest data."""
    defaulted: int = 0
    """Values that the endpoint's policy replaced; they are not compared."""
    differences: list[Difference] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)
    evidence: str = ""

    @property
    def state(self) -> str:
        """`equal`, `different`, or `cannot tell` when nothing could be compared."""
        return "different" if self.differences else "equal" if self.values else "cannot tell"

    @property
    def summary(self) -> str:
        """In words."""
        if not self.values:
            return f"{self.sampled} predictions, none of which can be compared yet"
        rows = len({d.prediction for d in self.differences})
        said = f"{self.values - len(self.differences)} of {self.values} values of {self.judged} predictions are equal"
        return f"{said}; {rows} predictions differ" if rows else said


def replay(
    ctx: Context, endpoint: str, environment: str, start: Micros, until: Micros, *, sample: int = 1000
) -> Replayed:
    """Compare a sample of the predictions with start <= at < until, keep the evidence, raise or end the alarm.

    Where nothing can be compared yet, nothing is recorded.

    Raises `NotFound` when the log of a sampled prediction is gone.
    """
    found = Replayed(endpoint, start, until)
    with ctx.read() as tx:
        rows = predictions.window(tx, ctx.project, endpoint, start, until)
    chosen = (
        [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(sample, len(rows))).astype(int))] if rows else []
    )
    found.sampled = len(chosen)
    groups: dict[str, list[tuple[PredictionRow, Entry]]] = defaultdict(list)
    for row, entry in entries(ctx.home, sorted(chosen, key=lambda r: (r.gateway, r.segment, r.position, r.row))):
        if not entry.erased(row.row):
            groups[entry.revision].append((row, entry))
    for revision, asked in groups.items():
        service = _service(ctx, revision)
        if service is not None:
            _judge(ctx, environment, service, asked, found)
    if found.values:
        _keep(ctx, environment, found)
    return found


def _service(ctx: Context, revision: str) -> FeatureServiceDef | None:
    with ctx.read() as tx:
        manifest = versions.get(tx, ctx.project, revision).manifest
        if not manifest.get("service"):
            return None
        row = versions.get(tx, ctx.project, manifest["service"])
        manifests = versions.manifests(tx, ctx.project, set(row.manifest["views"].values()))
    return FeatureServiceDef.from_manifest(row.name, row.manifest, manifests)


def _judge(
    ctx: Context,
    environment: str,
    service: FeatureServiceDef,
    asked: Sequence[tuple[PredictionRow, Entry]],
    found: Replayed,
) -> None:
    sources: dict[str, Any] = {}
    known = None
    with ctx.read() as tx:
        for name in by_dataset(service.views):
            head = refs.get(tx, ctx.project, refs.head_ref(environment, name))
            if head is None:
                found.later += len(asked)
                return
            row = versions.get(tx, ctx.project, head)
            known = row.at if known is None else min(known, row.at)
            found.heads[name], sources[name] = head, row
    able = [(row, entry) for row, entry in asked if known is not None and entry.at <= known]
    found.later += len(asked) - len(able)
    if not able:
        return
    paths = {name: data.paths(ctx, row.id) for name, row in sources.items()}
    kinds = {name: kind for row in sources.values() for name, kind in row.manifest["schema_fields"]}
    spine = pl.DataFrame(
        {
            _AT: [entry.at for _, entry in able],
            **{name: _keys(able, name, kinds.get(name, "string")) for name in service.entities},
        }
    )
    batch = spread(service.views, history(service, spine, paths, at=_AT))
    found.judged += len(able)
    decoded: dict[int, Mapping[str, Any]] = {}
    for number, (asked_row, entry) in enumerate(able):
        columns = decoded.setdefault(id(entry), entry.columns())
        computed_row = batch.row(number, named=True)
        for name in _compared(service, entry, columns, found):
            served = columns[name][asked_row.row]
            computed = _as_served(computed_row[name], served)
            found.values += 1
            if not _same(served, computed):
                entity = {key: values[asked_row.row] for key, values in entry.keys.items()}
                values = (_plain(served), _plain(computed))
                found.differences.append(Difference(asked_row.id, entry.at, entity, name, *values))


def _compared(service: FeatureServiceDef, entry: Entry, columns: Mapping[str, Any], found: Replayed) -> Iterator[str]:
    """The features that the model was given as they were looked up."""
    for view in service.views:
        for name in view.inputs:
            if name not in columns:
                continue  # the model does not read it
            if entry.stale.get(view.name) == "default":
                found.defaulted += 1
                continue
            yield name


def _keys(able: Sequence[tuple[PredictionRow, Entry]], name: str, kind: str) -> pl.Series:
    """The entity column as its dataset has it: the log keeps keys as text."""
    values = [entry.keys[name][row.row] if name in entry.keys else None for row, entry in able]
    texts = pl.Series(name, [None if value == "None" else value for value in values], pl.String)
    return texts.cast(pl.Int64, strict=False) if "int" in kind else texts


def _as_served(value: Any, like: Any) -> Any:
    """A computed value in the type in which the model was given it; a missing number is NaN."""
    if isinstance(like, np.generic) and not isinstance(like, np.str_ | np.bytes_ | np.object_):
        if value is None:
            return like.dtype.type("nan") if like.dtype.kind == "f" else None
        return like.dtype.type(value)
    return value


def _same(served: Any, computed: Any) -> bool:
    if computed is None or served is None:
        return served is computed
    if served != served and computed != computed:  # noqa: PLR0124 - NaN
        return True
    if isinstance(served, np.generic) and isinstance(computed, np.generic):
        return served.tobytes() == computed.tobytes()
    return bool(served == computed)


def _plain(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain != plain else plain  # noqa: PLR0124 - NaN is no JSON


def monitor_of(endpoint: str) -> str:
    """The name under which parity is evaluated and raises alarms."""
    return f"parity.{endpoint}"


def _keep(ctx: Context, environment: str, found: Replayed) -> None:
    """Evidence, evaluation, alarms and fact, in one transaction."""
    rows = [
        {"prediction": d.prediction, "at": d.at, "entity": dict(d.entity), "column": d.column,
         "served": d.served, "batch": d.batch}
        for d in found.differences[:SHOWN]
    ]  # fmt: skip
    body = {
        "schema": 1, "endpoint": found.endpoint, "environment": environment, "start": found.start, "until": found.until,
        "state": found.state, "summary": found.summary, "sampled": found.sampled, "judged": found.judged,
        "values": found.values, "later": found.later, "defaulted": found.defaulted,
        "different": len(found.differences), "rows": rows,
    }  # fmt: skip
    try:
        content = json.dumps(body, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"a served value cannot be shown: {error}") from error
    identity = ctx.store.put(content)
    monitor = monitor_of(found.endpoint)
    manifest = {"about": "parity", "start": found.start, "until": found.until, "state": found.state, "object": identity}
    inputs = tuple((f"data:{name}", head) for name, head in sorted(found.heads.items()))
    version = Version("evidence", monitor, manifest, inputs)
    by_column: dict[str, int] = defaultdict(int)
    for difference in found.differences:
        by_column[difference.column] += 1
    signals = tuple(
        Signal("fault", column, f"{count} served values differ from batch", count / found.judged, blocks=True)
        for column, count in by_column.items()
    )
    sight = Sight(monitor, found.endpoint, found.start, found.until, signals, evidence=version.id)
    figures = {name: float(getattr(found, name)) for name in ("sampled", "judged", "values", "later")}
    figures["different"] = float(len(found.differences))
    evaluation = Evaluation(
        monitor, found.start, found.until, ctx.now(), ctx.wall(), found.state, version.id, found.summary, figures
    )
    with ctx.write() as tx:
        versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
        alarm_rows.record_evaluation(tx, ctx.project, evaluation)
        alarms.record(ctx, tx, sight)
        told = {**{k: v for k, v in body.items() if k != "rows"}, "evidence": version.id}
        facts.append(tx, ctx.project, ctx.fact("features.parity", found.endpoint, told))
    found.evidence = version.id
