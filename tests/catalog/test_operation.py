"""Declaring and invoking operations: permission, audit in the transaction of the effect, wrong declarations."""

import pytest
from pydantic import SecretStr, ValidationError

from everloop.catalog import facts, operation, refs, versions
from everloop.catalog.chain import seal
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, find_operation, invoke, operations
from everloop.core.errors import Conflict, DefinitionError, NotFound, PermissionDenied
from everloop.core.grants import Target
from everloop.core.version import Version

SNAPSHOT = Version("snapshot", "snapshot", {"n": 1})


class Point(Command):
    environment: str
    password: SecretStr = SecretStr("")
    writes: int = 1
    raises: bool = False


class Pointed(Answer):
    moves: int


def _environment(_ctx, cmd):
    return Target("environment", cmd.environment, cmd.environment)


@operation.operation("tests.point", needs="change.merge", on=_environment)
def point(ctx: Context, cmd: Point) -> Pointed:
    """Move a pointer.

    With the number of writes that the test asks for.
    """
    for n in range(cmd.writes):
        with ctx.write() as tx:
            versions.put(tx, ctx.project, SNAPSHOT, actor=ctx.actor.name, at=ctx.now())
            refs.move(
                tx,
                ctx.project,
                f"env/{cmd.environment}{n}",
                old=None,
                new=SNAPSHOT.id,
                actor=ctx.actor.name,
                at=ctx.now(),
            )
    if cmd.raises:
        raise Conflict("no")
    return Pointed(moves=cmd.writes)


@operation.operation("tests.look", needs="read", reads=True)
def look(ctx: Context, cmd: Command) -> Pointed:
    """Look."""
    return Pointed(moves=len(cmd.model_fields_set))


@operation.operation("tests.log", needs="run.write", audit="denied")
def log(ctx: Context, cmd: Command) -> Pointed:
    """Write often."""
    with ctx.write():
        return Pointed(moves=0)


# known only while these tests run: other tests walk all operations
_OURS = {name: operation._registered.pop(name) for name in ("tests.point", "tests.look", "tests.log")}


@pytest.fixture(autouse=True)
def registered():
    known = dict(operation._registered)
    operation._registered.update(_OURS)
    yield
    operation._registered.clear()
    operation._registered.update(known)


def audit(ctx):
    seal(ctx.catalog, ctx.clock)
    with ctx.read() as tx:
        return [fact for fact in facts.since(tx, ctx.project, 0) if fact.kind.startswith("audit.")]


def test_the_audit_record_is_in_the_transaction_of_the_effect(each_context):
    ctx = each_context
    assert invoke(ctx, point, Point(environment="staging")) == Pointed(moves=1)
    (fact,) = audit(ctx)
    assert (fact.kind, fact.subject, fact.actor) == ("audit.allowed", "environment/staging@staging", "ada")
    assert fact.payload == {
        "operation": "tests.point",
        "target": "environment/staging@staging",
        "grant": "* */*@*#*",
        "command": operation.digest_of(Point(environment="staging")),
        "actor_kind": "person",
        "roles": [],
        "part": 1,
    }
    with pytest.raises(Conflict):
        invoke(ctx, point, Point(environment="staging"))  # the pointer exists: the transaction fails as a whole
    assert [fact.kind for fact in audit(ctx)] == ["audit.allowed", "audit.failed"]
    assert audit(ctx)[1].payload["error"] == "conflict"


def test_every_transaction_has_its_record_and_an_operation_that_wrote_nothing_one(context):
    invoke(context, point, Point(environment="a", writes=2))
    assert [fact.payload["part"] for fact in audit(context)] == [1, 2]
    invoke(context, point, Point(environment="b", writes=0))
    assert [fact.subject for fact in audit(context)][2:] == ["environment/b@b"]
    with pytest.raises(Conflict):
        invoke(context, point, Point(environment="c", writes=1, raises=True))
    assert [fact.kind for fact in audit(context)][3:] == ["audit.allowed"]  # the write before the error stays


def test_reads_and_frequent_writes_leave_no_record_unless_they_are_denied(context, context_of):
    invoke(context, look, Command())
    invoke(context, log, Command())
    assert audit(context) == []
    nobody = context_of(context.catalog, name="eve", roles=())
    for op in (look, log):
        with pytest.raises(PermissionDenied):
            invoke(nobody, op, Command())
    assert [(fact.kind, fact.payload["operation"], fact.payload["needs"]) for fact in audit(context)] == [
        ("audit.denied", "tests.look", "read"),
        ("audit.denied", "tests.log", "run.write"),
    ]


def test_permission_is_denied_by_default_recorded_and_explained(context_of, sqlite_catalog):
    viewer = context_of(sqlite_catalog, name="vera", roles=["viewer"])
    with pytest.raises(PermissionDenied, match=r"vera may not change\.merge environment/staging@staging") as caught:
        invoke(viewer, "tests.point", Point(environment="staging", password=SecretStr("geheim")))
    assert caught.value.hint
    (fact,) = audit(viewer)
    assert (fact.kind, fact.payload["grant"], fact.payload["roles"]) == ("audit.denied", "", ["viewer"])
    with sqlite_catalog.read() as tx:
        assert refs.all(tx, "flights") == {}


def test_secrets_do_not_reach_the_digest():
    one, two = (Point(environment="x", password=SecretStr(secret)) for secret in ("geheim", "anders"))
    assert operation.digest_of(one) == operation.digest_of(two)
    assert operation.digest_of(one) != operation.digest_of(Point(environment="y", password=SecretStr("geheim")))


def test_an_operation_used_inside_another_is_recorded_as_the_outer_one(context):
    inner = Point(environment="inner")

    @operation.operation("tests.outer", needs="change.merge")
    def outer(ctx: Context, cmd: Command) -> Pointed:
        """Use another."""
        return point(ctx, inner)

    invoke(context, outer, Command())
    assert [fact.payload["operation"] for fact in audit(context)] == ["tests.outer"]


def test_declarations_that_are_wrong_fail_at_once():
    def fine(ctx: Context, cmd: Command) -> Pointed:
        """Do nothing."""
        return Pointed(moves=0)

    for needs in ("", "fly", "change.approv"):
        with pytest.raises(DefinitionError, match="no role"):
            operation.operation("tests.x", needs=needs)(fine)
    with pytest.raises(TypeError):
        operation.operation("tests.x")(fine)
    with pytest.raises(DefinitionError, match="twice"):
        operation.operation("tests.look", needs="read")(fine)

    def no_answer(ctx: Context, cmd: Command) -> int:
        return 1

    def no_context(ctx: int, cmd: Command) -> Pointed:
        return Pointed(moves=1)

    def no_command(ctx: Context) -> Pointed:
        return Pointed(moves=1)

    for function in (no_answer, no_context, no_command):
        with pytest.raises(DefinitionError, match="annotated"):
            operation.operation("tests.x", needs="read")(function)
    assert "tests.x" not in operations()


def test_operations_are_found_by_name_and_function():
    assert find_operation("tests.point") is find_operation(point) is operations()["tests.point"]
    assert find_operation(point).summary == "Move a pointer."
    with pytest.raises(NotFound):
        find_operation("tests.absent")
    with pytest.raises(ValidationError):
        Point(environment="x", unknown=1)
