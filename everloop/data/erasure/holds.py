"""Legal holds: what must not go, whatever rules and requests say, until somebody of the right role releases it.

A hold is a fact of the audit chain, and so is its release (`catalog.governance.holds`). A hold on a subject is kept
under a digest that only the workspace's key can make, so that it names nobody; any other under the name of its place.
"""

import hmac
import re

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.governance import holds
from everloop.catalog.governance.holds import HELD, PREDICTIONS, RELEASED
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.version import KINDS

_PLACE = re.compile(r"(?P<kind>[a-z]+)/[^/].*")


def hold(ctx: Context, *, place: str = "", subject: str = "", reason: str) -> None:
    """Place a hold. Raises `InvalidInput` without a reason, or unless exactly one of both is named."""
    if not reason.strip():
        raise InvalidInput("a legal hold needs a reason", hint="who demands it, and where it is filed")
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact(HELD, _place(ctx, place, subject), {"reason": reason}))


def release(ctx: Context, *, place: str = "", subject: str = "", reason: str = "") -> None:
    """End a hold; raises `NotFound` when there is none."""
    where = _place(ctx, place, subject)
    if where not in standing(ctx):
        raise NotFound("there is no legal hold on it", hint="`everloop data holds` lists those that stand")
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact(RELEASED, where, {"reason": reason}))


def held(ctx: Context, subject: str) -> str:
    """The reason of the hold on a subject; empty when there is none."""
    return standing(ctx).get(_place(ctx, "", subject), "")


def holds_place(ctx: Context, place: str) -> str:
    """The reason of the hold on a place; empty when there is none."""
    return standing(ctx).get(_place(ctx, place, ""), "")


def standing(ctx: Context) -> dict[str, str]:
    """{place: reason} of the project's holds."""
    with ctx.read() as tx:
        return holds.standing(tx, ctx.project)


def _place(ctx: Context, place: str, subject: str) -> str:
    if bool(place) == bool(subject):
        raise InvalidInput("name a place or a subject", hint="one of both")
    if place:
        named = place if "/" in place or place == PREDICTIONS else f"data/{place}"  # a bare name is a dataset
        kind = _PLACE.fullmatch(named)
        if named != PREDICTIONS and (kind is None or kind["kind"] not in {*KINDS, "experiment"}):
            raise InvalidInput(
                f"{place!r} cannot be held", hint="a dataset, kind/name, run/ID, experiment/ID, or predictions"
            )
        return named
    if ctx.key is None:
        raise InvalidInput("a hold on a subject needs the workspace's key", hint="run it on the workspace's machine")
    # Ed25519 signatures are deterministic: the digest of one is a keyed digest that only this workspace can make
    envelope = ctx.key.sign("https://everloop.dev/hold/v1", {}, {"subject": subject, "project": ctx.project})
    return "subject/" + hmac.new(envelope["signatures"][0]["sig"].encode(), b"hold", "sha256").hexdigest()
