"""Actors and contexts."""

import pytest

from everloop.catalog import facts
from everloop.catalog.context import Actor
from everloop.core.clock import ReplayClock
from everloop.core.errors import InvalidInput, PermissionDenied
from everloop.core.grants import Target


def test_an_actor_may_what_a_grant_says_and_nothing_else():
    ada = Actor.of("ada", "approver", grants=["run.write */*@sandbox/ada/*"])
    assert ada.roles == {"approver"}
    assert ada.may("change.approve", Target("change", "1", "production"))
    assert ada.may("run.write", Target("run", "1", "sandbox/ada/x"))
    assert not ada.may("run.write", Target("run", "1", "sandbox/bob/x"))
    assert str(ada.need("read", Target())) == "read */*@*"
    with pytest.raises(PermissionDenied) as caught:
        ada.need("change.merge", Target("change", "1", "production"))
    assert "change.merge change/1@production" in caught.value.hint
    with pytest.raises(PermissionDenied) as caught:
        Actor("loopback", anonymous=True).need("read", Target())
    assert "token" in caught.value.hint
    with pytest.raises(InvalidInput):
        Actor.of("ada", "emperor")


def test_facts_of_a_context_carry_both_times(context_of, sqlite_catalog):
    ctx = context_of(sqlite_catalog, clock=ReplayClock(77))
    before = ctx.wall()
    fact = ctx.fact("a.b", "s", {"n": 1})
    assert (fact.actor, fact.at, ctx.now()) == ("ada", 77, 77)
    assert before <= fact.recorded <= ctx.wall()


def test_a_write_outside_of_an_operation_leaves_no_audit_record(context):
    with context.write() as tx:
        facts.append(tx, "flights", context.fact("a.b", "s"))
    with context.read() as tx:
        assert facts.unsealed(tx) == 1


def test_another_actor_in_the_same_place(context):
    bob = context.as_actor(Actor("bob"))
    assert (bob.actor.name, bob.catalog, bob.act) == ("bob", context.catalog, None)
