import json
from dataclasses import replace

import pytest

from everloop.catalog import refs, tasks
from everloop.catalog.context import Actor
from everloop.catalog.operation import invoke, operations
from everloop.changes import environments, proposing, reviewing
from everloop.changes.merging import APPROVAL_TYPE
from everloop.changes.provenance import provenance_of
from everloop.checks.record import record_finding
from everloop.checks.request import Finding
from everloop.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied, PolicyRefused
from everloop.core.policy import Policy


def test_a_change_travels_from_a_sandbox_to_production(team):
    change = team.proposal("ada")
    assert (change.number, change.state, change.authors) == (1, "open", ["ada"])
    assert [d.key for d in change.differences] == ["source/flights"]
    assert change.differences[0].new_label == "source/flights v1"
    assert not change.mergeable
    assert change.reasons == ["1 more approval needed", "an approver with the role approver is needed"]
    approved = team.approve("bob", 1, comment="fine")
    assert approved.mergeable
    assert approved.approvals[0].alive
    merged = team.merge("bob", 1)
    assert (merged.state, merged.merged_by, merged.approvers) == ("merged", "bob", ["bob"])
    assert "source/flights" in team.entries()
    with pytest.raises(Conflict, match="is merged"):
        team.merge("bob", 1)


@pytest.mark.parametrize("person", ["cyd", "lone"])
def test_no_author_approves_under_team_whatever_their_roles(team, person):
    change = team.proposal(person)
    with pytest.raises(PermissionDenied, match="is an author"):
        team.approve(person, change.number)
    with pytest.raises(PolicyRefused, match="1 more approval needed"):
        team.merge(person, change.number)


def test_the_owner_with_every_grant_is_not_exempt(team):
    sandbox = team.sandbox("ada")
    team.commit("ada", sandbox, source__flights=team.version("source/flights"))
    all_powerful = team.root.as_actor(Actor.of("root", "approver", grants=["* */*@*#*"]))
    cmd = proposing.Propose(source=sandbox, target="production", title="mine")
    change = invoke(all_powerful, proposing.propose, cmd)
    assert change.authors == ["ada", "root"]
    with pytest.raises(PermissionDenied, match="is an author"):
        invoke(all_powerful, reviewing.approve, reviewing.Approve(number=1))


def test_who_trained_the_model_and_who_committed_on_the_way_are_authors(team):
    model = team.version("model/delay", by="cyd", text="x")
    sandbox = team.sandbox("ada")
    team.commit("ada", sandbox, source__flights=team.version("source/flights"))
    nested = team.sandbox("lone", base=sandbox)
    team.commit("lone", nested, model__delay=model)
    change = team.propose("ada", nested)
    assert change.authors == ["ada", "cyd", "lone"]


def test_service_accounts_and_the_nameless_never_approve(solo):
    change = solo.proposal("lone")
    with pytest.raises(PermissionDenied, match="service accounts cannot approve"):
        solo.approve("lone", change.number, kind="service")
    nobody = Actor("loopback", roles=frozenset({"approver"}), grants=Actor.of("x", "approver").grants, anonymous=True)
    with pytest.raises(PermissionDenied, match="needs a name"):
        invoke(solo.root.as_actor(nobody), reviewing.approve, reviewing.Approve(number=change.number))


def test_self_approval_under_solo_is_said(solo):
    change = solo.proposal("lone")
    approved = solo.approve("lone", change.number)
    assert approved.notes == ["self-approved by lone (solo policy)"]
    assert approved.approvals[0].author
    solo.merge("lone", change.number)


def test_permissions_are_those_of_the_target(team):
    change = team.proposal("ada")
    with pytest.raises(PermissionDenied, match=r"change\.approve"):
        team.approve("ada", change.number)
    with pytest.raises(PermissionDenied, match=r"change\.merge"):
        team.merge("ada", change.number)
    with pytest.raises(PermissionDenied, match=r"change\.approve"):
        team.approve("eve", change.number)  # an admin


def test_an_approval_dies_with_the_delta(team):
    change = team.proposal("ada")
    team.approve("bob", change.number)
    team.commit("ada", change.source, source__weather=team.version("source/weather"))
    assert team.show(change.number).mergeable  # the proposal is what was proposed, not what the sandbox became
    updated = team.update("ada", change.number)
    assert not updated.mergeable
    assert [a.alive for a in updated.approvals] == [False]
    with pytest.raises(PolicyRefused):
        team.merge("bob", change.number)
    team.approve("bob", change.number)
    team.merge("bob", change.number)
    assert "source/weather" in team.entries()


