"""Access as operations: nobody grants anything to themselves, and tokens never reach further than their owner."""

import hashlib

import pytest

from everloop.catalog import facts
from everloop.catalog.chain import seal
from everloop.catalog.governance import access
from everloop.catalog.operating.callers import callers, explaining
from everloop.catalog.operation import invoke
from everloop.changes import access as operations
from everloop.core.clock import SystemClock
from everloop.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from everloop.core.grants import Grant, Target, narrowed


@pytest.fixture
def workspace(context_of, catalog):
    """A workspace with its first admin, `ada`, and a way to act as any user."""
    with catalog.write() as tx:
        operations.first_admin(tx, "ada", at=1)

    def acting(name):
        with catalog.read() as tx:
            actor = access.user(tx, name).actor()
        return context_of(catalog).as_actor(actor)

    return acting


def ask(ctx, function, **arguments):
    command = {
        "create_user": operations.CreateUser,
        "set_roles": operations.SetRoles,
        "set_disabled": operations.SetDisabled,
        "create_token": operations.CreateToken,
        "revoke_token": operations.RevokeToken,
        "login_link": operations.LoginLink,
    }.get(function, operations.NoArguments)
    return invoke(ctx, getattr(operations, function), command(**arguments))


def test_there_is_one_first_admin(workspace, catalog):
    assert "admin" in ask(workspace("ada"), "whoami").roles
    with catalog.write() as tx, pytest.raises(Conflict):
        operations.first_admin(tx, "eve", at=2)


def test_an_admin_adds_users_and_sets_their_roles(workspace):
    ada = workspace("ada")
    ask(ada, "create_user", name="bob", roles=["viewer"])
    assert ask(ada, "set_roles", name="bob", roles=["approver", "viewer"]).roles == ("approver", "viewer")
    assert [user.name for user in ask(ada, "list_users").users] == ["ada", "bob"]
    with pytest.raises(Conflict):
        ask(ada, "create_user", name="bob")
    for wrong in ({"name": "no way"}, {"name": "x", "roles": ["king"]}):
        with pytest.raises(InvalidInput):
            ask(ada, "create_user", **wrong)
    with pytest.raises(NotFound):
        ask(ada, "set_roles", name="nobody", roles=[])


def test_nobody_changes_their_own_access(workspace):
    ada = workspace("ada")
    for function, more in (("set_roles", {"roles": ["viewer"]}), ("set_disabled", {"disabled": False})):
        with pytest.raises(PermissionDenied):
            ask(ada, function, name="ada", **more)
    ask(ada, "create_user", name="bob", roles=["contributor"])
    for function, more in (
        ("create_user", {"name": "eve", "roles": ["admin"]}),
        ("set_roles", {"name": "bob", "roles": ["admin"]}),
        ("set_roles", {"name": "ada", "roles": []}),
        ("login_link", {"user": "ada"}),
        ("create_token", {"user": "ada"}),
    ):
        with pytest.raises(PermissionDenied):
            ask(workspace("bob"), function, **more)


def test_a_persons_tokens_are_their_own_to_make(workspace):
    ada = workspace("ada")
    ask(ada, "create_user", name="bob", roles=["approver"])
    ask(ada, "create_user", name="ci", kind="service", roles=["contributor"])
    with pytest.raises(PermissionDenied):
        ask(ada, "create_token", user="bob")
    assert ask(ada, "create_token", user="ci").token.user == "ci"
    made = ask(workspace("bob"), "create_token", label="laptop", grants=["read */*"])
    assert made.secret.startswith(made.token.prefix)
    assert [token.id for token in ask(workspace("bob"), "list_tokens").tokens] == [made.token.id]
    for days in (0, 367):
        with pytest.raises(InvalidInput):
            ask(workspace("bob"), "create_token", days=days)


def test_a_narrow_token_makes_no_wider_one(workspace, catalog):
    made = ask(workspace("ada"), "create_token", grants=["read */*"])
    with catalog.read() as tx:
        narrow = access.actor_of_token(tx, made.secret, "flights", at=SystemClock().wall())
    ctx = workspace("ada").as_actor(narrow)
    for function in ("create_token", "login_link"):
        with pytest.raises(PermissionDenied):
            ask(ctx, function)


def test_tokens_are_revoked_by_their_owner_or_an_admin(workspace):
    ada = workspace("ada")
    for name in ("bob", "carl"):
        ask(ada, "create_user", name=name, roles=["contributor"])
    token = ask(workspace("bob"), "create_token").token
    with pytest.raises(PermissionDenied):
        ask(workspace("carl"), "revoke_token", id=token.id)
    assert ask(ada, "revoke_token", id=token.id).revoked
    own = ask(workspace("carl"), "create_token").token
    assert ask(workspace("carl"), "revoke_token", id=own.id).revoked


