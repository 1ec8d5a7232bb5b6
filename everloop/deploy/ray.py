"""Clusters of Ray by the KubeRay operator (`ray.io/v1`): one for steps, and services for models.

Every process has the token of the deployment's own secret; no cluster is open. The head runs no steps: when a step dies
of memory, the cluster lives. What nodes get of the deployment is the object store, never the catalog's secret.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from everloop.core.errors import InvalidInput
from everloop.deploy.objects import (
    OBJECTS,
    RAY,
    Manifest,
    container_security,
    metadata,
    pod_security,
    resources,
    secret_variable,
    variables_of,
)
from everloop.deploy.spec import STORE_SHARE, Deployed, Group, checked_label

API = "ray.io/v1"
CLIENT = 10001
"""The port at which a driver outside the cluster joins (`ray://`)."""
SERVE = 8000
_HEAD = Group("head", 1.0, 2 << 30, most=1)
_PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": CLIENT}


def cluster(deployed: Deployed) -> Manifest:
    """The RayCluster that steps run on."""
    about = metadata(deployed, cluster_name(deployed), "ray")
    return {"apiVersion": API, "kind": "RayCluster", "metadata": about, "spec": cluster_spec(deployed, deployed.groups)}


def service(
    deployed: Deployed, name: str, applications: Sequence[Mapping[str, Any]], groups: Sequence[Group]
) -> Manifest:
    """A RayService: these applications of Ray Serve (each with `name`, `import_path`, `route_prefix`, …) on own nodes.

    A changed application is brought up beside the old one by the operator, which then moves the traffic.
    """
    checked_label(name, "a service")
    if not applications:
        raise InvalidInput(f"service {name} has no application")
    config = {"http_options": {"host": "0.0.0.0", "port": SERVE}, "applications": [dict(one) for one in applications]}  # noqa: S104 - in a pod, behind its network policy
    ports = {**_PORTS, "serve": SERVE}
    return {
        "apiVersion": API,
        "kind": "RayService",
        "metadata": metadata(deployed, name, "ray"),
        "spec": {
            "serveConfigV2": str(yaml.safe_dump(config, sort_keys=False)),
            "rayClusterConfig": cluster_spec(deployed, groups, ports=ports),
        },
    }


def models(deployed: Deployed) -> Manifest:
    """The RayCluster that models answer on: the gateway places them there by Ray Serve, and finds them again.

    No RayService: its applications are those that a file lists, while ours follow reviewed changes, and its way to
    upgrade, another cluster beside, would leave behind what the gateway placed.
    """
    about = metadata(deployed, f"{deployed.name}-models", "ray")
    return {"apiVersion": API, "kind": "RayCluster", "metadata": about, "spec": cluster_spec(deployed, deployed.models)}


def models_address(deployed: Deployed) -> str:
    """Where nodes join that cluster: the service that the operator makes for its head."""
    return f"{deployed.name}-models-head-svc.{deployed.namespace}.svc:{_PORTS['gcs-server']}"


def gateway_node(deployed: Deployed) -> Manifest:
    """A container beside the gateway that makes its pod a node of that cluster, with no cores: a driver needs one."""
    script = f"exec ray start --address={models_address(deployed)} --num-cpus=0 --object-store-memory=100000000 --block"
    return {
        "name": "ray-node",
        "image": deployed.image,
        "command": ["sh", "-c", script],
        "env": [*token(deployed), {"name": "HOME", "value": "/tmp"}],  # noqa: S108 - the pod's own
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - sockets that the gateway's driver asks
        "resources": resources(0.5, 1 << 30),
        "securityContext": container_security(read_only=True),
    }


def cluster_name(deployed: Deployed) -> str:
    """How the cluster for steps is called."""
    return f"{deployed.name}-ray"


def client_address(deployed: Deployed) -> str:
    """Where a driver joins the cluster for steps: the service that the operator makes for its head."""
    return f"ray://{cluster_name(deployed)}-head-svc.{deployed.namespace}.svc:{CLIENT}"


def token(deployed: Deployed) -> list[Manifest]:
    """The variables by which every process of a cluster, and who joins it, knows the others."""
    held = secret_variable("RAY_AUTH_TOKEN", f"{deployed.name}-{RAY}", "token")
    return [{"name": "RAY_AUTH_MODE", "value": "token"}, held]


def cluster_spec(deployed: Deployed, groups: Sequence[Group], ports: Mapping[str, int] = _PORTS) -> Manifest:
    """The `spec` of a RayCluster, which a RayService has inside it; nodes come and go with the work."""
    return {
        "rayVersion": deployed.ray_version,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"idleTimeoutSeconds": 120, "upscalingMode": "Default"},
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0", **_store(_HEAD)},  # noqa: S104 - as above
            "template": _template(deployed, "ray-head", _HEAD, ports),
        },
        "workerGroupSpecs": [
            {
                "groupName": group.name,
                "replicas": group.least,
                "minReplicas": group.least,
                "maxReplicas": group.most,
                "rayStartParams": {
                    "num-cpus": str(max(1, int(group.cores))),
                    "memory": str(group.whole_memory - int(_store(group)["object-store-memory"])),
                    **({"num-gpus": str(group.gpus)} if group.gpus else {}),
                    **_store(group),
                },
                "template": _template(deployed, "ray-worker", group, {}),
            }
            for group in groups
        ],
    }


def _store(group: Group) -> dict[str, str]:
    return {"object-store-memory": str(int(group.whole_memory * STORE_SHARE))}


def _template(deployed: Deployed, container: str, group: Group, ports: Mapping[str, int]) -> Manifest:
    held: Manifest = {
        "name": container,
        "image": deployed.image,
        "env": [*token(deployed), {"name": "HOME", "value": "/tmp"}],  # noqa: S108 - the pod's own
        "envFrom": [variables_of(f"{deployed.name}-{OBJECTS}")],
        "resources": resources(group.cores, group.whole_memory, group.gpus),
        "securityContext": container_security(read_only=False),
    }
    if ports:
        held["ports"] = [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()]
    pod: Manifest = {"securityContext": pod_security(), "containers": [held]}
    if not ports:  # the head has the operator's own account, for the autoscaler beside it asks the cluster's API
        pod |= {"serviceAccountName": deployed.name, "automountServiceAccountToken": False}
    return {"metadata": {"labels": deployed.part("ray")}, "spec": pod}
