"""A subject goes from the catalog itself: texts of every table, manifests, payloads of the audit chain."""

from everloop.catalog import chain
from everloop.catalog.context import Context
from everloop.catalog.erasing import payloads, texts
from everloop.catalog.erasing.mentions import Mentions
from everloop.catalog.facts import Fact


def erase(ctx: Context, mentions: Mentions, said: Fact) -> int:
    """Take the subject out, a table at a time; ids, the chain and its signatures hold as before. Returns how many."""
    count = 0
    for table in texts.tables():
        with ctx.catalog.write() as tx:
            count += texts.erase(tx, ctx.project, table, mentions)
    with ctx.read() as tx:
        found = payloads.manifests(tx, ctx.project, mentions)
    for version in sorted(found):
        with ctx.write() as tx:
            payloads.erase_manifest(tx, ctx.project, version, mentions, said)
    while chain.seal(ctx.catalog, ctx.clock):  # only what has its place is redacted, so that nothing moves meanwhile
        pass
    with ctx.write() as tx:
        return count + len(found) + payloads.erase_facts(tx, ctx.project, mentions, said)


def left(ctx: Context, mentions: Mentions) -> list[str]:
    """Identities that hold the key as a word."""
    with ctx.read() as tx:
        found = texts.named(tx, ctx.project, mentions)
    return [f"{place} of the catalog: a name or an actor, on which history rests" for place in found]
