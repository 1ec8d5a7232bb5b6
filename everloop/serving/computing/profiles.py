"""An endpoint's workers on a compute profile of the project: the profiles, grants and limits that steps have. Pure.

A revision pins the numbers, not the profile: another price rolls nothing out, other cores do.
"""

from collections.abc import Mapping
from typing import Any

from everloop.core.ports import Resources
from everloop.flows.compute.profiles import Profile, Profiles

_KIND = "compute/"


def named(entries: Mapping[str, str], endpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """The id of the profile that an endpoint's workers name, where the snapshot holds it."""
    key = _KIND + endpoint.get("workers", {}).get("compute", "")
    return (entries[key],) if key in entries else ()


def needs(
    name: str, entries: Mapping[str, str], endpoint: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]]
) -> dict[str, int] | None:
    """What each process of an endpoint's models needs, by the profile that it names; None where it names none.

    Raises `InvalidInput` for a name that nothing defines, `DefinitionError` when they ask for more than it gives.
    """
    workers = endpoint.get("workers", {})
    wanted = workers.get("compute", "")
    if not wanted:
        return None
    held = {key.removeprefix(_KIND): identity for key, identity in entries.items() if key.startswith(_KIND)}
    known = {
        one: Profile.from_manifest(one, manifests[identity], identity) if one == wanted else Profile(one)
        for one, identity in held.items()
    }
    return fitted(Profiles(known).of(wanted, f"endpoint/{name}"), workers, f"endpoint/{name}")


def fitted(profile: Profile | None, workers: Mapping[str, Any], what: str) -> dict[str, int]:
    """Thousandths of cores and GPUs, and bytes: what the workers say themselves lowers what the profile gives.

    Raises `DefinitionError` where that is more.
    """
    own = workers.get("needs", {})
    if profile is None:
        return dict(own)
    have = profile.resources
    held = profile.fitted(
        Resources(
            own["cores"] / 1000 if "cores" in own else have.cores,
            own.get("memory"),
            None,
            own["gpus"] / 1000 if "gpus" in own else have.gpus,
        ),
        what,
    )
    return {"cores": round(held.cores * 1000), "memory": held.memory or 0, "gpus": round(held.gpus * 1000)}
