"""What a build makes different in a target: definitions, lines of code, rows and columns of data, metrics of models."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.changes.environments import heads_of
from everloop.core.errors import InvalidInput
from everloop.core.snapshot import Delta
from everloop.data.differences import DataDiff, compare


@dataclass(frozen=True, slots=True)
class Definition:
    """A key of the delta, in the words that people use (`model/delay v6`)."""

    key: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class CodeFile:
    """A file of the project that differs; lines count as git counts them. A file that is no text has none."""

    path: str
    state: str
    """`added`, `removed` or `changed`."""
    added: int
    removed: int


@dataclass(frozen=True, slots=True)
class DataChange:
    """A dataset whose head in the sandbox is not that of the target."""

    name: str
    summary: str
    columns: tuple[str, ...] = ()
    """One line a column that came, went or changed its type."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a model, before and after; as text, as it was recorded. Empty: there was none."""

    model: str
    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Differences:
    """Everything that differs."""

    definitions: tuple[Definition, ...] = ()
    code: tuple[CodeFile, ...] = ()
    data: tuple[DataChange, ...] = ()
    metrics: tuple[Metric, ...] = ()


def differences(ctx: Context, delta: Delta, sandbox: str, target: str) -> Differences:
    """Say in words what `delta` does to `target`, and how the data of `sandbox` differs from the target's."""
    ids = {identity for pair in delta.values() for identity in pair if identity}
    with ctx.read() as tx:
        labels = versions.labels(tx, ctx.project, ids)
        manifests = versions.manifests(tx, ctx.project, ids)
        own = {
            name.removeprefix(refs.head_ref(sandbox, "")): head
            for name, head in refs.all(tx, ctx.project, refs.head_ref(sandbox, "")).items()
        }
        theirs = heads_of(tx, ctx.project, target)
    words = tuple(
        Definition(key, labels.get(old or "", ""), labels.get(new or "", "")) for key, (old, new) in delta.items()
    )
    code: list[CodeFile] = []
    metrics: list[Metric] = []
    for key, (old, new) in delta.items():
        before, after = manifests.get(old or "", {}), manifests.get(new or "", {})
        kind, _, name = key.partition("/")
        if kind == "code":
            code += _files(ctx, before.get("files", {}), after.get("files", {}))
        elif kind == "model":
            metrics += _metrics(name, before.get("metrics", {}), after.get("metrics", {}))
    data = tuple(_data(ctx, name, theirs.get(name), head) for name, head in sorted(own.items()))
    return Differences(words, tuple(code), tuple(d for d in data if d is not None), tuple(metrics))


def _files(ctx: Context, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[CodeFile]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        state = "added" if old is None else "removed" if new is None else "changed"
        added, removed = _lines(*(ctx.store.get(identity) if identity else b"" for identity in (old, new)))
        yield CodeFile(path, state, added, removed)


def _lines(old: bytes, new: bytes) -> tuple[int, int]:
    try:
        before, after = (content.decode("utf-8").splitlines() for content in (old, new))
    except UnicodeDecodeError:
        return 0, 0
    marks = [line[0] for line in list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]]
    return marks.count("+"), marks.count("-")


def _metrics(model: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Metric]:
    for name in sorted(before.keys() | after.keys()):
        yield Metric(model, name, str(before.get(name, "")), str(after.get(name, "")))


def _data(ctx: Context, name: str, old: str | None, new: str) -> DataChange | None:
    if old is None:
        return DataChange(name, "new")
    if old == new:
        return None
    try:
        found = compare(ctx, old, new)
    except InvalidInput as error:  # another key: the rows cannot be matched
        return DataChange(name, error.message)
    return DataChange(name, _rows(found), tuple(_columns(found)))


def _rows(found: DataDiff) -> str:
    return (
        f"{found.rows_old:,} → {found.rows_new:,} rows: {found.added:,} added, {found.removed:,} removed, "
        f"{found.changed:,} changed"
    )


def _columns(found: DataDiff) -> Iterator[str]:
    yield from (f"+ {name}: {kind}" for name, kind in found.columns_added.items())
    yield from (f"- {name}: {kind}" for name, kind in found.columns_removed.items())
    yield from (f"{name}: {old} → {new}" for name, (old, new) in found.columns_retyped.items())
    yield from (f"{name}: {count:,} rows" for name, count in (found.changes or {}).items())
