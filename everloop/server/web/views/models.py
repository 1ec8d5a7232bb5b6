"""The registry: which models there are, the versions and aliases of one, a version with its card, two side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from starlette.responses import Response

from everloop.catalog import versions
from everloop.core.errors import InvalidInput, NotFound
from everloop.data.sensitive.masking import need_file
from everloop.server.web.charts import line_chart
from everloop.server.web.differences import Part, differences
from everloop.server.web.views.tracking.files import sent
from everloop.server.web.views.versions import drawing
from everloop.server.web.visit import Visit

_SHOWN, _VERSIONS = 50, 100
_COLUMNS = 5
_USUAL = ("roc_auc", "rmse", "accuracy")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version is live: an environment, or an endpoint of one."""

    text: str
    address: str
    serves: bool
    version: str
    """`model/delay v7`."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two versions of a key, as `differences` reads them."""

    key: str
    old: str
    new: str


def index(visit: Visit) -> Response:
    """Registered models, searched by a part of their names or in MLflow's filter language."""
    text, filter_text = visit.query("search").strip(), visit.query("filter").strip()
    refused: InvalidInput | None = None
    found = None
    try:
        found = visit.ask(
            "models.search",
            text=text,
            filter=filter_text,
            order_by=(visit.query("order"),) if visit.query("order") else (),
            limit=_SHOWN,
            token=visit.query("token"),
        )
    except InvalidInput as error:
        refused = error
    return visit.page(
        "models.html",
        title="Models",
        here="/models",
        status=400 if refused else 200,
        wrong=refused,
        models=found.models if found else (),
        token=found.token if found else "",
        search=text,
        filter=filter_text,
        order=visit.query("order"),
        live=_by_name(live(visit)),
    )


def history(visit: Visit) -> Response:
    """The versions of one model, a metric over them, its aliases now and at another time."""
    name = visit.part("name")
    model = visit.ask("models.registered", name=name)
    page = visit.ask("models.versions", name=name, limit=_VERSIONS, token=visit.query("token"))
    metrics = sorted({metric for one in page.versions for metric in one.metrics})
    chosen = visit.query("metric") or next((m for m in _USUAL if m in metrics), "")
    chosen = chosen if chosen in metrics else next(iter(metrics), "")
    points = [(one.number, value) for one in reversed(page.versions) if (value := _figure(one, chosen)) is not None]
    at = visit.query("at")
    return visit.page(
        "model_history.html",
        title=f"Model {name}",
        here="/models",
        name=name,
        model=model,
        page=page,
        metrics=metrics,
        columns=([chosen] if chosen else []) + [m for m in metrics if m != chosen][: _COLUMNS - 1],
        chosen=chosen,
        chart=line_chart({chosen: points}, x="version", y=chosen, kind="whole") if len(points) > 1 else None,
        live=live(visit),
        aliases=visit.ask("models.aliases", name=name, at=f"{at}Z" if at and at[-1:].isdigit() else at),
        at_time=at,
        may_write=visit.may("models.describe", name=name),
    )


def show(visit: Visit) -> Response:
    """One version: its card, where it is live, its files, and its lineage."""
    name, number = visit.part("name"), int(visit.part("number"))
    version = visit.ask("models.version", name=name, number=number)
    card = visit.ask("checks.card", model=version.id)
    return visit.page(
        "model.html",
        title=f"{name} v{number}",
        here="/models",
        model=version,
        name=name,
        card=card,
        selection=visit.ask("models.selection", model=version.id),
        card_html=Markup(card.html),  # noqa: S704 - the card escapes every fact itself
        live=live(visit).get(version.id, ()),
        drawing=drawing(visit, version.id, depth=3),
        files=visit.ask("models.files", name=name, number=number).files,
        may_write=visit.may("models.describe", name=name),
        host=visit.request.headers.get("host", ""),
    )


def compare(visit: Visit) -> Response:
    """Two versions side by side: metrics, parameters of their runs, fields of their manifests."""
    name = visit.part("name")
    picked = sorted(
        {int(one) for one in visit.request.query_params.getlist("version") if one.isdigit() and len(one) < 9}
    )
    if len(picked) != 2:
        raise InvalidInput("choose two versions to compare", hint="tick them in the table of versions")
    old, new = (visit.ask("models.version", name=name, number=number) for number in picked)
    asset = visit.ask("models.registered", name=name).asset
    (part,) = differences(visit.ctx, [_Pair(f"model/{asset}", old.id, new.id)])
    before, after = (_params(visit, one) for one in (old, new))
    return visit.page(
        "model_compare.html",
        title=f"{name} v{old.number} and v{new.number}",
        here="/models",
        name=name,
        old=old,
        new=new,
        part=part,
        code=_code(visit, old, new),
        params=[(key, before.get(key), after.get(key)) for key in sorted({*before, *after})],
    )


