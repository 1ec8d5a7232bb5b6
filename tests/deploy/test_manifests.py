"""Manifests are what their kinds take, hang together, and mistakes in them are found. No cluster is used."""

import copy

import pytest
import yaml

from everloop.core.errors import InvalidInput
from everloop.deploy import ray, writing
from everloop.deploy.checking import amount, checked, shape, templates
from everloop.deploy.spec import STORE_SHARE, Deployed, Group, slug
from everloop.deploy.whole import manifests, secrets

IMAGE = "registry.example/shop:7"
GROUPS = (Group("small", 2.0), Group("large", 16.0, 64 << 30, gpus=1, least=1, most=3))


def deployed(**more):
    given = {"objects": "s3://bucket/shop", "ray_version": "2.50.0", "groups": GROUPS}
    return Deployed(IMAGE, **{**given, **more})


def of_kind(made, kind):
    (found,) = [one for one in made if one["kind"] == kind]
    return found


def containers(made):
    for one in made:
        for _, template in templates(one):
            yield from template["spec"].get("initContainers", ())
            yield from template["spec"]["containers"]


@pytest.fixture
def made():
    return manifests(deployed())


def test_all_of_it_is_there_and_the_text_reads_back_as_the_same(made):
    kinds = [one["kind"] for one in made]
    assert kinds == [
        "ServiceAccount",
        "ConfigMap",
        "PersistentVolumeClaim",
        "NetworkPolicy",
        "NetworkPolicy",
        "RayCluster",
        "Deployment",
        "Service",
    ]
    text = writing.text(made, secrets(deployed()))
    assert list(yaml.safe_load_all(text)) == made
    assert "everloop-database: url" in text


def test_without_nodes_there_is_no_ray():
    plain = manifests(Deployed(IMAGE))
    assert {one["kind"] for one in plain} & {"RayCluster", "RayService"} == set()
    assert secrets(Deployed(IMAGE)).keys() == {"everloop-database", "everloop-objects"}


def test_no_process_is_root_or_gains_rights_and_no_secret_is_written_down(made):
    for container in containers(made):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        for variable in container["env"]:
            if "TOKEN" in variable["name"] or "DATABASE" in variable["name"]:
                assert "secretKeyRef" in variable["valueFrom"]
    for one in made:
        for _, template in templates(one):
            assert template["spec"]["securityContext"]["runAsNonRoot"] is True


