"""Whoever changes the registry, webhooks can hear of it: our own operations and imports as well as MLflow's clients."""

import json

import pytest
from sqlalchemy import select

from everloop.catalog import versions
from everloop.catalog.operation import find_operation, invoke
from everloop.catalog.tables.core import facts
from everloop.core.version import Version
from everloop.workspace.operations import load_operations

load_operations()


def ask(context, name, /, **fields):
    op = find_operation(name)
    return invoke(context, op, op.command(**fields))


def told(context):
    with context.read() as tx:
        mine = (facts.c.project == context.project, facts.c.kind.like("registry.%"))
        rows = tx.execute(select(facts.c.kind, facts.c.payload).where(*mine).order_by(facts.c.id)).all()
    return [(row.kind.removeprefix("registry."), json.loads(row.payload)) for row in rows]


@pytest.fixture
def model(context):
    with context.write() as tx:
        return versions.put(tx, context.project, Version("model", "delay", {"flavor": "x"}), actor="flow", at=20).id


def test_registering_and_aliasing_are_told(context, model):
    for _ in range(2):  # the second time nothing happens
        ask(context, "models.register", model=model, name="late")
        ask(context, "models.alias", name="late", alias="best", model="late@1")
    ask(context, "models.alias", name="late", alias="best")
    assert [(event, data["name"]) for event, data in told(context)] == [
        ("registered_model.created", "late"),
        ("model_version.created", "late"),
        ("model_version_alias.created", "late"),
        ("model_version_alias.deleted", "late"),
    ]
    assert told(context)[2][1] == {"name": "late", "alias": "best", "version": "1"}


def test_imports_are_told_once(context):
    for _ in range(2):
        ask(context, "imports.name", name="old", description="theirs")
        ask(context, "imports.version", name="old", number=2, created=5, link="s3://b/m", kind="mlflow", source="x")
        ask(context, "imports.alias", name="old", alias="best", number=2)
    assert [(event, data.get("version")) for event, data in told(context)] == [
        ("registered_model.created", None),
        ("model_version.created", "2"),
        ("model_version_alias.created", "2"),
    ]
