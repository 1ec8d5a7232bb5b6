"""Workers load the files that were signed, and no others."""

import pytest
import serving_models
from serving_house import folder_of, one_row, revision, sealed_of

from everloop.core.errors import CorruptObject
from everloop.serving.sealing.files import check
from everloop.serving.table import Route


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "model"
    (root / "code").mkdir(parents=True)
    (root / "model.pkl").write_bytes(b"pickled")
    (root / "code" / "own.py").write_text("x = 1")
    return root


def test_the_files_that_were_signed_are_loaded(folder):
    check(str(folder), sealed_of(folder))
    check(str(folder), "")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "model.pkl").write_bytes(b"pickleD"),
        lambda root: (root / "more.py").write_text(""),
        lambda root: (root / "code" / "own.py").unlink(),
        lambda root: (root / "code" / "own.py").rename(root / "own.py"),
    ],
)
def test_what_was_changed_is_not(folder, change):
    before = sealed_of(folder)
    change(folder)
    with pytest.raises(CorruptObject, match="not those that were signed"):
        check(str(folder), before)


def test_what_python_compiled_of_them_goes_and_is_not_run(folder):
    before = sealed_of(folder)
    (folder / "code" / "__pycache__").mkdir()
    (folder / "code" / "__pycache__" / "own.cpython-311.pyc").write_bytes(b"anything")
    check(str(folder), before)
    assert not (folder / "code" / "__pycache__").exists()


def test_a_worker_of_a_changed_model_does_not_start_and_says_why(place, tmp_path):
    folders = [folder_of(place.home, name, serving_models.Moody()) for name in ("m1", "m2")]
    routes = [
        Route("shop", name, [revision(folder, number, sealed=sealed_of(folder))])
        for number, (name, folder) in enumerate(zip(("delay", "other"), folders, strict=True), 1)
    ]
    (place.home / "m1" / "model.joblib").write_bytes((place.home / "m2" / "model.joblib").read_bytes() + b" ")
    place.serve(*routes)
    gateway = place.gateway()

    def seen(stats):
        told = [stats["endpoints"].get(f"shop.{name}", {}) for name in ("delay", "other")]
        return [its.get(f"b3:{number:064x}", {}) for number, its in enumerate(told, 1)]

    stats = place.until(lambda s: seen(s)[0].get("problem") and seen(s)[1].get("state") == "ready")
    assert "not those that were signed" in seen(stats)[0]["problem"]
    answer = gateway.client.post("/endpoints/shop/other/predict", json=one_row())
    assert answer.status_code == 200
    assert gateway.predict(one_row()).status_code == 503
