"""The compute profiles that hold for a run: what the code declares, behind what production holds."""

from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.changes import environments
from everloop.flows.compute.profiles import Profile, Profiles, in_force

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


def profiles_for(ctx: Context, declared: Profiles) -> Profiles:
    """What a run of this code gets: production's profiles stand before the code's own."""
    return in_force(declared, held_profiles(ctx))
