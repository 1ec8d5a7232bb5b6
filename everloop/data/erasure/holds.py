"""Legal holds: what must not go, whatever rules and requests say, until somebody of the right role releases it.

A hold is a fact of the audit chain, and so is its release. A hold on a subject is kept under a digest that only the
workspace's key can make, so that it names nobody; a hold on a dataset is kept under its name.
"""

import hmac

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.core.errors import InvalidInput, NotFound

HELD, RELEASED = "data.held", "data.released"


def hold(ctx: Context, *, dataset: str = "", subject: str = "", reason: str) -> None:
    """Place a hold. Raises `InvalidInput` without a reason, or unless exactly one of both is named."""
    if not reason.strip():
        raise InvalidInput("a legal hold needs a reason", hint="who demands it, and where it is filed")
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact(HELD, _place(ctx, dataset, subject), {"reason": reason}))


def release(ctx: Context, *, dataset: str = "", subject: str = "", reason: str = "") -> None:
    """End a hold; raises `NotFound` when there is none."""
    if not (holds_dataset(ctx, dataset) if dataset else held(ctx, subject)):
        raise NotFound("there is no legal hold on it", hint="the audit log lists the facts data.held")
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact(RELEASED, _place(ctx, dataset, subject), {"reason": reason}))


def held(ctx: Context, subject: str) -> str:
    """The reason of the hold on a subject; empty when there is none."""
    return _reason(ctx, _place(ctx, "", subject))


def holds_dataset(ctx: Context, dataset: str) -> str:
    """The reason of the hold on a dataset; empty when there is none."""
    return _reason(ctx, _place(ctx, dataset, ""))


def _reason(ctx: Context, place: str) -> str:
    with ctx.read() as tx:
        found = redactions.latest(tx, ctx.project, (HELD, RELEASED), place)
    return str(found[1]["reason"]) if found is not None and found[0] == HELD else ""


def _place(ctx: Context, dataset: str, subject: str) -> str:
    if bool(dataset) == bool(subject):
        raise InvalidInput("name a dataset or a subject", hint="one of both")
    if dataset:
        return f"data/{dataset}"
    if ctx.key is None:
        raise InvalidInput("a hold on a subject needs the workspace's key", hint="run it on the workspace's machine")
    # Ed25519 signatures are deterministic: the digest of one is a keyed digest that only this workspace can make
    envelope = ctx.key.sign("https://everloop.dev/hold/v1", {}, {"subject": subject, "project": ctx.project})
    return "subject/" + hmac.new(envelope["signatures"][0]["sig"].encode(), b"hold", "sha256").hexdigest()
