"""What a change differs in, made readable: files of code by line, metrics side by side, fields of manifests."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.core.errors import CorruptObject, NotFound
from everloop.core.version import split_key

_LARGEST_FILE = 200_000
_MOST_LINES = 600
_MOST_FIELDS = 60
_LONGEST = 160
_SILENT = frozenset({"schema", "kind", "files", "metrics", "parts", "digest", "signature"})


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a difference; `sign` is `+`, `-`, `@` or a space."""

    sign: str
    text: str


@dataclass(frozen=True, slots=True)
class FileDifference:
    """One file of code that differs; `note` says why no lines are shown."""

    path: str
    state: str
    """added, removed or changed"""
    added: int
    removed: int
    lines: tuple[Line, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field, before and after, as text; `gain` is the difference of two numbers."""

    name: str
    old: str
    new: str
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One key of a delta, with what can be said of it."""

    key: str
    kind: str
    name: str
    old: str | None
    new: str | None
    old_number: int | None
    new_number: int | None
    metrics: tuple[FieldDifference, ...] = ()
    fields: tuple[FieldDifference, ...] = ()
    files: tuple[FileDifference, ...] = ()

    @property
    def told(self) -> bool:
        """Whether there is more to show than the two labels."""
        return bool(self.metrics or self.fields or self.files)


def differences(ctx: Context, found: Iterable[Any]) -> list[Part]:
    """The parts of a delta (`key`, `old`, `new`), models and code first."""
    listed = list(found)
    ids = {identity for one in listed for identity in (one.old, one.new) if identity}
    with ctx.read() as tx:
        manifests = versions.manifests(tx, ctx.project, ids)
        numbers = {i: dict(versions.known_as(tx, ctx.project, i)) for i in ids}
    parts = []
    for one in listed:
        kind, name = split_key(one.key)
        old, new = manifests.get(one.old or "", {}), manifests.get(one.new or "", {})
        known = tuple(numbers.get(i or "", {}).get(one.key) for i in (one.old, one.new))
        parts.append(
            Part(
                one.key,
                kind,
                name,
                one.old,
                one.new,
                known[0],
                known[1],
                metrics=_numbers(old.get("metrics", {}), new.get("metrics", {})) if kind == "model" else (),
                fields=_fields(old, new) if old and new else (),
                files=tuple(code_files(ctx, old.get("files", {}), new.get("files", {})))
                if kind == "code" and old
                else (),
            )
        )
    order = {"model": 0, "code": 1, "policy": 2, "endpoint": 3}
    return sorted(parts, key=lambda part: (order.get(part.kind, 9), part.key))


def _numbers(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[FieldDifference, ...]:
    rows = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        gain = None
        try:
            gain = float(after) - float(before) if before is not None and after is not None else None
        except (TypeError, ValueError):
            gain = None
        rows.append(FieldDifference(name, _text(before), _text(after), gain))
    return tuple(rows)


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[FieldDifference, ...]:
    before, after = _flat(old), _flat(new)
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return tuple(
        FieldDifference(name, before.get(name, ""), after.get(name, ""), _gain(name, before, after))
        for name in names[:_MOST_FIELDS]
    )


def _gain(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> float | None:
    if name != "rows" or name not in before or name not in after:
        return None
    return float(after[name]) - float(before[name])


def _flat(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The manifest's fields as texts, two levels deep."""
    found: dict[str, str] = {}
    for name, value in manifest.items():
        if name in _SILENT:
            continue
        if isinstance(value, Mapping):
            found.update({f"{name}.{inner}": _text(held) for inner, held in value.items()})
        else:
            found[name] = _text(value)
    return found


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def code_files(ctx: Context, old: Mapping[str, str], new: Mapping[str, str]) -> Iterable[FileDifference]:
    """The files of code (path to object) that differ, line by line."""
    left = _MOST_LINES
    for path in sorted({*old, *new}):
        if old.get(path) == new.get(path):
            continue
        state = "added" if path not in old else "removed" if path not in new else "changed"
        try:
            before, after = _lines(ctx, old.get(path)), _lines(ctx, new.get(path))
        except (NotFound, CorruptObject) as error:
            yield FileDifference(path, state, 0, 0, (), error.message)
            continue
        if before is None or after is None:
            yield FileDifference(path, state, 0, 0, (), "no text, or too long to show")
            continue
        whole = [Line(line[:1], line[1:]) for line in list(difflib.unified_diff(before, after, lineterm="", n=3))[2:]]
        shown = tuple(whole[: max(left, 0)])
        left -= len(shown)
        signs = [line.sign for line in whole]
        note = "" if len(shown) == len(whole) else f"{len(whole) - len(shown)} more lines are not shown"
        yield FileDifference(path, state, signs.count("+"), signs.count("-"), shown, note)


def _lines(ctx: Context, identity: str | None) -> list[str] | None:
    if identity is None:
        return []
    content = ctx.store.get(identity)
    if len(content) > _LARGEST_FILE:
        return None
    try:
        return content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return None
