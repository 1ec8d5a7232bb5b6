"""From what Feast says of a repository to a project's file, and a list of what did not come over."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from everloop.features.importing.functions import function_of
from everloop.features.importing.writing import KINDS, TYPES, Sheet, Translated, described, duration, named

_ENTITIES = {"STRING", "INT32", "INT64", "UNKNOWN", ""}
_POLARS = {"int64": "Int64", "float64": "Float64", "bool": "Boolean", "text": "String"}
"""Types of a transform in Polars."""
_OTHER = {"label_views": "label view", "permissions": "permission"}


def translated(said: Mapping[str, Any], project: str, folder: str = "") -> Translated:
    """The project's file for what `asking.described` found. Everything that is left out is in the report.

    `folder` is where the repository lies, seen from the project's file; paths of files begin there.
    """
    sheet = Sheet(folder)
    sheet.miss("point in time", "a row with exactly the time of a question counts in Feast, and not here")
    for view in said["on_demand"]:
        sheet.taken |= {*view["imports"]}
    for part in ("views", "on_demand", "services"):
        for thing in said[part]:
            sheet.names[f"{part}/{thing['name']}"] = sheet.unique(thing["name"])
    entities = {entity["name"]: entity for entity in said["entities"] if entity["name"] != "__dummy"}
    for entity in entities.values():
        _entity(entity, sheet)
    lines = [f'project = el.Project("{named(project)}")', ""]
    for view in said["views"]:
        lines += _view(view, entities, sheet)
    for view in said["on_demand"]:
        lines += _on_demand(view, sheet)
    for service in said["services"]:
        lines += _service(service, sheet)
    for part, word in _OTHER.items():
        for name in said[part]:
            sheet.miss(f"{word} {name}", "no counterpart")
    head = [f'"""Features of the Feast repository {project}, brought over by `everloop import feast`."""', ""]
    head += [*sheet.imports(lines), "", "import everloop as el", ""]
    return Translated("\n".join([*head, *lines]).rstrip() + "\n", tuple(sheet.missed))


def _entity(entity: Mapping[str, Any], sheet: Sheet) -> None:
    if entity["type"] not in _ENTITIES:
        sheet.miss(f"entity {entity['name']}", f"is of type {entity['type']}: entities are text or integers here")
    if entity["tags"]:
        sheet.miss(f"entity {entity['name']}", f"its tags {entity['tags']}: `everloop tags add` tags a column")


def _view(view: Mapping[str, Any], entities: Mapping[str, Any], sheet: Sheet) -> list[str]:
    what = f"feature view {view['name']}"
    keys = {key: entities[e]["description"] for e in view["entities"] if e in entities for key in entities[e]["keys"]}
    reason = _not_read(view, keys)
    if reason:
        sheet.miss(what, reason)
        return []
    _told(view, what, sheet)
    features = [one for one in view["features"] if one["type"] in KINDS]
    left = [f"{one['name']} ({one['type']})" for one in view["features"] if one["type"] not in KINDS]
    if left:
        sheet.miss(what, f"{', '.join(left)}: no numbers, booleans or texts")
    if not features:
        return []
    name = sheet.names[f"views/{view['name']}"]
    table, lines = _table(view["source"], keys, sheet)
    sheet.kept[view["name"]] = {one["name"]: f"{name}__{one['name']}" for one in features}
    ttl, exact = duration(view["ttl_micros"])
    if not exact:
        sheet.miss(what, f"lives {view['ttl_micros'] / 1e6:g} s there and {ttl} here: whole seconds")
    for one in features:
        kind = KINDS[one["type"]]
        words = [f'"{one["name"]}"', f'ttl="{ttl}"' if ttl else "", f'kind="{kind}"' if kind != "number" else ""]
        words += [f'name="{one["name"]}"', f"description={one['description']!r}" if one["description"] else ""]
        lines.append(f"    el.last({', '.join(filter(None, words))}),")
    entity = next(iter(keys)) if len(keys) == 1 else tuple(keys)
    opening = f'{name} = project.feature_view("{name}", source={table}, entity={entity!r}, features=['
    lines.insert(len(lines) - len(features), opening)
    return [*lines, "])", *described(name, view), ""]


def _not_read(view: Mapping[str, Any], keys: Mapping[str, str]) -> str:
    """Why a view cannot be translated at all; empty if it can."""
    source = view["source"]
    if view["function"] and not view["stream"]:
        return f"the function {view['function']} makes its rows: write it as a dataset"
    if view["of_views"]:
        return f"is made of {', '.join(view['of_views'])}: write it as a view with reads="
    if not _origin(source, "") or not source["time"]:
        return f"its source is a {source['kind']} {source['format']}".rstrip() + " that is not read here"
    if not keys:
        return "has no entity"
    return "" if view["features"] else "has no schema: Feast finds the features in the data when it applies"


def _told(view: Mapping[str, Any], what: str, sheet: Sheet) -> None:
    """What of a view that is translated is not: a person has to look at it."""
    if view["stream"]:
        sheet.miss(what, f"its {view['stream']}: events are pushed, or read by a live feed; its past comes over")
    if view["aggregations"]:
        over = ", ".join(view["aggregations"])
        sheet.miss(what, f"its aggregations ({over}): read ready-made from the batch source; el.{{sum, …}} makes them")
    if view["function"]:
        sheet.miss(what, f"its function {view['function']} on the stream: write it as a dataset")
    tagged = [one["name"] for one in view["features"] if one["tags"]]
    if tagged:
        sheet.miss(what, f"the tags of {', '.join(tagged)}: `everloop tags add` tags a column")
    if view["source"]["created"]:
        why = f"{view['source']['created']} breaks ties there, and is not read here"
        sheet.miss(f"source {view['source']['name']}", why)


def _table(source: Mapping[str, Any], keys: Mapping[str, str], sheet: Sheet) -> tuple[str, list[str]]:
    """The variable of the rows of a view, and the lines that make it where no view before has."""
    origin, renamed = _origin(source, sheet.folder), source["renamed"]
    key = (*keys, renamed.get(source["time"], source["time"]))
    known = f"{origin} {key} {sorted(renamed.items())}"
    if known in sheet.tables:
        return sheet.tables[known], []
    if origin.startswith("el.SQL"):
        sheet.miss(f"source {source['name']}", "is read through the binding `warehouse`: everloop bind warehouse URL")
    base = source["name"] or "rows"
    contract = f'key={key!r}, event_time="{key[-1]}"'
    if renamed:
        raw = sheet.unique(f"{base}_raw")
        table = sheet.unique(base)
        lines = [
            f'{raw} = project.source("{raw}", {origin})', "", "",
            f"@project.dataset({contract})",
            f"def {table}({raw}: pl.LazyFrame) -> pl.LazyFrame:",
            '    """With the names of the field mapping."""',
            f"    return {raw}.rename({dict(renamed)!r})", "", "",
        ]  # fmt: skip
    else:
        table = sheet.unique(base)
        lines = [f'{table} = project.source("{table}", {origin}, {contract})']
    sheet.tables[known] = table
    return table, [*lines, *described(table, source, {k: text for k, text in keys.items() if text})]


def _origin(source: Mapping[str, Any], folder: str) -> str:
    if source["kind"] == "FileSource":
        path = source["path"]
        if source["format"] not in {"", "ParquetFormat"}:
            return ""
        if "://" not in path:
            path = str(PurePosixPath(folder, path))
        if not PurePosixPath(path).suffix and "*" not in path:
            path = f"{path.rstrip('/')}/*.parquet"
        return f"el.Files({path!r})" if PurePosixPath(path).suffix == ".parquet" else f'el.Files({path!r}, "parquet")'
    if source.get("query") or source.get("table"):
        query = source["query"] or f"select * from {source['table']}"  # noqa: S608 - text of a file that a person reads
        return f'el.SQL("warehouse", {query!r})'
    return ""


def _on_demand(view: Mapping[str, Any], sheet: Sheet) -> list[str]:
    what, name = f"on-demand feature view {view['name']}", sheet.names[f"on_demand/{view['name']}"]
    pandas = view["mode"].lower() == "pandas"
    code, words = function_of(view["code"], view["function"], f"_{name}") if pandas else ("", set[str]())
    inputs = [(one["name"], one["name"], one["type"]) for one in view["request"]]
    read = _read(view, words)
    inputs += [(called, sheet.kept.get(source, {}).get(name, ""), kind) for source, name, called, kind in read]
    twice = sorted({called for called, _, _ in inputs if [one for one, _, _ in inputs].count(called) > 1})
    typed = [(one, kind) for one, _, kind in inputs] + [(one["name"], one["type"]) for one in view["features"]]
    other = [f"{one} ({kind})" for one, kind in typed if kind not in TYPES]
    gone = [one for one, column, _ in inputs if not column]
    if not code or other or gone or twice or view["needs"]:
        reasons = [
            "" if pandas else f"mode {view['mode']}: only pandas functions come over",
            f"uses {', '.join(view['needs'])} of its file: write it into the function" if view["needs"] else "",
            f"{', '.join(other)}: no numbers, booleans or texts" if other else "",
            f"{', '.join(gone)} did not come over" if gone else "",
            f"{', '.join(twice)} is there twice: write <view>__<feature> in the function" if twice else "",
        ]
        sheet.miss(what, next(filter(None, reasons), "its code cannot be read"))
        return []
    sheet.imported |= view["imports"]
    given = ", ".join(f'"{column}": "{TYPES[kind]}"' for _, column, kind in inputs)
    made = {one["name"]: TYPES[one["type"]] for one in view["features"]}
    views = list(dict.fromkeys(source for source, _, _, _ in read))
    sheet.transforms[view["name"]] = {"request": [one["name"] for one in view["request"]], "views": views}
    outputs = ", ".join(f'"{one}": "{kind}"' for one, kind in made.items())
    casts = ", ".join(f'"{one}": pl.{_POLARS[kind]}' for one, kind in made.items())
    renamed = {column: one for one, column, _ in inputs if column != one}
    meaning = "".join(
        f"\n    {one['name']}: {_line(one['description'])}" for one in view["features"] if one["description"]
    )
    closing = f'\n{meaning}\n    """' if meaning else '"""'
    return [
        "", code, "", "",
        f"@project.transform(inputs={{{given}}}, outputs={{{outputs}}})",
        f"def {name}(frame: pl.DataFrame) -> pl.DataFrame:",
        f'    """The same, over the columns of this project.{closing}',
        f"    made = _{name}(frame.rename({renamed!r}).to_pandas())",
        f"    return pl.from_pandas(made[{list(made)!r}]).cast({{{casts}}})", "", "",
        *described(name, view),
    ]  # fmt: skip


