"""What authors write expressions with: `el.col("price") * el.col("quantity")`, `el.when(…).then(…).otherwise(…)`."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from everloop.core.errors import DefinitionError
from everloop.features.expressions.tree import TYPES, Literal, Node, resolved


class Expr:
    """An expression over the columns of one fact. Operators make larger ones; nothing is computed here."""

    __slots__ = ("node",)
    __hash__ = None  # type: ignore[assignment]  # == makes an expression, as in Polars

    def __init__(self, node: Node) -> None:
        self.node = node

    def __repr__(self) -> str:
        return f"el.expr({self.node})"

    def __bool__(self) -> bool:
        raise DefinitionError(f"{self.node} has no truth of its own", hint="write & for and, | for or, ~ for not")

    def __add__(self, other: Any) -> "Expr":
        return _made("add", self, other)

    def __radd__(self, other: Any) -> "Expr":
        return _made("add", other, self)

    def __sub__(self, other: Any) -> "Expr":
        return _made("sub", self, other)

    def __rsub__(self, other: Any) -> "Expr":
        return _made("sub", other, self)

    def __mul__(self, other: Any) -> "Expr":
        return _made("mul", self, other)

    def __rmul__(self, other: Any) -> "Expr":
        return _made("mul", other, self)

    def __truediv__(self, other: Any) -> "Expr":
        return _made("div", self, other)

    def __rtruediv__(self, other: Any) -> "Expr":
        return _made("div", other, self)

    def __floordiv__(self, other: Any) -> "Expr":
        return _made("floordiv", self, other)

    def __mod__(self, other: Any) -> "Expr":
        return _made("mod", self, other)

    def __neg__(self) -> "Expr":
        return _made("neg", self)

    def __abs__(self) -> "Expr":
        return _made("abs", self)

    def __eq__(self, other: object) -> "Expr":  # type: ignore[override]
        return _made("eq", self, other)

    def __ne__(self, other: object) -> "Expr":  # type: ignore[override]
        return _made("ne", self, other)

    def __lt__(self, other: Any) -> "Expr":
        return _made("lt", self, other)

    def __le__(self, other: Any) -> "Expr":
        return _made("le", self, other)

    def __gt__(self, other: Any) -> "Expr":
        return _made("gt", self, other)

    def __ge__(self, other: Any) -> "Expr":
        return _made("ge", self, other)

    def __and__(self, other: Any) -> "Expr":
        return _made("and", self, other)

    def __or__(self, other: Any) -> "Expr":
        return _made("or", self, other)

    def __invert__(self) -> "Expr":
        return _made("not", self)

    def is_null(self) -> "Expr":
        """Whether it is null (NaN counts as null); never null itself."""
        return _made("is_null", self)

    def fill_null(self, value: Any) -> "Expr":
        """`value` where it is null."""
        return _made("coalesce", self, value)

    def is_in(self, values: Sequence[Literal]) -> "Expr":
        """Whether it equals one of some literals."""
        return Expr(Node("is_in", (self.node,), tuple(values)))

    def cast(self, kind: str) -> "Expr":
        """As `float64`, or as `int64` (towards zero; what does not fit into 64 bits is null)."""
        return Expr(Node("cast", (self.node,), kind))

    def floor(self) -> "Expr":
        """The largest whole number that is not larger."""
        return _made("floor", self)

    def ceil(self) -> "Expr":
        """The smallest whole number that is not smaller."""
        return _made("ceil", self)

    def round(self) -> "Expr":
        """The nearest whole number, halves to the even one."""
        return _made("round", self)

    def sqrt(self) -> "Expr":
        """Square root; null below zero."""
        return _made("sqrt", self)

    def lower(self) -> "Expr":
        """Text in small letters (Unicode)."""
        return _made("lower", self)

    def upper(self) -> "Expr":
        """Text in capital letters (Unicode)."""
        return _made("upper", self)

    def strip(self) -> "Expr":
        """Text without white space at its ends."""
        return _made("strip", self)

    def length(self) -> "Expr":
        """Characters (code points) of a text."""
        return _made("length", self)

    def starts_with(self, part: Any) -> "Expr":
        """Whether a text starts with another."""
        return _made("starts_with", self, part)

    def ends_with(self, part: Any) -> "Expr":
        """Whether a text ends with another."""
        return _made("ends_with", self, part)

    def contains(self, part: Any) -> "Expr":
        """Whether a text holds another; no pattern."""
        return _made("contains", self, part)

    def concat(self, *parts: Any) -> "Expr":
        """Texts one after the other; null when one is null."""
        return _made("concat", self, *parts)

    def slice(self, start: int, length: int) -> "Expr":
        """`length` characters of a text from `start` on, which counts from 0."""
        if start < 0 or length < 0:
            raise DefinitionError("slice counts from the start of a text", hint="start and length from 0 on")
        return Expr(Node("slice", (self.node,), (start, length)))

    def year(self) -> "Expr":
        """The year of a time, UTC."""
        return _made("year", self)

    def month(self) -> "Expr":
        """The month of a time, 1 to 12, UTC."""
        return _made("month", self)

    def day(self) -> "Expr":
        """The day of the month of a time, UTC."""
        return _made("day", self)

    def weekday(self) -> "Expr":
        """The day of the week of a time, Monday 1 to Sunday 7, UTC."""
        return _made("weekday", self)

    def hour(self) -> "Expr":
        """The hour of a time, 0 to 23, UTC."""
        return _made("hour", self)

    def minute(self) -> "Expr":
        """The minute of a time, 0 to 59, UTC."""
        return _made("minute", self)


def col(name: str, kind: str = "") -> Expr:
    """A column of the source, read as `kind`: float64, int64, bool, text or time.

    Without one it is what is around it needs (a text beside a text), and else a float64.
    """
    if kind and kind not in TYPES:
        raise DefinitionError(f"column {name!r} cannot be {kind!r}", hint="one of " + ", ".join(TYPES))
    return Expr(Node("column", (), name, kind))


def expr(given: Any) -> Expr:
    """An expression from SQL text (`"price * quantity"`), from a Polars expression, or as it is.

    Raises `DefinitionError` naming what is not supported, and for SQL without the extra `everloop[sql]`.
    """
    if isinstance(given, Expr):
        return given
    if isinstance(given, str):
        parsed: Node = import_module("everloop.features.expressions.sql").parsed(given)
        return Expr(parsed)
    if type(given).__module__.partition(".")[0] == "polars" and hasattr(given, "meta"):
        translated: Node = import_module("everloop.features.expressions.polars").translated(given)
        return Expr(translated)
    return Expr(Node("literal", (), _literal(given)))


def coalesce(*values: Any) -> Expr:
    """The first that is not null."""
    return _made("coalesce", *values)


def least(*values: Any) -> Expr:
    """The smallest that is not null."""
    return _made("least", *values)


def greatest(*values: Any) -> Expr:
    """The largest that is not null."""
    return _made("greatest", *values)


class When:
    """A condition that waits for its `then`."""

    __slots__ = ("_condition", "_value")

    def __init__(self, condition: Node, value: Node | None = None) -> None:
        self._condition, self._value = condition, value

    def then(self, value: Any) -> "When":
        """What it is where the condition is true."""
        return When(self._condition, node_of(value))

    def otherwise(self, value: Any) -> Expr:
        """What it is where the condition is false or null."""
        if self._value is None:
            raise DefinitionError("when(…) has no then(…)", hint="el.when(condition).then(a).otherwise(b)")
        return Expr(Node("when", (self._condition, self._value, node_of(value))))


def when(condition: Any) -> When:
    """`el.when(condition).then(a).otherwise(b)`."""
    return When(node_of(condition))


def node_of(value: Any) -> Node:
    """The tree of an expression or literal."""
    return value.node if isinstance(value, Expr) else expr(value).node if _foreign(value) else _of_literal(value)


def is_expression(given: Any) -> bool:
    """Whether it is an expression of ours or of Polars, which `expr` reads."""
    return isinstance(given, Expr) or (_foreign(given) and hasattr(given, "meta"))


def typed_node(value: Any) -> Node:
    """The tree of an expression with all types; raises `DefinitionError`."""
    return resolved(expr(value).node)


def _foreign(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "polars"


def _of_literal(value: Any) -> Node:
    return Node("literal", (), _literal(value))


def _literal(value: Any) -> Literal | None:
    if value is None or isinstance(value, bool | str | int) or (isinstance(value, float) and value == value):  # noqa: PLR0124 - NaN
        return value
    raise DefinitionError(f"{value!r} cannot stand in an expression", hint="a column, a number, a text or a boolean")


def _made(op: str, *args: Any) -> Expr:
    return Expr(Node(op, tuple(node_of(arg) for arg in args)))
