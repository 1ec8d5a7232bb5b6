"""What can be found of a project: one document for each asset, made from its newest version and what is said of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from everloop.catalog import versions
from everloop.catalog.engine import Tx
from everloop.catalog.governance import annotations
from everloop.catalog.governance.annotations import Annotation
from everloop.catalog.versions import VersionRow
from everloop.data.catalogue.columns import names_of

KINDS = ("data", "source", "dataset", "view", "service", "model", "endpoint", "check", "objective", "monitor")
"""Kinds that people look for. Rows of a source or dataset are `data` of the same name, and one document with it."""
_HIDDEN = frozenset({"dismissed"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column as a document tells it."""

    name: str
    type: str
    description: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """An asset as search sees it."""

    kind: str
    name: str
    number: int
    at: int
    owner: str
    description: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    about: str
    """Words of its definition: function, origin, metric."""

    @property
    def key(self) -> str:
        """`kind/name`."""
        return f"{self.kind}/{self.name}"

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags of its columns."""
        return tuple(sorted({tag for column in self.columns for tag in column.tags}))


def documents(tx: Tx, project: str) -> list[Document]:
    """One for each asset of the project. Where data and its definition share a name, the data stands for both."""
    said: dict[tuple[str, str], list[Annotation]] = {}
    for one in annotations.all_of(tx, project):
        if one.state not in _HIDDEN:
            said.setdefault((one.kind, one.name), []).append(one)
    rows = {kind: {row.name: row for row in versions.newest(tx, project, kind)} for kind in KINDS}
    found = []
    for kind, named in rows.items():
        for name, row in named.items():
            if kind in {"source", "dataset"} and name in rows["data"]:
                continue
            definition = rows["source"].get(name) or rows["dataset"].get(name) if kind == "data" else None
            place = "data" if kind in {"source", "dataset"} else kind
            found.append(_document(row, definition, said.get((place, name), ())))
    return found


@dataclass(frozen=True, slots=True)
class Said:
    """What people and code say of an asset; a person's word stands before the code's."""

    owner: str
    description: str
    labels: tuple[str, ...]
    columns: Mapping[str, str]
    """Column -> its description."""


def said_of(found: Iterable[Annotation]) -> Said:
    """The words among what is said of one asset."""
    rows = sorted((one for one in found if one.state not in _HIDDEN), key=_people_last)
    texts = {one.part: one.value for one in rows if one.field == "description"}
    owners = [one.value for one in rows if one.field == "owner" and not one.part]
    labels = tuple(sorted(one.value for one in rows if one.field == "label"))
    return Said(owners[-1] if owners else "", texts.pop("", ""), labels, texts)


def _document(row: VersionRow, definition: VersionRow | None, said: Iterable[Annotation]) -> Document:
    found = list(said)
    words = said_of(found)
    tags: dict[str, set[str]] = {}
    declared = row.manifest.get("tags", {})
    for column, tag in declared.items() if isinstance(declared, Mapping) else ():
        tags.setdefault(column, set()).add(tag)
    for one in found:
        if one.field == "tag":
            tags.setdefault(one.part, set()).add(one.value)
    types = {name: kind for name, kind, *_ in row.manifest.get("schema_fields", ())}
    names = dict.fromkeys([*names_of(row), *(name for name in (*tags, *words.columns) if name)])
    columns = (
        Column(name, str(types.get(name, "")), words.columns.get(name, ""), tuple(sorted(tags.get(name, ()))))
        for name in names
    )
    return Document(
        row.kind,
        row.name,
        row.number,
        row.at,
        words.owner or str(row.manifest.get("owner", "")),
        words.description,
        words.labels,
        tuple(columns),
        " ".join(_words((definition or row).manifest)),
    )


def _people_last(one: Annotation) -> bool:
    """What a person said stands before what the code says: the last of a column counts."""
    return one.state != "code"


def _words(manifest: Mapping[str, Any]) -> Iterable[str]:
    """Texts of a definition that help to find it."""
    for name in ("function", "metric", "source", "service", "spine", "endpoint", "objective"):
        value = manifest.get(name)
        if isinstance(value, str) and not value.startswith("b3:"):
            yield value
    origin = manifest.get("origin")
    if isinstance(origin, Mapping):
        yield from (str(origin[name]) for name in ("pattern", "binding", "query", "function") if origin.get(name))
