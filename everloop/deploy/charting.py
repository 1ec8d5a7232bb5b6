"""A Helm chart of a deployment: the same manifests, with what differs between clusters taken from its values.

The chart is not another description: each template is the manifest as `whole.manifests` made it, in which some places
hold an expression. With the values that it comes with it renders to those manifests, but for the namespace, which is
the release's, and a digest of the settings by which pods start again when they change.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from everloop.core.errors import InvalidInput
from everloop.deploy.objects import Manifest
from everloop.deploy.spec import IMAGE, QUANTITY, Deployed
from everloop.deploy.whole import manifests, secrets
from everloop.deploy.writing import document, file_name

_LINES = re.compile(r"^( *)((?:- )?)([\w.-]+): '@@(\d+)@@'$", re.MULTILINE)
_FIXED = ("EVERLOOP_HOME", "EVERLOOP_HOST", "EVERLOOP_PORT")
"""Settings that other places of the manifests repeat."""
_PLACE = re.compile(r"'@@(\d+)@@'|@@(\d+)@@")


@dataclass(slots=True)
class _Lifted:
    """Expressions that stand in places of a manifest, by number; what holds their place is a text of that number."""

    expressions: list[str] = field(default_factory=list)

    def mark(self, expression: str) -> str:
        """What holds the place of an expression; one that begins with `toYaml` makes several lines."""
        self.expressions.append(expression)
        return f"@@{len(self.expressions) - 1}@@"

    def put(self, text: str) -> str:
        """The template: YAML with expressions where their marks were."""
        if "{{" in text:
            raise InvalidInput("a manifest holds '{{', which Helm would read as an expression")
        return _PLACE.sub(self._place, _LINES.sub(self._lines, text))

    def _place(self, found: re.Match[str]) -> str:
        return f"{{{{ {self.expressions[int(found[1] or found[2])]} }}}}"

    def _lines(self, found: re.Match[str]) -> str:
        expression = self.expressions[int(found[4])]
        if not expression.startswith("toYaml") or "|" in expression:
            return found[0]
        deeper = len(found[1]) + len(found[2]) + 2
        return f"{found[1]}{found[2]}{found[3]}:\n{' ' * deeper}{{{{- {expression} | nindent {deeper} }}}}"


def chart(deployed: Deployed) -> dict[str, str]:
    """The files of a chart, by path; `helm package --version` gives it another version. Raises `InvalidInput`."""
    made = manifests(deployed)
    values = _values(deployed, made)
    files = {
        "Chart.yaml": document(_about(deployed)),
        "values.yaml": _HEAD + document(values),
        "values.schema.json": json.dumps(_schema(values), indent=2) + "\n",
        "templates/NOTES.txt": _notes(deployed),
    }
    for place, one in enumerate(made):
        lifted = _Lifted()
        _lift(one, deployed, lifted)
        files[f"templates/{file_name(place, one)}"] = lifted.put(document(one))
    return files


_HEAD = "# What differs between clusters. Helm checks it against values.schema.json.\n"


def _about(deployed: Deployed) -> Manifest:
    return {
        "apiVersion": "v2",
        "name": deployed.name,
        "description": f"Everloop for the project {deployed.project}: server, gateway, workers"
        + (", and nodes of Ray" if deployed.groups or deployed.models else ""),
        "type": "application",
        "version": "0.1.0",
        "appVersion": version("everloop"),
        "kubeVersion": ">=1.28.0-0",
    }


def _values(deployed: Deployed, made: Sequence[Manifest]) -> Manifest:
    """The chart's values: those that the deployment was given."""
    held = {one["kind"]: one for one in made}
    pod = held["Deployment"]["spec"]["template"]["spec"]
    values: Manifest = {
        "image": deployed.image,
        "storage": deployed.storage,
        "resources": pod["containers"][0]["resources"],
        "entryNamespace": deployed.entry,
        "settings": held["ConfigMap"]["data"],
    }
    nodes = {where: some for where, some in (("steps", deployed.groups), ("models", deployed.models)) if some}
    if nodes:
        values["operatorNamespace"] = deployed.operator
        values["nodes"] = {
            where: {group.name: {"least": group.least, "most": group.most} for group in groups}
            for where, groups in nodes.items()
        }
    return values


def _lift(one: Manifest, deployed: Deployed, lifted: _Lifted) -> None:
    """Put marks where a manifest depends on the chart's values."""
    one["metadata"]["namespace"] = lifted.mark(".Release.Namespace")
    kinds: Mapping[str, Callable[[Manifest, Deployed, _Lifted], None]] = {
        "ConfigMap": _lift_settings,
        "PersistentVolumeClaim": _lift_volume,
        "NetworkPolicy": _lift_policy,
        "RayCluster": _lift_cluster,
        "Deployment": _lift_server,
    }
    if one["kind"] in kinds:
        kinds[one["kind"]](one, deployed, lifted)


