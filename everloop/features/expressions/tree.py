"""The tree of an expression: operations with fixed types, and the manifest that a view's identity holds.

Types are `float64`, `int64`, `bool`, `text` and `time` (microseconds UTC). A column says which of them it is read as;
where its author does not, it is what its surroundings need, and else a float64. Nothing depends on how a caller wrote
a number: 3 and 3.0 are one value. `docs/expressions.md` states what every operation means.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from everloop.core.errors import DefinitionError

TYPES = ("float64", "int64", "bool", "text", "time")
NUMBERS = ("float64", "int64")
MOST_NODES, MOST_DEPTH = 200, 40

Literal = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Node:
    """One operation on others; `column` and `literal` (of None: null) have none below."""

    op: str
    args: tuple["Node", ...] = ()
    value: Literal | tuple[Literal, ...] | None = None
    """The name of a column, a literal, or what an operation needs beside its arguments."""
    type: str = ""
    """What it gives; empty before `resolved`."""

    def manifest(self) -> Any:
        """Canonical-JSON-ready: `[op, type, value, [arguments]]`, numbers as text."""
        return [self.op, self.type, _said(self.value), [arg.manifest() for arg in self.args]]

    @classmethod
    def from_manifest(cls, manifest: Any) -> "Node":
        """Rebuild what `manifest` wrote; raises `DefinitionError` for an operation that is not known here."""
        op, kind, value, args = manifest
        if op not in OPERATIONS and op not in ("column", "literal"):
            raise DefinitionError(f"an expression uses {op!r}, which this release does not know")
        return cls(op, tuple(cls.from_manifest(arg) for arg in args), _meant(value), kind)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that it reads, each once, in order."""
        return tuple(dict.fromkeys(str(node.value) for node in walk(self) if node.op == "column"))

    def __str__(self) -> str:
        """As an author would write it, with the types of columns; two resolved trees of one text are one expression."""
        if self.op == "column":
            return str(self.value) if self.type in ("", "float64", "any") else f"{self.value}::{self.type}"
        if self.op == "literal":
            return repr(self.value)
        inner = [str(arg) for arg in self.args]
        if self.op in SYMBOLS:
            return f"({inner[0]} {SYMBOLS[self.op]} {inner[1]})"
        extra = [] if self.value is None else [repr(self.value)]
        return f"{self.op}({', '.join([*inner, *extra])})"


SYMBOLS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&", "or": "|",
}  # fmt: skip
TIME_PARTS = ("year", "month", "day", "weekday", "hour", "minute")
TEXT_MAPS = ("lower", "upper", "strip")
TEXT_TESTS = ("starts_with", "ends_with", "contains")
ROUNDINGS = ("floor", "ceil", "round", "sqrt")


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield node
    for arg in node.args:
        yield from walk(arg)


def written(node: Node) -> dict[str, Any]:
    """What the manifest of a feature or filter holds: the columns that it reads, for lineage, and the tree."""
    return {"columns": list(node.columns), "tree": node.manifest()}


def read(manifest: Mapping[str, Any]) -> Node:
    """Rebuild what `written` wrote."""
    return Node.from_manifest(manifest["tree"])


def time_columns(nodes: Iterable[Node]) -> set[str]:
    """The columns that expressions read as times: a pushed row may say them as text."""
    return {str(n.value) for node in nodes for n in walk(node) if n.op == "column" and n.type == "time"}


def resolved(node: Node) -> Node:
    """The tree with the type of every node; raises `DefinitionError` where types do not fit or it is too large."""
    if not node.columns:
        raise DefinitionError(f"{node} reads no column", hint='for example el.col("price") * 2')
    if sum(1 for _ in walk(node)) > MOST_NODES or _depth(node) > MOST_DEPTH:
        raise DefinitionError("the expression is too large", hint="make a column in the dataset")
    return _resolve(node, "")


