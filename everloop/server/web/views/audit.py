"""The audit: every act and every change of state, in the order of the chain."""

from typing import Any

from starlette.responses import Response

from everloop.catalog import chain, facts
from everloop.server.web.visit import Visit

_PAGE = 100
_LOOKED_AT = 20
"""Pages of the log that are searched for one actor before the visitor is asked to go on."""
_AT_ONCE = 5_000
"""Up to so many records the chain is verified with every page; more when it is asked for."""


def index(visit: Visit) -> Response:
    """Facts by kind, subject and actor, newest first."""
    kind, subject, actor = visit.query("kind"), visit.query("subject"), visit.query("actor")
    found, older = _facts(visit, kind, subject, actor)
    ctx = visit.ctx
    with ctx.read() as tx:
        head = facts.heads(tx).get(ctx.project, 0)
        verified = head <= _AT_ONCE or visit.query("verify") == "1"
        key = ctx.key.public if ctx.key is not None else None
        broken = chain.verify_chain(tx, ctx.project, key=key) if verified else None
        waiting = facts.unsealed(tx)
    return visit.page(
        "audit.html",
        title="Audit",
        here="/audit",
        facts=found,
        kind=kind,
        subject=subject,
        of_actor=actor,
        older=older,
        head=head,
        verified=verified,
        broken=broken,
        waiting=waiting,
    )


def _facts(visit: Visit, kind: str, subject: str, actor: str) -> tuple[list[Any], int | None]:
    """A page of the log, and the position to go on from; None when nothing is left."""
    kept: list[Any] = []
    before = visit.whole("before")
    for _ in range(_LOOKED_AT if actor else 1):
        page = visit.ask("audit.facts", kind=kind, subject=subject, limit=_PAGE, before=before).facts
        kept += [fact for fact in page if not actor or fact.actor == actor]
        before = page[-1].position if len(page) == _PAGE else None
        if before is None or len(kept) >= _PAGE:
            break
    return kept, before
