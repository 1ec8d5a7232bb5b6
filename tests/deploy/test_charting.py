"""A chart renders, in Helm itself, to the manifests that it was made of; values change what they name."""

import copy
import json
from dataclasses import replace

import helm_python
import pytest
import yaml

from everloop.core.errors import InvalidInput
from everloop.deploy import writing
from everloop.deploy.charting import chart
from everloop.deploy.checking import checked
from everloop.deploy.spec import Deployed, Group
from everloop.deploy.whole import manifests, secrets

IMAGE = "registry.example/shop:7"
GROUPS = (Group("small", 2.0), Group("large", 16.0, 64 << 30, gpus=1, least=1, most=3))
PLAIN = Deployed(IMAGE, namespace="shop")
WHOLE = Deployed(
    IMAGE,
    name="shop",
    namespace="shop",
    objects="s3://bucket/shop",
    ray_version="2.50.0",
    groups=GROUPS,
    models=(Group("models", 2.0, least=1, most=4),),
    variables={"EVERLOOP_NOTE": 'it\'s "so": yes', "EVERLOOP_LINES": "a\nb"},
)


def rendered(deployed, folder, values=None, namespace="shop"):
    """What Helm makes of the chart: the manifests, in the order of their files."""
    writing.files(chart(deployed), folder)
    with helm_python.Chart.load(folder) as held:
        texts = held.render(values, name="r", namespace=namespace)
    return [yaml.safe_load(texts[name]) for name in sorted(texts) if name.endswith(".yaml")]


def without_annotations(made):
    bare = copy.deepcopy(made)
    for one in bare:
        one["metadata"].pop("annotations", None)
        if one["kind"] == "Deployment":
            one["spec"]["template"]["metadata"].pop("annotations")
    return bare


def of_kind(made, kind):
    return next(one for one in made if one["kind"] == kind)


@pytest.mark.parametrize("deployed", [PLAIN, WHOLE], ids=["plain", "with Ray"])
def test_a_chart_renders_to_the_manifests(deployed, tmp_path):
    made = rendered(deployed, tmp_path)
    assert without_annotations(made) == manifests(deployed)
    assert of_kind(made, "PersistentVolumeClaim")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize("deployed", [PLAIN, WHOLE], ids=["plain", "with Ray"])
def test_helm_finds_nothing_wrong_with_it(deployed, tmp_path):
    folder = tmp_path / deployed.name
    writing.files(chart(deployed), folder)
    found = helm_python.lint(folder, strict=True)
    said = [message["error"] for message in found["messages"]]
    assert all("icon is recommended" in one for one in said), said
    assert found["errors"] == []


def test_values_change_what_they_name_and_nothing_else(tmp_path):
    settings = {**of_kind(manifests(WHOLE), "ConfigMap")["data"], "EVERLOOP_WORKERS": "3"}
    values = {
        "image": "registry.example/shop:8",
        "storage": "1Ti",
        "resources": {"requests": {"cpu": 8, "memory": "16Gi"}, "limits": {"memory": "16Gi"}},
        "entryNamespace": "traefik",
        "operatorNamespace": "ray",
        "settings": settings,
        "nodes": {"steps": {"large": {"least": 0, "most": 20}}, "models": {"models": {"most": 9}}},
    }
    made = rendered(WHOLE, tmp_path, values, namespace="elsewhere")
    large = Group("large", 16.0, 64 << 30, gpus=1, least=0, most=20)
    wanted = manifests(
        Deployed(
            "registry.example/shop:8",
            name="shop",
            namespace="elsewhere",
            objects="s3://bucket/shop",
            ray_version="2.50.0",
            groups=(GROUPS[0], large),
            models=(Group("models", 2.0, least=1, most=9),),
            variables=WHOLE.variables,
            storage="1Ti",
            cores=8,
            memory=16 << 30,
            entry="traefik",
            operator="ray",
            workers=3,
        )
    )
    text = writing.text(wanted, {}).replace("16384Mi", "16Gi").replace("cpu: '8'", "cpu: 8")
    assert without_annotations(made) == list(yaml.safe_load_all(text))


def test_one_namespace_may_be_both_the_entrys_and_the_operators(tmp_path):
    both = replace(WHOLE, entry="shared", operator="shared")
    assert without_annotations(rendered(both, tmp_path / "whole")) == manifests(both)
    plain = replace(PLAIN, entry=PLAIN.operator)
    assert without_annotations(rendered(plain, tmp_path / "plain")) == manifests(plain)


def test_pods_start_again_when_settings_change(tmp_path):
    before, after = (
        of_kind(rendered(PLAIN, tmp_path, values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
        for values in ({}, {"settings": {"EVERLOOP_WORKERS": "2"}})
    )
    assert before.keys() == after.keys()
    assert before != after


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image": "Not An Image"}, "image"),
        ({"storage": "20 GB"}, "storage"),
        ({"imagee": "x"}, "imagee"),
        ({"settings": {"EVERLOOP_PORT": "80"}}, "EVERLOOP_PORT"),
        ({"settings": {"EVERLOOP_WORKERS": 3}}, "EVERLOOP_WORKERS"),
        ({"nodes": {"steps": {"huge": {"least": 0, "most": 1}}}}, "huge"),
        ({"nodes": {"steps": {"small": {"most": 0}}}}, "most"),
        ({"entryNamespace": "a b"}, "entryNamespace"),
    ],
)
def test_helm_refuses_values_that_no_cluster_would_take(values, said, tmp_path):
    writing.files(chart(WHOLE), tmp_path)
    with helm_python.Chart.load(tmp_path) as held, pytest.raises(helm_python.HelmError, match=said):
        held.render(values, name="r", namespace="shop")


def test_what_is_rendered_hangs_together(tmp_path):
    made = without_annotations(rendered(WHOLE, tmp_path, {"nodes": {"steps": {"small": {"most": 9}}}}))
    checked(made, secrets(WHOLE))


def test_what_helm_would_read_as_an_expression_is_refused():
    with pytest.raises(InvalidInput, match="Helm would read"):
        chart(Deployed(IMAGE, objects="s3://b/x", ray_version="2.50.0-{{ .x }}", groups=GROUPS))


def test_values_are_those_of_the_deployment():
    files = chart(WHOLE)
    values = yaml.safe_load(files["values.yaml"])
    assert values["nodes"] == {
        "steps": {"small": {"least": 0, "most": 4}, "large": {"least": 1, "most": 3}},
        "models": {"models": {"least": 1, "most": 4}},
    }
    schema = json.loads(files["values.schema.json"])
    assert schema["properties"].keys() == {*values, "global"}
    assert "nodes" not in yaml.safe_load(chart(PLAIN)["values.yaml"])
    assert "shop-database: url" in files["templates/NOTES.txt"]