def test_every_node_of_ray_has_the_token_and_none_has_the_catalog(made):
    for _, template in templates(of_kind(made, "RayCluster")):
        (container,) = template["spec"]["containers"]
        held = {variable["name"]: variable for variable in container["env"]}
        assert held["RAY_AUTH_MODE"]["value"] == "token"
        assert held["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "everloop-ray", "key": "token"}
        assert "EVERLOOP_DATABASE" not in held
        assert [source["secretRef"]["name"] for source in container["envFrom"]] == ["everloop-objects"]


def test_a_node_holds_a_step_of_its_group_and_the_head_holds_none(made):
    spec = of_kind(made, "RayCluster")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group, node in zip(GROUPS, spec["workerGroupSpecs"], strict=True):
        (container,) = node["template"]["spec"]["containers"]
        limit = amount(container["resources"]["limits"]["memory"])
        steps, store = (int(node["rayStartParams"][name]) for name in ("memory", "object-store-memory"))
        assert steps >= (group.memory or 0)
        assert steps + store <= limit
        assert store == pytest.approx(limit * STORE_SHARE, rel=0.01)
        assert node["rayStartParams"]["num-cpus"] == f"{group.cores:g}"
        assert int(container["resources"]["limits"].get("nvidia.com/gpu", 0)) == group.gpus
        assert (node["minReplicas"], node["maxReplicas"]) == (group.least, group.most)


def test_one_pod_at_a_time_has_the_volume(made):
    spec = of_kind(made, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_the_workspace_is_made_once_with_the_policy_that_was_asked():
    (first,) = of_kind(manifests(deployed(policy="team")), "Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert first["command"][-1].endswith("everloop init --policy team")
    assert "signing.pem" in first["command"][-1]


def test_who_may_come_in_is_said_for_both(made):
    policies = {one["metadata"]["name"]: one["spec"] for one in made if one["kind"] == "NetworkPolicy"}
    assert policies["everloop-server"]["ingress"][0]["ports"] == [{"port": "http", "protocol": "TCP"}]
    for policy in policies.values():
        assert policy["policyTypes"] == ["Ingress"]
        assert all(rule["from"] for rule in policy["ingress"])


def test_models_have_a_cluster_of_which_the_gateways_pod_is_a_node_without_cores():
    wanted = deployed(groups=(), models=(Group("models", 2.0, least=1, most=4),))
    made = manifests(wanted)
    cluster, server = of_kind(made, "RayCluster"), of_kind(made, "Deployment")
    assert cluster["metadata"]["name"] == "everloop-models"
    gateway, node = server["spec"]["template"]["spec"]["containers"]
    held = {variable["name"]: variable for variable in gateway["env"]}
    address = "everloop-models-head-svc.everloop.svc:6379"
    assert held["EVERLOOP_SERVING_RAY"]["value"] == address
    assert "secretKeyRef" in held["RAY_AUTH_TOKEN"]["valueFrom"]
    assert f"--address={address} --num-cpus=0" in node["command"][-1]
    assert server["spec"]["template"]["spec"]["shareProcessNamespace"]  # the driver looks for its node among processes
    assert "shareProcessNamespace" not in of_kind(manifests(deployed()), "Deployment")["spec"]["template"]["spec"]
    assert "EVERLOOP_DATABASE" not in {variable["name"] for variable in node["env"]}
    shared = [mount for mount in gateway["volumeMounts"] if mount["mountPath"] == "/tmp"]
    assert shared == node["volumeMounts"]
    (policy,) = [one for one in made if one["metadata"]["name"] == "everloop-server"]
    assert policy["spec"]["ingress"][1]["from"][0]["podSelector"]["matchLabels"]["everloop/part"] == "ray"
    assert "everloop-ray" in secrets(wanted)
    both = manifests(deployed(models=wanted.models))
    assert [one["metadata"]["name"] for one in both if one["kind"] == "RayCluster"] == [
        "everloop-ray",
        "everloop-models",
    ]
    with pytest.raises(InvalidInput, match="object store"):
        deployed(groups=(), models=wanted.models, objects="")


def test_a_service_of_models_is_written_like_the_cluster():
    applications = [{"name": "delay", "import_path": "everloop.serving:app", "route_prefix": "/delay"}]
    service = ray.service(deployed(), "delay", applications, [Group("models", 1.0, 2 << 30, least=1, most=4)])
    checked([*manifests(deployed()), service], secrets(deployed()))
    assert yaml.safe_load(service["spec"]["serveConfigV2"])["applications"] == applications
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert {port["name"] for port in head["ports"]} >= {"serve", "dashboard"}
    with pytest.raises(InvalidInput, match="no application"):
        ray.service(deployed(), "delay", [], GROUPS)


def _set(path, value):
    def change(made):
        at = made
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value

    return change


POD = ("spec", "template", "spec")
WRONG = [
    ("Deployment", _set(("spec", "replica"), 1), "replica: Extra inputs"),
    ("Deployment", _set(("spec", "replicas"), "1"), "spec.replicas"),
    ("Deployment", _set(("spec", "selector", "matchLabels"), {"app": "other"}), "selects not its own pods"),
    ("Deployment", _set((*POD, "containers", 0, "livenessProbe", "httpGet", "port"), "web"), "'web', which it has not"),
    ("Deployment", _set((*POD, "containers", 0, "volumeMounts", 0, "name"), "data"), "no volume data"),
    ("Deployment", _set((*POD, "volumes", 0, "persistentVolumeClaim", "claimName"), "x"), "no claim x"),
    ("Deployment", _set((*POD, "serviceAccountName"), "admin"), "no service account admin"),
    ("Deployment", _set((*POD, "containers", 0, "envFrom", 0, "configMapRef", "name"), "x"), "no ConfigMap x"),
    ("Deployment", _set((*POD, "containers", 0, "env", 0, "valueFrom", "secretKeyRef", "key"), "uri"), "none such"),
    ("Deployment", _set((*POD, "containers", 0, "resources", "requests", "memory"), "8Gi"), "more memory"),
    ("Deployment", _set((*POD, "containers", 0, "resources", "requests", "memory"), "8 GB"), "requests.memory"),
    ("Deployment", _set((*POD, "containers", 0, "securityContext", "privileged"), True), "privileged"),
    ("Deployment", _set(("metadata", "name"), "Everloop_1"), "metadata.name"),
    ("Service", _set(("spec", "selector"), {"app": "other"}), "selects not any pod"),
    ("Service", _set(("spec", "ports", 0, "targetPort"), "web"), "no port 'web'"),
    ("Service", _set(("spec", "ports", 0, "port"), 70000), "spec.ports.0.port"),
    ("RayCluster", _set(("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0), "num-cpus"),
    ("RayCluster", _set(("spec", "workerGroupSpecs", 0, "replicas"), 9), "minReplicas <= replicas"),
    ("RayCluster", _set(("spec", "workerGroupSpecs", 0, "groupName"), "large"), "two groups of one name"),
    ("RayCluster", _set(("spec", "headGroupSpecs"), {}), "headGroupSpecs: Extra inputs"),
    ("RayCluster", _set(("apiVersion",), "ray.io/v2"), "no shape"),
    ("NetworkPolicy", _set(("spec", "ingress", 0, "from"), []), "spec.ingress.0.from"),
]


@pytest.mark.parametrize(("kind", "change", "said"), WRONG, ids=[f"{kind}: {said}" for kind, _, said in WRONG])
def test_a_mistake_is_found_and_its_place_said(made, kind, change, said):
    spoilt = copy.deepcopy(made)
    change(next(one for one in spoilt if one["kind"] == kind))
    with pytest.raises(InvalidInput, match=said) as caught:
        checked(spoilt, secrets(deployed()))
    assert kind in str(caught.value) or kind in said or "ray.io/v2" in str(caught.value)


def test_every_required_field_is_missed(made):
    """Take out each field of each manifest in turn: what Kubernetes requires is asked for by the shape too."""
    required = {
        "Deployment": "selector",
        "Service": "ports",
        "RayCluster": "headGroupSpec",
        "NetworkPolicy": "podSelector",
    }
    for kind, name in required.items():
        spoilt = copy.deepcopy(next(one for one in made if one["kind"] == kind))
        del spoilt["spec"][name]
        with pytest.raises(InvalidInput, match="Field required"):
            shape(spoilt)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "Ever Loop"}, "cannot name a deployment"),
        ({"name": "x" * 41}, "cannot name a deployment"),
        ({"namespace": "-x"}, "namespace"),
        ({"policy": "none"}, "is no policy"),
        ({"storage": "much"}, "no size of a volume"),
        ({"port": 0}, "more than 0"),
        ({"objects": ""}, "an object store that all of them reach"),
        ({"ray_version": ""}, "need its version"),
        ({"groups": (Group("a"), Group("a"))}, "two groups"),
    ],
)
def test_what_no_cluster_would_take_is_refused(given, said):
    with pytest.raises(InvalidInput, match=said):
        deployed(**given)


def test_an_image_and_a_group_are_named_rightly():
    for image in ("", "Image:1", "a b"):
        with pytest.raises(InvalidInput, match="no image"):
            Deployed(image)
    for wrong in ({"name": "a", "most": 0}, {"name": "a", "least": 5}, {"name": "A"}, {"name": "a", "cores": 0.0}):
        with pytest.raises(InvalidInput):
            Group(**wrong)
    assert slug("GPU large!") == "gpu-large"


def test_files_are_written_in_order_and_not_among_others(made, tmp_path):
    written = writing.files(writing.named(made), tmp_path / "out")
    assert [path.name[:2] for path in written] == [f"{n:02d}" for n in range(len(made))]
    assert [yaml.safe_load(path.read_text()) for path in written] == made
    assert writing.files(writing.named(made), tmp_path / "out") == written
    (tmp_path / "out" / "other.yaml").write_text("")
    with pytest.raises(InvalidInput, match=r"holds other\.yaml"):
        writing.files(writing.named(made), tmp_path / "out")
