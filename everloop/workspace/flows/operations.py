"""The operations `compute.list` and `compute.show`: the profiles that an environment holds, and who may use them."""

from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import NotFound
from everloop.core.grants import Target
from everloop.flows.assets import suggest
from everloop.flows.compute.profiles import BUILT_IN, Profile
from everloop.workspace.flows.computing import GOVERNS, held_profiles


class ListProfiles(Command):
    """The profiles that an environment holds; what production holds is in force."""

    environment: str = GOVERNS


class OfProfile(Command):
    """A profile by name."""

    name: str
    environment: str = GOVERNS


class ProfileView(Answer):
    """A compute profile. Memory in bytes, time in seconds; the price as people read it."""

    name: str
    cores: float
    memory: int | None
    seconds: float | None
    gpus: float
    price: dict[str, str]
    costs: str
    default: bool
    built_in: bool
    version: str
    may_use: bool
    """Whether who asks may use it in their sandboxes."""


class ProfileList(Answer):
    """Profiles by name."""

    environment: str
    profiles: tuple[ProfileView, ...]


@operation("compute.list", needs="read", reads=True)
def list_profiles(ctx: Context, cmd: ListProfiles) -> ProfileList:
    """Show the compute profiles, their prices, and which of them whoever asks may use."""
    return ProfileList(
        environment=cmd.environment, profiles=tuple(_view(ctx, one) for one in _held(ctx, cmd.environment).values())
    )


@operation("compute.show", needs="read", reads=True)
def show_profile(ctx: Context, cmd: OfProfile) -> ProfileView:
    """Show one compute profile."""
    held = _held(ctx, cmd.environment)
    if cmd.name not in held:
        raise NotFound(f"{cmd.environment} holds no compute profile {cmd.name!r}", hint=suggest(cmd.name, held))
    return _view(ctx, held[cmd.name])


def _held(ctx: Context, environment: str) -> dict[str, Profile]:
    return dict(sorted((held_profiles(ctx, environment) or BUILT_IN).items()))


def _view(ctx: Context, one: Profile) -> ProfileView:
    return ProfileView(
        name=one.name,
        cores=one.resources.cores,
        memory=one.resources.memory,
        seconds=one.resources.seconds,
        gpus=one.resources.gpus,
        price=one.price.json() if one.price else {},
        costs=str(one.price) if one.price else "",
        default=one.default,
        built_in=one is BUILT_IN.get(one.name),
        version=one.version,
        may_use=one.default or ctx.actor.may("compute.use", Target("compute", one.name, f"sandbox/{ctx.actor.name}/x")),
    )