def _read(view: Mapping[str, Any], words: set[str]) -> list[tuple[str, str, str, str]]:
    """(view, feature, what the function calls it, type) of what it reads; all where it names none."""
    every = [
        (source, one["name"], full if (full := f"{source}__{one['name']}") in words else one["name"], one["type"])
        for source, features in view["views"]
        for one in features
    ]
    return [one for one in every if one[2] in words] or every


def _line(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace('"', "'")


def _service(service: Mapping[str, Any], sheet: Sheet) -> list[str]:
    what = f"feature service {service['name']}"
    views, used, request = list[str](), list[str](), list[str]()
    for one in service["views"]:
        name = one["name"]
        if one["alias"] or one["keys"]:
            said = f"{name} as {one['alias'] or name}, with {one['keys']}: make a second view of the other key"
            sheet.miss(what, said)
        elif name in sheet.kept:
            views.append(name)
        elif name in sheet.transforms:
            used.append(name)
            request += sheet.transforms[name]["request"]
        else:
            sheet.miss(what, f"{name} did not come over")
    taken = {one["name"]: one["features"] for one in service["views"]}
    views += [v for name in used for v in sheet.transforms[name]["views"] if v not in views]
    for name in dict.fromkeys(views):
        left = sorted(set(sheet.kept[name]) - set(taken.get(name, ())))
        if left:
            sheet.miss(what, f"also has {', '.join(left)} of {name}: a service has all features of its views")
    if not views and not used:
        sheet.miss(what, "nothing of it came over")
        return []
    variable = sheet.names[f"services/{service['name']}"]
    listed = _variables("views", dict.fromkeys(views), sheet)
    more = f", request={list(dict.fromkeys(request))!r}" if request else ""
    more += f", transforms=[{_variables('on_demand', used, sheet)}]" if used else ""
    made = f'{variable} = project.feature_service("{variable}", [{listed}]{more})'
    return [made, *described(variable, service), ""]


def _variables(part: str, names: Sequence[str] | Mapping[str, None], sheet: Sheet) -> str:
    return ", ".join(sheet.names[f"{part}/{name}"] for name in names)
