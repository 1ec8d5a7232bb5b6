"""Policy: an author never counts under team, a dead approval never counts at all."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from everloop.core.policy import Approval, CheckState, Policy, Subject, approval_refusal, decide, genesis

people = st.sampled_from(["ada", "bob", "cyd", "dan"])
roles = st.frozensets(st.sampled_from(["approver", "steward", "viewer"]), max_size=3)
ids = st.sampled_from(["x", "y"])
approvals = st.lists(st.builds(Approval, people, roles, ids, ids, ids, st.booleans()), max_size=6).map(tuple)
checks = st.lists(
    st.builds(
        CheckState,
        st.sampled_from("pq"),
        st.sampled_from(["missing", "waiting", "running", "passed", "failed", "error"]),
    ),
    max_size=3,
).map(tuple)
subjects = st.builds(Subject, ids, ids, ids, st.frozensets(people, max_size=3))
policies = st.builds(
    Policy,
    st.sampled_from(["solo", "team"]),
    st.integers(1, 3),
    st.lists(st.sampled_from(["approver", "steward"]), unique=True).map(tuple),
)


@given(policies, subjects, checks, approvals)
def test_who_counts_is_no_author_under_team_and_is_bound_to_what_is_there_now(policy, subject, checks, approvals):
    decision = decide(policy, subject, checks, approvals)
    for name in decision.counted:
        assert any(
            a.actor == name
            and not a.service
            and (a.delta, a.policy, a.evidence) == (subject.delta, subject.policy, subject.evidence)
            for a in approvals
        )
        if policy.mode == "team":
            assert name not in subject.authors


@given(policies, subjects, checks, approvals)
def test_a_change_merges_only_with_everything_that_the_policy_demands(policy, subject, checks, approvals):
    decision = decide(policy, subject, checks, approvals)
    assert decision.allowed == (not decision.reasons)
    if decision.allowed:
        assert len(decision.counted) >= policy.approvals
        assert all(check.state == "passed" for check in checks)
        if policy.mode == "team":
            held = frozenset().union(*(a.roles for a in approvals if a.actor in decision.counted))
            assert set(policy.roles) <= held


@given(policies, subjects, checks, approvals)
def test_when_the_content_changes_no_approval_survives(policy, subject, checks, approvals):
    for field in ("delta", "policy", "evidence"):
        moved = decide(policy, replace(subject, **{field: "something else"}), checks, approvals)
        assert moved.counted == ()
        assert not moved.allowed


@given(subjects, approvals)
def test_self_approval_is_allowed_by_solo_only_and_said(subject, approvals):
    decision = decide(Policy("solo"), subject, (), approvals)
    assert [note.split()[2] for note in decision.notes] == sorted(set(decision.counted) & subject.authors)
    assert decide(Policy("team"), subject, (), approvals).notes == ()


def test_the_refusal_says_why():
    subject = Subject("d", "p", "e", frozenset({"ada"}))
    assert "author" in approval_refusal(Policy("team"), "ada", subject, service=False)
    assert "service" in approval_refusal(Policy("solo"), "bot", subject, service=True)
    assert approval_refusal(Policy("solo"), "ada", subject, service=False) is None
    assert approval_refusal(Policy("team"), "bob", subject, service=False) is None


@given(policies)
def test_a_policy_reads_back_from_its_manifest(policy):
    assert Policy.from_manifest(policy.manifest()) == policy
    assert genesis("team") == Policy("team", 1, ("approver",))


def test_a_tag_may_demand_an_approver_with_a_role_under_every_mode():
    for mode in ("solo", "team"):
        policy = Policy(mode, tags={"special": "steward"})
        subject = Subject("d", "p", "e", frozenset({"ada"}))
        approver = Approval("bob", frozenset({"approver"}), "d", "p", "e")
        steward = Approval("sam", frozenset({"approver", "steward"}), "d", "p", "e")
        assert decide(policy, subject, (), (approver,)).allowed
        refused = decide(policy, subject, (), (approver,), frozenset({"special"}))
        assert refused.reasons == ("an approver with the role steward is needed: the change brings special data",)
        assert decide(policy, subject, (), (steward,), frozenset({"special"})).allowed
        assert decide(policy, subject, (), (approver,), frozenset({"personal"})).allowed
        assert Policy.from_manifest(policy.manifest()) == policy
    assert "tags" not in Policy("team").manifest()
    assert "found" not in Policy("team").manifest()
