"""A project's file while it is written: the names that are taken, what came over, and what is to be told."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from keyword import iskeyword
from re import sub
from typing import Any

TYPES = {
    "Int32": "int64",
    "Int64": "int64",
    "Float32": "float64",
    "Float64": "float64",
    "Bool": "bool",
    "String": "text",
}
"""Feast's types as those of a transform's columns."""
KINDS = {kind: {"int64": "integer", "text": "text"}.get(type_, "number") for kind, type_ in TYPES.items()}
"""Feast's types as kinds of a kept value."""
_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000))
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Missed:
    """Something that did not come over, or not quite."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Translated:
    """A project's file and the report."""

    text: str
    missed: tuple[Missed, ...]


@dataclass(slots=True)
class Sheet:
    """What is known so far."""

    folder: str
    missed: list[Missed] = field(default_factory=list)
    taken: set[str] = field(default_factory=lambda: {"project", "el", "pl"})
    names: dict[str, str] = field(default_factory=dict)
    """`views/<name in Feast>` -> the variable here; also of `on_demand` and `services`."""
    tables: dict[str, str] = field(default_factory=dict)
    """What rows are read, and how -> their variable."""
    kept: dict[str, dict[str, str]] = field(default_factory=dict)
    """View -> feature -> its column here, for what came over."""
    transforms: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)
    """Name -> module, for what functions use."""

    def miss(self, what: str, why: str) -> None:
        """Tell of something once."""
        if Missed(what, why) not in self.missed:
            self.missed.append(Missed(what, why))

    def unique(self, text: str) -> str:
        """A name that nothing has yet; it is taken from now on."""
        base, number = named(text), 0
        while (name := f"{base}_{number}" if number else base) in self.taken:
            number += 1
        self.taken.add(name)
        return name

    def imports(self, lines: Iterable[str]) -> list[str]:
        """The import statements that these lines need."""
        text = "\n".join(lines)
        modules = {**self.imported, **({"pl": "polars"} if "pl." in text else {})}
        return sorted(
            f"import {module}" if short == module else f"import {module} as {short}"
            for short, module in modules.items()
        )


def described(variable: str, thing: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> list[str]:
    """The line that says who owns a definition and what it means; none where nothing is said."""
    labels = [f"{name}={value}"[:_LONGEST] for name, value in sorted(thing["tags"].items())]
    said = {"owner": thing["owner"][:_LONGEST], "description": thing["description"], "labels": labels}
    told = {word: value for word, value in {**said, "columns": dict(columns or {})}.items() if value}
    words = ", ".join(f"{word}={value!r}" for word, value in told.items())
    return [f"project.describe({variable}, {words})"] if told else []


def duration(micros: int) -> tuple[str, bool]:
    """`2d` for two days, rounded up to seconds, and whether it is exact; empty for none, which Feast means by 0."""
    whole = -(-micros // 1_000_000) * 1_000_000
    return next((f"{whole // size}{unit}" for unit, size in _UNITS if whole and whole % size == 0), ""), whole == micros


def named(text: str) -> str:
    """A name for a variable and an asset."""
    made = sub(r"\W", "_", text).strip("_").lower() or "imported"
    return f"{made}_" if iskeyword(made) or made[0].isdigit() else made