def test_one_who_updates_becomes_an_author(team):
    change = team.proposal("ada")
    team.commit("ada", change.source, source__weather=team.version("source/weather"))
    assert team.update("cyd", change.number).authors == ["ada", "cyd"]
    with pytest.raises(PermissionDenied, match="is an author"):
        team.approve("cyd", change.number)


def test_an_approval_dies_with_the_policy(team):
    waiting = team.proposal("ada")
    team.approve("bob", waiting.number)
    stricter = team.version("policy/production", **Policy("team", approvals=2).manifest())
    team.all_through("ada", team.proposal("ada", policy__production=stricter))
    assert [a.alive for a in team.show(waiting.number).approvals] == [False]
    with pytest.raises(PolicyRefused, match="2 more approvals needed"):
        team.merge("bob", waiting.number)
    team.approve("bob", waiting.number)
    team.approve("cyd", waiting.number)
    team.merge("bob", waiting.number)


def test_an_approval_survives_an_unrelated_merge(team):
    waiting = team.proposal("ada")
    team.approve("bob", waiting.number)
    other = team.proposal("lone", source__weather=team.version("source/weather"))
    team.all_through("lone", other)
    before = team.show(waiting.number)
    assert before.mergeable
    assert before.delta_id == waiting.delta_id
    team.merge("bob", waiting.number)
    assert {"source/flights", "source/weather"} <= team.entries().keys()


def test_a_key_that_moved_meanwhile_is_a_conflict(team):
    first, second = team.proposal("ada"), team.proposal("lone", source__flights=team.version("source/flights"))
    team.approve("bob", first.number)
    team.approve("bob", second.number)
    team.merge("bob", first.number)
    with pytest.raises(PolicyRefused, match="source/flights was changed in production meanwhile"):
        team.merge("bob", second.number)
    with pytest.raises(Conflict, match="moved in production"):
        team.approve("bob", second.number)
    with pytest.raises(Conflict, match="since they parted"):
        team.propose("lone", second.source)
    again = team.propose("lone", second.source, on_conflict="source")
    assert again.differences[0].old == team.entries()["source/flights"]
    team.all_through("lone", again)


def test_nobody_approves_what_was_slipped_in_while_they_read(team):
    seen = team.proposal("ada")
    team.commit("ada", seen.source, source__evil=team.version("source/evil"))
    team.update("ada", seen.number)
    with pytest.raises(Conflict, match="not what you saw"):
        team.approve("bob", seen.number, delta=seen.delta_id)


def test_policies_travel_as_changes_and_the_one_in_force_decides(solo):
    team_policy = solo.version("policy/production", **Policy("team").manifest())
    change = solo.proposal("lone", policy__production=team_policy)
    solo.approve("lone", change.number)
    assert solo.merge("lone", change.number).state == "merged"
    back = solo.version("policy/production", **Policy("solo").manifest())
    change = solo.proposal("lone", policy__production=back)
    assert change.mode == "team"
    with pytest.raises(PermissionDenied, match="is an author"):
        solo.approve("lone", change.number)
    solo.approve("bob", change.number)
    solo.merge("bob", change.number)


@pytest.mark.parametrize(
    "manifest",
    [
        Policy("team", approvals=0).manifest(),
        {**Policy("team").manifest(), "mode": "none"},
        {**Policy("team").manifest(), "roles": ["emperor"]},
        {"mode": "solo"},
    ],
)
def test_a_policy_that_decides_nothing_is_refused(team, manifest):
    sandbox = team.sandbox("ada")
    with pytest.raises(PolicyRefused):
        team.commit("ada", sandbox, policy__production=team.version("policy/production", **manifest))


def test_the_policy_of_the_target_cannot_be_removed(team):
    sandbox = team.sandbox("ada")
    team.commit("ada", sandbox, policy__production=None)
    with pytest.raises(PolicyRefused, match="removes the policy"):
        team.propose("ada", sandbox)


