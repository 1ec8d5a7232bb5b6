"""Conditions as SQL, and pages by seeking: the next page starts after the last row, whatever was added meanwhile."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    Table,
    and_,
    case,
    func,
    literal,
    or_,
    select,
)

from everloop.catalog.tracking.filters import NUMERIC, TEXT, Condition, Ordering
from everloop.core.errors import InvalidInput
from everloop.core.ids import manifest_id, short

Compare = Callable[[Connection, Condition], ColumnElement[bool]]
"""Makes the SQL of a condition on a child entity (metric, param, tag, dataset)."""

_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a search may name: attributes by column, and how conditions on other entities become SQL."""

    attributes: Mapping[str, ColumnElement[Any]]
    numeric: frozenset[str] = frozenset()
    """The attributes that are numbers; the others are texts."""
    scale: Mapping[str, int] = field(default_factory=dict)
    """Factor from the number that a caller writes to the one that is stored (milliseconds to microseconds)."""
    children: Mapping[str, Compare] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Term:
    """One expression of an order, never NULL, so that a row's place can be compared with a token."""

    expression: ColumnElement[Any]
    descending: bool = False


def conditions_sql(
    tx: Connection, vocabulary: Vocabulary, conditions: Sequence[Condition]
) -> list[ColumnElement[bool]]:
    """The WHERE clauses of parsed conditions; raises `InvalidInput` for a name or operator that is not known."""
    clauses = []
    for condition in conditions:
        try:
            clauses.append(_condition(tx, vocabulary, condition))
        except InvalidInput as error:
            error.details.setdefault("reason", error.message)
            error.details.setdefault("place", condition.field.place)
            raise
    return clauses


def _condition(tx: Connection, vocabulary: Vocabulary, condition: Condition) -> ColumnElement[bool]:
    entity, key = condition.field.entity, condition.field.key
    if entity in vocabulary.children:
        return vocabulary.children[entity](tx, condition)
    if entity != "attribute" or key not in vocabulary.attributes:
        raise _unknown(vocabulary, condition.field.entity, key)
    column = vocabulary.attributes[key]
    if key in vocabulary.numeric:
        return compare_number(column, condition, vocabulary.scale.get(key, 1))
    return compare_text(tx, column, condition)


def _unknown(vocabulary: Vocabulary, entity: str, key: str) -> InvalidInput:
    known = [*sorted(vocabulary.attributes), *(f"{child}s.<key>" for child in vocabulary.children)]
    return InvalidInput(f"Invalid {entity} key '{key}' specified", hint="one of " + ", ".join(known))


def compare_number(column: ColumnElement[Any], condition: Condition, scale: int = 1) -> ColumnElement[bool]:
    """A comparison with a number; raises `InvalidInput` for a text, or an operator of texts."""
    value = condition.value
    if condition.operator not in NUMERIC:
        raise InvalidInput(
            f"Invalid comparator '{condition.operator}' not one of those of a number, which '{condition.field.key}' is",
            hint="one of " + ", ".join(sorted(NUMERIC)),
        )
    if not isinstance(value, int | float):
        raise InvalidInput(
            f"Expected numeric value type for {condition.field.entity} '{condition.field.key}'. Found {value}",
            hint="write the number without quotes",
        )
    scaled = value * scale
    if isinstance(scaled, int) and not _holds(column, scaled):
        scaled = float(scaled) if abs(scaled) < 10**300 else float("inf") * (1 if scaled > 0 else -1)
    sides: dict[str, Callable[[], ColumnElement[bool]]] = {
        "=": lambda: column == scaled,
        "!=": lambda: column != scaled,
        "<": lambda: column < scaled,
        "<=": lambda: column <= scaled,
        ">": lambda: column > scaled,
        ">=": lambda: column >= scaled,
    }
    return sides[condition.operator]()


