"""Which checks a change needs, and what an attempt to weaken them meets."""

import pytest

from everloop.catalog import refs
from everloop.catalog.refs import head_ref
from everloop.changes import reviewing
from everloop.checks.record import record_finding
from everloop.checks.request import Finding
from everloop.core.errors import PolicyRefused
from everloop.core.policy import Policy


def check(world, name="good", parameters=("delay", "holdout", "objective"), objective="on_time", code="v1", **more):
    manifest = {"name": name, "function": f"flights:{name}", "code": code, "parameters": list(parameters)}
    manifest |= {"objective": objective, "blocks": ["production"], **more}
    return world.version(f"check/{name}", **manifest)


def objective(world, at_least="0.7"):
    return world.version("objective/on_time", name="on_time", metric="roc_auc", at_least=at_least, owner="ops")


def model(world, name="delay", **more):
    frame, holdout = world.version(f"frame/{name}"), world.version(f"frame/{name}_holdout")
    return world.version(f"model/{name}", frame=frame, holdout=holdout, **more)


@pytest.fixture
def guarded(team):
    """Production holds a model, an objective and a check that blocks it."""
    change = team.proposal(
        "ada", check__good=check(team), objective__on_time=objective(team), model__delay=model(team, by="ada")
    )
    assert [c.label for c in change.checks] == ["good"]
    team.all_through("ada", change)
    return team


def labels(change):
    return [c.label for c in change.checks]


def test_a_blocking_check_must_pass_before_anybody_approves(team):
    change = team.proposal(
        "ada", check__good=check(team), objective__on_time=objective(team), model__delay=model(team, by="ada")
    )
    assert "check good is missing" in change.reasons
    with pytest.raises(PolicyRefused, match="good is missing"):
        team.approve("bob", change.number)
    team.run_checks(change.number, "failed")
    with pytest.raises(PolicyRefused, match="good is failed"):
        team.approve("bob", change.number)


def test_evidence_that_changes_kills_the_approval_and_the_same_evidence_does_not(guarded):
    change = guarded.proposal("ada", model__delay=model(guarded, by="ada"))
    (request,) = reviewing.pending_checks(guarded.root, change.number)
    guarded.run_checks(change.number)
    guarded.approve("bob", change.number)
    again = Finding("passed", "good passed", {"rows": "10"})
    record_finding(guarded.worker, request, again)
    assert guarded.show(change.number).mergeable
    record_finding(guarded.worker, request, Finding("passed", "good passed", {"rows": "11"}))
    assert not guarded.show(change.number).mergeable
    record_finding(guarded.worker, request, Finding("failed", "good failed"))
    assert "check good is failed" in guarded.show(change.number).reasons


def test_champion_and_holdout_are_pinned_in_the_evidence(team):
    first = model(team, by="ada")
    parameters = ("delay", "champion", "holdout", "champion_frame")
    beats = check(team, "beats", parameters, objective="")
    change = team.proposal("ada", check__beats=beats, model__delay=first)
    (request,) = reviewing.pending_checks(team.root, change.number)
    assert request.subjects["delay"] == first
    assert request.subjects["champion"] == request.subjects["champion_frame"] == ""
    team.all_through("ada", change)
    second = model(team, by="ada")
    change = team.proposal("ada", model__delay=second)
    (request,) = reviewing.pending_checks(team.root, change.number)
    assert request.subjects["champion"] == first
    assert request.subjects["champion_frame"]
    assert type(request).from_json(request.to_json()) == request


def test_a_weaker_check_is_examined_by_the_one_it_replaces(guarded):
    change = guarded.proposal(
        "ada", check__good=check(guarded, code="return True"), model__delay=model(guarded, by="ada")
    )
    assert labels(change) == ["good", "good (as production holds it)"]
    assert [c.origin for c in change.checks] == ["proposal", "target"]


def test_a_removed_check_still_runs(guarded):
    change = guarded.proposal("ada", check__good=None, model__delay=model(guarded, by="ada"))
    assert [(c.label, c.origin) for c in change.checks] == [("good", "target")]
    assert "check/good" in [d.key for d in change.differences]


def test_a_lower_objective_is_judged_by_the_old_one_too(guarded):
    change = guarded.proposal(
        "ada", objective__on_time=objective(guarded, "0.1"), model__delay=model(guarded, by="ada")
    )
    requests = reviewing.pending_checks(guarded.root, change.number)
    assert sorted(r.objective["at_least"] for r in requests) == ["0.1", "0.7"]
    assert labels(change) == ["good", "good (as production holds it)"]


