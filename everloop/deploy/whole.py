"""Everything of a deployment, in the order in which it is applied."""

from everloop.core.settings import SERVING_RAY
from everloop.deploy import objects, ray
from everloop.deploy.checking import checked
from everloop.deploy.objects import DATABASE, OBJECTS, RAY, Manifest
from everloop.deploy.spec import Deployed


def manifests(deployed: Deployed) -> list[Manifest]:
    """The manifests, checked. What `secrets` names has to be there before they are applied."""
    made = [
        objects.account(deployed),
        objects.settings(deployed),
        objects.volume(deployed),
        objects.server_policy(deployed),
    ]
    if deployed.groups or deployed.models:
        made.append(objects.ray_policy(deployed))
    if deployed.groups:
        made.append(ray.cluster(deployed))
    variables: list[Manifest] = []
    beside: list[Manifest] = []
    if deployed.models:
        made.append(ray.models(deployed))
        variables = [{"name": SERVING_RAY, "value": ray.models_address(deployed)}, *ray.token(deployed)]
        beside = [ray.gateway_node(deployed)]
    made += [objects.server(deployed, variables, beside), objects.address(deployed)]
    return checked(made, secrets(deployed))


def secrets(deployed: Deployed) -> dict[str, tuple[str, ...]]:
    """The secrets that whoever deploys makes, each with its keys; without keys: variables of their choice, or none."""
    found: dict[str, tuple[str, ...]] = {f"{deployed.name}-{DATABASE}": ("url",), f"{deployed.name}-{OBJECTS}": ()}
    if deployed.groups or deployed.models:
        found[f"{deployed.name}-{RAY}"] = ("token",)
    return found
