"""Lineage to the column, over the definitions and versions that the catalog holds.

What is known comes from the text of a query, from what an author declares of a dataset's columns, and from the
definitions of feature views, services, models and endpoints. Where nothing is known, a column is made from every
column of every input (operator `unknown`): too many is safe, too few is not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from everloop.catalog import versions
from everloop.catalog.engine import Tx
from everloop.catalog.versions import VersionRow
from everloop.core.coherence import walk
from everloop.core.errors import NotFound
from everloop.core.ids import is_id
from everloop.core.version import Version
from everloop.data import catalogue
from everloop.data.definitions import ORIGIN

_DEPTH = 8


@dataclass(frozen=True, slots=True, order=True)
class ColumnRef:
    """A column of a version, or (`version` empty) one of a database outside."""

    kind: str
    name: str
    column: str
    version: str = ""

    @property
    def asset(self) -> str:
        """`kind/name`."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Made:
    """One of the columns that a column is made from, and how."""

    origin: ColumnRef
    operator: str


Columns = Mapping[str, tuple[Made, ...]]


@dataclass(slots=True)
class ColumnLineage:
    """Reads lineage in one transaction; what it has read it keeps."""

    tx: Tx
    project: str
    _made: dict[str, Columns] = field(default_factory=dict)
    _newest: dict[str, VersionRow | None] = field(default_factory=dict)
    _versions: dict[str, VersionRow] = field(default_factory=dict)

    def columns(self, row: VersionRow) -> Columns:
        """Column -> what it is made from, for a version of a kind that has columns; empty for another."""
        if row.id not in self._made:
            reader = _READERS.get(row.kind)
            self._made[row.id] = reader(self, row) if reader else {}
        return self._made[row.id]

    def row(self, ref: ColumnRef) -> VersionRow | None:
        """The version that a reference means."""
        return self.version(ref.version) if ref.version else None

    def version(self, identity: str) -> VersionRow:
        """A version by its id: a table of unknown making asks for each input once for each pair of columns."""
        if identity not in self._versions:
            self._versions[identity] = versions.get(self.tx, self.project, identity)
        return self._versions[identity]

    def newest(self, kind: str, name: str) -> VersionRow | None:
        """The newest version of a name."""
        key = f"{kind}/{name}"
        if key not in self._newest:
            try:
                self._newest[key] = versions.find(self.tx, self.project, key)
            except NotFound:
                self._newest[key] = None
        return self._newest[key]

    def inputs(self, row: VersionRow) -> list[tuple[str, VersionRow]]:
        """What a version was made from directly, by role."""
        edges = versions.upstream(self.tx, self.project, row.id, 1)
        return [(edge.role, self.version(edge.from_id)) for edge in edges]


def names_of(row: VersionRow) -> tuple[str, ...]:
    """The columns of a version, in order, as its manifest tells them."""
    manifest = row.manifest
    if "schema_fields" in manifest:
        return tuple(name for name, *_ in manifest["schema_fields"])
    if row.kind == "view":
        return (*manifest.get("entity", ()), *(f["name"] for f in manifest.get("features", ())))
    return ()


def _of_table(lineage: ColumnLineage, row: VersionRow) -> Columns:
    names, inputs = names_of(row), lineage.inputs(row)
    source = next((r for role, r in inputs if r.kind == "source" and role == "source"), None)
    if source is not None:
        return _of_source(names, source)
    tables = {role: r for role, r in inputs if names_of(r)}
    declared: Mapping[str, Sequence[str]] = row.manifest.get("columns", {})
    every = tuple(
        Made(ColumnRef(table.kind, table.name, column, table.id), "unknown")
        for table in tables.values()
        for column in names_of(table)
    )
    return {name: _declared(declared[name], tables) if name in declared else every for name in names}


def _of_source(names: Sequence[str], source: VersionRow) -> Columns:
    origin = source.manifest.get("origin", {})
    query = origin.get("query") or origin.get("sql") or ""
    if origin.get("type") not in {"sql", "query"}:
        outside = "/".join(str(origin.get(k)) for k in ("pattern", "function") if origin.get(k))
        return {n: (Made(ColumnRef("outside", outside or source.name, n), "copy"),) for n in names}
    if find_spec("sqlglot") is None:
        anything = (Made(ColumnRef("outside", f"{origin['binding']}.*", "*"), "unknown"),)
        return dict.fromkeys(names, anything)
    read = catalogue.sql.origins(query, names)
    return {
        name: tuple(
            Made(ColumnRef("outside", f"{origin['binding']}.{one.table}", one.column), one.operator)
            for one in read.get(name, ())
        )
        for name in names
    }


