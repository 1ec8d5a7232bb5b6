"""Results of checks: append-only; the newest one for the same check, objective and delta counts."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Row, desc, insert, select

from everloop.catalog.engine import Tx
from everloop.catalog.tables.changes import check_results
from everloop.core.clock import Micros

ResultState = Literal["passed", "failed", "error"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found for a delta; `evidence` is the version that pins everything it saw."""

    check_id: str
    objective_id: str
    """The objective's version that it was judged by; empty when it has none."""
    name: str
    delta_id: str
    environment: str
    subjects: Mapping[str, str]
    """Version id of each parameter that the check looked at; empty text: there was none (no champion)."""
    heads: Mapping[str, str]
    """The data versions that it read, by dataset."""
    evidence: str
    state: ResultState
    summary: str
    actor: str
    at: Micros
    figures: Mapping[str, str] = field(default_factory=dict)
    id: int = 0


def record(tx: Tx, project: str, result: Result) -> int:
    """Append a result and return its id (the row's own `id` is ignored)."""
    values = {
        "project": project,
        "check_id": result.check_id,
        "objective_id": result.objective_id,
        "name": result.name,
        "delta_id": result.delta_id,
        "environment": result.environment,
        "subjects": json.dumps(dict(result.subjects), sort_keys=True),
        "heads": json.dumps(dict(result.heads), sort_keys=True),
        "evidence": result.evidence,
        "state": result.state,
        "summary": result.summary,
        "figures": json.dumps(dict(result.figures), sort_keys=True),
        "actor": result.actor,
        "at": result.at,
    }
    return int(tx.execute(insert(check_results).values(**values).returning(check_results.c.id)).scalar_one())


def of(tx: Tx, project: str, delta_id: str) -> list[Result]:
    """All results for a delta, newest first."""
    rows = tx.execute(
        select(check_results)
        .where(check_results.c.project == project, check_results.c.delta_id == delta_id)
        .order_by(desc(check_results.c.id))
    )
    return [_result(row) for row in rows]


def of_evidence(tx: Tx, project: str, evidence: Collection[str]) -> list[Result]:
    """The results with this evidence, newest first.

    The edges of an evidence version name what it looked at: `versions.downstream` of a model leads here.
    """
    rows = tx.execute(
        select(check_results)
        .where(check_results.c.project == project, check_results.c.evidence.in_(list(evidence)))
        .order_by(desc(check_results.c.id))
    )
    return [_result(row) for row in rows]


def _result(row: Row[Any]) -> Result:
    return Result(
        check_id=row.check_id,
        objective_id=row.objective_id,
        name=row.name,
        delta_id=row.delta_id,
        environment=row.environment,
        subjects=json.loads(row.subjects),
        heads=json.loads(row.heads),
        evidence=row.evidence,
        state=row.state,
        summary=row.summary,
        actor=row.actor,
        at=row.at,
        figures=json.loads(row.figures),
        id=row.id,
    )
