"""`everloop deploy manifests`, as people call it."""

import json

import pytest
import yaml

from everloop.cli.main import main
from everloop.cli.options import given

IMAGE = "registry.example/shop:7"


@pytest.fixture
def everloop(tmp_path, monkeypatch, capsys):
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        given.clear()
        capsys.readouterr()
        code = main(["deploy", "manifests", *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    yield run
    given.clear()


def test_it_prints_what_kubectl_takes_and_needs_no_workspace(everloop, tmp_path):
    code, said, _ = everloop(IMAGE, "--namespace", "shop", "--objects", "s3://bucket/shop")
    assert code == 0
    documents = list(yaml.safe_load_all(said))
    assert {one["metadata"]["namespace"] for one in documents} == {"shop"}
    assert "Deployment" in {one["kind"] for one in documents}
    assert list(tmp_path.iterdir()) == []


def test_it_writes_files_and_says_which_secrets_are_needed(everloop, tmp_path):
    code, said, _ = everloop(IMAGE, "--to", "out")
    assert code == 0
    assert "everloop-database: url" in said
    code, said, _ = everloop(IMAGE, "--to", "out", "--json")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        path.rpartition("/")[2] for path in json.loads(said)["files"]
    ]


def test_it_writes_a_chart_over_the_one_of_last_time_and_over_nothing_else(everloop, tmp_path):
    for _ in range(2):
        code, said, _ = everloop(IMAGE, "--helm", "--to", "chart")
        assert code == 0
        assert "a Helm chart in chart" in said
    assert {"Chart.yaml", "values.yaml", "templates"} <= {path.name for path in (tmp_path / "chart").iterdir()}
    (tmp_path / "chart" / "templates" / "mine.yaml").write_text("a: 1")
    code, _, told = everloop(IMAGE, "--helm", "--to", "chart")
    assert code != 0
    assert "templates/mine.yaml" in told
    code, _, told = everloop(IMAGE, "--helm")
    assert code != 0
    assert "--to" in told


def test_nodes_of_ray_are_of_the_sizes_that_production_holds(everloop):
    given.clear()
    assert main(["init"]) == 0
    code, said, _ = everloop(
        IMAGE, "--ray", "--objects", "s3://b/x", "--ray-version", "2.50.0", "--most", "7", "--json"
    )
    assert code == 0
    (cluster,) = [one for one in json.loads(said)["manifests"] if one["kind"] == "RayCluster"]
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    assert groups["large"]["rayStartParams"]["num-cpus"] == "16"
    assert {group["maxReplicas"] for group in groups.values()} == {7}


def test_what_cannot_be_is_refused_with_a_hint(everloop):
    code, _, said = everloop(IMAGE, "--name", "Shop!")
    assert code == 2
    assert "shop" in said
    given.clear()
    assert main(["init"]) == 0
    assert everloop(IMAGE, "--ray", "--ray-version", "2.50.0")[0] == 2