def _resolve(node: Node, wanted: str) -> Node:
    if node.op == "column":
        # beside a whole number it is a float: whole numbers are declared, for a fraction must not be an error
        return node if node.type else replace(node, type="float64" if wanted in ("", "int64") else wanted)
    if node.op == "literal":
        return _literal(node, wanted)
    if node.op not in OPERATIONS:
        raise DefinitionError(f"{node.op!r} is no operation of expressions", hint=", ".join(sorted(OPERATIONS)))
    return OPERATIONS[node.op](node, wanted)


def _literal(node: Node, wanted: str) -> Node:
    value = node.value
    if value is None:
        return replace(node, type=wanted or "float64")
    kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "float64"
    if kind == "float64" and isinstance(value, int) and wanted in ("int64", "time"):
        kind = wanted
    return replace(node, type=kind, value=float(value) if kind == "float64" else value)  # type: ignore[arg-type]


def known(node: Node) -> str:
    """The type that a node has whatever surrounds it; empty for an undeclared column and for a whole number."""
    if node.op == "literal":
        whole = isinstance(node.value, int) and not isinstance(node.value, bool)
        return "" if whole or node.value is None else _literal(node, "").type
    if node.op == "column":
        return node.type
    if node.op in _GIVES:
        return _GIVES[node.op]
    inner = node.args[1:] if node.op == "when" else node.args
    return next((kind for arg in inner if (kind := known(arg))), "")


def _common(node: Node, wanted: str, allowed: tuple[str, ...]) -> tuple[tuple[Node, ...], str]:
    """Arguments of one type: int64 beside float64 becomes float64."""
    kinds = {kind for arg in node.args if (kind := known(arg))}
    if kinds - set(allowed):
        raise DefinitionError(f"{node} does not work on {min(kinds)}", hint="it takes " + ", ".join(allowed))
    kind = "float64" if kinds == set(NUMBERS) else next(iter(kinds), "") if len(kinds) == 1 else ""
    if len(kinds) > 1 and kind != "float64":
        raise DefinitionError(f"{node} mixes {' and '.join(sorted(kinds))}", hint="cast one of them, or correct a type")
    kind = kind or (wanted if wanted in allowed else "") or "float64"
    args = tuple(_resolve(arg, kind) for arg in node.args)
    if kind == "int64" and any(arg.type == "float64" for arg in args):
        kind = "float64"
        args = tuple(_resolve(arg, kind) for arg in node.args)
    return tuple(arg if arg.type == kind else _as_float(node, arg, kind) for arg in args), kind


def _as_float(node: Node, arg: Node, kind: str) -> Node:
    if kind == "float64" and arg.type == "int64":
        return Node("cast", (arg,), "float64", "float64")
    raise DefinitionError(f"{node}: {arg} is {arg.type}, not {kind}", hint="declare the type: el.col(name, type)")


def _same(gives: str, allowed: tuple[str, ...]) -> Callable[[Node, str], Node]:
    def resolve(node: Node, wanted: str) -> Node:
        args, kind = _common(node, "" if gives else wanted, allowed)
        return replace(node, args=args, type=gives or kind)

    return resolve


def _each(takes: str, gives: str) -> Callable[[Node, str], Node]:
    def resolve(node: Node, _wanted: str) -> Node:
        args = tuple(_resolve(arg, takes) for arg in node.args)
        args = tuple(arg if arg.type == takes else _as_float(node, arg, takes) for arg in args)
        return replace(node, args=args, type=gives)

    return resolve


def _add(node: Node, wanted: str) -> Node:
    """Numbers; and of times: time - time is int64, time ± int64 is a time."""
    kinds = [known(arg) for arg in node.args]
    if "time" not in kinds:
        return _same("", NUMBERS)(node, wanted)
    if kinds[0] != "time" or (node.op == "add" and kinds[1] == "time") or kinds[1] not in ("", "time", "int64"):
        raise DefinitionError(f"{node} adds times", hint="time - time, or time ± whole microseconds")
    column = not kinds[1] and node.args[1].op == "column"
    other = "time" if node.op == "sub" and (column or kinds[1] == "time") else "int64"
    args = (_resolve(node.args[0], "time"), _resolve(node.args[1], other))
    return replace(node, args=args, type="int64" if other == "time" else "time")


