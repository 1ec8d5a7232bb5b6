"""Following a subject through the making of tables: where its key went under another name.

A column that was copied from a subject's is one, whatever it is called. Where nobody declared how a column was made of
such a table (or it was computed), it may hold the key: its text is searched as free text is, and whole numbers, which
nothing tells from other numbers, are only counted and told of.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.versions import VersionRow
from everloop.core.errors import NotFound
from everloop.data.catalogue.columns import ColumnLineage, Made
from everloop.data.erasure.finding.subjects import manifests_of_tables, tagged, text_columns

_COPIED = frozenset({"copy"})
_KEPT = frozenset({"copy", "combine", "min", "max", "last", "unknown"})
"""What may still hold the key; a digest, a mean, a sum and a count do not."""
Names = frozenset[str]
NONE: Names = frozenset()


@dataclass(frozen=True, slots=True)
class Holding:
    """The columns of one version that have to do with subjects."""

    keys: Names = NONE
    """They hold keys: tagged, called like one that is, or copied from one."""
    texts: Names = NONE
    """Subjects may be spoken of in them: tagged `mentions`, or copied from such a column."""
    unsure: Names = NONE
    """Made of such columns in a way that nobody declared, or computed."""


@dataclass(slots=True)
class Following:
    """Reads lineage in one transaction; `named` are columns that hold keys in any table that has them."""

    tx: Tx
    project: str
    named: Names
    _lineage: ColumnLineage = field(init=False)
    _found: dict[str, Holding] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read lineage in the same transaction."""
        self._lineage = ColumnLineage(self.tx, self.project)

    def of(self, row: VersionRow) -> Holding:
        """The columns of a version."""
        if row.id not in self._found:
            self._found[row.id] = Holding()  # lineage has no cycles; a name that points back to itself adds nothing
            self._found[row.id] = self._read(row)
        return self._found[row.id]

    def declared(self, manifest: Mapping[str, Any]) -> Holding:
        """What a manifest says itself."""
        names = {name for name, *_ in manifest.get("schema_fields", ())}
        keys = tagged([manifest]) | (self.named & names)
        return Holding(keys, frozenset(text_columns(manifest)))

    def _read(self, row: VersionRow) -> Holding:
        own = self.declared(row.manifest)
        keys, texts, unsure = set(own.keys), set(own.texts), set[str]()
        seen: dict[tuple[Made, ...], tuple[bool, bool, bool]] = {}
        for column, made in self._lineage.columns(row).items():
            if made not in seen:  # of an undeclared making every column has the same
                seen[made] = self._carried(made)
            key, text, perhaps = seen[made]
            keys |= {column} if key else NONE
            texts |= {column} if text else NONE
            unsure |= {column} if perhaps else NONE
        return Holding(frozenset(keys), frozenset(texts), frozenset(unsure - keys - texts))

    def _carried(self, made: Iterable[Made]) -> tuple[bool, bool, bool]:
        """Whether a column that is made so holds keys, speaks of subjects, may do either."""
        key = text = perhaps = False
        for one in made:
            origin = self._lineage.row(one.origin)
            theirs = self.of(origin) if origin is not None else Holding()
            column, copied = one.origin.column, one.operator in _COPIED
            key |= copied and column in theirs.keys
            text |= copied and column in theirs.texts
            perhaps |= one.operator in _KEPT and column in theirs.keys | theirs.texts | theirs.unsure
        return key, text, perhaps


def follow(ctx: Context, manifests: Mapping[str, Mapping[str, Any]], named: Iterable[str]) -> dict[str, Holding]:
    """{version: its columns that have to do with subjects}, for tables of the project that have any."""
    found: dict[str, Holding] = {}
    with ctx.read() as tx:
        following = Following(tx, ctx.project, frozenset(named))
        for version, manifest in manifests.items():
            try:
                found[version] = following.of(versions.get(tx, ctx.project, version))
            except NotFound:  # its name was retired, and with it how it was made
                found[version] = following.declared(manifest)
    return {version: holding for version, holding in found.items() if holding != Holding()}


def subject_columns(ctx: Context, named: Iterable[str] = ()) -> tuple[str, ...]:
    """Every name under which columns of the project hold subjects' keys, in order of name.

    A column that is tagged in one table counts in all of them, and so does what was copied from it, so that tables
    which were made from it are found too.
    """
    tables = manifests_of_tables(ctx)
    with ctx.read() as tx:
        sources = [row.manifest for row in versions.newest(tx, ctx.project, "source")]
    found = tagged([*tables.values(), *sources], named)
    while more := frozenset().union(*(holding.keys for holding in follow(ctx, tables, found).values())) - found:
        found |= more
    return tuple(sorted(found))