def test_roles_that_are_taken_are_gone_at_once(workspace, catalog):
    ada = workspace("ada")
    ask(ada, "create_user", name="bob", roles=["approver"])
    secret = ask(workspace("bob"), "create_token").secret
    ask(ada, "set_roles", name="bob", roles=["viewer"])
    with catalog.read() as tx:
        actor = access.actor_of_token(tx, secret, "flights", at=SystemClock().wall())
    assert not actor.may("change.approve", Target("change", "1", "production"))
    assert actor.may("read", Target("change", "1", "production"))


def test_every_act_is_on_record_without_its_secret(workspace, catalog):
    ask(workspace("ada"), "create_user", name="bob", roles=["viewer"])
    secret = ask(workspace("bob"), "create_token").secret
    path = ask(workspace("ada"), "login_link", user="bob").path
    with pytest.raises(PermissionDenied):
        ask(workspace("bob"), "set_roles", name="ada", roles=[])
    seal(catalog, SystemClock())
    with catalog.read() as tx:
        every = facts.tail(tx, "flights", kinds=["audit.*"])
    assert [(fact.kind, fact.payload["operation"], fact.actor) for fact in reversed(every)] == [
        ("audit.allowed", "access.create_user", "ada"),
        ("audit.allowed", "access.create_token", "bob"),
        ("audit.allowed", "access.login_link", "ada"),
        ("audit.denied", "access.set_roles", "bob"),
    ]
    assert secret not in str(every)
    assert path not in str(every)


def test_a_scope_and_what_is_held_meet_in_the_narrower(workspace):
    def both(one, other):
        return [str(grant) for grant in narrowed([Grant.parse(one)], [Grant.parse(other)])]

    assert both("* */*@*", "read */*@*") == ["read */*@*"]
    assert both("run.write run/abc", "run.write */*") == ["run.write run/abc"]
    assert both("read */*@production", "read */*@*#*") == ["read */*@production"]
    assert both("read */*@staging", "read */*@production") == []
    assert both("read */*@production", "read */*") == []
    assert both("read */*@sandbox/*", "read */*") == ["read */*@sandbox/*"]
    assert both("read model/a*", "read model/*b") == []  # neither covers the other: less, never more


@pytest.mark.parametrize("kind", ["person", "service"])
def test_nobody_is_made_a_worker_so_nobody_forges_evidence(workspace, kind):
    ada = workspace("ada")
    with pytest.raises(InvalidInput, match="nobody can be given the role 'worker'"):
        ask(ada, "create_user", name="eve", kind=kind, roles=("worker",))
    ask(ada, "create_user", name="eve", kind=kind, roles=("contributor",))
    with pytest.raises(InvalidInput, match="worker"):
        ask(ada, "set_roles", name="eve", roles=("contributor", "worker"))


@pytest.mark.parametrize(
    ("grants", "project", "opened"),
    [
        ([], "", ["*"]),
        ([], "shop", ["shop"]),
        (["read */*@*"], "shop", ["shop"]),
        (["read endpoint/*@production"], "shop", ["shop"]),
        (["read endpoint/delay@production"], "shop", ["shop.delay"]),
        (["read endpoint/a*@production", "read endpoint/delay@*"], "", ["*.a*", "*.delay"]),
        (["read endpoint/any@production"], "shop", ["shop.any"]),
        (["read endpoint/delay@staging"], "shop", None),
        (["read endpoint/delay"], "shop", None),
        (["read model/*@production", "run.write */*"], "shop", None),
    ],
)
def test_a_token_opens_the_endpoints_that_it_reads(workspace, catalog, grants, project, opened):
    ada = workspace("ada")
    secret = ask(ada, "create_token", grants=grants, project=project).secret
    with catalog.read() as tx:
        assert callers(tx, at=ada.wall()).get(hashlib.sha256(secret.encode()).hexdigest()) == opened


def test_a_grant_for_some_endpoints_explains_none(workspace, catalog):
    ada = workspace("ada")
    ask(ada, "create_user", name="bob", roles=["auditor"])
    some = ask(workspace("bob"), "create_token", grants=["endpoint.explain endpoint/a*@production"]).secret
    whole = ask(workspace("bob"), "create_token", grants=["endpoint.explain endpoint/*@production"]).secret
    with catalog.read() as tx:
        found = explaining(tx, at=ada.wall())
    assert hashlib.sha256(whole.encode()).hexdigest() in found
    assert hashlib.sha256(some.encode()).hexdigest() not in found
