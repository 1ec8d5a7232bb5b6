"""The shapes of Kubernetes' own kinds, as far as we write them: every field that is not listed is a mistake.

Names, types and rules are those of the API reference of Kubernetes 1.30 (`v1`, `apps/v1`, `networking.k8s.io/v1`).
They are written down independently of what makes the manifests, so that a misspelt field is found here.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
SubDomain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
PortName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kKMGTPE]i?)?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[int, Field(ge=1)]
LabelKey = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
Labels = dict[LabelKey, LabelValue]
Absolute = Annotated[str, StringConstraints(pattern=r"^/")]
Text = Annotated[str, StringConstraints(min_length=1)]


class Shape(BaseModel):
    """Fields in Kubernetes' spelling, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Metadata(Shape):
    """What an object is called, and how it is found."""

    name: SubDomain
    namespace: Name
    labels: Labels = Field(default_factory=dict)
    annotations: dict[LabelKey, str] = Field(default_factory=dict)


class KeyRef(Shape):
    """One key of a Secret or a ConfigMap."""

    name: SubDomain
    key: Text
    optional: bool = False


class ValueFrom(Shape):
    """Where the value of a variable comes from."""

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None

    @model_validator(mode="after")
    def _one(self) -> "ValueFrom":
        if (self.secret_key_ref is None) == (self.config_map_key_ref is None):
            raise ValueError("exactly one source")
        return self


class EnvVar(Shape):
    """One variable."""

    name: Variable
    value: str | None = None
    value_from: ValueFrom | None = None

    @model_validator(mode="after")
    def _one(self) -> "EnvVar":
        if self.value is not None and self.value_from is not None:
            raise ValueError("value and valueFrom exclude each other")
        return self


class Ref(Shape):
    """A Secret or a ConfigMap as a whole."""

    name: SubDomain
    optional: bool = False


class EnvFrom(Shape):
    """Variables that a Secret or a ConfigMap holds."""

    config_map_ref: Ref | None = None
    secret_ref: Ref | None = None

    @model_validator(mode="after")
    def _one(self) -> "EnvFrom":
        if (self.config_map_ref is None) == (self.secret_ref is None):
            raise ValueError("exactly one source")
        return self


class ResourceAmounts(Shape):
    """What is asked for, and what may be had."""

    requests: dict[LabelKey, Quantity] = Field(default_factory=dict)
    limits: dict[LabelKey, Quantity] = Field(default_factory=dict)


class HttpGet(Shape):
    """A request that a probe makes."""

    path: Absolute
    port: PortName | Port
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"


class Probe(Shape):
    """A question whose answer says how a container is."""

    http_get: HttpGet
    period_seconds: Amount = 10
    failure_threshold: Amount = 3
    timeout_seconds: Amount = 1
    initial_delay_seconds: Count = 0


class ContainerPort(Shape):
    """A port that a container listens on."""

    name: PortName
    container_port: Port
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


class VolumeMount(Shape):
    """Where a container has a volume."""

    name: Name
    mount_path: Absolute
    read_only: bool = False


class Capabilities(Shape):
    """Rights of the kernel."""

    drop: list[Text] = Field(default_factory=list)
    add: list[Text] = Field(default_factory=list)


class Seccomp(Shape):
    """The filter of system calls."""

    type: Literal["RuntimeDefault", "Unconfined", "Localhost"]


class ContainerSecurity(Shape):
    """What a container may do."""

    allow_privilege_escalation: bool
    read_only_root_filesystem: bool = False
    capabilities: Capabilities = Capabilities()
    privileged: Literal[False] = False


class PodSecurity(Shape):
    """Who the processes of a pod are."""

    run_as_non_root: bool
    run_as_user: Amount
    run_as_group: Amount
    fs_group: Amount | None = None
    seccomp_profile: Seccomp


class Container(Shape):
    """One container of a pod."""

    name: Name
    image: Text
    command: list[Text] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list)
    env: list[EnvVar] = Field(default_factory=list)
    env_from: list[EnvFrom] = Field(default_factory=list)
    ports: list[ContainerPort] = Field(default_factory=list)
    resources: ResourceAmounts = ResourceAmounts()
    volume_mounts: list[VolumeMount] = Field(default_factory=list)
    security_context: ContainerSecurity
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None


class Claim(Shape):
    """A volume that is claimed."""

    claim_name: SubDomain


