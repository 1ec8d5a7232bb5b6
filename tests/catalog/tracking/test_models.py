"""Artifacts, logged models and the registry, on both databases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.catalog import refs, versions
from everloop.catalog.tracking import artifacts, inputs, logged, points, registered, registry
from everloop.catalog.tracking.rows import DatasetInput, Point
from everloop.core.errors import Conflict, InvalidInput, NotFound, PolicyRefused
from everloop.core.ids import object_id
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version

PROJECT = "flights"
BYTES = object_id(b"bytes")


def put(tx, owner, path, *, project=PROJECT):
    artifacts.put(tx, project, owner, path, identity=BYTES, size=5, at=1)


def test_artifacts_are_listed_by_level(tracked):
    tx = tracked.tx
    for path in ("a.txt", "d/b", "d/e/c", "d0", "d-/x", "dd", "ü/%.txt"):
        put(tx, "run", path)
    put(tx, "run", "elsewhere", project="another")
    assert [(one.path, one.is_directory) for one in artifacts.children(tx, PROJECT, "run")] == [
        ("a.txt", False),
        ("d-", True),
        ("d", True),
        ("d0", False),
        ("dd", False),
        ("ü", True),
    ]
    assert [one.path for one in artifacts.children(tx, PROJECT, "run", "d")] == ["d/b", "d/e"]
    assert artifacts.children(tx, PROJECT, "run", "a.txt") == artifacts.children(tx, PROJECT, "run", "no") == []
    assert artifacts.remove(tx, PROJECT, "run", "d") == 2
    assert [one.path for one in artifacts.tree(tx, PROJECT, "run")] == ["a.txt", "d-/x", "d0", "dd", "ü/%.txt"]


def test_a_path_is_a_file_or_a_directory(tracked):
    put(tracked.tx, "run", "a/b")
    put(tracked.tx, "run", "a/b")
    for path in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(InvalidInput):
            put(tracked.tx, "run", path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        "./a",
        "a//b",
        "a\\..\\b",
        "C:/x",
        "a\x00",
        "a\n",
        "%2e%2e/x",
        "a/%2E%2e/b",
        "x" * 1025,
    ],
)
def test_no_path_leads_out(path):
    with pytest.raises(InvalidInput):
        artifacts.checked_path(path)


@given(st.text(max_size=30))
def test_paths_that_pass_are_plain(path):
    try:
        checked = artifacts.checked_path(path)
    except InvalidInput:
        return
    parts = checked.split("/")
    assert checked == path
    assert not {"", ".", ".."} & set(parts)


def test_the_longest_keys_fit_both_databases(tracked):
    tx, wide = tracked.tx, "\U0001f6eb"
    put(tx, "run", wide * 256)
    run = tracked.run(params={wide * 250: "x"}, metrics={wide * 250: 1.0})
    inputs.log_datasets(tx, PROJECT, run, [DatasetInput(wide * 500, "d" * 36, "local", "{}")])
    model = logged.create(tx, PROJECT, experiment="0", at=1, run=run.id)
    points.log(tx, PROJECT, run.number, [Point(wide * 250, 1.0, 1, 0, model.id, wide * 300, "d" * 36)])
    register(tx, wide * 256, tags={wide * 250: "x"})


def test_logged_models_are_found_by_what_was_measured(tracked):
    tx = tracked.tx
    run = tracked.run()
    made = [
        logged.create(
            tx, PROJECT, experiment="0", at=i, name=f"m{i}", run=run.id, params={"p": str(i)}, tags={"t": "x"}
        )
        for i in range(3)
    ]
    measures = [Point("acc", 0.1 * i, 1, 0, model.id, "test", "d", run.id) for i, model in enumerate(made)]
    points.log(tx, PROJECT, run.number, [*measures, Point("acc", 0.9, 1, 0, made[0].id, "train", "d", run.id)])

    def names(text="", order=(), **more):
        page = logged.search(tx, PROJECT, ["0"], filter_text=text, order_by=order, **more)
        return [model.name for model in page.rows]

    assert names() == ["m2", "m1", "m0"]
    assert names("metrics.acc > 0.15") == ["m2", "m0"]
    assert names("metrics.acc > 0.15", datasets=[("test", "")]) == ["m2"]
    assert names("params.p = '1' AND tags.t = 'x'") == ["m1"]
    assert names(f"source_run_id = '{run.id}' AND name != 'm1'") == ["m2", "m0"]
    assert names(order=[logged.Order("metrics.acc", descending=True)]) == ["m0", "m2", "m1"]
    assert names(order=[logged.Order("metrics.acc", dataset="test")]) == ["m0", "m1", "m2"]
    assert names("status = 'READY'") == []
    logged.finalize(tx, PROJECT, made[1].id, "LOGGED_MODEL_READY", at=9)
    assert names("status = 'READY'") == ["m1"]
    logged.delete_model(tx, PROJECT, made[1].id, at=10)
    with pytest.raises(NotFound):
        logged.get(tx, PROJECT, made[1].id)
    with pytest.raises(NotFound):
        logged.get(tx, "another", made[0].id)


def register(tx, name="delay", source="s", **more):
    model = registered.find(tx, PROJECT, name) or registry.register(tx, PROJECT, name, actor="ada", at=1)
    return registry.create_version(tx, PROJECT, model, source=source, actor="ada", at=2, **more)


def test_versions_count_up_and_pin_their_files(tracked):
    tx = tracked.tx
    first, second = (register(tx, source="runs:/x", files={"MLmodel": BYTES}) for _ in range(2))
    assert (first.number, second.number) == (1, 2)
    assert registered.files(tx, PROJECT, first) == {"MLmodel": BYTES}
    assert versions.find(tx, PROJECT, "model/delay@2").id == second.version
    registry.delete_version(tx, PROJECT, "delay", 2, actor="ada", at=3)
    assert register(tx).number == 3
    with pytest.raises(NotFound):
        registered.version(tx, PROJECT, "delay", 2)
    assert [one.number for one in registered.search_versions(tx, PROJECT, filter_text="name = 'delay'").rows] == [3, 1]
    beyond = registered.search_versions(tx, PROJECT, filter_text="version_number < 3000000000")
    assert len(beyond.rows) == 2


def test_models_of_flows_show_without_a_row(tracked):
    tx = tracked.tx
    made = Version("model", "delay", {"files": {"MLmodel": BYTES}, "run": "abc"})
    versions.put(tx, PROJECT, made, actor="worker", at=5)
    (model,) = registered.search_models(tx, PROJECT, filter_text="name LIKE 'del%'").rows
    assert [one.number for one in model.latest] == [1]
    found = registered.version(tx, PROJECT, "delay", 1)
    assert (found.source, found.run) == (f"mlflow-artifacts:/versions/{made.id[3:]}", "abc")
    registry.change_version(tx, PROJECT, "delay", 1, actor="ada", at=6, description="good")
    assert registered.version(tx, PROJECT, "delay", 1).description == "good"
    assert register(tx).number == 2
    with pytest.raises(Conflict):
        registry.register(tx, PROJECT, "delay", actor="ada", at=7)


def test_aliases_are_refs(tracked):
    tx = tracked.tx
    first, second = register(tx, source="a"), register(tx, source="b")
    for number in (1, 2, 2):
        registry.set_alias(tx, PROJECT, "delay", "best", number, actor="ada", at=3)
    assert refs.get(tx, PROJECT, refs.alias_ref("model", "delay", "best")) == second.version
    assert [move.new for move in refs.log(tx, PROJECT, "alias/model/delay/best")] == [second.version, first.version]
    assert registered.by_alias(tx, PROJECT, "delay", "best").number == 2
    assert registered.get(tx, PROJECT, "delay").aliases == {"best": 2}
    registry.delete_version(tx, PROJECT, "delay", 2, actor="ada", at=4)
    with pytest.raises(NotFound):
        registered.by_alias(tx, PROJECT, "delay", "best")
    for wrong in ("", "latest", "v1", "a b", "a/b"):
        with pytest.raises(InvalidInput):
            registry.set_alias(tx, PROJECT, "delay", wrong, 1, actor="ada", at=3)


def test_a_protected_alias_moves_by_a_change_only(tracked):
    tx = tracked.tx
    register(tx)
    registry.set_alias(tx, PROJECT, "delay", "champion", 1, actor="ada", at=3)  # nothing is protected yet
    snapshot = Snapshot({}).version()
    versions.put(tx, PROJECT, snapshot, actor="ada", at=4)
    refs.move(tx, PROJECT, refs.env_ref("production"), old=None, new=snapshot.id, actor="ada", at=4)
    register(tx, source="other")
    for act in (
        lambda: registry.set_alias(tx, PROJECT, "delay", "champion", 2, actor="ada", at=5),
        lambda: registry.set_alias(tx, PROJECT, "delay", "Production", 2, actor="ada", at=5),
        lambda: registry.transition(tx, PROJECT, "delay", 2, "production", archive=True, actor="ada", at=5),
        lambda: registry.delete_version(tx, PROJECT, "delay", 1, actor="ada", at=5),
        lambda: registry.delete_registered(tx, PROJECT, "delay", actor="ada", at=5),
    ):
        with pytest.raises(PolicyRefused) as refusal:
            act()
        assert "change" in refusal.value.hint
    registry.set_alias(tx, PROJECT, "delay", "candidate", 2, actor="ada", at=5)
    registry.transition(tx, PROJECT, "delay", 2, "archived", archive=False, actor="ada", at=5)


def test_any_name_that_mlflow_takes_can_be_one(tracked):
    tx = tracked.tx
    for name in ("größer als 1", "9 lives", "a" * 200, "x.y-z"):
        assert register(tx, name).number == 1
        assert registered.get(tx, PROJECT, name).name == name
    for name in ("", " ", "a/b", "a:b"):
        with pytest.raises(InvalidInput):
            registry.register(tx, PROJECT, name, actor="ada", at=1)


def test_a_renamed_model_keeps_its_versions_and_frees_its_name(tracked):
    tx = tracked.tx
    register(tx, "old")
    registry.rename(tx, PROJECT, "old", "new", at=5)
    assert registered.version(tx, PROJECT, "new", 1).name == "new"
    assert register(tx, "old").number == 1
    assert register(tx, "new").number == 2
    with pytest.raises(Conflict):
        registry.rename(tx, PROJECT, "old", "new", at=6)


def test_a_deleted_model_starts_again(tracked):
    tx = tracked.tx
    register(tx)
    registry.set_alias(tx, PROJECT, "delay", "best", 1, actor="ada", at=3)
    registry.delete_registered(tx, PROJECT, "delay", actor="ada", at=4)
    assert registered.find(tx, PROJECT, "delay") is None
    assert registered.search_versions(tx, PROJECT).rows == ()
    assert register(tx).number == 1
    assert registered.get(tx, PROJECT, "delay").aliases == {}


def test_prompts_hide_unless_asked_for(tracked):
    tx = tracked.tx
    registry.register(tx, PROJECT, "prompt", actor="ada", at=1, tags={registered.PROMPT_TAG: "true"})
    register(tx, "model")

    def names(text):
        return [model.name for model in registered.search_models(tx, PROJECT, filter_text=text).rows]

    assert names("") == names(f"tag.`{registered.PROMPT_TAG}` != 'true'") == ["model"]
    assert names(f"tag.`{registered.PROMPT_TAG}` = 'true'") == ["prompt"]


def test_stages_show_their_newest(tracked):
    tx = tracked.tx
    for source in "abc":
        register(tx, source=source)
    registry.transition(tx, PROJECT, "delay", 1, "Staging", archive=True, actor="ada", at=5)
    registry.transition(tx, PROJECT, "delay", 2, "staging", archive=True, actor="ada", at=6)
    model = registered.get(tx, PROJECT, "delay")
    assert {one.stage: one.number for one in model.latest} == {"Archived": 1, "Staging": 2, "None": 3}
    assert [one.number for one in registry.latest(model, ["STAGING"])] == [2]
    with pytest.raises(InvalidInput):
        registry.latest(model, ["Elsewhere"])