def _declared(origins: Sequence[str], tables: Mapping[str, VersionRow]) -> tuple[Made, ...]:
    made = []
    for text in origins:
        match = ORIGIN.fullmatch(text)
        if match is None:
            continue
        table = tables.get(match["input"])
        if table is None:  # declared of an input that this version does not have: it may be any of them
            made += [
                Made(ColumnRef(t.kind, t.name, column, t.id), "unknown")
                for t in tables.values()
                for column in names_of(t)
            ]
        else:
            made.append(Made(ColumnRef(table.kind, table.name, match["column"], table.id), match["operator"] or "copy"))
    return tuple(made)


def _of_frame(lineage: ColumnLineage, row: VersionRow) -> Columns:
    """Columns of a model's frame: those of its table, and the features of the views, by their names."""
    names = names_of(row)
    inputs = [r for _, r in lineage.inputs(row) if names_of(r)]
    views = _views_near(lineage, row)
    found: dict[str, tuple[Made, ...]] = {}
    for name in names:
        view, _, feature = name.partition("__")
        same = tuple(Made(ColumnRef(r.kind, r.name, name, r.id), "copy") for r in inputs if name in names_of(r))
        if feature and view in views and feature in names_of(views[view]):
            found[name] = (Made(ColumnRef("view", view, feature, views[view].id), "copy"),)
        else:
            found[name] = same or tuple(
                Made(ColumnRef(r.kind, r.name, column, r.id), "unknown") for r in inputs for column in names_of(r)
            )
    return found


def _views_near(lineage: ColumnLineage, row: VersionRow) -> dict[str, VersionRow]:
    names = {name.partition("__")[0] for name in names_of(row) if "__" in name}
    return {name: view for name in names if (view := lineage.newest("view", name)) is not None}


def _of_view(lineage: ColumnLineage, row: VersionRow) -> Columns:
    manifest = row.manifest
    if "source" not in manifest:
        return {}
    source = lineage.newest("data", manifest["source"])
    version = source.id if source else ""

    read = {f"{one['name']}__": (one["name"], _pinned(one)) for one in manifest.get("reads", ())}

    def of(column: str, operator: str) -> Made:
        for start, (name, identity) in read.items():
            if column.startswith(start):
                return Made(ColumnRef("view", name, column.removeprefix(start), identity), operator)
        return Made(ColumnRef("data", manifest["source"], column, version), operator)

    found: dict[str, tuple[Made, ...]] = {column: (of(column, "copy"),) for column in manifest["entity"]}
    for feature in manifest["features"]:
        found[feature["name"]] = tuple(of(column, operator) for column, operator in _read_of(feature))
    return found


def _pinned(read: Mapping[str, Any]) -> str:
    """The id of a view that a view reads, whose manifest it holds whole."""
    return Version("view", read["name"], {key: said for key, said in read.items() if key != "name"}).id


