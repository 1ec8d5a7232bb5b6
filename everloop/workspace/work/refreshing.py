"""Refreshing an environment's data with production's code: capture every source, make every dataset, move the heads."""

from collections.abc import Mapping
from typing import Any

from everloop.catalog.context import Context
from everloop.workspace.build import code_tree, refresh
from everloop.workspace.code import project_of
from everloop.workspace.work.executors import executor_of
from everloop.workspace.work.retraining import live_code


def refresh_live(ctx: Context, payload: Mapping[str, Any]) -> dict[str, str]:
    """Refresh `payload["environment"]` with the code that trained `payload["model"]`; {dataset: version id}."""
    project, origin = project_of(ctx, *live_code(ctx, payload["model"]))
    code = code_tree(ctx, project, origin)
    executor = executor_of(ctx, project.assets(), code)
    try:
        made = refresh(ctx, project, origin, payload["environment"], executor=executor, code=code)
    finally:
        executor.close()
    return {name: identity for name, (identity, _) in made.items()}