class EmptyDir(Shape):
    """A folder that goes with its pod."""

    medium: Literal["", "Memory"] = ""
    size_limit: Quantity | None = None


class Volume(Shape):
    """One volume of a pod."""

    name: Name
    persistent_volume_claim: Claim | None = None
    empty_dir: EmptyDir | None = None

    @model_validator(mode="after")
    def _one(self) -> "Volume":
        if (self.persistent_volume_claim is None) == (self.empty_dir is None):
            raise ValueError("exactly one source")
        return self


class PodSpec(Shape):
    """What a pod is made of."""

    containers: Annotated[list[Container], Field(min_length=1)]
    init_containers: list[Container] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list)
    service_account_name: SubDomain | None = None
    automount_service_account_token: bool | None = None
    share_process_namespace: bool | None = None
    termination_grace_period_seconds: Count = 30
    security_context: PodSecurity


class TemplateMetadata(Shape):
    """Labels of the pods that are made."""

    labels: Labels = Field(default_factory=dict)
    annotations: dict[LabelKey, str] = Field(default_factory=dict)


class PodTemplate(Shape):
    """What pods are made like."""

    metadata: TemplateMetadata = TemplateMetadata()
    spec: PodSpec


class Selector(Shape):
    """Which pods, or namespaces, by their labels."""

    match_labels: Annotated[Labels, Field(min_length=1)]


class Strategy(Shape):
    """How pods are replaced."""

    type: Literal["Recreate", "RollingUpdate"]


class DeploymentSpec(Shape):
    """How many pods of which kind."""

    replicas: Count = 1
    strategy: Strategy
    selector: Selector
    template: PodTemplate


class Deployment(Shape):
    """`apps/v1` Deployment."""

    api_version: Literal["apps/v1"]
    kind: Literal["Deployment"]
    metadata: Metadata
    spec: DeploymentSpec


class ServicePort(Shape):
    """A port of a service."""

    name: PortName
    port: Port
    target_port: PortName | Port
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


class ServiceSpec(Shape):
    """Which pods a service stands for."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    selector: Annotated[Labels, Field(min_length=1)]
    ports: Annotated[list[ServicePort], Field(min_length=1)]


class Service(Shape):
    """`v1` Service."""

    api_version: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec


class ConfigMap(Shape):
    """`v1` ConfigMap."""

    api_version: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Metadata
    data: dict[Text, str]


class ServiceAccount(Shape):
    """`v1` ServiceAccount."""

    api_version: Literal["v1"]
    kind: Literal["ServiceAccount"]
    metadata: Metadata
    automount_service_account_token: bool = True


class ClaimSpec(Shape):
    """What a claim asks for."""

    access_modes: Annotated[
        list[Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]], Field(min_length=1)
    ]
    resources: ResourceAmounts
    storage_class_name: str | None = None


class PersistentVolumeClaim(Shape):
    """`v1` PersistentVolumeClaim."""

    api_version: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


class Peer(Shape):
    """Who may come in."""

    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None

    @model_validator(mode="after")
    def _some(self) -> "Peer":
        if self.pod_selector is None and self.namespace_selector is None:
            raise ValueError("a peer selects pods, or namespaces, or both")
        return self


class PolicyPort(Shape):
    """Through which port."""

    port: PortName | Port
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


class Ingress(Shape):
    """One rule of what may come in."""

    from_: Annotated[list[Peer], Field(alias="from", min_length=1)]
    ports: list[PolicyPort] = Field(default_factory=list)


class PolicySpec(Shape):
    """For which pods a policy holds, and what it lets in."""

    pod_selector: Selector
    policy_types: Annotated[list[Literal["Ingress", "Egress"]], Field(min_length=1)]
    ingress: list[Ingress] = Field(default_factory=list)


class NetworkPolicy(Shape):
    """`networking.k8s.io/v1` NetworkPolicy."""

    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: PolicySpec


KINDS: dict[tuple[str, str], type[Shape]] = {
    ("apps/v1", "Deployment"): Deployment,
    ("v1", "Service"): Service,
    ("v1", "ConfigMap"): ConfigMap,
    ("v1", "ServiceAccount"): ServiceAccount,
    ("v1", "PersistentVolumeClaim"): PersistentVolumeClaim,
    ("networking.k8s.io/v1", "NetworkPolicy"): NetworkPolicy,
}
