"""Traces: those of all experiments or of one run, and one with its tree of spans."""

from starlette.responses import Response

from everloop.core.errors import InvalidInput
from everloop.server.web.views.tracking.run import page
from everloop.server.web.visit import Visit

_SHOWN = 50


def index(visit: Visit) -> Response:
    """The traces, the newest first, in MLflow's filter language."""
    experiments = tuple(one for one in visit.request.query_params.getlist("experiment") if one)
    wrong, found = None, None
    try:
        found = visit.ask(
            "traces.list",
            experiments=experiments,
            filter=visit.query("filter").strip(),
            limit=_SHOWN,
            token=visit.query("token"),
        )
    except InvalidInput as error:
        wrong = error
    return visit.page(
        "traces.html",
        title="Traces",
        here="/runs",
        status=400 if wrong else 200,
        wrong=wrong,
        found=found,
        filter=visit.query("filter"),
        experiment=experiments,
    )


def of_run(visit: Visit) -> Response:
    """The traces of one run."""
    run = visit.ask("runs.show", run=visit.part("run")).run
    found = visit.ask(
        "traces.list", run=run.id, experiments=(run.experiment,), limit=_SHOWN, token=visit.query("token")
    )
    return page(visit, "traces", run, found=found)


def show(visit: Visit) -> Response:
    """One trace."""
    found = visit.ask("traces.show", trace=visit.part("trace"))
    whole = max((span.after + (span.seconds or 0) for span in found.spans), default=0.0)
    return visit.page(
        "trace.html", title=found.trace.name or found.trace.id, here="/runs", found=found, whole=whole or 1.0
    )