def test_what_cannot_be_proposed_says_why(team):
    sandbox = team.sandbox("ada")
    with pytest.raises(Conflict, match="has everything"):
        team.propose("ada", sandbox)
    with pytest.raises(NotFound, match="no environment"):
        team.propose("ada", "sandbox/ada/nowhere")
    with pytest.raises(InvalidInput, match="needs no change"):
        team.propose("cyd", sandbox, target=sandbox)
    with pytest.raises(NotFound, match="does not have"):
        team.commit("ada", sandbox, source__x="b3:" + "0" * 64)
    with pytest.raises(InvalidInput, match="would be a source"):
        team.commit("ada", sandbox, model__x=team.version("source/x"))
    with pytest.raises(InvalidInput, match="holds no data"):
        team.commit("ada", sandbox, data__x=team.version("data/x"))
    with pytest.raises(InvalidInput, match="protected"):
        invoke(team.root, environments.commit, environments.Commit(environment="production", entries={}))


def test_comments_and_lists(team):
    change = team.proposal("ada")
    cmd = reviewing.AddComment(number=change.number, text="why?")
    assert [c.text for c in invoke(team.by("bob"), reviewing.comment, cmd).comments] == ["why?"]
    team.close("ada", change.number)
    team.proposal("ada")
    listed = reviewing.list_changes(team.root, reviewing.ListChanges())
    assert [(c.number, c.state) for c in listed.changes] == [(2, "open"), (1, "closed")]
    with pytest.raises(Conflict, match="is closed"):
        team.approve("bob", change.number)
    with pytest.raises(NotFound, match="no change #9"):
        team.show(9)


def test_reverting_is_a_change_of_its_own(team):
    first = team.proposal("ada")
    team.all_through("ada", first)
    before = team.entries()
    second = team.proposal(
        "ada", source__flights=team.version("source/flights"), source__new=team.version("source/new")
    )
    with pytest.raises(Conflict, match="nothing to undo"):
        team.revert("ada", second.number)
    team.all_through("ada", second)
    undo = team.revert("cyd", second.number)
    assert (undo.reverts, undo.authors) == (second.number, ["cyd"])
    team.all_through("cyd", undo)
    assert team.entries() == before
    assert team.show(second.number).state == "reverted"
    with pytest.raises(Conflict, match="has everything"):  # as in git: what was reverted counts as seen
        team.propose("ada", second.source)
    again = team.revert("ada", undo.number)
    team.all_through("ada", again)
    assert "source/new" in team.entries()
    with pytest.raises(Conflict, match="moved since"):
        team.revert("ada", first.number)


def test_a_merge_is_signed_and_provenance_tells_it(team):
    change = team.proposal("ada")
    team.all_through("ada", change)
    found = provenance_of(team.root, "production")
    assert (found.via, found.change, found.approvers, found.merged_by) == ("merge", 1, ("bob",), "bob")
    predicate = team.root.key.public.open(found.envelope, APPROVAL_TYPE)
    assert predicate["authors"] == ["ada"]
    assert [a["actor"] for a in predicate["approvals"]] == ["bob"]
    assert predicate["snapshot"] == found.snapshot
    assert provenance_of(team.root, "staging").via == "genesis"


def test_a_pointer_moved_by_hand_has_no_provenance(team):
    change = team.proposal("ada")
    with team.root.catalog.write() as tx:
        old = refs.get(tx, "flights", "env/production")
        refs.move(tx, "flights", "env/production", old=old, new=change.head, actor="x", at=2_000_000)
    with pytest.raises(PolicyRefused, match="no merge put there"):
        provenance_of(team.root, "production")


def test_operations_are_declared_with_a_permission():
    named = {n: o for n, o in operations().items() if n.startswith(("changes.", "environments."))}
    assert {o.needs for o in named.values()} >= {"change.propose", "change.approve", "change.merge", "read"}
    assert named["environments.rollback"].needs == "environment.rollback"


def test_checks_become_tasks_once(team):
    check = team.version("check/good", name="good", function="m:f", parameters=[], objective="", blocks=["production"])
    sandbox = team.sandbox("ada")
    team.commit("ada", sandbox, check__good=check)
    cmd = proposing.Propose(source=sandbox, target="production", title="with a check")
    change = invoke(team.by("ada"), proposing.propose, cmd)
    listed = invoke(team.by("ada"), reviewing.check, reviewing.RunChecks(number=change.number))
    assert len(listed.pending) == 1
    with team.root.catalog.read() as tx:
        queued = tasks.list(tx, "flights")
    assert [t.kind for t in queued] == ["checks.run"]
    assert queued[0].payload["check_id"] == check


