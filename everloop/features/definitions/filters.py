"""Filters: which facts a feature counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from everloop.core.errors import DefinitionError
from everloop.features.expressions import Expr, Node
from everloop.features.expressions.author import is_expression, typed_node
from everloop.features.expressions.tree import read, written

Operator = Literal["==", "!=", "<", "<=", ">", ">="]
OPERATORS: frozenset[str] = frozenset(get_args(Operator))


@dataclass(frozen=True, slots=True)
class Where:
    """A filter on facts: `column op value`. A null or NaN in the column never passes."""

    column: str
    op: Operator
    value: str | float
    expression: Node | None = None
    """What `column` names where it is no column of the source but computed from its columns."""

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready: a number is written as text, for identity holds no floats."""
        kind = "text" if isinstance(self.value, str) else "number"
        said = {"column": self.column, "op": self.op, "type": kind, "value": _literal(self.value)}
        return said if self.expression is None else {**said, "expression": written(self.expression)}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Where":
        """Rebuild what `manifest` wrote."""
        text = manifest["value"]
        value = text if manifest["type"] == "text" else _number(text)
        tree = manifest.get("expression")
        return cls(manifest["column"], manifest["op"], value, None if tree is None else read(tree))


def where_of(where: Any) -> Where | None:
    """A filter from what an author wrote. Raises `DefinitionError`."""
    if where is None or isinstance(where, Where):
        return where
    if is_expression(where):
        return _condition(where)
    if not isinstance(where, tuple | list) or len(where) != 3 or where[1] not in OPERATORS:
        hint = 'write where=("carrier", "==", "AA"), or an expression such as el.col("delay") > 15'
        raise DefinitionError(f"{where!r} is not a filter", hint=hint)
    column, op, value = where
    if not isinstance(column, str) or not isinstance(value, str | int | float | bool) or value != value:  # noqa: PLR0124 - NaN
        raise DefinitionError(f"{where!r} is not a filter", hint="a column name, an operator, and a text or number")
    return Where(column, op, value)


def _condition(where: Expr) -> Where:
    node = typed_node(where)
    if node.type != "bool":
        raise DefinitionError(f"where={node} is no condition, it is {node.type}", hint='for example el.col("a") > 1')
    return Where(str(node), "==", 1, node)


def _literal(value: str | float) -> str:
    return value if isinstance(value, str) else repr(int(value) if isinstance(value, bool) else value)


def _number(text: str) -> int | float:
    return float(text) if any(c in text for c in ".einf") else int(text)
