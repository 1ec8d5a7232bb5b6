"""Traces: stating, reading, tagging, linking, deleting. Their spans are in `spans`."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, delete, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.genai import assessments
from everloop.catalog.genai.rows import (
    NAME_TAG,
    OWN_TAGS,
    PLACE_TAG,
    RUN_METADATA,
    SESSION_METADATA,
    SPANS_HERE,
    SPANS_TAG,
    TRACE_ID,
    USAGE_METADATA,
    Assessment,
    Trace,
)
from everloop.catalog.governance import holds
from everloop.catalog.tables.genai import trace_metadata, trace_prompts, trace_runs, trace_tags, traces
from everloop.catalog.tables.tracking import artifacts
from everloop.catalog.tracking import experiments, runs
from everloop.catalog.tracking.points import chunks
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput, NotFound

_TOKENS = ("input_tokens", "output_tokens", "total_tokens")
_CACHED = {"cache_read_input_tokens": "cache_read_tokens", "cache_creation_input_tokens": "cache_creation_tokens"}
_INT64 = 2**63
_MOST_LINKS = 100


def state(tx: Tx, project: str, given: Trace, *, at: Micros) -> Trace:
    """Write what a client says about a whole trace; spans that came before or come later do not overrule it.

    Raises `NotFound` for an unknown experiment, `InvalidInput` when the trace is one of another experiment.
    """
    root = experiments.artifact_root(tx, project, given.experiment)
    row = begin(tx, project, given.experiment, {given.id: given.at}, root)[given.id]
    values: dict[str, Any] = {
        "at": given.at,
        "duration": given.duration,
        "status": given.status,
        "client_request": given.client_request,
        "request": given.request if given.request is not None else row.request,
        "response": given.response if given.response is not None else row.response,
        "stated": 1,
    }
    tx.execute(update(traces).where(traces.c.number == row.number).values(**values))
    put_tags(tx, row.number, {key: value for key, value in given.tags.items() if key not in OWN_TAGS})
    put_metadata(tx, row.number, given.metadata)
    if given.run:
        _link(tx, [row.number], given.run)
    for one in given.assessments:
        assessments.create(tx, row.number, one, at=at)
    return get(tx, project, given.id)


def begin(tx: Tx, project: str, experiment: str, wanted: Mapping[str, Micros], root: str) -> dict[str, Row[Any]]:
    """The rows of these traces by id, locked, made where they are not there yet with the time they are given.

    `root` is the experiment's artifact root. Raises `InvalidInput` for a trace of another experiment.
    """
    for identity in wanted:
        if TRACE_ID.fullmatch(identity) is None:
            raise InvalidInput(f"Invalid trace ID '{identity[:100]}'", hint="for example tr- and 32 hexadecimal digits")
    rows = [
        {
            "project": project,
            "id": identity,
            "experiment": int(experiment),
            "at": wanted[identity],
            "status": "IN_PROGRESS",
            "name": "",
            "spans": 0,
            "stated": 0,
        }
        for identity in sorted(wanted)
    ]
    made = insert_into(tx, traces).on_conflict_do_nothing().returning(traces.c.number, traces.c.id)
    fresh = [found for row in rows for found in tx.execute(made, row)]
    if fresh:
        tags = [{"parent": row.number, "key": PLACE_TAG, "value": place(root, row.id)} for row in fresh]
        tx.execute(insert_into(tx, trace_tags).on_conflict_do_nothing(), tags)
    mine = (traces.c.project == project, traces.c.id.in_(list(wanted)))
    found = {row.id: row for row in tx.execute(select(traces).where(*mine).order_by(traces.c.id).with_for_update())}
    for row in found.values():
        if row.experiment != int(experiment):
            raise InvalidInput(
                f"Trace '{row.id}' belongs to experiment {row.experiment}, not {experiment}",
                hint="a trace stays in its experiment",
            )
    return found


def place(root: str, identity: str) -> str:
    """Where a trace's own artifacts go, below its experiment's artifact root."""
    return f"{root.rstrip('/')}/traces/{identity}/artifacts"


def put_tags(tx: Tx, number: int, tags: Mapping[str, str]) -> None:
    """Set tags; the name of the trace is one, and a column too."""
    runs.put_values(tx, trace_tags, number, tags)
    if NAME_TAG in tags:
        tx.execute(update(traces).where(traces.c.number == number).values(name=tags[NAME_TAG][:250]))


def put_metadata(tx: Tx, number: int, metadata: Mapping[str, str]) -> None:
    """Set metadata; what searches and sums name often has columns too."""
    runs.put_values(tx, trace_metadata, number, metadata)
    columns: dict[str, Any] = {}
    if SESSION_METADATA in metadata:
        columns["session"] = metadata[SESSION_METADATA]
    if USAGE_METADATA in metadata:
        columns |= _token_columns(metadata[USAGE_METADATA])
    if columns:
        tx.execute(update(traces).where(traces.c.number == number).values(**columns))


def find(tx: Tx, project: str, identity: str) -> Trace:
    """The trace's own row with its tags and metadata, without assessments; raises `NotFound`."""
    return loaded(tx, [_find(tx, project, identity)], judged=False)[0]


