import json

import pytest
from sqlalchemy import select

from everloop.catalog.operation import invoke
from everloop.catalog.tables.core import facts as fact_rows
from everloop.changes import environments, proposing, provenance, reviewing
from everloop.changes.policies import checked_environment, effective_policy
from everloop.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from everloop.core.policy import Policy


def step(world, person="ada"):
    """One merged change of the flights source; the clock moves a second before it."""
    world.root.clock.advance(world.root.now() + 1_000_000)
    change = world.proposal(person)
    world.all_through(person, change)
    return world.entries()["source/flights"]


def show(world, name="production"):
    return environments.show(world.root, environments.Named(environment=name))


def test_genesis_is_idempotent_and_holds_the_policies(team):
    before = show(team)
    assert environments.create_workspace_environments(team.root, "solo") == before.snapshot
    assert (before.mode, sorted(before.entries)) == ("team", ["policy/production", "policy/staging"])
    with team.root.read() as tx:
        assert effective_policy(tx, "flights", "staging").policy == Policy("team")


@pytest.mark.parametrize(
    "name", ["prod", "sandbox", "sandbox/ada", "sandbox/ada/x/y", "sandbox//x", "sandbox/a b/x", ""]
)
def test_names_of_environments_are_checked(name):
    with pytest.raises(InvalidInput):
        checked_environment(name)


def test_a_sandbox_knows_where_it_started(team):
    step(team)
    name = team.sandbox("ada")
    shown = show(team, name)
    assert (shown.base, shown.base_snapshot) == ("production", show(team).snapshot)
    assert shown.snapshot == show(team).snapshot
    with pytest.raises(Conflict, match="exists already"):
        invoke(team.by("ada"), environments.create_sandbox, environments.CreateSandbox(environment=name))
    with pytest.raises(NotFound, match="no environment"):
        team.sandbox("ada", base="sandbox/ada/none")


def test_automatic_sandboxes_are_numbered(team):
    made = [
        invoke(team.by("ada"), environments.create_sandbox, environments.CreateSandbox(environment="sandbox/auto")).name
        for _ in range(3)
    ]
    assert made == ["sandbox/auto/1", "sandbox/auto/2", "sandbox/auto/3"]


def test_commits_stack_up(team):
    name = team.sandbox("ada")
    first = team.commit("ada", name, source__a=team.version("source/a"), source__b=team.version("source/b"))
    second = team.commit("ada", name, source__a=None)
    assert "source/a" not in second.entries
    assert "source/b" in second.entries
    assert team.commit("ada", name, source__a=None).snapshot == second.snapshot
    stale = environments.Commit(environment=name, entries={}, expected=first.snapshot)
    with pytest.raises(Conflict, match="moved meanwhile"):
        invoke(team.by("ada"), environments.commit, stale)


def test_viewers_write_no_sandbox(team):
    with pytest.raises(PermissionDenied):
        team.commit("eve", team.sandbox("ada"), source__a=team.version("source/a"))


def test_rollback_goes_back_one_step_each_time_and_forward_by_id(team):
    one, two, three = step(team), step(team), step(team)
    newest = show(team).snapshot
    assert team.rollback("bob").entries["source/flights"] == two
    assert provenance.provenance_of(team.root, "production").via == "rollback"
    assert team.rollback("bob").entries["source/flights"] == one
    assert "source/flights" not in team.rollback("bob").entries
    with pytest.raises(NotFound, match="held nothing before"):
        team.rollback("bob")
    assert team.rollback("bob", to=newest[3:15]).entries["source/flights"] == three
    with pytest.raises(Conflict, match="holds that already"):
        team.rollback("bob", to=newest)
    moves = environments.log(team.root, environments.LogQuery(environment="production")).moves
    assert [bool(m.change) for m in moves] == [False] * 4 + [True] * 3 + [False]


def test_rollback_only_goes_where_production_was(team):
    sandbox = team.sandbox("ada")
    never = team.commit("ada", sandbox, source__evil=team.version("source/evil")).snapshot
    with pytest.raises(NotFound, match="was never live"):
        team.rollback("bob", to=never)
    with pytest.raises(PermissionDenied):
        team.rollback("ada")


def test_rollback_does_not_bring_an_old_policy_back(solo):
    source = step(solo, "lone")
    policy = solo.version("policy/production", **Policy("team").manifest())
    solo.all_through("lone", solo.proposal("lone", policy__production=policy), approver="lone")
    back = solo.rollback("lone")
    assert (back.entries["source/flights"], back.mode) == (source, "team")
    found = provenance.provenance_of(solo.root, "production")
    assert (found.via, found.change, found.snapshot) == ("rollback", 1, back.snapshot)
    again = solo.rollback("lone")
    assert "source/flights" not in again.entries
    assert again.mode == "team"