def compare_text(tx: Connection, column: ColumnElement[Any], condition: Condition) -> ColumnElement[bool]:
    """A comparison with a text. LIKE minds case on both databases, ILIKE does not; neither has an escape."""
    operator, value = condition.operator, condition.value
    if operator not in TEXT:
        raise InvalidInput(
            f"Invalid comparator '{operator}' not one of those of a text, which '{condition.field.key}' is",
            hint="one of " + ", ".join(sorted(TEXT)),
        )
    if operator in {"IS NULL", "IS NOT NULL"}:
        return column.is_(None) if operator == "IS NULL" else column.is_not(None)
    if operator in {"IN", "NOT IN"}:
        assert isinstance(value, tuple)
        texts = [_text(condition, one) for one in value]
        return column.in_(texts) if operator == "IN" else column.not_in(texts)
    text = _text(condition, value)
    if operator == "LIKE":
        return column.op("GLOB")(_glob(text)) if tx.dialect.name == "sqlite" else column.like(text, escape="")
    if operator == "ILIKE":
        lowered = func.lower(column)
        return lowered.like(text.lower()) if tx.dialect.name == "sqlite" else lowered.like(text.lower(), escape="")
    return column == text if operator == "=" else column != text


def _text(condition: Condition, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInput(
            f"Expected a quoted string value for {condition.field.entity} '{condition.field.key}'. Got value {value}",
            hint="write the text between single quotes",
        )
    return value


def _glob(pattern: str) -> str:
    """The SQL pattern (% and _) as SQLite's GLOB, which minds case where its LIKE does not."""
    swap = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(swap.get(character, character) for character in pattern)


def attribute_terms(vocabulary: Vocabulary, ordering: Ordering) -> list[Term]:
    """The terms of an ordering by attribute, with missing values last; raises `InvalidInput` for an unknown one."""
    key = ordering.field.key
    if ordering.field.entity != "attribute" or key not in vocabulary.attributes:
        raise _unknown(vocabulary, ordering.field.entity, key)
    return nullable(vocabulary.attributes[key], ordering.descending, 0 if key in vocabulary.numeric else "")


def nullable(column: ColumnElement[Any], descending: bool, default: Any) -> list[Term]:
    """Order by a column that may be NULL: those rows come last in either direction."""
    if isinstance(column, Column) and not column.nullable and column.table.name == "runs":
        return [Term(column, descending)]
    return [Term(case((column.is_(None), 1), else_=0)), Term(func.coalesce(column, literal(default)), descending)]


def fetch_page(
    tx: Connection, statement: Select[Any], terms: Sequence[Term], *, limit: int, token: str, query: Any
) -> tuple[list[Row[Any]], str]:
    """Run a search ordered by `terms`, of which the last ones must make each row unique.

    `token` is what the page before gave, for the same `query` (any JSON value that identifies it); rows come
    back with the places as extra columns at their end. Raises `InvalidInput` for a token of another query.
    """
    return fetch_branches(tx, [Branch(statement, tuple(terms))], limit=limit, token=token, query=query)


@dataclass(frozen=True, slots=True)
class Branch:
    """A part of a search whose order an index holds: the parts of one stage are merged, stages follow each other."""

    statement: Select[Any]
    terms: tuple[Term, ...]
    """The same expressions in all parts of a stage."""
    stage: int = 0


def fetch_branches(
    tx: Connection, branches: Sequence[Branch], *, limit: int, token: str, query: Any
) -> tuple[list[Row[Any]], str]:
    """A page of a search in parts, as `fetch_page` gives it of a whole one; no later stage is asked than is needed."""
    digest = short(manifest_id(json.dumps(query, sort_keys=True)))
    begin, places = _places(token, digest, branches) if token else (0, [])
    found: list[tuple[int, Row[Any]]] = []
    for stage in sorted({branch.stage for branch in branches if branch.stage >= begin}):
        parts = [branch for branch in branches if branch.stage == stage]
        left = limit + 1 - len(found)
        after = places if token and stage == begin else None
        rows = [row for part in parts for row in _fetch(tx, part, after, left)]
        if len(parts) > 1:
            for index in reversed(range(len(parts[0].terms))):
                rows.sort(key=itemgetter(index - len(parts[0].terms)), reverse=parts[0].terms[index].descending)
        found += [(stage, row) for row in rows[:left]]
        if len(found) > limit:
            reached, last = found[limit - 1]
            terms = next(len(branch.terms) for branch in branches if branch.stage == reached)
            text = json.dumps([digest, reached, *last[-terms:]])
            return [row for _, row in found[:limit]], base64.urlsafe_b64encode(text.encode()).decode()
    return [row for _, row in found], ""


def _fetch(tx: Connection, branch: Branch, after: Sequence[Any] | None, limit: int) -> list[Row[Any]]:
    statement = branch.statement if after is None else branch.statement.where(_after(branch.terms, after))
    labelled = [term.expression.label(f"place_{index}") for index, term in enumerate(branch.terms)]
    order = [term.expression.desc() if term.descending else term.expression.asc() for term in branch.terms]
    return list(tx.execute(statement.add_columns(*labelled).order_by(*order).limit(limit)))


def _places(token: str, digest: str, branches: Sequence[Branch]) -> tuple[int, list[Any]]:
    """The stage that a token leads to, and the place in it."""
    try:
        owner, stage, *places = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        owner, stage, places = "", None, []
    known = isinstance(stage, int) and not isinstance(stage, bool)
    terms = next((branch.terms for branch in branches if known and branch.stage == stage), None)
    if owner != digest or terms is None or len(places) != len(terms) or not all(map(_fits, terms, places)):
        raise InvalidInput(
            "Invalid page token, could not be decoded for this search",
            hint="page tokens belong to one filter and order; start again without a token",
        )
    return stage, places


def _fits(term: Term, place: Any) -> bool:
    """Whether a place can be compared with a term: a forged token is refused here, not by the database."""
    kind = term.expression.type.python_type
    if kind is str:
        return isinstance(place, str) and "\x00" not in place and not any("\ud800" <= c <= "\udfff" for c in place)
    if isinstance(place, bool) or not isinstance(place, int | float):
        return False
    if kind is float:
        return isinstance(place, float) or abs(place) < _INT64
    return isinstance(place, int) and _holds(term.expression, place)


def _holds(column: ColumnElement[Any], value: int) -> bool:
    """Whether an integer is in the range of the column's type, or of int64 for a column of floats."""
    narrow = isinstance(column.type, Integer) and not isinstance(column.type, BigInteger)
    return abs(value) < (2**31 if narrow else _INT64)


def _after(terms: Sequence[Term], places: Sequence[Any]) -> ColumnElement[bool]:
    """Rows behind a place: the first differing term decides."""
    clauses: list[ColumnElement[bool]] = []
    for index, (term, place) in enumerate(zip(terms, places, strict=True)):
        same = [t.expression == p for t, p in zip(terms[:index], places[:index], strict=True)]
        beyond = term.expression < place if term.descending else term.expression > place
        clauses.append(and_(*same, beyond))
    first = terms[0]
    bound = first.expression <= places[0] if first.descending else first.expression >= places[0]
    return and_(bound, or_(*clauses))  # the bound says nothing new, but an index understands it


def child_text(
    tx: Connection, table: Table, mine: Sequence[ColumnElement[bool]], condition: Condition
) -> ColumnElement[bool]:
    """A condition on the `value` of a row of `table` that meets `mine`: the row exists and compares.

    IS NULL asks that there is no such row.
    """
    child = select(literal(1)).select_from(table).where(*mine)
    if condition.operator == "IS NULL":
        return ~child.exists()
    if condition.operator == "IS NOT NULL":
        return child.exists()
    return child.where(compare_text(tx, table.c.value, condition)).exists()