def test_checks_that_did_not_pass_can_be_asked_again(team):
    check = team.version("check/good", name="good", function="m:f", parameters=[], objective="", blocks=["production"])
    change = team.proposal("ada", check__good=check)
    team.run_checks(change.number, "error")
    for again, count in ((False, 0), (True, 1)):
        cmd = reviewing.RunChecks(number=change.number, again=again)
        assert len(invoke(team.by("ada"), reviewing.check, cmd).pending) == count
    (request,) = reviewing.pending_checks(team.root, change.number, again=True)
    record_finding(team.worker, request, Finding("passed", "fine"))
    team.approve("bob", change.number)
    assert team.merge("bob", change.number).state == "merged"


@pytest.mark.parametrize("person", ["ada", "bob", "cyd", "eve", "lone"])
def test_nobody_but_a_worker_records_evidence(team, person):
    check = team.version("check/good", name="good", function="m:f", parameters=[], objective="", blocks=["production"])
    change = team.proposal("ada", check__good=check)
    (request,) = reviewing.pending_checks(team.root, change.number)
    for kind in ("person", "service"):
        with pytest.raises(PermissionDenied, match=r"may not check\.record"):
            record_finding(team.by(person, kind), request, Finding("passed", "trust me"))
    assert team.show(change.number).checks[0].state == "missing"


def test_a_worker_runs_what_the_catalog_asks_for_not_what_the_task_says(team):
    check = team.version("check/good", name="good", function="m:f", parameters=[], objective="", blocks=["production"])
    change = team.proposal("ada", check__good=check)
    (request,) = reviewing.pending_checks(team.root, change.number)
    forged = replace(request, function="ada:always_true", origin_snapshot="", subjects={"delay": "b3:" + "0" * 64})
    assert reviewing.due_check(team.worker, forged) == request
    for wrong in (replace(request, delta_id="b3:" + "0" * 64), replace(request, check_id="b3:" + "0" * 64)):
        with pytest.raises(Conflict, match="does not need this good"):
            reviewing.due_check(team.worker, wrong)


def test_a_check_shows_whether_somebody_works_on_it(team):
    check = team.version("check/good", name="good", function="m:f", parameters=[], objective="", blocks=["production"])
    change = team.proposal("ada", check__good=check)

    def shown():
        found = team.show(change.number)
        return found.checks[0].state, found.checks[0].summary, found.reasons[0]

    ask = reviewing.RunChecks(number=change.number)
    assert shown() == ("missing", "", "check good is missing")
    invoke(team.by("ada"), reviewing.check, ask)
    assert shown() == ("waiting", "", "check good is waiting")
    catalog = team.root.catalog
    task = tasks.claim(catalog, "w", ["checks.run"], 60, team.root.wall() + 1)
    assert shown() == ("running", "", "check good is running")
    with catalog.write() as tx:
        tasks.fail(tx, task, json.dumps({"detail": "the process was killed"}), now=team.root.wall())
    state, summary, reason = shown()
    assert (state, reason) == ("missing", "check good is missing")
    assert "the process was killed" in summary
    assert len(invoke(team.by("ada"), reviewing.check, ask).pending) == 1
    assert shown()[:2] == ("waiting", "")
    (request,) = reviewing.pending_checks(team.root, change.number)
    record_finding(team.worker, request, Finding("failed", "too low"))
    assert shown()[:2] == ("waiting", "too low")  # it was asked for once more, and that is still to come
    record_finding(team.worker, request, Finding("passed", "fine"))
    assert shown()[:2] == ("passed", "fine")


def test_a_policy_may_ask_for_a_role_because_of_a_tag(team):
    stricter = team.version("policy/production", **Policy("team", tags={"personal": "steward"}).manifest())
    team.all_through("ada", team.proposal("ada", policy__production=stricter))
    plain = team.proposal("ada", source__weather=team.version("source/weather", tags={}))
    team.approve("bob", plain.number)
    assert team.show(plain.number).mergeable
    tagged = team.proposal("ada", source__people=team.version("source/people", tags={"email": "personal"}))
    team.approve("bob", tagged.number)
    assert "the change brings personal data" in " ".join(team.show(tagged.number).reasons)
    with pytest.raises(PolicyRefused):
        team.merge("bob", tagged.number)
    team.approve("sam", tagged.number)
    team.merge("bob", tagged.number)
    assert team.show(tagged.number).state == "merged"
