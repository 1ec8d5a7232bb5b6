"""The plain objects: the pod with server, gateway and workers, and what it needs.

Secrets are only named: who deploys makes them, and no value of one passes through here.
"""

from collections.abc import Sequence
from typing import Any

from everloop.deploy.spec import Deployed, cores_text, memory_text

Manifest = dict[str, Any]
HOME = "/var/lib/everloop"
DATABASE, OBJECTS, RAY = "database", "objects", "ray"
"""Secrets, behind the deployment's name: `url`; the variables that open the object store; `token`."""
_USER = 1000
_PUBLIC = "http"


def metadata(deployed: Deployed, name: str, part: str = "") -> Manifest:
    """Name, namespace, labels."""
    return {
        "name": name,
        "namespace": deployed.namespace,
        "labels": deployed.part(part) if part else dict(deployed.labels),
    }


def secret_variable(name: str, secret: str, key: str) -> Manifest:
    """A variable whose value a secret holds."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def variables_of(secret: str) -> Manifest:
    """All that a secret holds, as variables; nothing where there is no such secret."""
    return {"secretRef": {"name": secret, "optional": True}}


def resources(cores: float, memory: int, gpus: int = 0) -> Manifest:
    """Requests and limits: memory is what it asks for and no more, cores may be borrowed where some are free."""
    amounts = {"cpu": cores_text(cores), "memory": memory_text(memory)}
    held = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {"requests": {**amounts, **held}, "limits": {"memory": amounts["memory"], **held}}


def pod_security() -> Manifest:
    """No root, the default filter of system calls, files of the volume readable by the pod's group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(*, read_only: bool) -> Manifest:
    """No more rights than it began with."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": read_only,
    }


def settings(deployed: Deployed) -> Manifest:
    """The ConfigMap: settings of the server's processes, as variables."""
    data = {
        "EVERLOOP_HOME": HOME,
        "EVERLOOP_MODULE": deployed.module,
        "EVERLOOP_PROJECT": deployed.project,
        "EVERLOOP_WORKERS": str(deployed.workers),
        "EVERLOOP_HOST": "0.0.0.0",  # noqa: S104 - in a pod, behind its network policy; it demands tokens
        "EVERLOOP_PORT": str(deployed.port),
        "HOME": "/tmp",  # noqa: S108 - the pod's own
        "LOGNAME": deployed.name,
        **({"EVERLOOP_OBJECTS": deployed.objects} if deployed.objects else {}),
        **deployed.variables,
    }
    about = metadata(deployed, f"{deployed.name}-settings")
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data}


def account(deployed: Deployed) -> Manifest:
    """A service account without rights: nothing of Everloop asks the cluster's API."""
    about = metadata(deployed, deployed.name)
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about, "automountServiceAccountToken": False}


def volume(deployed: Deployed) -> Manifest:
    """What must outlive the pod: keys, online features, the prediction log."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(deployed, f"{deployed.name}-home"),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": deployed.storage}}},
    }


def server(deployed: Deployed, more: Sequence[Manifest] = (), beside: Sequence[Manifest] = ()) -> Manifest:
    """The pod: `everloop up`, after the workspace was made where it is new.

    `more` are further variables, `beside` further containers.

    One at a time and never two beside each other: both would have the volume and its sockets.
    """
    name = deployed.name
    database = secret_variable("EVERLOOP_DATABASE", f"{name}-{DATABASE}", "url")
    common: Manifest = {
        "image": deployed.image,
        "envFrom": [{"configMapRef": {"name": f"{name}-settings"}}, variables_of(f"{name}-{OBJECTS}")],
        "env": [database, *more],
        "volumeMounts": [{"name": "home", "mountPath": HOME}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        "securityContext": container_security(read_only=True),
        "resources": resources(deployed.cores, deployed.memory),
    }
    made = f'test -f "$EVERLOOP_HOME/keys/signing.pem" || exec everloop init --policy {deployed.policy}'
    pod = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        # a driver of Ray finds its node among the processes that it sees, so it must see those of the container beside
        **({"shareProcessNamespace": True} if beside else {}),
        "securityContext": pod_security(),
        "initContainers": [{"name": "workspace", "command": ["sh", "-c", made], **common}],
        "containers": [
            {
                "name": "everloop",
                "command": ["everloop", "up"],
                "ports": [{"name": _PUBLIC, "containerPort": deployed.port, "protocol": "TCP"}],
                "startupProbe": _probe(period=2, failures=90),
                "readinessProbe": _probe(period=5, failures=3),
                "livenessProbe": _probe(period=10, failures=6),
                **common,
            },
            *beside,
        ],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": f"{name}-home"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    part = deployed.part("server")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployed, name, "server"),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _selects(deployed, "server")},
            "template": {"metadata": {"labels": part}, "spec": pod},
        },
    }


def address(deployed: Deployed) -> Manifest:
    """The Service: one port, within the cluster. TLS is the ingress controller's."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(deployed, deployed.name, "server"),
        "spec": {
            "type": "ClusterIP",
            "selector": _selects(deployed, "server"),
            "ports": [{"name": _PUBLIC, "port": 80, "targetPort": _PUBLIC, "protocol": "TCP"}],
        },
    }


def server_policy(deployed: Deployed) -> Manifest:
    """Who may ask the server: the ingress controller's namespace, and pods of this deployment."""
    sources = [_namespace(deployed.entry), {"podSelector": {"matchLabels": _whole(deployed)}}]
    allowed: list[Manifest] = [{"from": sources, "ports": [{"port": _PUBLIC, "protocol": "TCP"}]}]
    if deployed.models:  # the pod is a node of theirs, and nodes of Ray speak on ports that they choose
        allowed.append({"from": [{"podSelector": {"matchLabels": _selects(deployed, "ray")}}]})
    return _policy(deployed, f"{deployed.name}-server", _selects(deployed, "server"), allowed)


def ray_policy(deployed: Deployed) -> Manifest:
    """Who may reach nodes of Ray: each other, the server's pod, and the operator. Who reaches them runs code there."""
    sources = [{"podSelector": {"matchLabels": _whole(deployed)}}, _namespace(deployed.operator)]
    return _policy(deployed, f"{deployed.name}-ray", _selects(deployed, "ray"), [{"from": sources}])


def _policy(deployed: Deployed, name: str, selects: Manifest, ingress: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(deployed, name),
        "spec": {"podSelector": {"matchLabels": selects}, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _whole(deployed: Deployed) -> Manifest:
    return {"app.kubernetes.io/part-of": deployed.name}


def _selects(deployed: Deployed, part: str) -> Manifest:
    return {"app.kubernetes.io/part-of": deployed.name, "everloop/part": part}


def _probe(*, period: int, failures: int) -> Manifest:
    asked = {"path": "/health", "port": _PUBLIC, "scheme": "HTTP"}
    return {"httpGet": asked, "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 2}