def _read_of(feature: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The columns that a feature reads and what it does with each: its own, its filter's, those of a ratio's parts."""
    filtering = "count" if feature["function"] == "count" else "combine"
    read = [(column, feature["function"]) for column in _read(feature)]
    read += [(column, filtering) for column in _read(feature.get("where"))]
    return read + [one for part in feature.get("parts", ()) for one in _read_of(part)]


def _read(part: Mapping[str, Any] | None) -> list[str]:
    """The columns that a feature's column or its filter reads: one, those of an expression, of all joined filters."""
    if not part:
        return []
    joined = part.get("all") or part.get("any")
    if joined:
        return [column for one in joined for column in _read(one)]
    if not part["column"]:
        return []
    computed = part.get("expression")
    return list(computed["columns"]) if computed else [part["column"]]


def _of_service(lineage: ColumnLineage, row: VersionRow) -> Columns:
    found: dict[str, tuple[Made, ...]] = dict.fromkeys(row.manifest.get("request", ()), ())
    for name in row.manifest.get("order", ()):
        view = lineage.version(row.manifest["views"][name])
        for column in view.manifest["entity"]:
            found[column] = (*found.get(column, ()), Made(ColumnRef("view", name, column, view.id), "copy"))
        for feature in view.manifest["features"]:
            one = Made(ColumnRef("view", name, feature["name"], view.id), "copy")
            found |= dict.fromkeys((f"{name}__{column}" for column in _columns(feature)), (one,))
    return _transformed(row.manifest, found)


def _columns(feature: Mapping[str, Any]) -> list[str]:
    """A feature by its name and, of a list, the columns that models read it by."""
    places = {"last_k": feature.get("size", 0), "top_k": feature.get("size", 0)}
    places["histogram"] = len(feature.get("edges", ())) + 1
    return [feature["name"], *(f"{feature['name']}_{i:03d}" for i in range(places.get(feature["function"], 0)))]


def _transformed(manifest: Mapping[str, Any], found: dict[str, tuple[Made, ...]]) -> dict[str, tuple[Made, ...]]:
    """With what a service's transforms make: of everything that they read."""
    for one in manifest.get("transforms", ()):
        made = dict.fromkeys(Made(m.origin, "combine") for name, _ in one["inputs"] for m in found.get(name, ()))
        found |= {name: tuple(made) for name, _ in one["outputs"]}
    return found


def _of_model(lineage: ColumnLineage, row: VersionRow) -> Columns:
    """A model's inputs: features through its service, columns of the question from the table that it asked of."""
    manifest = row.manifest
    service = manifest.get("service")
    if not isinstance(service, str) or not is_id(service):  # a model from elsewhere: nothing is known of its inputs
        return {}
    asked = lineage.version(service)
    read = dict(_of_service(lineage, asked))
    trainer = lineage.newest("trainer", str(manifest.get("trainer") or row.name))
    tables = [] if trainer is None else [trainer.manifest.get("spine", "")]
    spine = lineage.newest("data", tables[0]) if tables and tables[0] else None
    for column in asked.manifest.get("request", ()):
        if spine is not None:
            origin = ColumnRef("data", spine.name, column, spine.id)
            read[column] = (Made(origin, "copy"),)
        else:
            read[column] = _every_table(lineage, row)
    read = _transformed(asked.manifest, read)
    inputs = [one for made in read.values() for one in made]
    return {**read, "prediction": tuple(Made(one.origin, "model") for one in dict.fromkeys(inputs))}


def _every_table(lineage: ColumnLineage, row: VersionRow) -> tuple[Made, ...]:
    edges = versions.upstream(lineage.tx, lineage.project, row.id, _DEPTH)
    rows = (lineage.version(i) for i in dict.fromkeys(e.from_id for e in edges))
    return tuple(
        Made(ColumnRef("data", r.name, column, r.id), "unknown")
        for r in rows
        if r.kind == "data"
        for column in names_of(r)
    )


def _of_endpoint(lineage: ColumnLineage, row: VersionRow) -> Columns:
    nodes = list(walk(row.manifest["graph"])) if "graph" in row.manifest else []
    found: dict[str, tuple[Made, ...]] = {}
    for node in nodes:
        if node.get("node") == "lookup":
            service = lineage.newest("service", node["service"])
            if service is not None:
                made = lineage.columns(service)
                found.update({n: (Made(ColumnRef("service", service.name, n, service.id), "copy"),) for n in made})
    for node in nodes:
        if node.get("node") == "model":
            model = lineage.newest("model", node["model"])
            if model is not None:
                found.update(_through(model, lineage.columns(model)))
    return found


def _of_revision(lineage: ColumnLineage, row: VersionRow) -> Columns:
    """What a live revision asks and answers: exactly the service and the models that it pins."""
    found: dict[str, tuple[Made, ...]] = {}
    pinned = [row.manifest["service"]] if row.manifest.get("service") else []
    for identity in (*pinned, *row.manifest.get("models", {}).values()):
        version = lineage.version(identity)
        for name, made in _through(version, lineage.columns(version)).items():
            found[name] = (*found.get(name, ()), *made)
    return found


def _through(version: VersionRow, columns: Columns) -> dict[str, tuple[Made, ...]]:
    return {name: (Made(ColumnRef(version.kind, version.name, name, version.id), "copy"),) for name in columns}


_READERS: Mapping[str, Callable[[ColumnLineage, VersionRow], Columns]] = {
    "data": _of_table,
    "frame": _of_frame,
    "view": _of_view,
    "service": _of_service,
    "model": _of_model,
    "endpoint": _of_endpoint,
    "revision": _of_revision,
}
