"""Manifests held to the shapes of their kinds, and to each other.

There is no cluster here: what this finds are mistakes of spelling, type and reference, not what an admission policy or
an operator of another version would say.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from everloop.core.errors import InvalidInput
from everloop.deploy import ray_shapes, shapes
from everloop.deploy.objects import Manifest
from everloop.deploy.shapes import Shape

KINDS: dict[tuple[str, str], type[Shape]] = {**shapes.KINDS, **ray_shapes.KINDS}
_UNITS = {"": 1, "m": 1e-3} | {u: 1000.0 ** (i + 1) for i, u in enumerate("kMGTPE")}
_UNITS |= {f"{u}i": 1024.0 ** (i + 1) for i, u in enumerate("KMGTPE")}
_QUANTITY = re.compile(r"([0-9.]+)([a-zA-Z]*)")


def checked(manifests: Sequence[Manifest], secrets: Mapping[str, Collection[str]]) -> list[Manifest]:
    """The manifests, or `InvalidInput` that names the first that is wrong, and where.

    `secrets` are the names of those that somebody else makes, each with its keys.
    """
    for one in manifests:
        shape(one)
    names = [(one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]) for one in manifests]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"two manifests are {name[0]} {name[2]}")
    for one in manifests:
        for wrong in references(one, manifests, secrets):
            raise InvalidInput(f"{one['kind']} {one['metadata']['name']}: {wrong}")
    return list(manifests)


def shape(manifest: Manifest) -> None:
    """Raise `InvalidInput` where a manifest has not the shape of its kind."""
    which = (str(manifest.get("apiVersion", "")), str(manifest.get("kind", "")))
    if which not in KINDS:
        raise InvalidInput(f"no shape of {which[1] or 'a manifest without a kind'} ({which[0]}) is known")
    try:
        KINDS[which].model_validate(manifest)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        name = manifest["metadata"].get("name", "?") if isinstance(manifest.get("metadata"), dict) else "?"
        raise InvalidInput(f"{which[1]} {name}: {place}: {first['msg']}") from None


def references(one: Manifest, manifests: Sequence[Manifest], secrets: Mapping[str, Collection[str]]) -> Iterable[str]:
    """What of a manifest refers to nothing, or to something that does not fit."""
    held = {(other["kind"], other["metadata"]["name"]): other for other in manifests}
    for place, template in templates(one):
        yield from (f"{place}: {wrong}" for wrong in _pod(template, held, secrets))
    if one["kind"] == "Deployment":
        yield from _selected(one["spec"]["selector"]["matchLabels"], [t for _, t in templates(one)], "its own pods")
    if one["kind"] == "Service":
        yield from _service(one, manifests)
    if one["kind"] == "NetworkPolicy":
        pods = [template for other in manifests for _, template in templates(other)]
        yield from _selected(one["spec"]["podSelector"]["matchLabels"], pods, "any pod")


def templates(one: Manifest) -> list[tuple[str, Manifest]]:
    """The templates of pods in a manifest, each with its place."""
    spec = one.get("spec", {})
    if one["kind"] == "Deployment":
        return [("template", spec["template"])]
    cluster = {"RayCluster": spec, "RayService": spec.get("rayClusterConfig", {})}.get(one["kind"])
    if cluster is None:
        return []
    groups = [(str(group["groupName"]), group["template"]) for group in cluster.get("workerGroupSpecs", ())]
    return [("head", cluster["headGroupSpec"]["template"]), *groups]


def _pod(template: Manifest, held: Mapping[tuple[str, str], Manifest], secrets: Mapping[str, Any]) -> Iterable[str]:
    spec = template["spec"]
    account = spec.get("serviceAccountName")
    if account and ("ServiceAccount", account) not in held:
        yield f"there is no service account {account}"
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and ("PersistentVolumeClaim", claim) not in held:
            yield f"there is no claim {claim}"
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for wrong in _container(container, volumes, held, secrets):
            yield f"{container['name']}: {wrong}"


def _container(
    container: Manifest,
    volumes: Collection[str],
    held: Mapping[tuple[str, str], Manifest],
    secrets: Mapping[str, Collection[str]],
) -> Iterable[str]:
    yield from (f"no volume {m['name']}" for m in container.get("volumeMounts", ()) if m["name"] not in volumes)
    ports = {port["name"] for port in container.get("ports", ())}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        port = container.get(probe, {}).get("httpGet", {}).get("port")
        if isinstance(port, str) and port not in ports:
            yield f"{probe} asks the port {port!r}, which it has not"
    for source in container.get("envFrom", ()):
        config, secret = source.get("configMapRef", {}).get("name"), source.get("secretRef", {}).get("name")
        if config and ("ConfigMap", config) not in held:
            yield f"there is no ConfigMap {config}"
        if secret and secret not in secrets:
            yield f"nobody makes the secret {secret}"
    for variable in container.get("env", ()):
        wanted = variable.get("valueFrom", {}).get("secretKeyRef")
        if wanted and wanted["key"] not in secrets.get(wanted["name"], ()):
            yield f"{variable['name']} is {wanted['key']!r} of the secret {wanted['name']}, which has none such"
    limits = container.get("resources", {}).get("limits", {})
    for name, asked in container.get("resources", {}).get("requests", {}).items():
        if name in limits and amount(asked) > amount(limits[name]):
            yield f"it asks for more {name} ({asked}) than it may have ({limits[name]})"


def _service(one: Manifest, manifests: Sequence[Manifest]) -> Iterable[str]:
    selector = one["spec"]["selector"]
    chosen = [t for other in manifests for _, t in templates(other) if _matches(selector, t)]
    yield from _selected(selector, chosen, "any pod")
    there = {port["name"] for t in chosen for c in t["spec"]["containers"] for port in c.get("ports", ())}
    for port in one["spec"]["ports"]:
        if isinstance(port["targetPort"], str) and port["targetPort"] not in there:
            yield f"its pods have no port {port['targetPort']!r}"


def _selected(selector: Mapping[str, str], pods: Sequence[Manifest], what: str) -> Iterable[str]:
    if not any(_matches(selector, pod) for pod in pods):
        yield f"it selects not {what}"


def _matches(selector: Mapping[str, str], template: Manifest) -> bool:
    labels: Mapping[str, str] = template["metadata"].get("labels", {})
    return selector.items() <= labels.items()


def amount(quantity: str) -> float:
    """What a quantity is, in units."""
    found = _QUANTITY.fullmatch(quantity)
    if found is None or found[2] not in _UNITS:
        raise InvalidInput(f"{quantity!r} is no quantity")
    return float(found[1]) * _UNITS[found[2]]
