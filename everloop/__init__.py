"""Everloop: the machine-learning lifecycle as one versioned, audited loop.

What a project's author writes with: `import everloop as el`. Each name is loaded when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Project": "project",
    "Price": "flows.compute.profiles",
    "Retry": "flows.control",
    "environment": "flows.control",
    "limits": "project.steps",
    "map": "flows.control",
    "Hyperband": "flows.search.definitions",
    "Median": "flows.search.definitions",
    "choice": "flows.search.definitions",
    "floats": "flows.search.definitions",
    "ints": "flows.search.definitions",
    "report": "core.inside.reporting",
    "search": "flows.search.definitions",
    "Call": "data.definitions",
    "Evolution": "data.evolution",
    "Files": "data.definitions",
    "Folder": "data.definitions",
    "Kafka": "data.streams.origins",
    "Push": "data.streams.origins",
    "Query": "data.definitions",
    "RedisStream": "data.streams.origins",
    "SQL": "data.definitions",
    "Table": "data.definitions",
    "capture": "workspace.direct",
    "expect": "data",
    "all_of": "features.definitions",
    "any_of": "features.definitions",
    "count": "features.definitions",
    "distinct": "features.definitions",
    "first": "features.definitions",
    "histogram": "features.definitions",
    "last": "features.definitions",
    "last_k": "features.definitions",
    "max": "features.definitions",
    "mean": "features.definitions",
    "min": "features.definitions",
    "quantile": "features.definitions",
    "ratio": "features.definitions",
    "stddev": "features.definitions",
    "sum": "features.definitions",
    "top_k": "features.definitions",
    "variance": "features.definitions",
    "coalesce": "features.expressions",
    "col": "features.expressions",
    "expr": "features.expressions",
    "greatest": "features.expressions",
    "least": "features.expressions",
    "when": "features.expressions",
    "vector": "features.vectors.definitions",
    "select": "models.selection.definitions",
    "Onnx": "models.compiled.definitions",
    "folds": "models.validation",
    "Tree": "data.trees.reading",
    "Candidate": "checks.definitions",
    "Objective": "checks.definitions",
    "Verdict": "checks.definitions",
    "verdicts": "checks",
    "AllAtOnce": "serving.definitions",
    "BlueGreen": "serving.definitions",
    "Canary": "serving.definitions",
    "Explain": "serving.definitions",
    "Guardrails": "serving.definitions",
    "Limits": "serving.definitions",
    "Shadow": "serving.definitions",
    "Workers": "serving.definitions",
    "Business": "serving.rollout.declared",
    "Cached": "serving.rollout.declared",
    "Default": "serving.rollout.declared",
    "Simpler": "serving.rollout.declared",
    "Drift": "serving.rollout.declared",
    "Experiment": "serving.rollout.declared",
    "Quality": "serving.rollout.declared",
    "CallEndpoint": "serving.graph.nodes",
    "Ensemble": "serving.graph.nodes",
    "Lookup": "serving.graph.nodes",
    "Model": "serving.graph.nodes",
    "Sequence": "serving.graph.nodes",
    "Splitter": "serving.graph.nodes",
    "Step": "serving.graph.nodes",
    "Switch": "serving.graph.nodes",
    "Transform": "serving.graph.nodes",
    "Late": "watch.definitions",
    "every": "watch.definitions",
    "on_alarm": "watch.definitions",
    "on_new_rows": "watch.definitions",
}
_MODULES = {"expect": "data.expect", "folds": "models.validation.folds", "verdicts": "checks.verdicts"}


def __getattr__(name: str) -> Any:
    """Load the module of a public name when it is first used."""
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
