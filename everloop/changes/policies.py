"""The policy in force in an environment, and what no change may do to it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everloop.catalog import refs, versions
from everloop.catalog.engine import Tx
from everloop.catalog.refs import env_ref
from everloop.changes.ancestry import snapshot_of
from everloop.core.errors import InvalidInput, NotFound, PolicyRefused
from everloop.core.grants import ROLES
from everloop.core.ids import checked_name
from everloop.core.policy import TIERS, Policy
from everloop.core.snapshot import Delta
from everloop.core.version import split_key

PROTECTED = ("staging", "production")
"""The environments that every project has from the start, in the order in which changes travel."""
_SANDBOX = re.compile(r"sandbox/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
DEFINITIONS = frozenset(
    {
        "source", "dataset", "view", "service", "trainer", "objective", "check", "endpoint", "monitor", "retrain",
        "policy", "compute", "code", "model",
    }
)  # fmt: skip
"""Kinds that a snapshot holds; everything else is content, which definitions and evidence name."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy and the version that says so."""

    policy: Policy
    id: str


def is_sandbox(environment: str) -> bool:
    """Whether the environment is somebody's own, where everything is allowed that its grant says."""
    return environment.startswith("sandbox/")


def checked_environment(name: str) -> str:
    """Return the name, or raise `InvalidInput` when no environment can have it."""
    if is_sandbox(name):
        if _SANDBOX.fullmatch(name) is None:
            raise InvalidInput(f"{name!r} cannot be a sandbox", hint="sandbox/<person>/<topic>, as sandbox/ada/tuning")
        return name
    if name not in PROTECTED:
        raise InvalidInput(f"{name!r} is not an environment", hint="production, staging or sandbox/<person>/<topic>")
    return name


def policy_key(environment: str) -> str:
    """`policy/<environment>`, the key that holds an environment's policy in its own snapshot."""
    return f"policy/{checked_name(environment)}"


def head_of(tx: Tx, project: str, environment: str) -> str:
    """The snapshot that an environment holds; raises `NotFound`."""
    found = refs.get(tx, project, env_ref(environment))
    if found is None:
        hint = "create it with create_sandbox" if is_sandbox(environment) else "`everloop init` creates it"
        raise NotFound(f"there is no environment {environment!r} in project {project}", hint=hint)
    return found


def effective_policy(tx: Tx, project: str, environment: str) -> InForce:
    """The policy that decides now, read from the environment's own snapshot.

    Raises `NotFound` for an unknown environment and `PolicyRefused` when there is no valid policy: an environment
    without one is closed, not open.
    """
    entries = snapshot_of(tx, project, head_of(tx, project, environment)).entries
    return policy_in(tx, project, environment, entries)


def policy_in(tx: Tx, project: str, environment: str, entries: Mapping[str, str]) -> InForce:
    """The environment's policy as these entries hold it; raises `PolicyRefused`."""
    identity = entries.get(policy_key(environment))
    if identity is None:
        raise PolicyRefused(f"{environment} has no policy, so nothing may be merged", hint="restore it from a backup")
    manifest = versions.manifests(tx, project, [identity]).get(identity)
    return InForce(read_policy(manifest or {}), identity)


def read_policy(manifest: Mapping[str, Any]) -> Policy:
    """A policy from its manifest; raises `PolicyRefused` for one that would decide nothing.

    At least one approval is always needed: under `solo` that may be one's own.
    """
    try:
        policy = Policy.from_manifest(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyRefused(f"the policy cannot be read: {error} is missing or wrong") from error
    if policy.mode not in ("solo", "team") or policy.data not in ("grant", "change"):
        raise PolicyRefused(
            f"the policy says mode={policy.mode!r}, data={policy.data!r}", hint="solo|team, grant|change"
        )
    if not isinstance(policy.approvals, int) or policy.approvals < 1:
        raise PolicyRefused(
            f"the policy asks for {policy.approvals} approvals", hint="at least 1; solo allows your own"
        )
    if policy.found not in ("wait", "tag"):
        raise PolicyRefused(f"the policy says found={policy.found!r}", hint="wait|tag")
    if policy.reproduced and policy.reproduced not in TIERS[:-1]:
        raise PolicyRefused(f"the policy says reproduced={policy.reproduced!r}", hint="one of " + ", ".join(TIERS[:-1]))
    unknown = sorted({*policy.roles, *policy.tags.values()} - set(ROLES))
    if unknown:
        raise PolicyRefused(f"the policy asks for the role {unknown[0]!r}", hint="one of " + ", ".join(sorted(ROLES)))
    return policy


def check_delta(tx: Tx, project: str, delta: Delta, environment: str = "") -> None:
    """Refuse a delta that no snapshot may take: unknown versions, wrong kinds, a protected target without policy.

    Raises `InvalidInput`, `NotFound` and `PolicyRefused`.
    """
    new = {key: pair[1] for key, pair in delta.items() if pair[1] is not None}
    manifests = versions.manifests(tx, project, set(new.values()))
    for key, identity in new.items():
        kind, _ = split_key(key)
        if kind not in DEFINITIONS:
            raise InvalidInput(
                f"a snapshot holds no {kind}: {key}", hint="it holds definitions; data heads lie beside it"
            )
        if identity not in manifests:
            raise NotFound(f"{key} would be {identity}, which project {project} does not have")
        if manifests[identity].get("kind") != kind:
            raise InvalidInput(f"{key} would be a {manifests[identity].get('kind')}", hint=f"it must be a {kind}")
        if kind == "policy":
            read_policy(manifests[identity])
    if environment and not is_sandbox(environment) and delta.get(policy_key(environment), ("", ""))[1] is None:
        raise PolicyRefused(f"the change removes the policy of {environment}", hint="change it instead")