def get(tx: Tx, project: str, identity: str) -> Trace:
    """The trace with all that is said about it; raises `NotFound`."""
    return loaded(tx, [_find(tx, project, identity)])[0]


def several(
    tx: Tx, project: str, identities: Sequence[str], experiment_ids: Collection[str] | None = None
) -> list[Trace]:
    """Traces in the order of their ids as asked; those that are not there (or not in the experiments) are left out."""
    wanted = list(dict.fromkeys(identities))
    rows: dict[str, Row[Any]] = {}
    for part in chunks(wanted):
        for row in tx.execute(select(traces).where(traces.c.project == project, traces.c.id.in_(part))):
            if experiment_ids is None or str(row.experiment) in experiment_ids:
                rows[row.id] = row
    return loaded(tx, [rows[identity] for identity in wanted if identity in rows])


def numbered(tx: Tx, numbers: Sequence[int]) -> list[Trace]:
    """Traces by their own integers, in that order; those that are not there are left out."""
    rows: dict[int, Row[Any]] = {}
    for part in chunks(numbers):
        rows.update((row.number, row) for row in tx.execute(select(traces).where(traces.c.number.in_(part))))
    return loaded(tx, [rows[number] for number in numbers if number in rows])


def loaded(tx: Tx, rows: Collection[Row[Any]], *, judged: bool = True) -> list[Trace]:
    """The values of rows of the table, in their order, with what hangs on them."""
    numbers = [row.number for row in rows]
    tags, metadata = runs.values_below(tx, trace_tags, numbers), runs.values_below(tx, trace_metadata, numbers)
    said: Mapping[int, list[Assessment]] = assessments.below(tx, numbers) if judged else {}
    prompts: dict[int, list[dict[str, str]]] = defaultdict(list)
    for part in chunks(numbers):
        for row in tx.execute(select(trace_prompts).where(trace_prompts.c.trace.in_(part))):
            prompts[row.trace].append({"name": row.name, "version": row.version})
    return [
        Trace(
            id=row.id,
            experiment=str(row.experiment),
            at=row.at,
            duration=row.duration,
            status=row.status,
            client_request=row.client_request,
            request=row.request,
            response=row.response,
            tags=_tags(row, tags.get(row.number, {}), prompts.get(row.number, [])),
            metadata=metadata.get(row.number, {}),
            assessments=tuple(assessments.of(one, row.id) for one in said.get(row.number, ())),
            number=row.number,
            name=row.name,
            spans=row.spans,
        )
        for row in rows
    ]


def set_tag(tx: Tx, project: str, identity: str, key: str, value: str) -> None:
    """Set a tag; raises `NotFound`, and `InvalidInput` for one that says where the trace's parts are."""
    if key in OWN_TAGS:
        raise InvalidInput(f"Tag '{key}' is set by the server", hint="choose another key")
    put_tags(tx, _find(tx, project, identity).number, {key: value})


def delete_tag(tx: Tx, project: str, identity: str, key: str) -> None:
    """Remove a tag; raises `NotFound` when it is not set, `InvalidInput` for one of the server's."""
    number = _find(tx, project, identity).number
    if key in OWN_TAGS:
        raise InvalidInput(f"Tag '{key}' is set by the server", hint="it goes with the trace")
    gone = tx.execute(delete(trace_tags).where(trace_tags.c.parent == number, trace_tags.c.key == key))
    if gone.rowcount == 0:
        raise NotFound(f"No trace tag with key '{key}' for trace with ID '{identity}'", hint="it may be gone already")


