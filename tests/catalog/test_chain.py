"""Sealing and the chain: what an edit, a hole, a reordering or a cut tail looks like."""

import threading

import pytest
from sqlalchemy import delete, text, update

from everloop.catalog import chain, facts
from everloop.catalog.facts import Fact
from everloop.catalog.tables.core import chains, checkpoints
from everloop.catalog.tables.core import facts as rows
from everloop.core.clock import SystemClock
from everloop.core.errors import NotFound
from everloop.core.ids import object_id
from everloop.core.signing import SigningKey

P = "flights"
CLOCK = SystemClock()


def append(catalog, count, project=P):
    with catalog.write() as tx:
        facts.append_many(tx, project, [Fact("a.b", f"s{n}", "ada", n, {"n": n}) for n in range(count)])


def check(catalog, project=P, **how):
    with catalog.read() as tx:
        return chain.verify_chain(tx, project, **how)


@pytest.fixture
def sealed(catalog):
    append(catalog, 6)
    append(catalog, 3, "other")
    assert chain.seal(catalog, CLOCK) == 9
    return catalog


def test_positions_have_no_gap_in_any_project_and_the_chain_holds(sealed):
    append(sealed, 4)
    assert chain.seal(sealed, CLOCK, limit=3) == 3
    assert chain.seal(sealed, CLOCK, limit=3) == 1
    assert chain.seal(sealed, CLOCK) == 0
    with sealed.read() as tx:
        assert [f.position for f in facts.since(tx, P, 0)] == list(range(1, 11))
        assert [f.position for f in facts.since(tx, "other", 0)] == [1, 2, 3]
        first = facts.since(tx, P, 0)
    assert first[0].prev == chain.GENESIS
    assert [f.prev for f in first[1:]] == [f.hash for f in first[:-1]]
    assert check(sealed) is check(sealed, "other") is check(sealed, "absent") is None


@pytest.mark.parametrize(
    ("column", "value"),
    [("actor", "eve"), ("kind", "x.y"), ("subject", "z"), ("at", 99), ("recorded", 1), ("payload", '{"n":99}')],
)
def test_an_edit_shows_where_it_was_made(sealed, column, value):
    with sealed.write() as tx:
        tx.execute(update(rows).where(rows.c.project == P, rows.c.position == 3).values({column: value}))
    assert check(sealed).position == 3
    assert check(sealed, "other") is None


def test_an_edit_with_its_digest_and_hash_made_anew_shows_at_the_next_record(sealed):
    with sealed.write() as tx:
        tx.execute(
            update(rows)
            .where(rows.c.project == P, rows.c.position == 3)
            .values(payload="{}", payload_digest=object_id(b"{}"))
        )
        row = tx.execute(rows.select().where(rows.c.project == P, rows.c.position == 3)).one()
        forged = chain.record_hash(row, position=3, recorded=row.recorded, prev=row.prev)
        tx.execute(update(rows).where(rows.c.id == row.id).values(hash=forged))
    broken = check(sealed)
    assert (broken.position, broken.reason) == (4, "the record does not follow the one before it")


def test_a_hole_and_a_reordering_show(sealed):
    with sealed.write() as tx:
        tx.execute(delete(rows).where(rows.c.project == P, rows.c.position == 2))
    assert (check(sealed).position, "missing" in check(sealed).reason) == (2, True)
    with sealed.write() as tx:
        for old, new in ((1, 99), (2, 1), (99, 2)):
            tx.execute(update(rows).where(rows.c.project == "other", rows.c.position == old).values(position=new))
    assert check(sealed, "other").position == 1


def test_a_cut_tail_shows_by_the_head_and_a_forged_head_by_the_checkpoint(sealed):
    key = SigningKey.generate()
    with sealed.write() as tx:
        kept = chain.checkpoint(tx, P, key, at=1)
        tx.execute(delete(rows).where(rows.c.project == P, rows.c.position > 4))
    assert "head" in check(sealed).reason
    with sealed.write() as tx:
        last = tx.execute(rows.select().where(rows.c.project == P, rows.c.position == 4)).one()
        tx.execute(update(chains).where(chains.c.project == P).values(position=4, hash=last.hash))
    assert check(sealed) is None  # nothing inside says more; the signature does
    assert (check(sealed, key=key.public).position, "missing" in check(sealed, key=key.public).reason) == (5, True)
    with sealed.write() as tx:
        tx.execute(delete(checkpoints))
    assert check(sealed, key=key.public) is None
    assert check(sealed, key=key.public, envelopes=[kept]).position == 5


def test_a_chain_rewritten_from_its_start_shows_by_the_checkpoint(sealed):
    key = SigningKey.generate()
    with sealed.write() as tx:
        chain.checkpoint(tx, P, key, at=1)
        tx.execute(update(rows).where(rows.c.project == P).values(position=None, hash=None, prev=None))
        tx.execute(update(rows).where(rows.c.project == P, rows.c.subject == "s0").values(actor="eve"))
        tx.execute(delete(chains).where(chains.c.project == P))
    chain.seal(sealed, CLOCK)
    assert check(sealed) is None
    assert "checkpoint" in check(sealed, key=key.public).reason


def test_a_head_may_be_signed_without_writing(sealed):
    key = SigningKey.generate()
    with sealed.read() as tx:
        envelope = chain.signed_head(tx, P, key, at=1)
        assert chain.signed_head(tx, "empty", key, at=1) is None
    assert key.public.open(envelope, chain.CHECKPOINT)["position"] == 6
    assert check(sealed, key=key.public, envelopes=[envelope]) is None


def test_a_forged_checkpoint_is_not_trusted(sealed):
    with sealed.write() as tx:
        chain.checkpoint(tx, P, SigningKey.generate(), at=1)
        with pytest.raises(NotFound):
            chain.checkpoint(tx, "empty", SigningKey.generate(), at=1)
    assert "not to be trusted" in check(sealed, key=SigningKey.generate().public).reason


def test_a_fact_that_commits_late_is_sealed_later_and_never_lost(postgresql_url):
    from everloop.catalog.engine import Catalog

    catalog = Catalog.open(postgresql_url)
    with catalog.write() as late:
        facts.append(late, P, Fact("a.b", "late", "ada", 1))  # has the lower serial number
        append(catalog, 2)
        assert chain.seal(catalog, CLOCK) == 2
    assert chain.seal(catalog, CLOCK) == 1
    with catalog.read() as tx:
        assert [f.subject for f in facts.since(tx, P, 0)] == ["s0", "s1", "late"]
        assert tx.execute(text("SELECT count(*) FROM facts WHERE position IS NULL")).scalar() == 0
    assert check(catalog) is None
    catalog.close()


def test_several_sealers_at_once_make_one_chain(catalog):
    stop = threading.Event()

    def sealing():
        while not stop.is_set():
            chain.seal(catalog, CLOCK, limit=7)

    def writing():
        for _ in range(15):
            append(catalog, 2)

    sealers = [threading.Thread(target=sealing) for _ in range(3)]
    writers = [threading.Thread(target=writing) for _ in range(3)]
    for thread in sealers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in sealers:
        thread.join()
    while chain.seal(catalog, CLOCK):
        pass
    with catalog.read() as tx:
        assert [f.position for f in facts.since(tx, P, 0)] == list(range(1, 91))
    assert check(catalog) is None
