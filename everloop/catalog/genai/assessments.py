"""Assessments: what people, code and judges say about traces."""

import json
import math
import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from everloop.catalog.engine import Tx
from everloop.catalog.genai.rows import Assessment
from everloop.catalog.tables.genai import assessments
from everloop.catalog.tracking.points import chunks
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, InvalidInput, NotFound

_WORDS = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}


def create(tx: Tx, trace: int, given: Assessment, *, at: Micros) -> Assessment:
    """Add one to the trace of that number; one that it overrides does not count any more.

    Raises `NotFound` when it overrides what the trace does not have, `Conflict` when its id is taken.
    """
    made = replace(
        given,
        id=given.id or f"a-{secrets.token_hex(16)}",
        created=given.created or at,
        updated=given.updated or given.created or at,
    )
    if made.overrides:
        old = (assessments.c.trace == trace, assessments.c.id == made.overrides)
        if tx.execute(update(assessments).where(*old).values(valid=0)).rowcount == 0:
            raise _absent(made.overrides, given.trace)
    taken = select(assessments.c.id).where(assessments.c.trace == trace, assessments.c.id == made.id)
    if tx.execute(taken).first() is not None:
        raise Conflict(f"Assessment with ID '{made.id}' already exists", hint="leave the id out: one is given")
    tx.execute(insert(assessments).values(trace=trace, **_row(made)))
    return made


def get(tx: Tx, trace: int, identity: str, *, shown: str = "") -> Assessment:
    """One of a trace; `shown` is the trace's id. Raises `NotFound`."""
    here = (assessments.c.trace == trace, assessments.c.id == identity)
    row = tx.execute(select(assessments).where(*here)).first()
    if row is None:
        raise _absent(identity, shown)
    return of(_assessment(row), shown)


def change(tx: Tx, trace: int, old: Assessment, new: Assessment, *, at: Micros) -> Assessment:
    """Replace name, value, error, rationale and metadata; raises `InvalidInput` when it would become another kind."""
    if new.kind != old.kind:
        raise InvalidInput(
            f"Cannot update {new.kind} value on a{'n' if old.kind == 'expectation' else ''} {old.kind} assessment.",
            hint="create another assessment",
        )
    made = replace(new, updated=at)
    here = (assessments.c.trace == trace, assessments.c.id == old.id)
    tx.execute(update(assessments).where(*here).values(**_row(made)))
    return made


def remove(tx: Tx, trace: int, identity: str) -> None:
    """Delete one; what it overrode counts again. One that is not there is passed over."""
    here = (assessments.c.trace == trace, assessments.c.id == identity)
    overridden = tx.execute(select(assessments.c.overrides).where(*here)).scalar()
    if overridden:
        old = (assessments.c.trace == trace, assessments.c.id == overridden)
        tx.execute(update(assessments).where(*old).values(valid=1))
    tx.execute(delete(assessments).where(*here))


def below(tx: Tx, numbers: Collection[int]) -> Mapping[int, list[Assessment]]:
    """Those of each trace, by the trace's number, the oldest first."""
    found: dict[int, list[Assessment]] = defaultdict(list)
    for part in chunks(numbers):
        statement = select(assessments).where(assessments.c.trace.in_(part))
        for row in tx.execute(statement.order_by(assessments.c.created, assessments.c.id)):
            found[row.trace].append(_assessment(row))
    return found


def of(one: Assessment, trace: str) -> Assessment:
    """The same, with the id of its trace."""
    return replace(one, trace=trace)


def as_number(value: Any) -> float | None:
    """What sums take a value for: numbers, and yes and no."""
    if isinstance(value, bool | int | float):
        return None if abs(value) > 1e300 or not math.isfinite(value) else float(value)
    return _WORDS.get(value.lower()) if isinstance(value, str) else None


def _row(one: Assessment) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "kind": one.kind,
        "value": json.dumps(one.value, ensure_ascii=False),
        "number": as_number(one.value),
        "error": None if one.error is None else json.dumps(dict(one.error), ensure_ascii=False),
        "source_type": one.source_type,
        "source": one.source,
        "span": one.span,
        "rationale": one.rationale,
        "metadata": json.dumps(dict(one.metadata), ensure_ascii=False),
        "overrides": one.overrides,
        "valid": int(one.valid),
        "created": one.created,
        "updated": one.updated,
    }


def _assessment(row: Row[Any]) -> Assessment:
    return Assessment(
        id=row.id,
        name=row.name,
        kind=row.kind,
        value=json.loads(row.value),
        error=None if row.error is None else json.loads(row.error),
        source_type=row.source_type,
        source=row.source,
        span=row.span,
        rationale=row.rationale,
        metadata=json.loads(row.metadata),
        overrides=row.overrides,
        valid=bool(row.valid),
        created=row.created,
        updated=row.updated,
    )


def _absent(identity: str, trace: str) -> NotFound:
    return NotFound(
        f"Assessment with ID '{identity}' not found for trace '{trace}'", hint="the trace's info lists its assessments"
    )
