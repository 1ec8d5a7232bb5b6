import pytest

from everloop.catalog import refs, versions
from everloop.catalog.operation import invoke
from everloop.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from everloop.core.version import Version
from everloop.models.registry import Alias, ListModels, ModelNamed, Register


@pytest.fixture
def ids(context):
    many = [Version("model", "delay", {"flavor": "sklearn", "metrics": {"roc_auc": f"0.7{i}"}}) for i in range(3)]
    with context.write() as tx:
        versions.put_many(tx, context.project, many, actor="ada", at=1)
    return [version.id for version in many]


def test_models_are_listed_and_shown(context, ids):
    (newest,) = invoke(context, "models.list", ListModels()).models
    assert (newest.name, newest.number, newest.metrics) == ("delay", 3, {"roc_auc": "0.72"})
    assert [m.number for m in invoke(context, "models.list", ListModels(name="delay")).models] == [3, 2, 1]
    for text in ("delay@1", "model/delay@1", ids[0], ids[0][3:15]):
        assert invoke(context, "models.show", ModelNamed(model=text)).id == ids[0]
    with pytest.raises(NotFound):
        invoke(context, "models.show", ModelNamed(model="dely"))


def test_an_alias_moves_and_its_log_is_kept(context, ids):
    for number in (1, 3):
        invoke(context, "models.alias", Alias(name="delay", alias="best", model=f"delay@{number}"))
    assert invoke(context, "models.show", ModelNamed(model="delay:best")).id == ids[2]
    assert invoke(context, "models.show", ModelNamed(model="delay@3")).aliases == ("best",)
    with context.read() as tx:
        assert len(refs.log(tx, context.project, "alias/model/delay/best")) == 2
    invoke(context, "models.alias", Alias(name="delay", alias="best"))
    with pytest.raises(NotFound, match="no alias 'best'"):
        invoke(context, "models.show", ModelNamed(model="delay:best"))
    for wrong in ("latest", "v7", "7", "a b"):
        with pytest.raises(InvalidInput, match="cannot be an alias"):
            invoke(context, "models.alias", Alias(name="delay", alias=wrong, model="delay@1"))
    with pytest.raises(InvalidInput, match="no version of other"):
        invoke(context, "models.alias", Alias(name="other", alias="best", model="delay@1"))


def test_registering_gives_another_name_once(context, ids):
    first = invoke(context, "models.register", Register(model="delay@2", name="arrival"))
    assert (first.name, first.number, first.id) == ("arrival", 1, ids[1])
    assert invoke(context, "models.register", Register(model=ids[1], name="arrival")).number == 1


def test_a_viewer_may_not_point(context_of, sqlite_catalog, ids):
    viewer = context_of(sqlite_catalog, roles=["viewer"])
    assert invoke(viewer, "models.list", ListModels()).models
    with pytest.raises(PermissionDenied):
        invoke(viewer, "models.alias", Alias(name="delay", alias="best", model="delay@1"))


def test_two_that_point_at_once_do_not_overwrite_each_other(context, ids):
    ref = refs.alias_ref("model", "delay", "best")
    with context.write() as tx:
        refs.move(tx, context.project, ref, old=None, new=ids[0], actor="ada", at=1)
    with pytest.raises(Conflict), context.write() as tx:
        refs.move(tx, context.project, ref, old=ids[1], new=ids[2], actor="eve", at=2)
