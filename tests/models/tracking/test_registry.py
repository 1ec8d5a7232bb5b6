"""The registry for people: search, versions, descriptions, the history of aliases, files; and where runs come from."""

import pytest

from everloop.catalog import steps, versions
from everloop.catalog.operation import find_operation, invoke
from everloop.catalog.steps import StepRow
from everloop.catalog.tracking import experiments, registry, runs
from everloop.core.clock import iso
from everloop.core.errors import InvalidInput, NotFound, PermissionDenied
from everloop.core.version import Version
from everloop.workspace.operations import load_operations

load_operations()


def ask(context, name, /, **fields):
    op = find_operation(name)
    return invoke(context, op, op.command(**fields))


@pytest.fixture
def model(context):
    """`it's a model` (an MLflow client's, three versions) and `delay` (a flow's, one)."""
    with context.write() as tx:
        made = registry.register(tx, context.project, "it's a model", actor="ada", at=10)
        for number in range(3):
            files = {"MLmodel": context.store.put(b"x" * number)}
            values = {"source": "runs:/x", "actor": "ada", "at": 10 + number, "files": files}
            registry.create_version(tx, context.project, made, **values)
        manifest = {"flavor": "sklearn", "estimator": "a.b.Tree", "metrics": {"auc": "0.7"}}
        versions.put(tx, context.project, Version("model", "delay", manifest), actor="flow", at=20)
    return made.name


def test_models_are_found_by_a_part_of_their_name(context, model):
    every = ask(context, "models.search")
    assert [one.name for one in every.models] == ["delay", model]
    assert [one.name for one in ask(context, "models.search", text="IT'S").models] == [model]
    assert ask(context, "models.search", text="nothing").models == ()
    first = ask(context, "models.search", limit=1)
    assert [one.name for one in ask(context, "models.search", limit=1, token=first.token).models] == [model]
    flow = every.models[0].newest
    assert (flow.number, flow.estimator, flow.metrics) == (1, "a.b.Tree", {"auc": "0.7"})
    with pytest.raises(InvalidInput):
        ask(context, "models.search", filter="nonsense")


def test_versions_come_newest_first_in_pages(context, model):
    page = ask(context, "models.versions", name=model, limit=2)
    rest = ask(context, "models.versions", name=model, limit=2, token=page.token)
    assert [one.number for one in (*page.versions, *rest.versions)] == [3, 2, 1]
    assert ask(context, "models.version", name=model, number=2).id == page.versions[1].id
    for name, number in ((model, 4), ("nothing", 1)):
        with pytest.raises(NotFound):
            ask(context, "models.version", name=name, number=number)


def test_models_and_versions_are_described(context, model, context_of, sqlite_catalog):
    ask(context, "models.describe", name=model, description="who leaves", tags={"team": "core"})
    ask(context, "models.describe", name=model, number=2, description="the second", tags={"reviewed": "yes"})
    ask(context, "models.describe", name="delay", description="a flow's")
    found = ask(context, "models.registered", name=model)
    assert (found.description, found.tags) == ("who leaves", {"team": "core"})
    second = ask(context, "models.version", name=model, number=2)
    assert (second.description, second.tags) == ("the second", {"reviewed": "yes"})
    assert ask(context, "models.version", name=model, number=1).description == ""
    assert ask(context, "models.registered", name="delay").description == "a flow's"
    ask(context, "models.describe", name=model, number=2, remove=("reviewed",))
    assert ask(context, "models.version", name=model, number=2).tags == {}
    with pytest.raises(NotFound):
        ask(context, "models.describe", name=model, number=9, description="x")
    with pytest.raises(PermissionDenied):
        ask(context_of(sqlite_catalog, roles=["viewer"]), "models.describe", name=model, description="x")


def test_where_aliases_pointed_is_known_forever(context, model):
    moments = [1_000_000 * n for n in (1, 2, 3, 4)]
    with context.write() as tx:
        for at, number in zip(moments, (1, 3, 2), strict=False):
            registry.set_alias(tx, context.project, model, "candidate", number, actor="ada", at=at)
        held = ask_model(tx, context, model)
        registry.delete_alias(tx, context.project, held, "candidate", actor="bob", at=moments[3])
    pointed = [ask(context, "models.aliases", name=model, at=iso(at + 1)).then for at in (0, *moments)]
    assert pointed == [{}, {"candidate": 1}, {"candidate": 3}, {"candidate": 2}, {}]
    moves = ask(context, "models.aliases", name=model).moves
    assert [(move.old, move.new, move.actor) for move in moves] == [
        (2, None, "bob"),
        (3, 2, "ada"),
        (1, 3, "ada"),
        (None, 1, "ada"),
    ]
    with pytest.raises(InvalidInput):
        ask(context, "models.aliases", name=model, at="yesterday")


def ask_model(tx, context, name):
    return registry.registered.get(tx, context.project, name)


def test_files_of_a_version(context, model):
    (file,) = ask(context, "models.files", name=model, number=3).files
    assert (file.path, file.size, context.store.get(file.object)) == ("MLmodel", 2, b"xx")


def test_where_a_run_comes_from_and_what_came_of_it(context, model):
    project = context.project
    with context.write() as tx:
        first, code = (Version("code", "shop", {"files": {"a.py": f"b3:{n * 64}"}}) for n in "12")
        data = Version("data", "flights", {"rows": 1})
        out = Version("model", "late", {"flavor": "x"})
        versions.put_many(tx, project, [first, code, data, out], actor="ada", at=1)
        home = experiments.create(tx, project, "late", at=1)
        tags = {"everloop.recipe": "r1", "everloop.step": "model/late", "mlflow.source.git.commit": "abc"}
        run = runs.create(tx, project, experiment=home, actor="ada", at=1, tags=tags)
        child = runs.create(
            tx, project, experiment=home, actor="ada", at=2, name="child", tags={"mlflow.parentRunId": run.id}
        )
        row = StepRow("r1", "model/late", out.id, code.id, code.id, {}, {"flights": data.id}, at=3, run=run.id)
        steps.record(tx, project, row)
        made = registry.registered.get(tx, project, model)
        registry.create_version(tx, project, made, source="runs:/y", actor="ada", at=4, run=run.id)
    found = ask(context, "runs.origin", run=run.id)
    assert (found.commit, found.entry, found.uncommitted) == ("abc", "model/late", False)
    assert (found.code.label, found.before.label) == ("code/shop v2", "code/shop v1")
    assert [(one.role, one.label) for one in found.inputs] == [("flights", "data/flights v1")]
    assert [one.label for one in found.outputs] == ["model/late v1"]
    assert [(one.name, one.number) for one in found.registered] == [(model, 4)]
    assert [one.id for one in found.children] == [child.id]
    assert ask(context, "runs.origin", run=child.id).parent.id == run.id
    with pytest.raises(NotFound):
        ask(context, "runs.origin", run="0" * 32)
