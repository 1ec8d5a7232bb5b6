"""Changes: the list, one with all that decides about it, and what people do with it in place."""

from starlette.responses import Response

from everloop.catalog.governance import results
from everloop.changes.views import CheckView
from everloop.core.errors import NotFound
from everloop.server.web.differences import differences
from everloop.server.web.visit import Visit

STATES = ("open", "merged", "closed", "reverted")
_PAGE = 50
_ACTS: dict[str, dict[str, str]] = {
    "approve": {},
    "comment": {"text": "-"},
    "merge": {},
    "close": {},
    "check": {},
    "update": {},
    "revert": {},
}
"""What a page offers, and what each needs beside the number to be asked about."""


def index(visit: Visit) -> Response:
    """Changes, newest first, by state."""
    state = visit.query("state")
    found = visit.ask("changes.list", state=state, limit=_PAGE + 1, before=visit.whole("before")).changes
    return visit.page(
        "changes.html",
        title="Changes",
        here="/changes",
        changes=found[:_PAGE],
        state=state,
        states=STATES,
        older=found[_PAGE - 1].number if len(found) > _PAGE else None,
    )


def show(visit: Visit) -> Response:
    """One change."""
    number = int(visit.part("number"))
    change = visit.ask("changes.show", number=number)
    may = {name: visit.may(f"changes.{name}", number=number, **more) for name, more in _ACTS.items()}
    return visit.page(
        "change.html",
        title=f"#{number} {change.title}",
        here="/changes",
        change=change,
        checks=change.checks if change.state == "open" else _recorded(visit, change.delta_id),
        parts=differences(visit.ctx, change.differences),
        may=may,
        own=visit.ctx.actor.name in change.authors,
    )


def act(visit: Visit) -> Response:
    """Approve, comment, merge, update, close, revert, check again; the operations decide who may."""
    number, wanted = int(visit.part("number")), visit.part("act")
    form = visit.form
    if wanted == "approve":
        visit.ask(
            "changes.approve",
            number=number,
            comment=form.get("comment", ""),
            delta=form.get("delta", ""),
            evidence=form.get("evidence", ""),
        )
    elif wanted == "comment":
        visit.ask("changes.comment", number=number, text=form.get("text", ""))
    elif wanted == "revert":
        return visit.go("changes", visit.ask("changes.revert", number=number).number)
    elif wanted == "check":
        visit.ask("changes.check", number=number, again=True)
    elif wanted in ("merge", "close", "update"):
        visit.ask(f"changes.{wanted}", number=number)
    else:
        raise NotFound(f"nothing can be done to a change by {wanted!r}", hint="use the buttons of its page")
    return visit.go("changes", number)


def _recorded(visit: Visit, delta: str) -> list[CheckView]:
    """The newest result of each check for a delta, for a change that is over: its standing is not asked any more."""
    with visit.ctx.read() as tx:
        found = results.of(tx, visit.ctx.project, delta)
    newest = {(one.check_id, one.objective_id): one for one in reversed(found)}
    return [
        CheckView(
            label=one.name,
            name=one.name,
            state=one.state,
            summary=one.summary,
            figures=dict(one.figures),
            evidence=one.evidence,
            origin="target",
            reason="recorded when it was decided",
            problems=[],
            moved_heads=[],
            run_by=one.actor,
            at=one.at,
        )
        for one in sorted(newest.values(), key=lambda one: one.name)
    ]
