"""Which lines of the code that a step really reaches differ, as unified diffs of those pieces alone."""

import ast
import difflib
from collections.abc import Iterator, Mapping
from functools import lru_cache

from everloop.core.errors import CorruptObject, NotFound
from everloop.core.ports import Blobs
from everloop.flows.why.values import Difference

_MOST_LINES = 200
_LARGEST = 1_000_000
_COMPUTED = "its statement is the same: it is made of something else (an environment variable, a file, a library)"

Files = Mapping[str, str]
"""Path -> object, as a code version holds them."""
Reached = tuple[Files, Mapping[str, str]]
"""The files of a code version, and the parts that a step reaches of them."""


def reached(blobs: Blobs, old: Reached, new: Reached) -> Iterator[Difference]:
    """What differs between two closures."""
    for name in sorted(old[1].keys() | new[1].keys()):
        before, after = old[1].get(name), new[1].get(name)
        if before == after:
            continue
        texts = [
            lines_of(blobs, files, name) if digest else [] for files, digest in ((old[0], before), (new[0], after))
        ]
        state = "added" if before is None else "gone" if after is None else "changed"
        hunk = diff(texts[0], texts[1], name)
        said = state
        if state == "changed" and not hunk and texts[0]:
            said = _COMPUTED
        yield Difference("code", name, "" if before is None else "there", state, "yes", said, hunk)


def others(blobs: Blobs, old: Files, new: Files, seen: frozenset[str], matters: str) -> Iterator[Difference]:
    """Files that differ and hold nothing of what was `seen` (paths)."""
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) == new.get(path) or path in seen:
            continue
        state = "added" if path not in old else "gone" if path not in new else "changed"
        if matters == "no":
            yield Difference("code", path, "", state, "no", "the step reaches nothing of it that differs")
        else:
            before, after = (_text(blobs, files.get(path)) for files in (old, new))
            hunk = diff(before.splitlines(), after.splitlines(), path)
            yield Difference("code", path, "", state, "unknown", "what the step reaches was not recorded", hunk)


def file_of(files: Files, name: str) -> str:
    """The path of the file that holds a part; empty when the code version has none."""
    if name.startswith("module:"):
        return _path(files, name.removeprefix("module:"))
    if ":" in name:
        return _path(files, name.partition(":")[0])
    module = name
    while "." in module:
        module = module.rpartition(".")[0]
        if found := _path(files, module):
            return found
    return ""


def lines_of(blobs: Blobs, files: Files, name: str) -> list[str]:
    """The source of one part: of a function or class, of the statements that bind a value, or of a whole module."""
    path = file_of(files, name)
    text = _text(blobs, files.get(path))
    if not text:
        return []
    lines = text.splitlines()
    if name.startswith("module:"):
        return lines
    plain = name.partition("#")[0]
    _, colon, inner = plain.partition(":")
    wanted = inner if colon else plain.removeprefix(f"{_module(path)}.")
    if "<lambda>" in wanted:
        wanted = wanted.partition(".<lambda>")[0].removesuffix(".<locals>")
    spans = segments(text)
    found = spans.get(wanted) or spans.get(wanted.partition(".")[0]) or ()
    return [line for first, last in found for line in lines[first - 1 : last]]


def diff(old: list[str], new: list[str], name: str) -> str:
    """A unified diff without times; empty when nothing differs; cut after 200 lines."""
    found = list(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}", lineterm="", n=2))
    left = len(found) - _MOST_LINES
    return "\n".join([*found[:_MOST_LINES], f"… {left} more lines"] if left > 0 else found)


@lru_cache(maxsize=256)
def segments(text: str) -> dict[str, tuple[tuple[int, int], ...]]:
    """Lines of every function and class by qualified name, and of the top-level statements that bind each name."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return {}
    found: dict[str, list[tuple[int, int]]] = {}
    _collect(tree, "", found)
    for statement in tree.body:
        targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            names = {node.id for target in targets if target for node in ast.walk(target) if isinstance(node, ast.Name)}
            for name in names:
                found.setdefault(name, []).append((statement.lineno, statement.end_lineno or statement.lineno))
    return {name: tuple(spans) for name, spans in found.items()}


def _collect(node: ast.AST, prefix: str, found: dict[str, list[tuple[int, int]]]) -> None:
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([child.lineno, *(one.lineno for one in child.decorator_list)])
            found.setdefault(prefix + child.name, []).append((first, child.end_lineno or child.lineno))
            local = "" if isinstance(child, ast.ClassDef) else "<locals>."
            inner = f"{prefix}{child.name}.{local}"
        _collect(child, inner, found)


def _path(files: Files, module: str) -> str:
    relative = module.replace(".", "/")
    candidates = [f"{base}{relative}{end}" for base in ("", "src/") for end in (".py", "/__init__.py")]
    return next((path for path in candidates if path in files), "")


def _module(path: str) -> str:
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _text(blobs: Blobs, identity: str | None) -> str:
    if identity is None:
        return ""
    try:
        content = blobs.get(identity)
    except (NotFound, CorruptObject):
        return ""
    return content.decode("utf-8", "replace") if len(content) <= _LARGEST else ""
