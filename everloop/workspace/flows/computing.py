"""The compute profiles that hold for a run: what the code declares, behind what production holds."""

from collections.abc import Iterable

from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.changes import environments
from everloop.flows.compute.admission import allowed
from everloop.flows.compute.profiles import Profile, Profiles, in_force
from everloop.serving.computing.profiles import fitted
from everloop.serving.definitions import EndpointDef

GOVERNS = "production"
"""The environment whose profiles and prices hold everywhere: they change by reviewed changes only."""


def held_profiles(ctx: Context, environment: str = GOVERNS) -> dict[str, Profile]:
    """The profiles that an environment holds, by name; none where the project has no such environment."""
    with ctx.read() as tx:
        if refs.get(tx, ctx.project, refs.env_ref(environment)) is None:
            return {}
        entries = environments.view(tx, ctx.project, environment).entries
        ids = {key.partition("/")[2]: identity for key, identity in entries.items() if key.startswith("compute/")}
        manifests = versions.manifests(tx, ctx.project, list(ids.values()))
    return {name: Profile.from_manifest(name, manifests[identity], identity) for name, identity in ids.items()}


def profile_of_endpoint(ctx: Context, name: str) -> Profile | None:
    """The profile that the workers of production's endpoint are paid by: that which they name, else the default."""
    held = held_profiles(ctx)
    with ctx.read() as tx:
        identity = environments.view(tx, ctx.project, GOVERNS).entries.get(f"endpoint/{name}") if held else None
        workers = versions.get(tx, ctx.project, identity).manifest.get("workers", {}) if identity else {}
    return held.get(workers.get("compute", "")) or next((one for one in held.values() if one.default), None)


def check_endpoints(ctx: Context, endpoints: Iterable[EndpointDef], declared: Profiles, environment: str) -> None:
    """Whoever builds an endpoint whose workers name a profile may use it, as for a step.

    Raises `PermissionDenied`, `InvalidInput` for a profile that is none, `DefinitionError` for more than it gives.
    """
    for endpoint in endpoints:
        workers = endpoint.manifest().get("workers", {})
        if name := workers.get("compute", ""):
            chosen = allowed(ctx, name, endpoint.key, profiles_for(ctx, declared), environment)
            fitted(chosen, workers, endpoint.key)


def profiles_for(ctx: Context, declared: Profiles) -> Profiles:
    """What a run of this code gets: production's profiles stand before the code's own."""
    return in_force(declared, held_profiles(ctx))
