"""Python source as meaning: parse a file once, find the node of a code object, write a node down without its dress.

What is written down ignores comments, layout, docstrings, and annotations outside class bodies.
"""

import ast
import functools
import os
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from everloop.core.errors import Conflict, DefinitionError

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_PARSING = threading.Lock()
_SKIPPED = frozenset({"ctx", "type_comment", "kind", "type_ignores"})


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed module: its nodes by first line, and the top-level statements that bind each name."""

    path: str
    tree: ast.Module
    functions: dict[int, list[FunctionNode]] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    bindings: dict[str, list[ast.stmt]] = field(default_factory=dict)


def parsed(text: str | bytes, path: str = "<text>", mode: Literal["exec", "eval"] = "exec") -> Any:
    """`ast.parse`, by one thread at a time.

    CPython 3.11 and 3.12 count the depth of a tree that they make in one place for all threads, and raise `SystemError`
    when two make one at once (python/cpython#106905).
    """
    with _PARSING:
        return ast.parse(text, path, mode)


def source(path: str) -> Source:
    """Parse a file, once per content (by modification time and size).

    Raises `DefinitionError` with file and line when it does not parse, or is gone.
    """
    try:
        state = os.stat(path)  # noqa: PTH116 - asked of every step
    except OSError as error:
        raise DefinitionError(f"{path}:1: the source cannot be read: {error.strerror}") from None
    return _source(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=2048)
def _source(path: str, _modified: int, _size: int) -> Source:
    try:
        tree: ast.Module = parsed(Path(path).read_bytes(), path)
    except SyntaxError as error:
        raise DefinitionError(f"{path}:{error.lineno}: {error.msg}") from None
    found = Source(path, tree)
    _index(tree, "", found)
    for statement in tree.body:
        for name in _bound(statement):
            found.bindings.setdefault(name, []).append(statement)
    return found


def _index(node: ast.AST, prefix: str, found: Source) -> None:
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, FunctionNode):
            found.functions.setdefault(_first_line(child), []).append(child)
            inner = prefix + getattr(child, "name", "<lambda>") + ".<locals>."
        elif isinstance(child, ast.ClassDef):
            found.classes[prefix + child.name] = child
            inner = prefix + child.name + "."
        _index(child, inner, found)


def _first_line(node: FunctionNode) -> int:
    decorators = getattr(node, "decorator_list", [])
    return int(decorators[0].lineno if decorators else node.lineno)


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Assign):
        targets: list[ast.expr] = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    else:
        return
    for target in targets:
        yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def function_nodes(code: types.CodeType) -> list[FunctionNode]:
    """The node of a code object; several only for lambdas that share a line.

    Raises `Conflict` when the file no longer holds that function there: it was edited after the import.
    """
    found = source(code.co_filename).functions.get(code.co_firstlineno, [])
    name = code.co_name
    nodes = [node for node in found if getattr(node, "name", "<lambda>") == name]
    if not nodes:
        raise Conflict(
            f"{code.co_filename}:{code.co_firstlineno}: {name} is not there any more",
            hint="the file was edited after it was imported: start the command again",
        )
    return nodes


def dump(node: ast.AST, *, decorators: bool = True, defaults: bool = True) -> str:
    """Write a node's meaning down as one line; `decorators` and `defaults` of the outermost may be left out."""
    skip = frozenset(
        ([] if decorators else ["decorator_list"]) + ([] if defaults else ["defaults", "kw_defaults"]),
    )
    out: list[str] = []
    _write(node, out, in_class=False, skip=skip)
    return "".join(out)


def _write(value: object, out: list[str], *, in_class: bool, skip: frozenset[str] = frozenset()) -> None:
    if isinstance(value, ast.AST):
        _write_node(value, out, in_class=in_class, skip=skip)
    elif isinstance(value, list):
        out.append("[")
        for item in value:
            _write(item, out, in_class=in_class)
            out.append(",")
        out.append("]")
    else:
        out.append(f"{type(value).__name__}:{value!r}")


def _write_node(node: ast.AST, out: list[str], *, in_class: bool, skip: frozenset[str]) -> None:
    if isinstance(node, ast.AnnAssign) and not in_class:
        if node.value is None:
            return
        node = ast.Assign([node.target], node.value)
    if isinstance(node, ast.arg):
        out.append(f"arg({node.arg})")
        return
    scope = isinstance(node, FunctionNode)
    inside_class = isinstance(node, ast.ClassDef) or (in_class and not scope)
    out.append(type(node).__name__)
    out.append("(")
    for name in node._fields:
        if name in _SKIPPED or name in skip or (scope and name == "returns"):
            continue
        value = getattr(node, name, None)
        if name == "body" and isinstance(value, list):
            value = _without_docstring(value) if isinstance(node, _DOCUMENTED) else value
        below = skip if isinstance(node, FunctionNode) and name == "args" else frozenset[str]()
        _write(value, out, in_class=inside_class, skip=below)
        out.append(",")
    out.append(")")


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:] or [ast.Pass()]
    return body


def chains(node: ast.AST) -> set[tuple[str, ...]]:
    """Every dotted name that the node reads (`np.linalg.norm` -> `("np", "linalg", "norm")`), locals included."""
    found: set[tuple[str, ...]] = set()
    inner: set[int] = set()
    for child in ast.walk(node):
        if id(child) in inner:
            continue
        parts: list[str] = []
        current: ast.AST = child
        while isinstance(current, ast.Attribute):
            parts.append(current.attr)
            inner.add(id(current.value))
            current = current.value
        if isinstance(current, ast.Name):
            found.add((current.id, *reversed(parts)))
    return found


def imports(node: ast.AST, package: str) -> set[tuple[str, tuple[str, ...]]]:
    """Modules that the node imports, absolute, each with the names taken from it (`()` for the module itself)."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            found.update((alias.name, ()) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parent = package.split(".")[: len(package.split(".")) - child.level + 1]
                base = ".".join([*parent, base] if base else parent)
            found.add((base, tuple(alias.name for alias in child.names)))
    return found
