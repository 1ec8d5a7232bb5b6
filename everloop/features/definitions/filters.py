"""Filters: which facts a feature counts. A null or NaN in a compared column never passes its comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from everloop.core.errors import DefinitionError
from everloop.features.expressions import Expr, Node
from everloop.features.expressions.author import is_expression, typed_node
from everloop.features.expressions.tree import read, written

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
OPERATORS: frozenset[str] = frozenset(get_args(Operator))
Literals = str | int | float | tuple[str | int | float, ...]
_HINT = (
    'write where=("carrier", "==", "AA"), ("carrier", "in", ["AA", "UA"]), an expression such as el.col("delay") > 15, '
    "or join several: all_of(…), any_of(…)"
)


@dataclass(frozen=True, slots=True)
class Where:
    """One comparison: `column op value`; with `in` and `not in`, value is a tuple of texts or of numbers."""

    column: str
    op: Operator
    value: Literals
    expression: Node | None = None
    """What `column` names where it is no column of the source but computed from its columns."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the source that it reads."""
        return (self.column,) if self.expression is None else tuple(self.expression.columns)

    @property
    def expressions(self) -> dict[str, Node]:
        """What is computed for it, by name."""
        return {} if self.expression is None else {self.column: self.expression}

    @property
    def text(self) -> bool:
        """Whether it compares text; otherwise numbers."""
        return isinstance(self.value[0] if isinstance(self.value, tuple) else self.value, str)

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready: a number is written as text, for identity holds no floats."""
        value = [_literal(v) for v in self.value] if isinstance(self.value, tuple) else _literal(self.value)
        said = {"column": self.column, "op": self.op, "type": "text" if self.text else "number", "value": value}
        return said if self.expression is None else {**said, "expression": written(self.expression)}


@dataclass(frozen=True, slots=True)
class _Joined:
    """Filters that are joined to one."""

    parts: "tuple[Filter, ...]"

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the source that it reads."""
        return tuple(c for p in self.parts for c in p.reads)

    @property
    def expressions(self) -> dict[str, Node]:
        """What is computed for it, by name."""
        return {name: node for p in self.parts for name, node in p.expressions.items()}


@dataclass(frozen=True, slots=True)
class AllOf(_Joined):
    """Passes when every part passes."""

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready."""
        return {"all": [p.manifest() for p in self.parts]}


@dataclass(frozen=True, slots=True)
class AnyOf(_Joined):
    """Passes when at least one part passes."""

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready."""
        return {"any": [p.manifest() for p in self.parts]}


Filter = Where | AllOf | AnyOf


def all_of(*parts: Any) -> AllOf:
    """A filter that passes when every part (a comparison or a filter) passes. Raises `DefinitionError`."""
    return AllOf(_parts(parts))


def any_of(*parts: Any) -> AnyOf:
    """A filter that passes when at least one part (a comparison or a filter) passes. Raises `DefinitionError`."""
    return AnyOf(_parts(parts))


def filter_of(where: Any) -> Filter | None:
    """A filter from what an author wrote: a comparison as a tuple, a list of them (all), a filter, None."""
    if where is None or isinstance(where, Where | AllOf | AnyOf):
        return where
    if is_expression(where):
        return _condition(where)
    if (
        isinstance(where, list | tuple)
        and where
        and all(isinstance(p, list | tuple | Filter) or is_expression(p) for p in where)
    ):
        return AllOf(_parts(where))
    if not isinstance(where, tuple | list) or len(where) != 3 or where[1] not in OPERATORS:
        raise DefinitionError(f"{where!r} is not a filter", hint=_HINT)
    column, op, value = where
    several = op in {"in", "not in"}
    values = tuple(value) if several and isinstance(value, list | tuple | set | frozenset) else (value,)
    kinds = {isinstance(v, str) for v in values if isinstance(v, str | int | float) and v == v}  # noqa: PLR0124 - NaN
    valid = len(kinds) == 1 and all(isinstance(v, str | int | float) and v == v for v in values)  # noqa: PLR0124
    if not isinstance(column, str) or not valid:
        raise DefinitionError(f"{where!r} is not a filter", hint="a column, an operator, and texts or numbers")
    return Where(column, op, tuple(sorted(set(values))) if several else value)


def filter_from(manifest: Mapping[str, Any] | None) -> Filter | None:
    """Rebuild what `manifest` wrote."""
    if manifest is None:
        return None
    for key, kind in (("all", AllOf), ("any", AnyOf)):
        if key in manifest:
            return kind(tuple(f for p in manifest[key] if (f := filter_from(p)) is not None))
    value, literal = manifest["value"], str if manifest["type"] == "text" else _number
    tree = manifest.get("expression")
    values = tuple(map(literal, value)) if isinstance(value, list) else literal(value)
    return Where(manifest["column"], manifest["op"], values, None if tree is None else read(tree))


def _condition(where: Expr) -> Where:
    node = typed_node(where)
    if node.type != "bool":
        raise DefinitionError(f"where={node} is no condition, it is {node.type}", hint='for example el.col("a") > 1')
    return Where(str(node), "==", 1, node)


def _parts(parts: Any) -> tuple[Filter, ...]:
    made = tuple(made for p in parts if (made := filter_of(p)) is not None)
    if not made:
        raise DefinitionError("a filter without comparisons", hint=_HINT)
    return made


def _literal(value: str | float) -> str:
    return value if isinstance(value, str) else repr(int(value) if isinstance(value, bool) else value)


def _number(text: str) -> int | float:
    return float(text) if any(c in text for c in ".einf") else int(text)