def test_dropping_what_a_check_blocks_does_not_free_the_proposal(guarded):
    change = guarded.proposal("ada", check__good=check(guarded, blocks=[]), model__delay=model(guarded, by="ada"))
    assert labels(change) == ["good (as production holds it)"]


def test_a_change_of_policy_alone_needs_no_model_checks(guarded):
    policy = guarded.version("policy/production", **Policy("team", checks=("named",)).manifest())
    change = guarded.proposal("ada", policy__production=policy)
    assert change.checks == []
    guarded.all_through("ada", change)
    stuck = guarded.proposal("ada")
    assert any("names check named, which nobody defines" in r for r in stuck.reasons)
    named = check(guarded, "named", parameters=(), objective="", blocks=[])
    assert "named" in labels(guarded.proposal("ada", check__named=named))


def test_removing_a_model_voids_its_checks_and_says_so(guarded):
    change = guarded.proposal("ada", model__delay=None)
    assert change.checks == []
    assert any("nothing left to judge" in note for note in change.notes)


def test_a_renamed_model_does_not_dodge_its_check(guarded):
    change = guarded.proposal("ada", model__delay=None, model__delay_two=model(guarded, "delay_two", by="ada"))
    assert any("nothing in the proposal is named 'delay'" in reason for reason in change.reasons)
    with pytest.raises(PolicyRefused):
        guarded.approve("bob", change.number)


def test_a_check_about_any_model_runs_for_each_that_changes(team):
    units = check(team, "units", ("frame", "champion_frame"), objective="")
    change = team.proposal(
        "ada", check__units=units, model__delay=model(team, by="ada"), model__fare=model(team, "fare", by="ada")
    )
    assert labels(change) == ["units[delay]", "units[fare]"]
    guards = team.all_through("ada", change)
    assert guards.state == "merged"
    assert labels(team.proposal("ada")) == []  # no model changes


def test_a_check_that_can_look_at_nothing_blocks_with_a_reason(team):
    change = team.proposal("ada", check__good=check(team), objective__on_time=objective(team))
    assert any("nothing in the proposal is named 'delay'" in reason for reason in change.reasons)


@pytest.mark.parametrize(("data", "survives"), [("grant", True), ("change", False)])
def test_data_that_arrives_leaves_evidence_alone_unless_heads_are_reviewed(team, data, survives):
    if data != Policy("team").data:
        policy = team.version("policy/production", **Policy("team", data=data).manifest())
        team.all_through("ada", team.proposal("ada", policy__production=policy))

    def arrive(old):
        new = team.version("data/departures")
        with team.root.catalog.write() as tx:
            refs.move(tx, "flights", head_ref("production", "departures"), old=old, new=new, actor="w", at=1_000_001)
        return new

    head = arrive(None)
    change = team.proposal("ada", check__rows=check(team, "rows", ("departures",), objective=""))
    (request,) = reviewing.pending_checks(team.root, change.number)
    assert request.heads == {"departures": head}
    team.run_checks(change.number)
    team.approve("bob", change.number)
    arrive(head)
    shown = team.show(change.number)
    assert shown.mergeable is survives
    assert shown.checks[0].state == ("passed" if survives else "missing")
    assert shown.checks[0].moved_heads == (["departures"] if survives else [])


def endpoint(world, service):
    node = {
        "node": "sequence",
        "nodes": [{"node": "lookup", "service": service}, {"node": "model", "model": "delay", "role": "champion"}],
    }
    return world.version("endpoint/delay", graph=node)


def test_an_incoherent_endpoint_is_not_merged(team):
    view = team.version("view/load")
    service = team.version("service/inputs", views={"load": view}, order=["load"])
    entries = {"view__load": view, "service__inputs": service, "endpoint__delay": endpoint(team, "inputs")}
    incomplete = team.proposal("ada", **entries)
    assert any("names a model (champion) that the snapshot does not hold" in r for r in incomplete.reasons)
    fits = team.proposal("ada", **entries, model__delay=model(team, by="ada", service=service))
    assert not any("endpoint" in r for r in fits.reasons)
    team.all_through("ada", fits)
    moved = team.proposal("ada", view__load=team.version("view/load"))
    assert any("view:load differs from the one that the feature service pins" in r for r in moved.reasons)
    other = team.version("service/inputs", views={"load": view}, order=["load"], request=["distance"])
    stale = team.proposal("ada", service__inputs=other)
    assert any("trained on another version of its feature service" in r for r in stale.reasons)
