"""Who may run which step on what: asked once, before anything of a run starts."""

from collections.abc import Mapping, Sequence

from everloop.catalog.context import Context
from everloop.core.errors import PermissionDenied
from everloop.core.grants import Target
from everloop.flows.assets import Asset
from everloop.flows.compute.profiles import Profile, Profiles, placed


def admitted(
    ctx: Context, plan: Sequence[Asset], profiles: Profiles, environment: str
) -> tuple[list[Asset], Mapping[str, Profile]]:
    """The plan with what each step gets, and the profile of each that has one.

    Raises `PermissionDenied` when who asks may not use a profile, `InvalidInput` for a profile that is none,
    `DefinitionError` for a step that asks for more than its profile gives.
    """
    found: dict[str, Profile] = {}
    for asset in plan:
        if asset.function is None:
            continue
        chosen = allowed(ctx, asset.compute, asset.key, profiles, environment)
        if chosen is not None:
            found[asset.key] = chosen
    return [placed(asset, profiles) for asset in plan], found


def allowed(ctx: Context, name: str, what: str, profiles: Profiles, environment: str) -> Profile | None:
    """The profile that `what` gets, which names one or none; raises `PermissionDenied`, `InvalidInput`."""
    chosen = profiles.of(name, what)
    if chosen is None:
        return None
    target = Target("compute", chosen.name, environment)
    if not chosen.default and not ctx.actor.may("compute.use", target):
        raise PermissionDenied(
            f"{ctx.actor.name} may not use compute={chosen.name!r}, which {what} asks for",
            hint=_hint(ctx, profiles, target),
            verb="compute.use",
            target=str(target),
        )
    return chosen


def _hint(ctx: Context, profiles: Profiles, target: Target) -> str:
    free = [
        name
        for name, one in sorted(profiles.all.items())
        if one.default or ctx.actor.may("compute.use", Target("compute", name, target.environment))
    ]
    other = f"use compute={free[0]!r}, or " if free else ""
    place = "" if target.environment.startswith("sandbox/") or not target.environment else f"@{target.environment}"
    grant = f"compute.use {target.kind}/{target.name}{place}"
    return f"{other}an admin grants it: everloop access set-grants {ctx.actor.name} '{grant}'"
