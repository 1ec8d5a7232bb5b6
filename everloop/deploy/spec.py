"""What a deployment on Kubernetes is made of, as values."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from everloop.core.errors import InvalidInput

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9./:_-]*(@sha256:[0-9a-f]{64})?")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kKMGTPE]i?)?")
_LONGEST = 40
"""Letters of a name: operators add to it, and the whole may have 63."""
STORE_SHARE = 0.3
"""The share of a Ray node's memory that its object store takes; the rest is what steps may ask for."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Group:
    """Ray nodes of one size, each of which can hold one step of that size."""

    name: str
    cores: float = 1.0
    memory: int | None = None
    """Bytes that steps of a node may ask for together; None: 2 GiB for each core."""
    gpus: int = 0
    least: int = 0
    most: int = 4

    def __post_init__(self) -> None:
        """Refuse what no cluster would take."""
        checked_label(self.name, "a group of nodes")
        if not (math.isfinite(self.cores) and self.cores > 0 and self.gpus >= 0 and (self.memory or 1) > 0):
            raise InvalidInput(f"group {self.name}: cores and memory are more than 0, GPUs not less")
        if not 0 <= self.least <= self.most or self.most == 0:
            raise InvalidInput(f"group {self.name} has {self.least} to {self.most} nodes", hint="0 <= least <= most")

    @property
    def whole_memory(self) -> int:
        """Bytes of a node: what steps may ask for, and the object store; in whole MiB."""
        asked = self.memory or round(2 * 1024 * MIB * max(1.0, self.cores))
        return math.ceil(asked / (1 - STORE_SHARE) / MIB) * MIB


@dataclass(frozen=True, slots=True)
class Deployed:
    """An Everloop on Kubernetes: one pod with server, gateway and workers, its data outside it, and Ray for steps."""

    image: str
    """Has Everloop, the project's code in its working directory, and the project's packages; for Ray nodes too."""
    name: str = "everloop"
    namespace: str = "everloop"
    objects: str = ""
    """URL of the object store (`s3://bucket/prefix`); empty: on the volume, which Ray nodes do not reach."""
    module: str = "project"
    project: str = "default"
    policy: str = "solo"
    """Of a workspace that is made: `solo` or `team`."""
    workers: int = 1
    port: int = 5050
    storage: str = "20Gi"
    """Of the volume with keys, online features, the prediction log and caches."""
    cores: float = 2.0
    memory: int = 4 << 30
    entry: str = "ingress-nginx"
    """The namespace whose pods may ask the server: the ingress controller's."""
    operator: str = "kuberay-operator"
    """The namespace of the KubeRay operator, which asks the heads of Ray."""
    ray_version: str = ""
    groups: tuple[Group, ...] = ()
    """Ray nodes for steps; none: steps run in the workers of the pod."""
    models: tuple[Group, ...] = ()
    """Ray nodes on which models answer; none: they answer in the pod."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """More settings of the server's processes."""

    def __post_init__(self) -> None:
        """Refuse what no cluster would take."""
        checked_label(self.name, "a deployment", longest=_LONGEST)
        for place in (self.namespace, self.entry, self.operator):
            checked_label(place, "a namespace")
        if not IMAGE.fullmatch(self.image):
            raise InvalidInput(f"{self.image!r} names no image", hint="registry/name:tag, or name@sha256:…")
        if self.policy not in ("solo", "team"):
            raise InvalidInput(f"{self.policy!r} is no policy", hint="solo or team")
        if not QUANTITY.fullmatch(self.storage):
            raise InvalidInput(f"{self.storage!r} is no size of a volume", hint="20Gi")
        if not (0 < self.port < 65536 and self.workers >= 0 and self.cores > 0 and self.memory > 0):
            raise InvalidInput("port, cores and memory are more than 0, workers not less")
        nodes = (*self.groups, *self.models)
        if nodes and not self.ray_version:
            raise InvalidInput("nodes of Ray need its version", hint="the one that the image has: ray.__version__")
        if nodes and "://" not in self.objects:
            raise InvalidInput("nodes of Ray need an object store that all of them reach", hint="objects: s3://…")
        for groups in (self.groups, self.models):
            names = [one.name for one in groups]
            if twice := [name for name in names if names.count(name) > 1]:
                raise InvalidInput(f"two groups of nodes are named {twice[0]!r}")

    @property
    def labels(self) -> dict[str, str]:
        """What every object of this deployment carries."""
        return {"app.kubernetes.io/part-of": self.name, "app.kubernetes.io/managed-by": "everloop"}

    def part(self, name: str) -> dict[str, str]:
        """Labels of one part."""
        return {**self.labels, "everloop/part": name}


def checked_label(text: str, what: str, longest: int = 63) -> str:
    """`text`, or `InvalidInput` where Kubernetes would not take it as a name."""
    if len(text) > longest or not _LABEL.fullmatch(text):
        raise InvalidInput(
            f"{text!r} cannot name {what}", hint=f"small letters, digits and '-', {longest} at most: {slug(text)!r}"
        )
    return text


def slug(text: str, longest: int = _LONGEST) -> str:
    """The nearest text that Kubernetes takes as a name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:longest].strip("-") or "x"


def cores_text(cores: float) -> str:
    """Cores as a quantity."""
    return f"{cores:g}" if float(cores).is_integer() else f"{round(cores * 1000)}m"


def memory_text(size: int) -> str:
    """Bytes as a quantity, in whole MiB, rounded up."""
    return f"{math.ceil(size / MIB)}Mi"
