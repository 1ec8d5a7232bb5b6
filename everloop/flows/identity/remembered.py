"""Closures that need not be computed again: of functions that reach nothing else of the project.

Such a closure depends on the function's source and on what its globals stand for. Both are looked at each time: the
file by its time and size, the globals by being the very same objects. What else a function can reach (helpers, values,
closure cells, imports inside it) may change in ways that are not seen so cheaply: those are computed anew.
"""

import dis
import os
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary


@dataclass(frozen=True, slots=True)
class Closure:
    """The identity of a step's code."""

    hash: str
    """`b3:` digest over the parts."""
    parts: Mapping[str, str]
    """Digest of each piece reached (`module:qualified name`), so that a change can be explained."""
    packages: tuple[str, ...]
    """Top-level names of the third-party packages that the pieces refer to."""
    opaque: tuple[str, ...]
    """Values that could only be pinned by how they are made, or not at all."""


@dataclass(frozen=True, slots=True)
class _Held:
    root: Path | None
    code: types.CodeType
    state: tuple[int, int]
    names: tuple[tuple[str, Any], ...]
    annotations: tuple[tuple[str, Any], ...]
    closure: Closure


_MISSING = object()
_IMPORT = dis.opmap["IMPORT_NAME"]
_held: WeakKeyDictionary[Callable[..., Any], _Held] = WeakKeyDictionary()


def get(function: Callable[..., Any], root: Path | None) -> Closure | None:
    """The closure that was computed, when it would come out the same."""
    if type(function) is not types.FunctionType:
        return None
    held = _held.get(function)
    if held is None or held.code is not function.__code__ or held.root != root:
        return None
    names = function.__globals__
    if any(names.get(name, _MISSING) is not value for name, value in held.names):
        return None
    if _state(held.code) != held.state or _annotated(function.__annotations__) != held.annotations:
        return None
    return held.closure


def put(function: Callable[..., Any], root: Path | None, closure: Closure) -> None:
    """Remember the closure of a function that reaches nothing else of its project."""
    if type(function) is not types.FunctionType:
        return
    code = function.__code__
    state = _state(code)
    if state is None or code.co_freevars or imports(code):
        return
    names = tuple((name, function.__globals__.get(name, _MISSING)) for name in sorted(_names(code)))
    _held[function] = _Held(root, code, state, names, _annotated(function.__annotations__), closure)


def _annotated(annotations: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, one if isinstance(one, str) else id(one)) for name, one in annotations.items())


def _state(code: types.CodeType) -> tuple[int, int] | None:
    try:
        found = os.stat(code.co_filename)  # noqa: PTH116 - on the path of every step
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _names(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def imports(code: types.CodeType) -> bool:
    """Whether a function imports something when it runs."""
    return _IMPORT in code.co_code[::2] or any(  # an instruction is two bytes, its number the first
        imports(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)
    )
