"""The registry's semantics over ours, told with the real client: numbers, aliases, incarnations, protection, seals."""

import httpx2
import pytest

from everloop.catalog import refs, versions
from everloop.catalog.browsing import aliases
from everloop.core.clock import SystemClock
from everloop.core.snapshot import Snapshot

API = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
pytestmark = pytest.mark.filterwarnings("ignore:.*stages will be removed:FutureWarning")


@pytest.fixture(scope="module")
def client(served):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patched.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=served.url, registry_uri=served.url)


@pytest.fixture
def source(client, tmp_path):
    """A run with a model's files, as an address."""
    run = client.create_run("0").info.run_id
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    client.log_artifact(run, str(tmp_path / "MLmodel"), "model")
    return f"runs:/{run}/model"


def content(served, client, name, version):
    place = client.get_model_version_download_uri(name, version).removeprefix("mlflow-artifacts:/")
    return httpx2.get(f"{served.url}{PROXY}/{place}/MLmodel")


def test_versions_count_up_and_numbers_are_never_given_twice(client, source):
    client.create_registered_model("counted")
    numbers = [int(client.create_model_version("counted", source).version) for _ in range(4)]
    assert numbers == [1, 2, 3, 4]
    client.delete_model_version("counted", "4")
    client.delete_model_version("counted", "2")
    assert int(client.create_model_version("counted", source).version) == 5
    found = client.search_model_versions("name = 'counted'", order_by=["version_number ASC"])
    assert [int(one.version) for one in found] == [1, 3, 5]
    paged = client.search_model_versions("name = 'counted'", order_by=["version_number DESC"], max_results=2)
    assert [int(one.version) for one in paged] == [5, 3]
    last = client.search_model_versions(
        "name = 'counted'", order_by=["version_number DESC"], max_results=2, page_token=paged.token
    )
    assert ([int(one.version) for one in last], last.token or "") == ([1], "")


def test_a_name_that_comes_back_is_another_incarnation(served, client, source, tmp_path):
    """What the old number meant stays what it was, under its id; the new number is a new version."""
    client.create_registered_model("reborn", tags={"first": "yes"})
    client.create_model_version("reborn", source)
    client.set_registered_model_alias("reborn", "best", "1")
    client.set_model_version_tag("reborn", "1", "old", "yes")
    old_place = client.get_model_version_download_uri("reborn", "1").removeprefix("mlflow-artifacts:/")
    with served.catalog.read() as tx:
        old = versions.find(tx, "default", "model/reborn@1").id
    before = SystemClock().now()
    client.delete_registered_model("reborn")
    client.create_registered_model("reborn")
    assert client.get_registered_model("reborn").tags == {}
    assert client.search_model_versions("name = 'reborn'") == []
    run = client.create_run("0").info.run_id
    (tmp_path / "MLmodel").write_text("flavors: {other: {}}\n")
    client.log_artifact(run, str(tmp_path / "MLmodel"), "model")
    again = client.create_model_version("reborn", f"runs:/{run}/model")
    assert (int(again.version), again.tags, list(again.aliases)) == (1, {}, [])
    with served.catalog.read() as tx:
        new = versions.find(tx, "default", "model/reborn@1").id
        assert new != old
        assert versions.get(tx, "default", old).name == "reborn"
        ref = refs.alias_ref("model", "reborn", "best")
        assert refs.get(tx, "default", ref) is None
        assert refs.at(tx, "default", ref, before) == old
        assert aliases.at(tx, "default", "model", "reborn", before) == {"best": old}
        assert [move.new for move in refs.log(tx, "default", ref)] == [None, old]
    assert httpx2.get(f"{served.url}{PROXY}/{old_place}/MLmodel").text == "flavors: {}\n"
    assert content(served, client, "reborn", "1").text == "flavors: {other: {}}\n"


def test_the_same_source_in_another_incarnation_is_another_registration(served, client, source):
    client.create_registered_model("same")
    client.create_model_version("same", source)
    client.delete_registered_model("same")
    client.create_registered_model("same")
    assert int(client.create_model_version("same", source).version) == 1
    assert [int(one.version) for one in client.search_model_versions("name = 'same'")] == [1]
    assert content(served, client, "same", "1").status_code == 200


def test_an_alias_keeps_its_history_forever(served, client, source):
    client.create_registered_model("aliased")
    for _ in range(3):
        client.create_model_version("aliased", source)
    moments = []
    for number in ("1", "3", "2"):
        client.set_registered_model_alias("aliased", "best", number)
        moments.append((SystemClock().now(), number))
    client.delete_registered_model_alias("aliased", "best")
    client.delete_registered_model_alias("aliased", "best")  # gone already: fine
    with served.catalog.read() as tx:
        for at, number in moments:
            (lived,) = aliases.at(tx, "default", "model", "aliased", at).values()
            assert lived == versions.find(tx, "default", f"model/aliased@{number}").id
        assert aliases.at(tx, "default", "model", "aliased", SystemClock().now()) == {}


