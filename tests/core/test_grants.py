"""Grants: default deny, and what the absence of an environment or a tag means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput
from everloop.core.grants import ROLES, Grant, Target, allowing, role_grants

words = st.text("abc", min_size=1, max_size=3)
places = st.none() | st.sampled_from(["production", "sandbox/ada/x", "*", "sandbox/*"])
grants = st.builds(Grant, words | st.just("*"), words | st.just("*"), words | st.just("*"), places, st.none() | words)
targets = st.builds(
    Target,
    words,
    words,
    st.sampled_from(["", "production", "sandbox/ada/x", "sandbox/bob"]),
    st.frozensets(words, max_size=2),
)


@given(words, targets)
def test_without_a_grant_everything_is_denied(verb, target):
    assert allowing((), verb, target) is None


@given(grants)
def test_the_text_of_a_grant_reads_back(grant):
    assert Grant.parse(str(grant)) == grant


@given(grants, words, targets)
def test_a_grant_without_a_star_reaches_exactly_what_it_names(grant, verb, target):
    if grant.allows(verb, target):
        assert grant.verb in {verb, "*"}
        assert grant.kind in {target.kind, "*"}
        assert grant.name in {target.name, "*"}
        assert grant.environment is not None or target.environment == "" or target.environment.startswith("sandbox/")
        assert not target.tags or grant.tag is not None


@given(st.lists(grants, max_size=4), grants, words, targets)
def test_more_grants_never_take_anything_away(held, more, verb, target):
    if allowing(held, verb, target):
        assert allowing([*held, more], verb, target)


@given(words, targets)
def test_a_grant_that_names_no_environment_never_reaches_a_protected_one(verb, target):
    allowed = Grant.parse("* */*#*").allows(verb, target)
    assert allowed == (target.environment == "" or target.environment.startswith("sandbox/"))


@given(words, targets)
def test_a_grant_that_names_no_tag_never_reaches_what_is_tagged(verb, target):
    assert Grant.parse("* */*@*").allows(verb, target) == (not target.tags)


@pytest.mark.parametrize(
    "text", ["", "read", "read x", "READ */*", "read */* more", "read */*@", "read */*#", "read a/b@x y"]
)
def test_what_is_no_grant_is_refused(text):
    with pytest.raises(InvalidInput) as caught:
        Grant.parse(text)
    assert caught.value.hint


def test_a_star_is_the_only_wildcard():
    assert Grant.parse("read model/d*y").allows("read", Target("model", "delay"))
    assert not Grant.parse("read model/d.lay").allows("read", Target("model", "delay"))
    assert Grant.parse("read model/a.b").allows("read", Target("model", "a.b"))


def test_roles_are_grants_and_an_admin_neither_approves_nor_reads_tagged_data():
    admin = role_grants("admin")
    assert allowing(admin, "change.approve", Target("change", "1", "production")) is None
    assert allowing(admin, "read", Target("data", "people", tags=frozenset({"pii"}))) is None
    assert allowing(role_grants("auditor"), "read", Target("data", "people", tags=frozenset({"pii"}))) is not None
    assert allowing(role_grants("contributor"), "run.write", Target("run", "r", "production")) is None
    assert allowing(role_grants("contributor"), "run.write", Target("run", "r", "sandbox/ada/x")) is not None
    assert all(role_grants(role) for role in ROLES)
    with pytest.raises(InvalidInput):
        role_grants("emperor")


def test_a_target_writes_itself_in_the_grammar():
    assert str(Target("data", "people", "production", frozenset({"b", "a"}))) == "data/people@production#a#b"
    assert str(Target()) == "project/*"
