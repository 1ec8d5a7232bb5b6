import sys

import pytest

from everloop.core.errors import InvalidInput
from everloop.flows.identity.recipe import plain_text, recipe
from everloop.flows.identity.runtime import runtime


def test_the_runtime_names_packages_platform_and_threads():
    found = runtime(2)
    manifest = found.version.manifest
    assert manifest["packages"]["scikit-learn"]["digest"].startswith("b3:")
    assert manifest["python"] == sys.version.split()[0]
    assert manifest["threads"]["OMP_NUM_THREADS"] == "2"
    assert "openblas" in manifest["blas"]
    assert runtime(2).version.id == found.version.id != runtime(1).version.id


def test_a_step_depends_on_what_it_imports_and_what_that_needs():
    found = runtime(1).restricted(["sklearn"])
    assert {"scikit-learn", "numpy", "scipy", "joblib"} <= found.keys()
    assert not {"ruff", "pytest", "polars"}.intersection(found)
    assert runtime(1).restricted(["no_such_thing"]) == {"import:no_such_thing": "unknown"}
    assert runtime(1).requirements(["sklearn", "yaml"])[1].startswith("scikit-learn==")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name, record, metadata="", version="1.0"):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "RECORD").write_text(record)
        (folder / "METADATA").write_text(metadata)
        tmp_path.touch()
        (tmp_path / f"stamp{record.count('x')}{len(record)}").touch()  # a changed folder is read again
        return runtime(1).distributions[name.replace("_", "-")]

    return install


def test_a_digest_follows_the_code_and_not_the_place_of_installation(site):
    code = "own_thing/__init__.py,sha256=aa,3\nown_thing/fast.so,sha256=bb,4\n"
    here = site("own_thing", code + "../../../bin/own,sha256=11,9\nown_thing-1.0.dist-info/INSTALLER,sha256=x,4\n")
    assert here.imports == ("own_thing",)
    there = site("own_thing", "../../../bin/own,sha256=22,9\n" + code + "own_thing/__pycache__/a.cpython-311.pyc,,\n")
    assert there.digest == here.digest
    patched = site("own_thing", code.replace("sha256=bb", "sha256=cc"))
    assert patched.digest != here.digest


def test_requirements_leave_extras_out(site):
    text = 'Requires-Dist: numpy (>=1.2)\nRequires-Dist: Foo.Bar[x]>=2; python_version > "3"\n'
    found = site("own_other", "", text + 'Requires-Dist: ruff; extra == "dev"\n\nRequires-Dist: no\n')
    assert found.requires == ("numpy", "foo-bar")


def test_a_recipe_is_made_of_everything_that_decides():
    parts = {
        "closure": "c",
        "packages": {"numpy": "2"},
        "host": {"python": "3"},
        "params": {"a": 0.1},
        "inputs": {"x": "i"},
        "facts": {"label": "late"},
        "how": {"step": "s"},
    }
    keys = {recipe(**parts)}
    for name, value in parts.items():
        changed = value + "!" if isinstance(value, str) else {**value, "more": "1"}
        keys.add(recipe(**{**parts, name: changed}))
    assert len(keys) == 1 + len(parts)
    assert plain_text({"b": 0.1, "a": [1, None]}) == '{"a":[1,null],"b":0.1}'
    with pytest.raises(InvalidInput, match="not JSON-ready"):
        plain_text({"a": object()})


def test_what_a_package_carries_inside_it_is_not_installed(tmp_path, monkeypatch):
    carried = tmp_path / "carrier" / "thirdparty"
    (carried / "carried-2.0.dist-info").mkdir(parents=True)
    (carried / "carried-2.0.dist-info" / "RECORD").write_text("carried.py,,\n")
    monkeypatch.syspath_prepend(str(carried))
    assert "carried" in runtime(1).distributions
    (tmp_path / "carrier" / "__init__.py").touch()
    (carried / "stamp").touch()  # a changed folder is read again
    assert "carried" not in runtime(1).distributions
