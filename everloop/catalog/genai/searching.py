"""The search for traces: filters over traces, their tags, spans and assessments, and pages by seeking.

    names: attributes (also `trace.<name>` or bare): trace_id, request_id, client_request_id, name, status, session,
           timestamp[_ms], execution_time[_ms], end_time[_ms], run_id, prompt, text
           tag.<key>, metadata.<key>, span.name|type|status|content|attributes.<key>, feedback.<name>,
           expectation.<name>

Conditions on the bodies of spans (`text`, `span.content`, `span.attributes.…`) read those of every trace that the other
conditions leave, and of a large span only the beginnings of its texts.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, Select, and_, case, cast, func, literal, select
from sqlalchemy import Text as SqlText

from everloop.catalog.engine import Tx
from everloop.catalog.genai import traces as stored
from everloop.catalog.genai.rows import Trace
from everloop.catalog.tables.genai import (
    assessments,
    span_bodies,
    spans,
    trace_metadata,
    trace_prompts,
    trace_runs,
    trace_tags,
    traces,
)
from everloop.catalog.tracking.filters import Condition, Entities, Field, Ordering, parse_filter, parse_order
from everloop.catalog.tracking.rows import Page
from everloop.catalog.tracking.search import (
    Term,
    Vocabulary,
    attribute_terms,
    child_text,
    compare_number,
    compare_text,
    conditions_sql,
    fetch_page,
    nullable,
)
from everloop.core.errors import InvalidInput

ENTITIES: Entities = {
    word: entity
    for entity, words in {
        "tag": ("tag", "tags"),
        "metadata": ("metadata", "request_metadata"),
        "attribute": ("attribute", "attributes", "attr", "trace"),
        "span": ("span", "spans"),
        "feedback": ("feedback",),
        "expectation": ("expectation",),
    }.items()
    for word in words
}
_ELSEWHERE = {"run_id": Field("run", "id"), "prompt": Field("prompt", "id"), "text": Field("span", "content")}
"""Attributes that are no columns of a trace."""
_MOST_EXPERIMENTS = 10_000


def search(
    tx: Tx,
    project: str,
    experiment_ids: Collection[str],
    *,
    filter_text: str = "",
    order_by: Sequence[str] = (),
    limit: int = 100,
    token: str = "",
) -> Page[Trace]:
    """A page of traces, the newest first unless `order_by` says otherwise; raises `InvalidInput`."""
    # sorting carries numbers only, not the texts of every trace that the filter leaves
    statement = _chosen(tx, project, experiment_ids, [filter_text]).with_only_columns(traces.c.number)
    terms: list[Term] = []
    for ordering in parse_order(order_by, ENTITIES):
        statement, more = _ordered(statement, ordering)
        terms.extend(more)
    terms += [Term(traces.c.at, descending=True), Term(traces.c.id)]
    query = ["traces", project, sorted(numbers_of(experiment_ids)), filter_text, list(order_by)]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=query)
    return Page(tuple(stored.numbered(tx, [row.number for row in found])), following)


def counted(tx: Tx, project: str, experiment_ids: Collection[str], filters: Sequence[str]) -> int:
    """How many traces all of these filters leave; raises `InvalidInput`."""
    statement = _chosen(tx, project, experiment_ids, filters).with_only_columns(func.count())
    return int(tx.execute(statement).scalar_one())


def numbers_of(experiment_ids: Collection[str]) -> list[int]:
    """Ids of experiments as they are stored; what cannot be one is left out. Raises `InvalidInput` for too many."""
    found = [int(one) for one in experiment_ids if one.isascii() and one.isdigit() and len(one) < 19]
    if len(found) > _MOST_EXPERIMENTS:
        raise InvalidInput(f"a search covers at most {_MOST_EXPERIMENTS} experiments", hint="search them in parts")
    return found


def _chosen(tx: Tx, project: str, experiment_ids: Collection[str], filters: Sequence[str]) -> Select[Any]:
    conditions = [_placed(one) for text in filters for one in parse_filter(text, ENTITIES)]
    return select(traces).where(
        traces.c.project == project,
        traces.c.experiment.in_(numbers_of(experiment_ids)),
        *conditions_sql(tx, _VOCABULARY, conditions),
    )


def _placed(condition: Condition) -> Condition:
    where = _ELSEWHERE.get(condition.field.key) if condition.field.entity == "attribute" else None
    return condition if where is None else replace(condition, field=where)


def _ordered(statement: Select[Any], ordering: Ordering) -> tuple[Select[Any], list[Term]]:
    entity, key = ordering.field.entity, ordering.field.key
    if entity in {"tag", "metadata"} or (entity, key) == ("attribute", "run_id"):
        table = (trace_tags if entity == "tag" else trace_metadata).alias()
        wanted = "mlflow.sourceRun" if entity == "attribute" else key
        statement = statement.outerjoin(table, and_(table.c.parent == traces.c.number, table.c.key == wanted))
        return statement, nullable(table.c.value, ordering.descending, "")
    return statement, attribute_terms(_VOCABULARY, ordering)


def _tag(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    mine = [trace_tags.c.parent == traces.c.number, trace_tags.c.key == condition.field.key]
    return child_text(tx, trace_tags, mine, condition)


def _metadata(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    mine = [trace_metadata.c.parent == traces.c.number, trace_metadata.c.key == condition.field.key]
    return child_text(tx, trace_metadata, mine, condition)


def _run(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    linked = select(literal(1)).select_from(trace_runs).where(trace_runs.c.trace == traces.c.number)
    return linked.where(compare_text(tx, trace_runs.c.run, condition)).exists()


def _prompt(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    if condition.operator != "=" or not isinstance(condition.value, str) or condition.value.count("/") != 1:
        raise InvalidInput(
            "Invalid comparison with 'prompt': it is compared by = with 'name/version'", hint="prompt = 'greeting/2'"
        )
    used = select(literal(1)).select_from(trace_prompts).where(trace_prompts.c.trace == traces.c.number)
    whole = trace_prompts.c.name + "/" + trace_prompts.c.version
    return used.where(compare_text(tx, whole, condition)).exists()


def _span(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    key = condition.field.key
    if condition.operator in {"IS NULL", "IS NOT NULL"}:
        raise InvalidInput(f"Invalid comparator '{condition.operator}' for span.{key}", hint="compare it with a text")
    if key in {"name", "type", "status"}:
        mine = select(literal(1)).select_from(spans).where(spans.c.trace == traces.c.number)
        return mine.where(compare_text(tx, spans.c[key], condition)).exists()
    bodies = select(literal(1)).select_from(span_bodies).where(span_bodies.c.trace == traces.c.number)
    if key == "content":
        if condition.operator not in {"LIKE", "ILIKE"}:
            raise InvalidInput(
                f"span.content comparator '{condition.operator}' not one of LIKE, ILIKE", hint="span.content LIKE '%x%'"
            )
        return bodies.where(compare_text(tx, span_bodies.c.body, condition)).exists()
    name = key.removeprefix("attributes.")
    if name in {"", key}:
        raise InvalidInput(
            f"Invalid span attribute '{key}'. Supported attributes: name, status, type, attributes.<attribute_name>.",
            hint="for example span.attributes.model = 'x'",
        )
    return _attribute(tx, name, condition)


def _attribute(tx: Connection, name: str, condition: Condition) -> ColumnElement[bool]:
    """A span of the trace has the attribute, and its value compares as a text."""
    if tx.dialect.name == "sqlite":
        each = func.json_each(span_bodies.c.body, "$.attributes").table_valued("value", name="attribute")
        key = func.json_extract(each.c.value, "$.key")
        forms = [func.json_extract(each.c.value, f"$.value.{form}") for form in _FORMS]
        value = func.coalesce(*(cast(form, SqlText) for form in forms))
    else:
        each = func.json_array_elements(cast(span_bodies.c.body, JSON)["attributes"]).table_valued(
            "value", name="attribute"
        )
        key = func.json_extract_path_text(cast(each.c.value, JSON), "key")
        value = func.coalesce(
            *(func.json_extract_path_text(cast(each.c.value, JSON), "value", form) for form in _FORMS)
        )
    mine = select(literal(1)).select_from(span_bodies.join(each, literal(1) == 1))
    return mine.where(span_bodies.c.trace == traces.c.number, key == name, compare_text(tx, value, condition)).exists()


_FORMS = ("string_value", "int_value", "double_value", "bool_value")


def _said(kind: str) -> Callable[[Connection, Condition], ColumnElement[bool]]:
    def judged(tx: Connection, condition: Condition) -> ColumnElement[bool]:
        mine = (
            select(literal(1))
            .select_from(assessments)
            .where(
                assessments.c.trace == traces.c.number,
                assessments.c.kind == kind,
                assessments.c.name == condition.field.key,
                assessments.c.valid == 1,
            )
        )
        if condition.operator == "IS NULL":
            return ~mine.exists()
        if condition.operator == "IS NOT NULL":
            return mine.exists()
        if isinstance(condition.value, int | float):
            return mine.where(compare_number(assessments.c.number, condition)).exists()
        trim = func.trim if tx.dialect.name == "sqlite" else func.btrim
        return mine.where(compare_text(tx, trim(assessments.c.value, '"'), condition)).exists()

    return judged


_TIMES: dict[str, ColumnElement[Any]] = {
    "timestamp": traces.c.at,
    "timestamp_ms": traces.c.at,
    "execution_time": traces.c.duration,
    "execution_time_ms": traces.c.duration,
    "end_time": traces.c.at + traces.c.duration,
    "end_time_ms": traces.c.at + traces.c.duration,
}
_VOCABULARY = Vocabulary(
    attributes={
        "request_id": traces.c.id,
        "trace_id": traces.c.id,
        "client_request_id": traces.c.client_request,
        "name": case((traces.c.name == "", None), else_=traces.c.name),
        "status": traces.c.status,
        "state": traces.c.status,
        "session": traces.c.session,
        "experiment_id": cast(traces.c.experiment, SqlText),
        **_TIMES,
    },
    numeric=frozenset(_TIMES),
    scale=dict.fromkeys(_TIMES, 1000),
    children={
        "tag": _tag,
        "metadata": _metadata,
        "span": _span,
        "run": _run,
        "prompt": _prompt,
        "feedback": _said("feedback"),
        "expectation": _said("expectation"),
    },
)
