"""From what Feast says of a repository to a project's file, and a list of what did not come over."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from re import sub
from typing import Any

TYPES = {
    "Int32": "int64",
    "Int64": "int64",
    "Float32": "float64",
    "Float64": "float64",
    "Bool": "bool",
}
_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000))


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


def translated(said: Mapping[str, Any], project: str) -> Translated:
    """The project's file for what `asking.described` found. Everything that is left out is in the report."""
    missed: list[Missed] = [
        Missed("point in time", "a row with exactly the time of a question counts in Feast, and not here"),
    ]
    lines = [f'"""Features of the Feast repository {project}, brought over by `everloop import feast`."""', ""]
    if said["on_demand"]:
        lines += ["import pandas as pd", "import polars as pl", ""]
    lines += ["import everloop as el", "", f'project = el.Project("{_name(project)}")', ""]
    sources: dict[str, str] = {}
    kept: dict[str, dict[str, str]] = {}
    keys = {entity["name"]: entity["keys"] for entity in said["entities"]}
    for view in said["views"]:
        entity = [key for e in view["entity"] for key in keys.get(e, [e]) if e != "__dummy"]
        lines += _view({**view, "entity": entity}, sources, kept, missed)
    transforms: dict[str, Mapping[str, Any]] = {}
    for view in said["on_demand"]:
        lines += _on_demand(view, kept, transforms, missed)
    for service in said["services"]:
        lines += _service(service, kept, transforms, missed)
    return Translated("\n".join(lines).rstrip() + "\n", tuple(missed))


def _view(
    view: Mapping[str, Any], sources: dict[str, str], kept: dict[str, dict[str, str]], missed: list[Missed]
) -> list[str]:
    source, name = view["source"], _name(view["name"])
    origin = _origin(source)
    if not origin or not source["time"] or not view["entity"]:
        reason = (
            "has no entity" if origin and source["time"] else f"its source is a {source['kind']} that is not read here"
        )
        missed.append(Missed(f"feature view {view['name']}", reason))
        return []
    if view["stream"]:
        missed.append(Missed(f"feature view {view['name']}", "its stream: events are pushed, or read by el.Kafka"))
    if source["created"]:
        missed.append(
            Missed(f"source {source['name']}", f"{source['created']} breaks ties there, and is not read here")
        )
    if source["renamed"]:
        missed.append(Missed(f"source {source['name']}", "its field mapping: rename the columns in a dataset"))
    features = [(feature, kind) for feature, kind in view["features"] if kind in TYPES]
    left = [feature for feature, kind in view["features"] if kind not in TYPES]
    if left:
        missed.append(Missed(f"feature view {view['name']}", f"{', '.join(left)}: no numbers or booleans"))
    if not features:
        return []
    lines = []
    key = (*view["entity"], source["time"])
    table = sources.get(f"{origin} {key}")
    if table is None:
        table = _unique(_name(source["name"] or f"{name}_rows"), [*sources.values(), *kept])
        sources[f"{origin} {key}"] = table
        lines.append(f'{table} = project.source("{table}", {origin}, key={key!r}, event_time="{source["time"]}")')
    kept[view["name"]] = {"variable": name, **{feature: f"{name}__{feature}" for feature, _ in features}}
    ttl = _duration(view["ttl_micros"])
    lived = f', ttl="{ttl}"' if ttl else ""
    made = [f'    el.last("{feature}"{lived}, name="{feature}"),' for feature, _ in features]
    entity = view["entity"][0] if len(view["entity"]) == 1 else tuple(view["entity"])
    lines += [*_told(view), f'{name} = project.feature_view("{name}", source={table}, entity={entity!r}, features=[']
    return [*lines, *made, "])", ""]


def _origin(source: Mapping[str, Any]) -> str:
    if source["kind"] == "FileSource" and "://" not in source["path"]:
        return f'el.Files("{source["path"]}")'
    if source.get("query") or source.get("table"):
        query = source["query"] or f"select * from {source['table']}"  # noqa: S608 - text of a file that a person reads
        return f'el.SQL("warehouse", {query!r})'
    return ""