def _lift_settings(one: Manifest, _: Deployed, lifted: _Lifted) -> None:
    one["data"] = lifted.mark("toYaml .Values.settings")


def _lift_volume(one: Manifest, _: Deployed, lifted: _Lifted) -> None:
    one["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}  # keys and the log outlive `helm uninstall`
    one["spec"]["resources"]["requests"]["storage"] = lifted.mark(".Values.storage | quote")


def _lift_policy(one: Manifest, deployed: Deployed, lifted: _Lifted) -> None:
    whose = "entry" if one["metadata"]["name"] == f"{deployed.name}-server" else "operator"
    for rule in one["spec"]["ingress"]:
        for source in rule["from"]:
            if "namespaceSelector" in source:
                labels = source["namespaceSelector"]["matchLabels"]
                labels["kubernetes.io/metadata.name"] = lifted.mark(f".Values.{whose}Namespace | quote")


def _lift_cluster(one: Manifest, deployed: Deployed, lifted: _Lifted) -> None:
    spec = one["spec"]
    where = "models" if one["metadata"]["name"] == f"{deployed.name}-models" else "steps"
    for container in spec["headGroupSpec"]["template"]["spec"]["containers"]:
        container["image"] = lifted.mark(".Values.image | quote")
    for group in spec["workerGroupSpecs"]:
        held = f'(index .Values.nodes.{where} "{group["groupName"]}")'
        group["replicas"] = group["minReplicas"] = lifted.mark(f"{held}.least")
        group["maxReplicas"] = lifted.mark(f"{held}.most")
        for container in group["template"]["spec"]["containers"]:
            container["image"] = lifted.mark(".Values.image | quote")


def _lift_server(one: Manifest, deployed: Deployed, lifted: _Lifted) -> None:
    digest = lifted.mark("toYaml .Values.settings | sha256sum")
    one["spec"]["template"]["metadata"]["annotations"] = {"everloop/settings": digest}
    pod = one["spec"]["template"]["spec"]
    elsewhere = f".{deployed.namespace}.svc:"
    for container in (*pod["initContainers"], *pod["containers"]):
        container["image"] = lifted.mark(".Values.image | quote")
        if container["name"] in ("workspace", "everloop"):
            container["resources"] = lifted.mark("toYaml .Values.resources")
        space = lifted.mark(".Release.Namespace")
        for variable in container["env"]:
            if elsewhere in variable.get("value", ""):
                variable["value"] = variable["value"].replace(elsewhere, f".{space}.svc:")
        container["command"] = [word.replace(elsewhere, f".{space}.svc:") for word in container.get("command", ())]


def _notes(deployed: Deployed) -> str:
    """What Helm prints when it is done."""
    lines = ["Everloop needs these secrets in the namespace {{ .Release.Namespace }}:", ""]
    for name, keys in secrets(deployed).items():
        lines.append(f"  {name}: {', '.join(keys) or 'variables that open the object store, if it needs any'}")
    lines += [
        "",
        f"Then: kubectl port-forward --namespace {{{{ .Release.Namespace }}}} service/{deployed.name} 8080:80",
    ]
    return "\n".join(lines) + "\n"


def _schema(values: Mapping[str, Any]) -> dict[str, Any]:
    """What values may be, as a JSON schema."""
    label = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
    quantity = {"type": ["string", "number"], "pattern": f"^{QUANTITY.pattern}$"}
    amounts = {"type": "object", "additionalProperties": quantity}
    whole = {"type": "integer", "minimum": 0}
    group = _exactly({"least": whole, "most": {"type": "integer", "minimum": 1}})
    known: dict[str, Any] = {
        "image": {"type": "string", "pattern": f"^{IMAGE.pattern}$"},
        "storage": quantity,
        "resources": _exactly({"requests": amounts, "limits": amounts}),
        "entryNamespace": label,
        "operatorNamespace": label,
        "settings": {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            "properties": {name: {"const": values["settings"][name]} for name in _FIXED},
            "required": list(_FIXED),
            "additionalProperties": {"type": "string"},
        },
        "nodes": _exactly(
            {where: _exactly(dict.fromkeys(groups, group)) for where, groups in values.get("nodes", {}).items()}
        ),
    }
    rules = _exactly({name: known[name] for name in values})
    rules["properties"]["global"] = {"type": "object"}  # Helm gives it to every chart
    return {"$schema": "http://json-schema.org/draft-07/schema#", **rules}


def _exactly(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
