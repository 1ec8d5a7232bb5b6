"""The filter language of MLflow's searches, read into conditions; nothing here knows a table.

    filter      := "" | condition ("AND" condition)*
    condition   := name operator value | name ["NOT"] "IN" "(" value ("," value)* ")" | name "IS" ["NOT"] "NULL"
    name        := [entity "."] key          the key may stand in backquotes or double quotes
    operator    := = != < <= > >= LIKE ILIKE
    value       := number | 'text' | "text"

Source: MLflow's documented search syntax; the entity words and their plurals are its own.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from everloop.core.errors import InvalidInput

Literal = str | int | float
"""A value that a condition compares with."""

NUMERIC = frozenset({"=", "!=", "<", "<=", ">", ">="})
TEXT = frozenset({"=", "!=", "LIKE", "ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"})

_MOST_CONDITIONS = 100
_MOST_VALUES = 5000
_MOST_ORDERINGS = 20
"""What one statement of either database certainly holds."""

Entities = Mapping[str, str]
"""Which entity each word before the dot means."""

RUN_ENTITIES: Entities = {
    word: entity
    for entity, words in {
        "metric": ("metric", "metrics"),
        "param": ("parameter", "parameters", "param", "params"),
        "tag": ("tag", "tags"),
        "attribute": ("attribute", "attributes", "attr", "run"),
        "dataset": ("dataset", "datasets"),
    }.items()
    for word in words
}
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>'(?:[^']|'')*')
    |(?P<operator><=|>=|!=|<>|=|<|>)
    |(?P<mark>[(),])
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<name>(?:[^\W\d]\w*\.)?(?:`[^`]*`|"[^"]*")|[^\s'"`=<>!(),]+)""",
    re.VERBOSE,
)
_HINT = "for example: metrics.auc > 0.8 AND params.model = 'tree' AND tags.`my tag` LIKE '%x%'"


@dataclass(frozen=True, slots=True)
class Field:
    """What a condition or an ordering is about: an `entity` (metric, param, tag, attribute, dataset) and its key."""

    entity: str
    key: str
    place: int = field(default=0, compare=False)
    """Where it stands in the text, in characters."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; `value` is a tuple for IN and NOT IN, None for IS NULL and IS NOT NULL."""

    field: Field
    operator: str
    value: Literal | tuple[Literal, ...] | None


@dataclass(frozen=True, slots=True)
class Ordering:
    """One term of an order."""

    field: Field
    descending: bool


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int = 0

    @property
    def word(self) -> str:
        return self.text.upper() if self.kind == "name" else self.text


def parse_filter(text: str, entities: Entities = RUN_ENTITIES) -> tuple[Condition, ...]:
    """Read a filter; raises `InvalidInput` saying where it stops making sense."""
    tokens = _Reader(text, entities)
    found: list[Condition] = []
    while not tokens.ended:
        if found:
            tokens.expect("AND")
        if len(found) == _MOST_CONDITIONS:
            raise tokens.refusal(f"it has more than {_MOST_CONDITIONS} conditions")
        found.append(_condition(tokens))
    return tuple(found)


def parse_order(terms: Iterable[str], entities: Entities = RUN_ENTITIES) -> tuple[Ordering, ...]:
    """Read `key [ASC|DESC]` terms; raises `InvalidInput`."""
    found: list[Ordering] = []
    for term in terms:
        tokens = _Reader(term, entities)
        if len(found) == _MOST_ORDERINGS:
            raise tokens.refusal(f"an order has at most {_MOST_ORDERINGS} terms")
        field = tokens.field()
        direction = tokens.take().word if not tokens.ended else "ASC"
        if direction not in {"ASC", "DESC"} or not tokens.ended:
            raise InvalidInput(f"Invalid order_by clause '{term}'", hint="for example: metrics.auc DESC")
        found.append(Ordering(field, direction == "DESC"))
    return tuple(found)


def _condition(tokens: "_Reader") -> Condition:
    field = tokens.field()
    first = tokens.take()
    if first.kind == "operator":
        operator = "!=" if first.text == "<>" else first.text
        return Condition(field, operator, tokens.value())
    if first.word in {"LIKE", "ILIKE"}:
        return Condition(field, first.word, tokens.value())
    if first.word == "IN":
        return Condition(field, "IN", tokens.values())
    if first.word == "NOT":
        tokens.expect("IN")
        return Condition(field, "NOT IN", tokens.values())
    if first.word == "IS":
        second = tokens.take()
        if second.word == "NOT":
            tokens.expect("NULL")
            return Condition(field, "IS NOT NULL", None)
        if second.word == "NULL":
            return Condition(field, "IS NULL", None)
    raise tokens.refusal(f"'{first.text}' is no operator")


class _Reader:
    """A cursor over the tokens of one text."""

    def __init__(self, text: str, entities: Entities) -> None:
        self._text = text
        self._entities = entities
        self._tokens = list(_tokenise(text))
        self._next = 0

    @property
    def ended(self) -> bool:
        return self._next >= len(self._tokens)

    def refusal(self, reason: str, *, at_end: bool = False) -> InvalidInput:
        """The error about the token that was taken last, or about the end; `details` say where that stands."""
        shown = self._text if len(self._text) < 500 else self._text[:500] + "…"
        last = self._tokens[self._next - 1] if self._next and not at_end else _Token("", "", len(self._text))
        return InvalidInput(
            f"Invalid clause(s) in filter string or order '{shown}': {reason}",
            hint=_HINT,
            reason=reason,
            place=last.place,
            length=len(last.text),
        )

    def take(self) -> _Token:
        if self.ended:
            raise self.refusal("it ends too early", at_end=True)
        token = self._tokens[self._next]
        self._next += 1
        return token

    def expect(self, word: str) -> None:
        token = self.take()
        if token.word != word:
            raise self.refusal(f"expected {word} before '{token.text}'")

    def field(self) -> Field:
        token = self.take()
        if token.kind != "name":
            raise self.refusal(f"expected a name before '{token.text}'")
        prefix, dot, rest = token.text.partition(".")
        if token.text[0] in '`"' or not dot:
            return Field("attribute", _bare(token.text), token.place)
        entity = self._entities.get(prefix.lower())
        if entity is None:
            known = ", ".join(dict.fromkeys(self._entities.values()))
            raise self.refusal(f"Invalid entity type '{prefix}'. Valid values are {known}")
        return Field(entity, _bare(rest), token.place)

    def value(self) -> Literal:
        token = self.take()
        if token.kind == "number":
            return float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
        if token.kind == "text":
            return token.text[1:-1].replace("''", "'")
        if token.text.startswith('"'):
            return token.text[1:-1]
        raise self.refusal(f"expected a number or a quoted text, not '{token.text}'")

    def values(self) -> tuple[Literal, ...]:
        self.expect("(")
        found = [self.value()]
        while (mark := self.take().text) == "," and len(found) < _MOST_VALUES:
            found.append(self.value())
        if mark != ")":
            raise self.refusal(f"the list of IN is not closed, or has more than {_MOST_VALUES} values")
        return tuple(found)


def _tokenise(text: str) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position : position + 100]
            raise InvalidInput(
                f"Invalid filter or order '{text[:500]}': cannot read '{rest}'",
                hint=_HINT,
                reason=f"cannot read '{rest}': is a quote left open?",
                place=position,
                length=len(rest),
            )
        kind = match.lastgroup
        if kind is not None and kind != "space":
            yield _Token(kind, match.group(), position)
        position = match.end()


def _bare(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in '`"' else text
