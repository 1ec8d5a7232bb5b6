"""Data heads that move by review: proposed, judged by the target's contract, approved, merged, taken back."""

import polars as pl
import pytest

from everloop.catalog import refs, versions
from everloop.catalog.operation import invoke
from everloop.changes.heads.judging import judge_contract
from everloop.changes.heads.proposing import ProposeData, propose_data
from everloop.changes.reviewing import pending_checks
from everloop.checks.record import record_finding
from everloop.core.errors import Conflict, InvalidInput, PolicyRefused
from everloop.core.policy import Policy
from everloop.data import Call, SourceDef, expect
from everloop.data.definitions import Contract
from everloop.data.editing import edit

SOURCE = SourceDef(
    "rain", Call("tests:rain"), key="id", tags={"who": "personal"},
    expect=[expect.unique("id"), expect.between("mm", 0, 100), expect.not_null("who", severity="warn")],
)  # fmt: skip


def rows(*values, who="ada"):
    return pl.DataFrame({"id": range(len(values)), "mm": values, "who": [who] * len(values)})


def arrive(world, table, environment="sandbox/ada/rain"):
    """A version that is the head of a sandbox."""
    contract = Contract.of("id", tags={"who": "personal"})
    mode = "upsert" if head(world, environment=environment) else "append"
    return edit(world.by("ada"), "rain", table, mode, environment, contract=contract).id


def head(world, name="rain", environment="production"):
    with world.root.read() as tx:
        return refs.get(tx, world.root.project, refs.head_ref(environment, name))


def offer(world, *specs, person="ada"):
    return invoke(world.by(person), propose_data, ProposeData(versions=specs, target="production", enqueue=False))


def judge(world, number):
    for request in pending_checks(world.root, number):
        record_finding(world.worker, request, judge_contract(world.root, request))
    return world.show(number)


@pytest.fixture
def reviewed(team):
    """Production's policy leaves data to changes, and it holds the contract of `rain`."""
    policy = team.version("policy/production", **Policy("team", data="change").manifest())
    made = SOURCE.version()
    with team.root.catalog.write() as tx:
        versions.put(tx, team.root.project, made, actor="ada", at=team.root.now())
    change = team.proposal("ada", policy__production=policy, source__rain=made.id)
    team.all_through("ada", change)
    return team


def test_the_standing_grant_refuses_and_a_change_moves_the_head(reviewed):
    first = arrive(reviewed, rows(1.0, 2.0))
    with pytest.raises(PolicyRefused, match="by changes only") as caught:
        edit(reviewed.by("ada"), "rain", rows(1.0, 2.5), "upsert", "production", contract=Contract.of("id"))
    assert "everloop data propose" in caught.value.hint
    assert head(reviewed) is None
    change = offer(reviewed, first)
    assert [(d.key, d.old, d.new) for d in change.differences] == [("data/rain", None, first)]
    assert [(c.label, c.state) for c in change.checks] == [("contract[rain]", "missing")]
    with pytest.raises(PolicyRefused, match="checks have not passed"):
        reviewed.approve("bob", change.number)
    assert [c.state for c in judge(reviewed, change.number).checks] == ["passed"]
    reviewed.approve("bob", change.number)
    merged = reviewed.merge("bob", change.number)
    assert (merged.state, head(reviewed)) == ("merged", first)
    assert not [key for key in reviewed.entries() if key.startswith("data/")]
    with reviewed.root.read() as tx:
        (move,) = refs.log(tx, reviewed.root.project, refs.head_ref("production", "rain"))
    assert (move.change, move.actor) == (str(change.number), "bob")


def test_what_breaks_the_contract_is_not_merged_and_its_rows_are_masked(reviewed):
    with pytest.raises(PolicyRefused) as caught:
        arrive(reviewed, rows(1.0, 400.0))
    bad = caught.value.details["version"]
    change = judge(reviewed, offer(reviewed, bad).number)
    assert change.checks[0].state == "failed"
    assert "between(mm, lower=0, upper=100) fails (1 of 2 rows)" in change.checks[0].summary
    assert not change.mergeable
    with reviewed.root.read() as tx:
        evidence = versions.get(tx, reviewed.root.project, change.checks[0].evidence)
    assert evidence.manifest["heads"] == {"rain": bad}
    assert b"ada" not in reviewed.root.store.get(evidence.manifest["report"])


def test_a_head_that_moved_meanwhile_is_a_conflict_and_approvals_bind_to_the_version(reviewed):
    first = arrive(reviewed, rows(1.0))
    one = offer(reviewed, first)
    second = arrive(reviewed, rows(1.0, 3.0))
    two = offer(reviewed, second)
    for change in (one, two):
        judge(reviewed, change.number)
        reviewed.approve("bob", change.number)
    reviewed.merge("bob", one.number)
    with pytest.raises(PolicyRefused, match="data/rain was changed in production meanwhile"):
        reviewed.merge("bob", two.number)
    assert head(reviewed) == first
    again = judge(reviewed, offer(reviewed, second).number)
    reviewed.approve("bob", again.number)
    assert reviewed.merge("bob", again.number).state == "merged"
    assert head(reviewed) == second


def test_taking_back_moves_the_head_back(reviewed):
    made = [arrive(reviewed, rows(1.0)), arrive(reviewed, rows(1.0, 2.0))]
    for identity in made:
        change = judge(reviewed, offer(reviewed, identity).number)
        reviewed.approve("bob", change.number)
        reviewed.merge("bob", change.number)
    back = judge(reviewed, reviewed.revert("cyd", change.number).number)
    reviewed.approve("bob", back.number)
    reviewed.merge("bob", back.number)
    assert head(reviewed) == made[0]
    assert reviewed.show(change.number).state == "reverted"


def test_who_made_the_version_is_an_author(reviewed):
    first = arrive(reviewed, rows(1.0))
    assert offer(reviewed, first, person="cyd").authors == ["ada", "cyd"]


def test_only_data_is_proposed_once_for_each_dataset(reviewed):
    first = arrive(reviewed, rows(1.0))
    with pytest.raises(InvalidInput, match="cannot both be its head"):
        offer(reviewed, first, "rain@1")
    with pytest.raises(InvalidInput, match="is no data"):
        offer(reviewed, reviewed.version("source/other"))
    team = reviewed
    change = judge(team, offer(team, first).number)
    team.approve("bob", change.number)
    team.merge("bob", change.number)
    with pytest.raises(Conflict, match="has these heads already"):
        offer(team, first)


def test_the_environments_contract_counts_though_another_is_given(team):
    made = SOURCE.version()
    with team.root.catalog.write() as tx:
        versions.put(tx, team.root.project, made, actor="ada", at=team.root.now())
    team.all_through("ada", team.proposal("ada", source__rain=made.id))
    laxer = SourceDef("rain", SOURCE.origin, key="id").version()
    with team.root.catalog.write() as tx:
        versions.put(tx, team.root.project, laxer, actor="ada", at=team.root.now())
    with pytest.raises(PolicyRefused, match="between"):
        edit(team.by("ada"), "rain", rows(400.0), "append", "production", contract=Contract.of("id"))
    assert head(team) is None
