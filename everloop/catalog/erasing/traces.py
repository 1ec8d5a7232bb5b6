"""Traces that speak of a subject go whole: what was asked and answered is about the person, not only the key in it."""

from collections.abc import Collection

from sqlalchemy import Table, delete, or_, select

from everloop.catalog import facts
from everloop.catalog.engine import Tx
from everloop.catalog.erasing.mentions import Mentions
from everloop.catalog.erasing.texts import texts_of
from everloop.catalog.facts import Fact
from everloop.catalog.governance.redactions import FILE
from everloop.catalog.tables.genai import (
    assessments,
    span_bodies,
    span_objects,
    spans,
    trace_metadata,
    trace_tags,
    traces,
)
from everloop.catalog.tables.tracking import artifacts
from everloop.catalog.tracking.points import chunks

_BELOW = (trace_tags, trace_metadata, spans, span_bodies, assessments)


def speaking(tx: Tx, project: str, mentions: Mentions) -> set[int]:
    """The numbers of traces whose rows speak of the subject; large bodies lie in `bodies`."""
    found = _of(tx, traces, "number", project, mentions)
    for table in _BELOW:
        found |= _of(tx, table, "trace" if "trace" in table.c else "parent", project, mentions)
    return found


def experiments(tx: Tx, project: str, numbers: Collection[int]) -> set[str]:
    """The experiments in which traces lie."""
    found: set[str] = set()
    for part in chunks(sorted(numbers)):
        mine = (traces.c.project == project, traces.c.number.in_(part))
        found.update(str(one) for one in tx.execute(select(traces.c.experiment).where(*mine).distinct()).scalars())
    return found


def bodies(tx: Tx, project: str) -> list[tuple[int, str]]:
    """(trace, object) of every body that is kept in the store."""
    query = select(span_objects.c.trace, span_objects.c.object).where(span_objects.c.project == project)
    return [(row.trace, row.object) for row in tx.execute(query.order_by(span_objects.c.trace, span_objects.c.object))]


def erase(tx: Tx, project: str, numbers: Collection[int], said: Fact) -> int:
    """Delete traces with all that hangs on them, and say which objects nobody may read any more."""
    gone: set[str] = set()
    count = 0
    for part in chunks(sorted(numbers)):
        ids = list(tx.execute(select(traces.c.id).where(traces.c.number.in_(part))).scalars())
        gone.update(tx.execute(select(span_objects.c.object).where(span_objects.c.trace.in_(part))).scalars())
        mine = (artifacts.c.project == project, artifacts.c.owner.in_(ids))
        gone.update(tx.execute(select(artifacts.c.object).where(*mine)).scalars())
        tx.execute(delete(artifacts).where(*mine))
        count += tx.execute(delete(traces).where(traces.c.project == project, traces.c.number.in_(part))).rowcount
    if count:
        payload = {**said.payload, "traces": count, "removed": sorted(gone)}
        facts.append(tx, project, Fact(FILE, "traces", said.actor, said.at, payload, recorded=said.recorded))
    return count


def _of(tx: Tx, table: Table, number: str, project: str, mentions: Mentions) -> set[int]:
    texts = texts_of(table)
    holding = or_(*(c.contains(form, autoescape=True) for c in texts for form in mentions.forms))
    query = select(table.c[number].label("trace"), *texts).where(holding)
    if table is traces:
        query = query.where(traces.c.project == project)
    else:
        query = query.where(table.c[number].in_(select(traces.c.number).where(traces.c.project == project)))
    return {
        row["trace"]
        for row in tx.execute(query).mappings()
        if any(row[c.name] and mentions.in_text(row[c.name]) for c in texts)
    }
