"""The operation on a selection: which inputs a model's version was given, and why each was taken or left."""

import json
from typing import Any

from pydantic import Field

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import NotFound
from everloop.models.registry import find_model
from everloop.models.training import SELECTION


class OfModel(Command):
    """A model's version, as `models.show` takes it."""

    model: str


class RankedView(Answer):
    """What was found about one column; see `selection.ranking.Ranked`."""

    column: str
    chosen: bool
    why: str
    importance: float
    spread: float
    null: float
    stability: float
    alone: float
    mutual_information: float
    windows: tuple[float, ...] = ()


class SelectionView(Answer):
    """How a model's inputs were chosen; without a `version` all columns of its service were taken."""

    version: str = ""
    """The version of the choice, which the model has as an input."""
    chosen: tuple[str, ...] = ()
    ranking: tuple[RankedView, ...] = ()
    """Every column of the service, most important first."""
    rows: int = 0
    """Rows of the training frame that were looked at."""
    rule: dict[str, Any] = Field(default_factory=dict)


@operation("models.selection", needs="read", reads=True, audit="denied")
def show_selection(ctx: Context, cmd: OfModel) -> SelectionView:
    """Show which inputs a model's version was given, and why each column was taken or left."""
    with ctx.read() as tx:
        model = find_model(tx, ctx.project, cmd.model)
        edges = versions.upstream(tx, ctx.project, model.id, 1)
        made = next((edge.from_id for edge in edges if edge.role == SELECTION), "")
        if not made:
            return SelectionView()
        manifest = versions.get(tx, ctx.project, made).manifest
    inline = manifest.get("inline")
    content = inline.encode() if isinstance(inline, str) else ctx.store.get(str(manifest["object"]))
    try:
        said = json.loads(content)
    except ValueError as error:
        raise NotFound(f"the selection of {cmd.model} cannot be read", hint="everloop verify") from error
    return SelectionView(
        version=made,
        chosen=tuple(said["chosen"]),
        ranking=tuple(RankedView(**one) for one in said["ranking"]),
        rows=said["rows"],
        rule=said["rule"],
    )
