"""How two versions of a table differ, read off their manifests alone: no row is looked at."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from everloop.flows.why.values import Difference

_MOST = 8


def tables(old: Mapping[str, Any], new: Mapping[str, Any], *, shown: bool) -> Iterator[Difference]:
    """Columns that came, went or changed their type; rows by ranges of the key. `shown`: whether keys may be."""
    was, now = (dict(map(tuple, one.get("schema_fields", []))) for one in (old, new))
    yield from (
        Difference("columns", name, was[name], "", reason="the column is gone") for name in was if name not in now
    )
    yield from (
        Difference("columns", name, "", now[name], reason="the column is new") for name in now if name not in was
    )
    yield from (
        Difference("columns", name, was[name], now[name], reason="another type")
        for name in was
        if name in now and was[name] != now[name]
    )
    if list(was) != list(now) and set(was) == set(now):
        yield Difference("columns", "order", ", ".join(was), ", ".join(now), reason="the columns come in another order")
    yield from _rows(old, new, list(was) == list(now), shown=shown)
    for name in ("key", "event_time", "known_time"):
        if old.get(name) != new.get(name):
            yield Difference("contract", name, _text(old.get(name)), _text(new.get(name)))


def _rows(old: Mapping[str, Any], new: Mapping[str, Any], aligned: bool, *, shown: bool) -> Iterator[Difference]:
    before, after = list(old.get("parts", [])), list(new.get("parts", []))
    same = {one["logical"] for one in before} & {one["logical"] for one in after}
    groups = [
        (before[i1:i2], after[j1:j2])
        for tag, i1, i2, j1, j2 in SequenceMatcher(
            None, [p["logical"] for p in before], [p["logical"] for p in after], autojunk=False
        ).get_opcodes()
        if tag != "equal"
    ]
    if old.get("rows") == new.get("rows") and not groups:
        return
    where = f"{len(same)} of {len(after)} parts are shared"
    yield Difference("rows", "rows", f"{old.get('rows', 0):,}", f"{new.get('rows', 0):,}", reason=where)
    for ours, theirs in groups[:_MOST]:
        counts = [f"{sum(part['rows'] for part in side):,} rows" if side else "" for side in (ours, theirs)]
        said = _range([*ours, *theirs]) if shown and new.get("key") else ""
        which = _columns(ours, theirs, list(map(tuple, new.get("schema_fields", [])))) if aligned else ""
        yield Difference("rows", said or "part", counts[0], counts[1], reason=which)
    if len(groups) > _MOST:
        yield Difference("rows", f"{len(groups) - _MOST} more ranges", reason="of the key")


def _range(parts: Sequence[Mapping[str, Any]]) -> str:
    first = next((part["key_min"] for part in parts if part.get("key_min")), None)
    last = next((part["key_max"] for part in reversed(parts) if part.get("key_max")), None)
    return f"keys {_text(first)} to {_text(last)}" if first is not None and last is not None else ""


def _columns(old: Sequence[Any], new: Sequence[Any], fields: Sequence[tuple[str, str]]) -> str:
    """The columns that differ in parts of the same rows: each part holds a digest of every column."""
    if [part["rows"] for part in old] != [part["rows"] for part in new]:
        return "rows came or went"
    differ = {
        name
        for ours, theirs in zip(old, new, strict=True)
        for (name, _), a, b in zip(fields, ours.get("columns", []), theirs.get("columns", []), strict=False)
        if a != b
    }
    return f"differs in {', '.join(sorted(differ))}" if differ else ""


def _text(value: Any) -> str:
    return ", ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value or "")
