"""What an endpoint's page shows of its rollout: wanted beside observed, guardrails, the experiment, what went back."""

from typing import Any

from everloop.core.clock import Micros
from everloop.core.grants import Target
from everloop.server.web.charts import Chart, line_chart
from everloop.server.web.visit import Visit
from everloop.serving.operations import EndpointView, RevisionView

_COURSE = ("at", "champion_rows", "rows", "low", "difference", "high")
_FAR = 1e12
"""A bound beyond that says nothing yet; it is not drawn."""


def rollout(visit: Visit, endpoint: EndpointView) -> dict[str, Any]:
    """Everything of the sections on the rollout."""
    guarded = visit.ask("endpoints.guardrails", name=endpoint.name, environment=endpoint.environment)
    return {
        "shares": [_share(endpoint, revision) for revision in endpoint.revisions],
        "guardrails": guarded.guardrails,
        "reverts": guarded.reverts,
        "experiment": _experiment(endpoint.experiment),
        "may_share": bool(endpoint.experiment)
        and visit.ctx.actor.may("experiment.write", Target("endpoint", endpoint.name, endpoint.environment)),
    }


def _share(endpoint: EndpointView, revision: RevisionView) -> dict[str, Any]:
    """A revision's wanted share beside the one that gateways gave it; None where nobody was asked yet."""
    asked = {r.id: sum(its["requests"] for its in r.observed.values()) for r in endpoint.revisions}
    total = sum(asked.values())
    states = sorted({its["state"] for its in revision.observed.values()})
    arms = endpoint.experiment.get("arms", {})
    role = next((name for name, arm in arms.items() if arm["revision"] == revision.id), "")
    if not role:
        role = "wanted" if revision.id == endpoint.target else "before"
    return {
        "id": revision.id,
        "number": revision.number,
        "role": role,
        "wanted": revision.weight,
        "observed": 100 * asked[revision.id] / total if total else None,
        "requests": asked[revision.id],
        "states": states,
    }


def _experiment(told: dict[str, Any]) -> dict[str, Any] | None:
    """The experiment for people: each challenger with where its interval is, and the chart of how it got there."""
    if not told:
        return None
    arms = []
    for name, arm in told["arms"].items():
        last = dict(zip(_COURSE, arm["course"][-1], strict=True)) if arm["course"] else None
        arms.append({"name": name, **arm, "last": last})
    return {"began": told["began"], "change": told["change"], "arms": arms, "chart": _chart(told["arms"])}


def _chart(arms: dict[str, Any]) -> Chart | None:
    """How much better each challenger is: the estimate, and where it is for sure, at the times when rows had grown."""
    series: dict[str, list[tuple[Micros, float]]] = {}
    bands: dict[str, list[tuple[Micros, float, float]]] = {}
    for name, arm in arms.items():
        drawn = [point for point in arm["course"] if abs(point[3]) < _FAR and abs(point[5]) < _FAR]
        if drawn:
            series[name] = [(int(at), difference) for at, _, _, _, difference, _ in drawn]
            bands[name] = [(int(at), low, high) for at, _, _, low, _, high in drawn]
    if not series:
        return None
    marks = ((0.0, "as good as the champion"),)
    return line_chart(series, x="time (UTC)", y="better by", kind="time", bands=bands, marks=marks)