def _when(node: Node, wanted: str) -> Node:
    condition = _resolve(node.args[0], "bool")
    if condition.type != "bool":
        raise DefinitionError(f"{node.args[0]} is no condition, it is {condition.type}")
    inner, kind = _common(Node("when", node.args[1:]), wanted, TYPES)
    return replace(node, args=(condition, *inner), type=kind)


def _cast(node: Node, _wanted: str) -> Node:
    arg = _resolve(node.args[0], "")
    fits = {"float64": ("int64", "bool", "float64", "time"), "int64": ("float64", "bool", "int64", "time")}
    if arg.type not in fits.get(str(node.value), ()):
        raise DefinitionError(f"{arg} is {arg.type} and cannot be cast to {node.value}", hint="float64 or int64")
    return replace(node, args=(arg,), type=str(node.value))


def _any(node: Node, _wanted: str) -> Node:
    """Of a bare column it asks whether it is there, whatever it holds."""
    (arg,) = node.args
    bare = arg.op == "column" and not arg.type
    return replace(node, args=(replace(arg, type="any") if bare else _resolve(arg, ""),), type="bool")


def _among(node: Node, _wanted: str) -> Node:
    values = node.value if isinstance(node.value, tuple) else ()
    texts = [isinstance(v, str) for v in values]
    if not values or any(texts) != all(texts):
        raise DefinitionError(f"{node.args[0]}.is_in needs texts or numbers, at least one")
    arg = _resolve(node.args[0], "text" if all(texts) else "")
    if (arg.type == "text") != all(texts) or arg.type == "bool":
        raise DefinitionError(f"{arg} is {arg.type}, {values[0]!r} is not")
    fixed = values if all(texts) or arg.type != "float64" else tuple(float(v) for v in values)
    return replace(node, args=(arg,), type="bool", value=fixed)


_COMPARABLE = ("float64", "int64", "text", "time", "bool")
OPERATIONS: Mapping[str, Callable[[Node, str], Node]] = {
    "add": _add,
    "sub": _add,
    **dict.fromkeys(("mul", "floordiv", "mod", "neg", "abs"), _same("", NUMBERS)),
    "div": _each("float64", "float64"),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _same("bool", _COMPARABLE)),
    **dict.fromkeys(("and", "or", "not"), _each("bool", "bool")),
    "is_null": _any,
    **dict.fromkeys(("coalesce", "least", "greatest"), _same("", TYPES)),
    "when": _when,
    "cast": _cast,
    "is_in": _among,
    **dict.fromkeys(ROUNDINGS, _each("float64", "float64")),
    **dict.fromkeys(TEXT_MAPS, _each("text", "text")),
    **dict.fromkeys(TEXT_TESTS, _each("text", "bool")),
    "concat": _each("text", "text"),
    "slice": _each("text", "text"),
    "length": _each("text", "int64"),
    **dict.fromkeys(TIME_PARTS, _each("time", "int64")),
}
"""What each operation takes and gives."""
_GIVES = {
    "div": "float64", **dict.fromkeys(ROUNDINGS, "float64"), "length": "int64", **dict.fromkeys(TIME_PARTS, "int64"),
    **dict.fromkeys((*TEXT_MAPS, "concat", "slice"), "text"), **dict.fromkeys(TEXT_TESTS, "bool"),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "is_null", "is_in"), "bool"),
}  # fmt: skip


def _depth(node: Node) -> int:
    return 1 + max((_depth(arg) for arg in node.args), default=0)


def _said(value: Any) -> Any:
    if isinstance(value, tuple):
        return ["list", [_said(item) for item in value]]
    if value is None or isinstance(value, str | bool):
        return value
    return ["int" if isinstance(value, int) else "float", repr(value)]


def _meant(said: Any) -> Any:
    if not isinstance(said, list | tuple):
        return said
    kind, text = said
    if kind == "list":
        return tuple(_meant(item) for item in text)
    return int(text) if kind == "int" else float(text)
