"""Run by the interpreter that has Feast: `python described.py REPO` prints what the repository defines, as JSON.

It imports the repository's code, so it runs apart from Everloop, and imports nothing of it.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any


def main(place: str) -> None:
    """Print one JSON object."""
    repo = Path(place).resolve()
    os.chdir(repo)
    sys.path.insert(0, str(repo))
    printed, sys.stdout = sys.stdout, sys.stderr  # what the repository prints is no part of the answer
    version = import_module("feast").__version__

    found = import_module("feast.repo_operations").parse_repo(repo)
    streams = {view.name for view in found.stream_feature_views}
    said = {
        "feast": version,
        "entities": [
            {
                **_about(e),
                "keys": list(getattr(e, "join_keys", None) or [e.join_key]),
                "type": getattr(getattr(e, "value_type", None), "name", ""),
            }
            for e in found.entities
        ],
        "views": [
            _view(view, stream=view.name in streams) for view in (*found.feature_views, *found.stream_feature_views)
        ],
        "on_demand": [_on_demand(view) for view in found.on_demand_feature_views],
        "services": [
            {
                **_about(service),
                "views": [_projection(p) for p in service.feature_view_projections],
            }
            for service in found.feature_services
        ],
        "label_views": [view.name for view in getattr(found, "label_views", [])],
        "permissions": [one.name for one in getattr(found, "permissions", [])],
    }
    json.dump(said, printed)


def _about(thing: Any) -> dict[str, Any]:
    return {
        "name": thing.name or "",
        "description": getattr(thing, "description", "") or "",
        "tags": dict(getattr(thing, "tags", None) or {}),
        "owner": getattr(thing, "owner", "") or "",
    }


def _view(view: Any, *, stream: bool) -> dict[str, Any]:
    ttl = getattr(view, "ttl", None)
    pushed = getattr(view, "stream_source", None)
    function = getattr(view, "udf", None) or getattr(getattr(view, "feature_transformation", None), "udf", None)
    return {
        **_about(view),
        "stream": type(pushed).__name__ if pushed is not None else "stream" if stream else "",
        "entities": list(view.entities),
        "ttl_micros": round(ttl.total_seconds() * 1_000_000) if ttl else 0,
        "features": [_field(field) for field in view.features],
        "aggregations": [
            f"{one.function} of {one.column} over {one.time_window}"
            for one in getattr(view, "aggregations", None) or ()
        ],
        "function": getattr(function, "__name__", ""),
        "of_views": [one.name for one in getattr(view, "source_views", None) or ()],
        "source": _source(view.batch_source),
    }


def _projection(one: Any) -> dict[str, Any]:
    return {
        "name": one.name,
        "alias": one.name_alias or "",
        "keys": dict(one.join_key_map),
        "features": [field.name for field in one.features],
    }


def _source(source: Any) -> dict[str, Any]:
    if source is None:
        return {"kind": "source", "format": "", "time": ""}
    return {
        **_about(source),
        "kind": type(source).__name__,
        "format": type(source.file_format).__name__ if getattr(source, "file_format", None) else "",
        "path": str(getattr(source, "path", "") or ""),
        "table": str(getattr(source, "table", None) or getattr(source, "_table", "") or ""),
        "query": str(getattr(source, "query", None) or getattr(source, "_query", "") or ""),
        "time": source.timestamp_field or "",
        "created": source.created_timestamp_column or "",
        "renamed": dict(source.field_mapping or {}),
    }


def _on_demand(view: Any) -> dict[str, Any]:
    transformation = view.feature_transformation
    modules, needs = _uses(getattr(transformation, "udf", None))
    return {
        **_about(view),
        "mode": str(view.mode),
        "views": [[p.name, [_field(f) for f in p.features]] for p in view.source_feature_view_projections.values()],
        "request": [_field(f) for s in view.source_request_sources.values() for f in s.schema],
        "features": [_field(field) for field in view.features],
        "code": str(getattr(transformation, "udf_string", "") or ""),
        "function": getattr(getattr(transformation, "udf", None), "__name__", ""),
        "imports": modules,
        "needs": needs,
    }


def _uses(function: Any) -> tuple[dict[str, str], list[str]]:
    """What a function reads of its file: {name: module}, and the names of everything else."""
    code = getattr(function, "__code__", None)
    found = {n: function.__globals__[n] for n in _names(code) if n in function.__globals__} if code else {}
    modules = {name: value.__name__ for name, value in found.items() if isinstance(value, ModuleType)}
    free = code.co_freevars if code else ()
    return modules, sorted({*found, *free} - {*modules})


def _names(code: CodeType) -> set[str]:
    inner = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*inner)


def _field(field: Any) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": str(field.dtype),
        "description": getattr(field, "description", "") or "",
        "tags": dict(getattr(field, "tags", None) or {}),
    }


if __name__ == "__main__":
    main(sys.argv[1])
