"""Payloads of the audit chain lose a subject and the chain holds; damage is still told from erasure."""

from sqlalchemy import text

from everloop.catalog import chain, facts
from everloop.catalog.erasing import payloads, texts
from everloop.catalog.erasing.mentions import mentions
from everloop.catalog.tables import metadata
from everloop.catalog.tables.columns import Key

KEY = "customer-0004711-x"


def test_a_payload_loses_the_subject_and_the_chain_holds(each_context):
    ctx = each_context
    with ctx.write() as tx:
        for number in range(3):
            facts.append(tx, ctx.project, ctx.fact("data.checked", "data/x", {"n": number, "who": KEY}))
            facts.append(tx, ctx.project, ctx.fact("data.checked", "data/x", {"n": number}))
    chain.seal(ctx.catalog, ctx.clock)
    with ctx.catalog.write() as tx:
        chain.checkpoint(tx, ctx.project, ctx.key, at=1)
        said = ctx.fact("data.erasing", "e1", {"erasure": "e1"})
        assert payloads.erase_facts(tx, ctx.project, mentions(KEY, []), said) == 3
        assert payloads.erase_facts(tx, ctx.project, mentions(KEY, []), said) == 0
    chain.seal(ctx.catalog, ctx.clock)
    with ctx.read() as tx:
        assert chain.verify_chain(tx, ctx.project, key=ctx.key.public) is None
        kept = facts.tail(tx, ctx.project, kinds=("data.checked",))
    assert {str(fact.payload) for fact in kept} == {f"{{'n': {n}, 'who': '[erased]'}}" for n in range(3)} | {
        f"{{'n': {n}}}" for n in range(3)
    }
    with ctx.catalog.write() as tx:
        tx.execute(text("UPDATE facts SET payload = '{}' WHERE position = 3"))
    with ctx.read() as tx:
        assert chain.verify_chain(tx, ctx.project).position == 3


def test_every_column_of_free_text_is_looked_into():
    looked = {(table.name, column.name) for table in texts.tables() for column in texts.texts_of(table)}
    apart = {"facts", "versions", "checkpoints", "users", "tokens", "sessions", "login_codes"}
    free = {
        (table.name, column.name)
        for table in metadata.sorted_tables
        for column in table.c
        if str(column.type) == "TEXT" and column.type is not Key and table.name not in apart
    }
    assert free <= looked