def test_what_a_protected_environment_serves_moves_by_changes_only(served, client, source):
    from mlflow.exceptions import RestException

    client.create_registered_model("guarded")
    client.create_model_version("guarded", source)
    with served.catalog.write() as tx:
        held = versions.find(tx, "default", "model/guarded@1").id
        snapshot = Snapshot({"model/guarded": held}).version()
        versions.put(tx, "default", snapshot, actor="ada", at=1)
        refs.move(tx, "default", refs.env_ref("production"), old=None, new=snapshot.id, actor="ada", at=1)
    try:
        moves = (
            lambda: client.set_registered_model_alias("guarded", "champion", "1"),
            lambda: client.set_registered_model_alias("guarded", "Production", "1"),
            lambda: client.delete_registered_model_alias("guarded", "champion"),
            lambda: client.transition_model_version_stage("guarded", "1", "Production"),
        )
        for move in moves:
            with pytest.raises(RestException, match="/default/environments/production") as refused:
                move()
            assert refused.value.error_code == "PERMISSION_DENIED"
        for alias in ("production", "champion"):  # who only reads finds what the environment holds
            assert client.get_model_version_by_alias("guarded", alias).version == "1"
        with pytest.raises(RestException, match="alias staging not found"):
            client.get_model_version_by_alias("guarded", "staging")
        client.set_registered_model_alias("guarded", "candidate", "1")
        assert client.get_model_version("guarded", "1").current_stage == "None"
    finally:
        with served.catalog.write() as tx:
            refs.delete(tx, "default", refs.env_ref("production"), old=snapshot.id, actor="ada", at=2)


def test_evidence_cites_what_was_pinned_while_the_run_goes_on(served, client, source):
    """A finished run is tagged, resumed and overwritten; the version's files are those of its registration."""
    import mlflow

    run = source.split("/")[1]
    client.set_terminated(run)
    client.create_registered_model("pinned down")
    made = client.create_model_version("pinned down", source, run)
    client.set_tag(run, "reviewed", "yes")
    client.log_metric(run, "later", 1.0)
    client.update_run(run, status="RUNNING")
    client.log_text(run, "flavors: {changed: {}}\n", "model/MLmodel")
    client.set_terminated(run, "FAILED")
    found = client.get_run(run)
    assert (found.info.status, found.data.tags["reviewed"], found.data.metrics) == ("FAILED", "yes", {"later": 1.0})
    assert content(served, client, "pinned down", made.version).text == "flavors: {}\n"
    copied = client.copy_model_version("models:/pinned down/1", "copied")
    assert content(served, client, "copied", copied.version).text == "flavors: {}\n"
    assert mlflow.__version__


def test_a_version_names_the_run_of_its_source(client, source):
    from mlflow.exceptions import RestException

    client.create_registered_model("honest")
    other = client.create_run("0").info.run_id
    with pytest.raises(RestException, match="must identify the run that contains the source"):
        client.create_model_version("honest", source, other)
    assert client.create_model_version("honest", source).run_id == source.split("/")[1]
    for bucket in ("s3://bucket/model", "gs://bucket/a%20b"):
        assert client.create_model_version("honest", bucket).source == bucket


def test_deleting_frees_the_names(client, source):
    client.create_registered_model("freed")
    client.create_model_version("freed", source)
    client.rename_registered_model("freed", "freed and renamed")
    client.create_registered_model("freed")
    assert int(client.create_model_version("freed", source).version) == 1
    assert int(client.get_model_version("freed and renamed", "1").version) == 1
    for name in ("freed", "freed and renamed"):
        client.delete_registered_model(name)
    assert client.search_registered_models("name LIKE 'freed%'") == []
    client.create_registered_model("freed and renamed")


def test_latest_versions_by_both_methods(served, client, source):
    client.create_registered_model("staged")
    for _ in range(3):
        client.create_model_version("staged", source)
    client.transition_model_version_stage("staged", "1", "Archived")
    client.transition_model_version_stage("staged", "2", "Staging")
    assert {one.current_stage: int(one.version) for one in client.get_latest_versions("staged")} == {
        "Archived": 1,
        "Staging": 2,
        "None": 3,
    }
    client.transition_model_version_stage("staged", "3", "staging", archive_existing_versions=True)
    assert client.get_model_version("staged", "2").current_stage == "Archived"
    with httpx2.Client(base_url=served.url) as web:
        body = {"name": "staged", "stages": ["Staging"]}
        got = web.get(f"{API}/registered-models/get-latest-versions", params=body).json()
        assert got == web.post(f"{API}/registered-models/get-latest-versions", json=body).json()
        assert [one["version"] for one in got["model_versions"]] == ["3"]
