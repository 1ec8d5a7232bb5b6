"""From the gateways' logs to the catalog: rows of predictions, in the transaction that says how far it read.

It may stop or be killed anywhere, and starts again without losing or doubling. Loads no engine.
"""

from collections.abc import Iterator
from pathlib import Path

from everloop.catalog import facts
from everloop.catalog.engine import Catalog
from everloop.catalog.facts import Fact
from everloop.catalog.operating import predictions
from everloop.catalog.operating.predictions import PredictionRow, Segment
from everloop.serving import log

_BATCH = 500


def ingest(catalog: Catalog, home: Path) -> int:
    """Read what gateways wrote since the last time; returns how many predicted rows were new to this pass."""
    root = home / "serving" / "log"
    gateways = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return sum(_ingest_gateway(catalog, folder) for folder in gateways)


def _ingest_gateway(catalog: Catalog, folder: Path) -> int:
    with catalog.read() as tx:
        known = predictions.segments(tx, folder.name)
    paths = log.segments(folder)
    count = 0
    for path in paths:
        number = int(path.stem)
        before = known.get(number, Segment(folder.name, number, 0, closed=False))
        if not before.closed:
            # a gateway writes to its newest segment only: any other is complete, however it ends
            count += _ingest_segment(catalog, path, before, closed=path != paths[-1])
    return count


def _ingest_segment(catalog: Catalog, path: Path, before: Segment, *, closed: bool) -> int:
    with path.open("rb") as file:
        file.seek(before.position)
        content = file.read()
    count, end = 0, 0
    batch: list[PredictionRow] = []
    told: list[tuple[str, Fact]] = []
    for start, stop, entry in log.read(content):
        batch.extend(_rows(entry, before, before.position + start))
        if entry.explained is not None:
            told.append((entry.project, _asked_why(entry)))
        end = stop
        if len(batch) >= _BATCH:
            _write(catalog, batch, Segment(before.gateway, before.segment, before.position + end, closed=False), told)
            count += len(batch)
            batch, told = [], []
    if batch or closed:
        _write(catalog, batch, Segment(before.gateway, before.segment, before.position + end, closed=closed), told)
    return count + len(batch)


def _write(catalog: Catalog, batch: list[PredictionRow], progress: Segment, told: list[tuple[str, Fact]]) -> None:
    with catalog.write() as tx:
        predictions.ingest(tx, batch)
        for project, fact in told:
            facts.append(tx, project, fact)
        predictions.record_progress(tx, progress)


def _asked_why(entry: log.Entry) -> Fact:
    """That somebody had an answer explained: it tells more of a person than the answer does."""
    payload = {"prediction": entry.id, "rows": entry.rows, "method": entry.explained[0] if entry.explained else ""}
    return Fact("prediction.explained", f"endpoint/{entry.endpoint}", "gateway", entry.at, payload, entry.wall)


def _rows(entry: log.Entry, segment: Segment, position: int) -> Iterator[PredictionRow]:
    for row, identity in enumerate(entry.row_ids()):
        if entry.erased(row):
            continue
        yield PredictionRow(
            project=entry.project,
            id=identity,
            endpoint=entry.endpoint,
            revision=entry.revision,
            at=entry.at,
            recorded=entry.wall,
            micros=entry.micros,
            fallback=entry.fallback,
            gateway=segment.gateway,
            segment=segment.segment,
            position=position,
            row=row,
        )
