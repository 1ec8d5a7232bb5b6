"""Who one is here, and how to sign in."""

from starlette.responses import Response

from everloop.server.web.visit import Visit


def account(visit: Visit) -> Response:
    """Name, roles and grants; for somebody who has not signed in, how to."""
    who = visit.ask("access.whoami")
    return visit.page(
        "account.html",
        title="Sign in" if who.anonymous else "You",
        who=who,
        grants=sorted(set(who.grants)),
        tokens=[] if who.anonymous else visit.ask("access.list_tokens").tokens,
    )
