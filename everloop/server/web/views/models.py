"""Models: which there are, the versions of one, and the card of a version."""

from typing import Any

from markupsafe import Markup
from starlette.responses import Response

from everloop.server.web.charts import line_chart
from everloop.server.web.views.versions import drawing
from everloop.server.web.visit import Visit

_SHOWN = 100
_COLUMNS = 5


def index(visit: Visit) -> Response:
    """The newest version of every model, and where versions are live."""
    models = visit.ask("models.list", limit=200).models
    return visit.page("models.html", title="Models", here="/models", models=models, live=live(visit))


def history(visit: Visit) -> Response:
    """The versions of one model, and a metric over them."""
    name = visit.part("name")
    found = visit.ask("models.list", name=name, limit=_SHOWN).models
    if not found:
        visit.ask("models.show", model=f"model/{name}")  # raises the error that says what there is
    metrics = sorted({metric for one in found for metric in one.metrics})
    chosen = visit.query("metric") or next((m for m in ("roc_auc", "rmse", "accuracy") if m in metrics), "")
    chosen = chosen if chosen in metrics else next(iter(metrics), "")
    points = [(one.number, float(one.metrics[chosen])) for one in reversed(found) if chosen in one.metrics]
    return visit.page(
        "model_history.html",
        title=f"Model {name}",
        here="/models",
        name=name,
        models=found,
        metrics=metrics,
        columns=([chosen] if chosen else []) + [m for m in metrics if m != chosen][: _COLUMNS - 1],
        chosen=chosen,
        chart=line_chart({chosen: points}, x="version", y=chosen, kind="whole") if len(points) > 1 else None,
        live=live(visit),
    )


def show(visit: Visit) -> Response:
    """One version: its card, and its lineage."""
    name, number = visit.part("name"), int(visit.part("number"))
    model = visit.ask("models.show", model=f"model/{name}@{number}")
    card = visit.ask("checks.card", model=model.id)
    return visit.page(
        "model.html",
        title=f"{name} v{number}",
        here="/models",
        model=model,
        card=card,
        card_html=Markup(card.html),  # noqa: S704 - the card escapes every fact itself
        live=live(visit).get(model.id, ()),
        drawing=drawing(visit, model.id, depth=3),
        files=sorted(model.manifest.get("files", {})),
    )


def live(visit: Visit) -> dict[str, tuple[str, ...]]:
    """Protected environments that hold a version, by its id."""
    found: dict[str, Any] = {}
    for environment in visit.ask("environments.list", sandboxes=False).environments:
        for key, identity in environment.entries.items():
            if key.startswith("model/"):
                found.setdefault(identity, []).append(environment.name)
    return {identity: tuple(names) for identity, names in found.items()}
