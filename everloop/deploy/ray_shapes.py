"""The shapes of KubeRay's kinds (`ray.io/v1`), as far as we write them.

Names, types and rules are those of the operator's own types of `v1`.
"""

from typing import Annotated, Literal

import yaml
from pydantic import Field, StringConstraints, model_validator

from everloop.deploy.shapes import Amount, Count, Metadata, Name, PodTemplate, Shape, Text

Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+")]


class AutoscalerOptions(Shape):
    """How nodes come and go."""

    idle_timeout_seconds: Count = 60
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] = "Default"


class HeadGroup(Shape):
    """The head of a cluster."""

    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    ray_start_params: dict[Text, str]
    template: PodTemplate

    @model_validator(mode="after")
    def _head(self) -> "HeadGroup":
        if self.template.spec.containers[0].name != "ray-head":
            raise ValueError("the first container of a head is ray-head")
        return self


class WorkerGroup(Shape):
    """Nodes of one size."""

    group_name: Name
    replicas: Count
    min_replicas: Count
    max_replicas: Amount
    num_of_hosts: Amount = 1
    ray_start_params: dict[Text, str]
    template: PodTemplate

    @model_validator(mode="after")
    def _between(self) -> "WorkerGroup":
        if not self.min_replicas <= self.replicas <= self.max_replicas:
            raise ValueError("minReplicas <= replicas <= maxReplicas")
        return self


class ClusterSpec(Shape):
    """A cluster: its head and its groups of nodes."""

    ray_version: Version
    enable_in_tree_autoscaling: bool = False
    autoscaler_options: AutoscalerOptions | None = None
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names(self) -> "ClusterSpec":
        names = [group.group_name for group in self.worker_group_specs]
        if len(set(names)) != len(names):
            raise ValueError("two groups of one name")
        return self


class RayCluster(Shape):
    """`ray.io/v1` RayCluster."""

    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayServiceSpec(Shape):
    """Applications, and the cluster that they run on."""

    serve_config_v2: Annotated[Text, Field(alias="serveConfigV2")]
    ray_cluster_config: ClusterSpec

    @model_validator(mode="after")
    def _applications(self) -> "RayServiceSpec":
        config = yaml.safe_load(self.serve_config_v2)
        applications = config.get("applications") if isinstance(config, dict) else None
        if not isinstance(applications, list) or not applications:
            raise ValueError("serveConfigV2 lists no applications")
        for one in applications:
            if not isinstance(one, dict) or not one.get("name") or ":" not in str(one.get("import_path", "")):
                raise ValueError("an application has a name and an import_path (module:attribute)")
        return self


class RayService(Shape):
    """`ray.io/v1` RayService."""

    api_version: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: RayServiceSpec


KINDS: dict[tuple[str, str], type[Shape]] = {
    ("ray.io/v1", "RayCluster"): RayCluster,
    ("ray.io/v1", "RayService"): RayService,
}
