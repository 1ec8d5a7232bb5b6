"""The tags of columns in force: declared, confirmed, and carried here through lineage."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.catalog import versions
from everloop.catalog.engine import Tx
from everloop.catalog.governance import annotations
from everloop.catalog.versions import VersionRow
from everloop.core.errors import NotFound
from everloop.core.snapshot import Delta
from everloop.data.catalogue.columns import ColumnLineage
from everloop.data.sensitive.carrying import Tags, carried

_COUNTS = frozenset({"code", "said", "confirmed"})
_CARRIERS = frozenset({"source", "data", "frame", "view", "service", "model", "endpoint", "revision"})
ColumnTags = Mapping[str, Tags]
NOTHING: Tags = frozenset()


@dataclass(slots=True)
class Tagging:
    """Reads tags in one transaction; what it has read it keeps."""

    tx: Tx
    project: str
    lineage: ColumnLineage = field(init=False)
    _found: dict[str, ColumnTags] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read lineage in the same transaction."""
        self.lineage = ColumnLineage(self.tx, self.project)

    def columns(self, row: VersionRow) -> ColumnTags:
        """Column -> its tags, for the columns of a version that carry any.

        Declared in the version's contract, said or confirmed of its name, or carried from what it is made from.
        A tag that a scan found and nobody confirmed is not in force.
        """
        if row.id not in self._found:
            self._found[row.id] = {}  # lineage has no cycles; a name that points back to itself adds nothing
            self._found[row.id] = self._read(row)
        return self._found[row.id]

    def every(self, row: VersionRow) -> Tags:
        """All tags that any column of a version carries."""
        return NOTHING.union(*self.columns(row).values())

    def _read(self, row: VersionRow) -> ColumnTags:
        found: dict[str, Tags] = {}
        said = annotations.of(self.tx, self.project, _kind(row), row.name)
        least = {word.part: int(word.value) for word in said if word.field == "least" and word.state in _COUNTS}
        for column, made in self.lineage.columns(row).items():
            for one in made:
                origin = self.lineage.row(one.origin)
                theirs = self.columns(origin) if origin is not None else {}
                passed = carried(theirs.get(one.origin.column, NOTHING), one.operator, least=least.get(column, 0))
                found[column] = found.get(column, NOTHING) | passed
        for column, tag in declared(row.manifest).items():
            found[column] = found.get(column, NOTHING) | {tag}
        for word in said:
            if word.field == "tag" and word.part and word.state in _COUNTS:
                found[word.part] = found.get(word.part, NOTHING) | {word.value}
        return {column: tags for column, tags in found.items() if tags}


def _kind(row: VersionRow) -> str:
    """A source is annotated where its rows are, and a revision where its endpoint is."""
    return {"source": "data", "dataset": "data", "revision": "endpoint"}.get(row.kind, row.kind)


def declared(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """The tags that a definition or a version names itself."""
    tags = manifest.get("tags", {})
    return tags if isinstance(tags, Mapping) else {}


def tags_of(tx: Tx, project: str, row: VersionRow) -> ColumnTags:
    """Column -> tags of one version; see `Tagging.columns`."""
    return Tagging(tx, project).columns(row)


def tags_in(tx: Tx, project: str, identities: Iterable[str]) -> Tags:
    """All tags that any of these versions carries: what a policy asks of a difference."""
    tagging, found = Tagging(tx, project), NOTHING
    for identity in identities:
        try:
            row = versions.get(tx, project, identity)
        except NotFound:
            continue
        if row.kind == "dataset":  # its rows carry what its newest version carries
            rows = tagging.lineage.newest("data", row.name)
            found = found.union(declared(row.manifest).values()) | (tagging.every(rows) if rows else NOTHING)
        elif row.kind in _CARRIERS:
            found |= tagging.every(row)
    return found


def tags_of_delta(tx: Tx, project: str, delta: Delta) -> Tags:
    """The tags of all that a difference brings in."""
    return tags_in(tx, project, [new for _, new in delta.values() if new is not None])
