"""Spans that gateways left for the trace store: read, kept, removed. Killed anywhere, it reads them again."""

from pathlib import Path

from everloop.catalog.engine import Catalog, Tx
from everloop.catalog.genai import spans
from everloop.catalog.tracking import experiments
from everloop.core.clock import Micros
from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.core.ports import Blobs
from everloop.server.mlflow import genai

EXPERIMENT = "endpoints"
"""Where the traces of answered questions are, in each project."""
_SUFFIX = ".otlp"


def ingest(catalog: Catalog, store: Blobs, home: Path, at: Micros) -> int:
    """Store what lies in the spools of gateways; returns how many spans. What cannot be read or kept is removed."""
    count = 0
    for path in sorted((home / "serving" / "traces").glob(f"*/*/*{_SUFFIX}")):
        try:
            request = genai.otlp.parsed(path.read_bytes(), genai.otlp.PROTOBUF)
            batch = genai.otlp.spans(request, store.put)
            with catalog.write() as tx:
                spans.record(tx, path.parent.name, _experiment(tx, path.parent.name, at), batch)
            count += len(batch)
        except InvalidInput:
            pass  # a trace id that another experiment has: a caller's, whose trace is its own
        except EverloopError:
            break  # the catalog is away: later
        path.unlink(missing_ok=True)
    return count


def _experiment(tx: Tx, project: str, at: Micros) -> str:
    try:
        return experiments.by_name(tx, project, EXPERIMENT).id
    except NotFound:
        return experiments.create(tx, project, EXPERIMENT, at=at)
