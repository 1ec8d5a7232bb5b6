"""Run by the interpreter that has Feast: `python described.py REPO` prints what the repository defines, as JSON.

It imports the repository's code, so it runs apart from Everloop, and imports nothing of it.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
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
            {**_about(e), "keys": list(getattr(e, "join_keys", None) or [e.join_key])} for e in found.entities
        ],
        "views": [
            _view(view, stream=view.name in streams) for view in (*found.feature_views, *found.stream_feature_views)
        ],
        "on_demand": [_on_demand(view) for view in found.on_demand_feature_views],
        "services": [
            {
                **_about(service),
                "views": [[p.name, [f.name for f in p.features]] for p in service.feature_view_projections],
            }
            for service in found.feature_services
        ],
    }
    json.dump(said, printed)


def _about(thing: Any) -> dict[str, Any]:
    return {
        "name": thing.name,
        "description": getattr(thing, "description", "") or "",
        "tags": dict(getattr(thing, "tags", None) or {}),
        "owner": getattr(thing, "owner", "") or "",
    }


def _view(view: Any, *, stream: bool) -> dict[str, Any]:
    ttl = getattr(view, "ttl", None)
    return {
        **_about(view),
        "stream": stream,
        "entity": [column.name for column in view.entity_columns] or list(view.entities),
        "ttl_micros": int(ttl.total_seconds() * 1_000_000) if ttl else 0,
        "features": [[field.name, _type(field)] for field in view.features],
        "source": _source(view.batch_source),
    }


def _source(source: Any) -> dict[str, Any]:
    if source is None:
        return {"kind": "none"}
    return {
        "kind": type(source).__name__,
        "name": source.name or "",
        "path": str(getattr(source, "path", "") or ""),
        "table": str(getattr(source, "table", None) or getattr(source, "_table", "") or ""),
        "query": str(getattr(source, "query", None) or getattr(source, "_query", "") or ""),
        "time": source.timestamp_field or "",
        "created": source.created_timestamp_column or "",
        "renamed": dict(source.field_mapping or {}),
    }


def _on_demand(view: Any) -> dict[str, Any]:
    transformation = view.feature_transformation
    return {
        **_about(view),
        "mode": str(view.mode),
        "views": [
            [p.name, [[f.name, _type(f)] for f in p.features]] for p in view.source_feature_view_projections.values()
        ],
        "request": [[f.name, _type(f)] for s in view.source_request_sources.values() for f in s.schema],
        "features": [[field.name, _type(field)] for field in view.features],
        "code": str(getattr(transformation, "udf_string", "") or ""),
        "function": getattr(getattr(transformation, "udf", None), "__name__", ""),
    }


def _type(field: Any) -> str:
    return str(field.dtype)


if __name__ == "__main__":
    main(sys.argv[1])