def act(visit: Visit) -> Response:
    """Description, tags and aliases."""
    name, wanted, form = visit.part("name"), visit.part("act"), visit.form
    number = visit.whole("number", posted=True) or 0
    if wanted == "describe":
        visit.ask("models.describe", name=name, number=number, description=form.get("description", "").strip())
    elif wanted == "tag":
        tags = {form.get("key", "").strip(): form.get("value", "")}
        visit.ask("models.describe", name=name, number=number, tags=tags)
    elif wanted == "untag":
        visit.ask("models.describe", name=name, number=number, remove=(form.get("key", ""),))
    elif wanted in ("alias", "unalias"):
        asset = visit.ask("models.registered", name=name).asset
        to = visit.ask("models.version", name=name, number=number).id if wanted == "alias" else ""
        visit.ask("models.alias", name=asset, alias=form.get("alias", "").strip(), model=to)
    else:
        raise NotFound(f"nothing can be done to a model by {wanted!r}", hint="use the buttons of its page")
    where = ("models", name, number) if number and form.get("from") == "version" else ("models", name)
    return visit.go(*where)


def raw(visit: Visit) -> Response:
    """The bytes of a file of a version, to be saved."""
    name, number, path = visit.part("name"), int(visit.part("number")), visit.part("path")
    files = visit.ask("models.files", name=name, number=number).files
    file = next((one for one in files if one.path == path), None)
    if file is None:
        raise NotFound(f"the version has no file {path!r}", hint="its page lists them")
    need_file(visit.ctx, visit.ask("models.version", name=name, number=number).id, path)
    return sent(visit, file.object, path.rpartition("/")[2])


def live(visit: Visit) -> dict[str, tuple[Place, ...]]:
    """Protected environments that hold a version, and endpoints that serve it, by its id."""
    found: list[tuple[str, str, str, bool]] = []
    for environment in visit.ask("environments.list", sandboxes=False).environments:
        where = visit.at("environments", environment.name)
        held = [identity for key, identity in environment.entries.items() if key.startswith("model/")]
        found += [(identity, environment.name, where, False) for identity in held]
        endpoints = visit.ask("endpoints.list", environment=environment.name).endpoints
        for endpoint, identity in _served(visit, endpoints):
            where = visit.at("endpoints", endpoint, environment=environment.name)
            found.append((identity, f"{endpoint} in {environment.name}", where, True))
    with visit.ctx.read() as tx:
        labels = versions.labels(tx, visit.ctx.project, [identity for identity, *_ in found])
    places: dict[str, tuple[Place, ...]] = {}
    for identity, text, where, serves in found:
        place = Place(text, where, serves, labels.get(identity, ""))
        places[identity] = (*places.get(identity, ()), place)
    return places


def _by_name(places: Mapping[str, Sequence[Place]]) -> dict[str, list[tuple[str, Place]]]:
    """The same by the name that the catalog's versions bear: (`v7`, place)."""
    found: dict[str, list[tuple[str, Place]]] = {}
    for place in (one for many in places.values() for one in many):
        name, _, number = place.version.removeprefix("model/").rpartition(" ")
        found.setdefault(name, []).append((number, place))
    return found


def _served(visit: Visit, endpoints: Sequence[Any]) -> list[tuple[str, str]]:
    """(endpoint, model version) of what endpoints serve now."""
    revisions = {one.serving: one.name for one in endpoints if one.serving}
    with visit.ctx.read() as tx:
        held = versions.manifests(tx, visit.ctx.project, list(revisions))
    return [
        (revisions[revision], model)
        for revision, manifest in held.items()
        for model in dict.fromkeys(manifest.get("models", {}).values())
    ]


def _figure(version: Any, metric: str) -> float | None:
    try:
        return float(version.metrics[metric])
    except (KeyError, ValueError):
        return None


def _params(visit: Visit, version: Any) -> Mapping[str, str]:
    """The parameters of the run that made a version; none when it is gone."""
    if not version.run:
        return {}
    try:
        params: Mapping[str, str] = visit.ask("runs.show", run=version.run).run.params
    except NotFound:
        return {}
    return params


def _code(visit: Visit, old: Any, new: Any) -> Part | None:
    """What differs in the code that made them, where both came from a flow."""
    ctx = visit.ctx
    with ctx.read() as tx:
        pairs = [
            next((edge.from_id for edge in versions.upstream(tx, ctx.project, one.id, 1) if edge.role == "code"), "")
            for one in (old, new)
        ]
        if not all(pairs) or pairs[0] == pairs[1]:
            return None
        key = versions.get(tx, ctx.project, pairs[1]).key
    return differences(ctx, [_Pair(key, *pairs)])[0]