def test_a_sandbox_goes_back_by_its_commits(team):
    sandbox = team.sandbox("ada")
    start = show(team, sandbox).snapshot
    team.commit("ada", sandbox, source__a=team.version("source/a"))
    assert team.rollback("bob", sandbox).snapshot == start
    with pytest.raises(NotFound, match="held nothing before"):
        team.rollback("bob", sandbox)


def test_what_was_live_at_a_time(team):
    one = step(team)
    at_one = team.root.now()
    two = step(team)
    at_two = team.root.now()
    team.root.clock.advance(at_two + 5_000_000)
    team.rollback("bob")

    def live(micros):
        cmd = provenance.LiveAt(environment="production", time=f"1970-01-01T00:00:{micros / 1e6:09.6f}Z")
        return provenance.live_at(team.root, cmd)

    assert live(at_one).entries["source/flights"] == one
    assert (live(at_one).change, live(at_one).approvers) == (1, ["bob"])
    assert live(at_two - 1).entries["source/flights"] == one
    assert live(at_two + 4_999_999).entries["source/flights"] == two
    assert live(at_two + 5_000_000).entries["source/flights"] == one
    assert live(at_two + 5_000_000).reason.startswith("rollback to")
    with pytest.raises(NotFound, match="did not exist at that time"):
        live(0)
    with pytest.raises(InvalidInput, match="not a time"):
        provenance.live_at(team.root, provenance.LiveAt(environment="production", time="yesterday"))
    by_time = team.rollback("bob", to=f"1970-01-01T00:00:{at_two / 1e6:09.6f}Z")
    assert by_time.entries["source/flights"] == two


def test_staging_then_production(team):
    change = team.proposal("ada", target="staging")
    team.all_through("ada", change)
    onward = team.propose("cyd", "staging", "production")
    assert onward.authors == ["ada", "cyd"]  # bob merged it into staging and stays free to approve
    team.all_through("cyd", onward)
    assert team.entries("production") == team.entries("staging")


def test_a_list_puts_protected_environments_first(team):
    team.sandbox("ada")
    listed = environments.list_environments(team.root, environments.ListEnvironments()).environments
    assert [e.name for e in listed][:2] == ["staging", "production"]
    assert len(listed) == 3


def test_a_sandbox_is_reset_to_what_its_base_holds_now(team):
    sandbox = team.sandbox("ada")
    team.commit("ada", sandbox, source__own=team.version("source/own"))
    step(team)
    reset = environments.CreateSandbox(environment=sandbox, base="production")
    for _ in range(2):  # again changes nothing
        held = invoke(team.by("ada"), environments.reset, reset)
        assert held.snapshot == show(team).snapshot
        assert "source/own" not in held.entries
    with pytest.raises(InvalidInput, match="moves by changes only"):
        invoke(team.root, environments.reset, environments.CreateSandbox(environment="staging"))
    with pytest.raises(PermissionDenied):
        invoke(team.by("bob"), environments.reset, reset)


def test_a_preview_says_what_a_change_would_need_and_writes_nothing(team):
    check = team.version("check/good", name="good", function="m:f", parameters=[], objective="", blocks=["production"])
    sandbox = team.sandbox("ada")
    team.commit("ada", sandbox, check__good=check)
    seen = proposing.preview(team.by("ada"), proposing.Propose(source=sandbox, target="production", title="x"))
    assert [request.name for request in seen.requests()] == ["good"]
    assert (seen.change.number, seen.blocking) == (0, ())
    assert reviewing.list_changes(team.root, reviewing.ListChanges()).changes == []
    assert team.propose("ada", sandbox).delta_id == seen.delta_id


def told(world):
    """What webhooks are told of aliases: event, model, alias, version."""
    with world.root.read() as tx:
        mine = (fact_rows.c.project == world.root.project, fact_rows.c.kind.like("registry.%"))
        found = tx.execute(select(fact_rows.c.kind, fact_rows.c.payload).where(*mine).order_by(fact_rows.c.id)).all()
    events = [(kind.rpartition(".")[2], json.loads(payload)) for kind, payload in found]
    return [(action, data["name"], data["alias"], data.get("version")) for action, data in events]


def test_webhooks_hear_which_versions_an_environment_holds(solo):
    first, second = solo.version("model/delay"), solo.version("model/delay")
    solo.all_through("lone", solo.proposal("lone", model__delay=first), "lone")
    assert told(solo) == [("created", "delay", "production", "1")]
    moved = solo.proposal("lone", model__delay=second, source__flights=solo.version("source/flights"))
    solo.all_through("lone", moved, "lone")
    assert told(solo)[1:] == [("created", "delay", "production", "2")]
    solo.rollback("lone")
    assert told(solo)[2:] == [("created", "delay", "production", "1")]
