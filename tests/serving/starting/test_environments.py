"""Models whose packages differ from the gateway's answer from environments of their own."""

import sysconfig
import venv
from pathlib import Path

import pytest
import serving_models
from serving_house import HERE, Place, folder_of, one_row, revision

from everloop.core.errors import DefinitionError, NotFound
from everloop.serving.definitions import EndpointDef, Workers
from everloop.serving.gateway.starting.spare import PYTHONS, python_of
from everloop.serving.table import Route

REPOSITORY = HERE.parent.parent


def environment(home: Path, name: str, number: int) -> str:
    """The interpreter of a new environment, where the package `flavour` is of version `number`."""
    venv.create(home / name, with_pip=False)
    (site,) = (home / name).glob("lib/python*/site-packages")
    found = [sysconfig.get_paths()["purelib"], str(REPOSITORY), str(HERE)]
    (site / "there.pth").write_text("\n".join(found))
    (site / "flavour.py").write_text(f"NUMBER = {number}\n")
    return str(home / name / "bin" / "python")


def routed(place, name, number, environment):
    folder = folder_of(place.home, name, serving_models.Flavoured())
    return Route("shop", name, [revision(folder, number, environment=environment)])


@pytest.fixture
def place(tmp_path, monkeypatch):
    pythons = [f"{name}={environment(tmp_path, name, number)}" for name, number in (("old", 1), ("new", 2))]
    monkeypatch.setenv(PYTHONS, ":".join([*pythons, f"empty={tmp_path / 'nothing' / 'python'}"]))
    place = Place(tmp_path / "home")
    yield place
    place.close()


def test_two_versions_of_a_package_serve_side_by_side(place):
    place.serve(routed(place, "one", 1, "old"), routed(place, "two", 2, "new"))
    gateway = place.gateway().ready()
    told = [gateway.predict(one_row(), address=f"shop.{name}").json()["predictions"] for name in ("one", "two")]
    assert told == [[1.0], [2.0]]


@pytest.mark.parametrize(("name", "said"), [("none", PYTHONS), ("empty", "nothing/python")])
def test_an_environment_that_is_not_here_is_said_and_leaves_the_others(place, name, said):
    one = routed(place, "one", 1, "old")
    place.serve(one)
    gateway = place.gateway().ready()
    place.serve(one, routed(place, "two", 2, name))
    told = place.until(lambda s: s["problems"].get(f"b3:{2:064x}"))["problems"][f"b3:{2:064x}"]
    assert said in told
    assert gateway.predict(one_row(), address="shop.one").json()["predictions"] == [1.0]


def test_where_an_environment_is_is_no_part_of_a_definition(monkeypatch):
    said = EndpointDef("delay", "m", workers=Workers(environment="old")).manifest()["workers"]
    assert said["environment"] == "old"
    for wrong in ({"shared": "small"}, {"inline": True}):
        with pytest.raises(DefinitionError):
            Workers(environment="old", **wrong)
    monkeypatch.setenv(PYTHONS, "a=/x/python:b=/y/python")
    assert (python_of("a"), python_of("b")) == ("/x/python", "/y/python")
    with pytest.raises(NotFound):
        python_of("c")