def link_run(tx: Tx, project: str, identities: Sequence[str], run: str) -> None:
    """Say that traces belong to a run; raises `NotFound` for either, `InvalidInput` for more than 100."""
    if len(identities) > _MOST_LINKS:
        raise InvalidInput(
            f"Cannot link more than {_MOST_LINKS} traces to a run in a single request. "
            f"Provided {len(identities)} traces.",
            hint="link them in parts",
        )
    runs.find(tx, project, run)
    mine = (traces.c.project == project, traces.c.id.in_(list(identities)))
    found = {row.id: row.number for row in tx.execute(select(traces.c.id, traces.c.number).where(*mine))}
    absent = sorted(set(identities) - set(found))
    if absent:
        raise _absent(absent[0])
    _link(tx, sorted(found.values()), run)


def link_prompts(tx: Tx, project: str, identity: str, prompts: Sequence[tuple[str, str]]) -> None:
    """Say which versions of prompts a trace used; raises `NotFound`."""
    number = _find(tx, project, identity).number
    rows = [{"trace": number, "name": name, "version": version} for name, version in sorted(set(prompts))]
    if rows:
        tx.execute(insert_into(tx, trace_prompts).on_conflict_do_nothing(), rows)


def delete_some(
    tx: Tx,
    project: str,
    experiment: str,
    *,
    identities: Sequence[str] = (),
    until: Micros | None = None,
    most: int | None = None,
) -> int:
    """Delete traces of an experiment, those of these ids or up to a time, the oldest first; returns how many.

    What hangs on them goes too; objects stay until a sweep. Raises `PolicyRefused` while a legal hold on the experiment
    stands.
    """
    holds.need_none(tx, project, f"experiment/{experiment}")
    if not identities and until is None:
        raise InvalidInput(
            "Either `max_timestamp_millis` or `trace_ids` must be specified, but not both.", hint="say which ones"
        )
    wanted = [traces.c.project == project, traces.c.experiment == int(experiments.get(tx, project, experiment).id)]
    if identities:
        wanted.append(traces.c.id.in_(list(identities)))
    if until is not None:
        wanted.append(traces.c.at <= until)
    chosen = select(traces.c.number, traces.c.id).where(*wanted).order_by(traces.c.at, traces.c.id).limit(most)
    found = tx.execute(chosen).all()
    for part in chunks([row.number for row in found]):
        tx.execute(delete(traces).where(traces.c.number.in_(part)))
    for part in chunks([row.id for row in found]):
        tx.execute(delete(artifacts).where(artifacts.c.project == project, artifacts.c.owner.in_(part)))
    return len(found)


def run_of(tx: Tx, project: str, identity: str) -> tuple[str, str]:
    """The experiment of a trace, and the run that it was made in (or nothing); raises `NotFound`."""
    row = _find(tx, project, identity)
    made = select(trace_metadata.c.value).where(
        trace_metadata.c.parent == row.number, trace_metadata.c.key == RUN_METADATA
    )
    return str(row.experiment), tx.execute(made).scalar() or ""


def number_of(tx: Tx, project: str, identity: str) -> int:
    """The integer on which a trace's rows hang; raises `NotFound`."""
    number: int = _find(tx, project, identity).number
    return number


def _link(tx: Tx, numbers: Sequence[int], run: str) -> None:
    rows = [{"run": run, "trace": number} for number in numbers]
    if rows:
        tx.execute(insert_into(tx, trace_runs).on_conflict_do_nothing(), rows)


def _find(tx: Tx, project: str, identity: str) -> Row[Any]:
    row = tx.execute(select(traces).where(traces.c.project == project, traces.c.id == identity)).first()
    if row is None:
        raise _absent(identity)
    return row


def _absent(identity: str) -> NotFound:
    return NotFound(f"Trace with ID '{identity}' not found.", hint="is it a trace of this project?")


def _tags(row: Row[Any], tags: dict[str, str], prompts: list[dict[str, str]]) -> dict[str, str]:
    if row.spans:
        tags[SPANS_TAG] = SPANS_HERE
    if prompts:
        tags["mlflow.linkedPrompts"] = json.dumps(prompts)
    return tags


def _token_columns(text: str) -> dict[str, int]:
    """The counts of a usage text, as columns; a text of something else has none."""
    try:
        usage = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(usage, dict):
        return {}
    named = {**dict.fromkeys(_TOKENS), **_CACHED}
    return {
        column or kind: usage[kind]
        for kind, column in named.items()
        if type(usage.get(kind)) is int and 0 <= usage[kind] < _INT64
    }