def _on_demand(
    view: Mapping[str, Any],
    kept: Mapping[str, Mapping[str, str]],
    transforms: dict[str, Mapping[str, Any]],
    missed: list[Missed],
) -> list[str]:
    code, used = _function(view["code"], view["function"]) if view["mode"].lower() == "pandas" else ("", set[str]())
    inputs = [(f, f, kind) for f, kind in view["request"]]
    for source, features in view["views"]:
        inputs += [(f, kept.get(source, {}).get(f, ""), kind) for f, kind in features if f in used]
    kinds = [kind for _, _, kind in inputs] + [kind for _, kind in view["features"]]
    if not code or not all(column for _, column, _ in inputs) or any(kind not in TYPES for kind in kinds):
        modes = f"mode {view['mode']}: only pandas functions come over"
        reason = "its inputs did not come over" if code else modes
        missed.append(Missed(f"on-demand feature view {view['name']}", reason))
        return []
    name = _name(view["name"])
    typed = ", ".join(f'"{column}": "{TYPES[kind]}"' for _, column, kind in inputs)
    made = ", ".join(f'"{f}": "{TYPES[kind]}"' for f, kind in view["features"])
    renamed = {column: f for f, column, _ in inputs if column != f}
    transforms[view["name"]] = {"variable": name, "request": [f for f, _ in view["request"]]}
    return [
        "", code, "", *_told(view),
        f"@project.transform(inputs={{{typed}}}, outputs={{{made}}})",
        f"def {name}(frame: pl.DataFrame) -> pl.DataFrame:",
        '    """The same, over the columns of this project."""',
        f"    made = _{view['function']}(frame.rename({renamed!r}).to_pandas())",
        f"    return pl.from_pandas(made[{[f for f, _ in view['features']]!r}])", "",
    ]  # fmt: skip


def _service(
    service: Mapping[str, Any],
    kept: Mapping[str, Mapping[str, str]],
    transforms: Mapping[str, Mapping[str, Any]],
    missed: list[Missed],
) -> list[str]:
    views, used, request = [], [], list[str]()
    for name, features in service["views"]:
        if name in kept:
            views.append(kept[name]["variable"])
            left = set(kept[name]) - {"variable", *features}
            if left:
                missed.append(
                    Missed(f"feature service {service['name']}", f"takes all of {name}, not {len(left)} less")
                )
        elif name in transforms:
            used.append(transforms[name]["variable"])
            request += transforms[name]["request"]
        else:
            missed.append(Missed(f"feature service {service['name']}", f"{name} did not come over"))
    if not views:
        missed.append(Missed(f"feature service {service['name']}", "none of its views came over"))
        return []
    more = f", request={list(dict.fromkeys(request))!r}" if request else ""
    more += f", transforms=[{', '.join(used)}]" if used else ""
    variable = _unique(f"{_name(service['name'])}", [*views, *used])
    made = f'{variable} = project.feature_service("{variable}", [{", ".join(views)}]{more})'
    return [*_told(service), made, ""]


def _told(thing: Mapping[str, Any]) -> Iterator[str]:
    """Description, owner and tags as a comment."""
    said = [thing["description"], f"owner: {thing['owner']}" if thing["owner"] else ""]
    said += [f"{name}={value}" for name, value in sorted(thing["tags"].items())]
    text = "; ".join(" ".join(part.split()) for part in said if part)
    return iter([f"# {text}"] if text else [])


def _function(code: str, name: str) -> tuple[str, set[str]]:
    """The function without its decorators, as `_<name>`, and the texts in it: the columns that it may read."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return "", set()
    found = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if found is None:
        return "", set()
    found.decorator_list, found.name = [], f"_{name}"
    texts = {n.value for n in ast.walk(found) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    attributes = {n.attr for n in ast.walk(found) if isinstance(n, ast.Attribute)}
    return ast.unparse(found), texts | attributes


def _duration(micros: int) -> str:
    """`2d` for two days; empty for none, which Feast means by 0."""
    return next((f"{micros // size}{unit}" for unit, size in _UNITS if micros and micros % size == 0), "")


def _name(text: str) -> str:
    made = sub(r"\W", "_", text).strip("_").lower() or "imported"
    return f"{made}_" if iskeyword(made) or made[0].isdigit() else made


def _unique(name: str, taken: Sequence[str]) -> str:
    return name if name not in taken else _unique(f"{name}_1", taken)
