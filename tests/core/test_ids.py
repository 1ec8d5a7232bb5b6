"""Identity does not change: ids in the golden file were computed once and stay."""

import json
from pathlib import Path

import pytest

from everloop.core.errors import InvalidInput
from everloop.core.ids import checked_id, checked_name, fresh_id, is_id, manifest_id, object_id, short
from everloop.core.snapshot import Snapshot, delta_id
from everloop.core.version import KINDS, Version, split_key

GOLDEN = json.loads((Path(__file__).parent / "golden" / "ids.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", GOLDEN["objects"], ids=lambda case: repr(case["text"][:12]))
def test_ids_of_objects_stay(case):
    assert object_id(case["text"].encode()) == case["id"]


@pytest.mark.parametrize("case", GOLDEN["manifests"], ids=lambda case: case["id"][3:9])
def test_ids_of_manifests_stay(case):
    assert manifest_id(case["manifest"]) == case["id"]


@pytest.mark.parametrize("case", GOLDEN["versions"], ids=lambda case: case["key"])
def test_ids_of_versions_stay(case):
    version = Version(*split_key(case["key"]), case["manifest"])
    assert (version.id, version.key) == (case["id"], case["key"])


def test_ids_of_snapshots_and_deltas_stay():
    case = GOLDEN["snapshot"]
    snapshot = Snapshot(case["entries"], tuple(case["parents"]), case["message"], tuple(case["authors"]))
    assert snapshot.id == case["id"]
    assert Snapshot.from_manifest(snapshot.version().manifest) == snapshot
    assert delta_id({key: tuple(pair) for key, pair in GOLDEN["delta"]["delta"].items()}) == GOLDEN["delta"]["id"]


def test_a_blake3_digest_is_that_of_its_specification():
    # the first vector of the BLAKE3 team: no bytes at all
    assert object_id(b"") == "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_a_name_is_a_label_and_the_kind_is_identity():
    assert Version("model", "a", {"n": 1}).id == Version("model", "b", {"n": 1}).id
    assert Version("model", "a", {"n": 1}).id != Version("frame", "a", {"n": 1}).id
    assert Version("model", "a", {}).manifest == {"schema": 1, "kind": "model"}
    assert Version("model", "a", {"schema": 2}).manifest["schema"] == 2


def test_forms_are_checked():
    identity = object_id(b"x")
    assert is_id(identity)
    assert checked_id(identity) == identity
    assert short(identity) == identity[3:15]
    for wrong in ("", identity.upper(), identity + "0", identity[:-1], "b3:" + "g" * 64, identity + "\n"):
        with pytest.raises(InvalidInput):
            checked_id(wrong)
    for name in ("a", "_x", "A.b-c_9"):
        assert checked_name(name) == name
    for wrong in ("", "9a", "a/b", "a b", "a" * 129, "é", "a\n"):
        with pytest.raises(InvalidInput):
            checked_name(wrong)
    for wrong in ("model", "model/", "animal/cat", "/x"):
        with pytest.raises(InvalidInput):
            split_key(wrong)
    with pytest.raises(InvalidInput):
        Version("animal", "cat", {})
    assert {"snapshot", "data", "model"} <= KINDS


def test_random_ids_differ():
    assert len({fresh_id("run") for _ in range(100)}) == 100
