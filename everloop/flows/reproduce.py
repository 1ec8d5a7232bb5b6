"""Reproduce: run a version's recorded recipe again, in a clean process and without the cache, and compare.

| tier | what was found |
|---|---|
| `bit` | the same version id: every byte came out the same |
| `canonical` | other bytes, the same value by the kind's canonical digest |
| `functional` | another model, the same answers, bit for bit, on the recorded probe rows |
| `numeric` | answers that differ by no more than the tolerance |
| `different` | none of these; the factors name what is not as it was recorded |

What to expect: bit for bit with the same packages, CPU features and threads. On another CPU, or with another number
of threads, trees still come out the same, and whatever goes through BLAS differs in the last digits.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from everloop.catalog import placements, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import redactions
from everloop.catalog.steps import StepRow
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import is_id
from everloop.core.ports import Executor, Job, Resources
from everloop.flows.engine import logicals
from everloop.flows.identity import runtime

Tier = Literal["bit", "canonical", "functional", "numeric", "different"]
Compare = Callable[[Mapping[str, Any], Mapping[str, Any]], float | None]
"""From the two manifests to the largest difference of their answers on the recorded rows; None: cannot be compared."""

TOLERANCE = 1e-6
"""Largest difference of an answer that counts as numerically the same."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a reproduction."""

    tier: Tier
    factors: tuple[str, ...]
    """What differs from the record, likely causes of a difference; also told when the bytes are the same."""
    version: str
    """The version that was to be reproduced."""
    again: str
    """The version that came out."""
    difference: float | None
    """The largest difference of the answers on the probe rows, where they were compared."""
    seconds: float

    @property
    def same(self) -> bool:
        """Whether the value is the same (bit or canonical)."""
        return self.tier in ("bit", "canonical")


def reproduce(
    ctx: Context,
    identity: str,
    *,
    executor: Executor,
    codecs: Mapping[str, str],
    module: str,
    compare: Mapping[str, Compare] | None = None,
    env: Mapping[str, str] | None = None,
) -> Verdict:
    """Run the recipe of a version again, from the recorded code, inputs, parameters and thread count.

    `compare` gives, for a kind of version, a function that compares the answers of two; `env` the step's variables
    (where a tracking client may write to). Nothing is recorded. Raises `NotFound` when no step made the version or its
    code or inputs are gone, `StepFailed` when the code fails now.
    """
    with ctx.read() as tx:
        rows = steps.of_output(tx, ctx.project, identity)
        if not rows:
            raise NotFound(
                f"no recorded step made {identity}", hint="only outputs of steps can be reproduced, not captured data"
            )
        row = rows[0]
        wanted = versions.get(tx, ctx.project, identity).manifest
        recorded = versions.get(tx, ctx.project, row.runtime).manifest
        files = versions.get(tx, ctx.project, row.code).manifest["files"]
        inputs = versions.manifests(tx, ctx.project, list(row.inputs.values()))
        needed = [logical for manifest in inputs.values() for logical in logicals(manifest)]
        placed = placements.resolve(tx, ctx.project, needed)
        erased = _erased(tx, ctx.project, inputs)
    threads = int(recorded["threads"].get("OMP_NUM_THREADS") or 1)
    root = Path(tempfile.mkdtemp(prefix="everloop-reproduce-"))
    try:
        _write_code(ctx, files, root)
        job = Job(
            step=row.step,
            root=root,
            module=module,
            inputs=row.inputs,
            manifests=inputs,
            placements=placed,
            params=row.params,
            blobs=str(getattr(ctx.store, "url", "")),
            resources=Resources(cores=threads),
            env=env or {},
            facts={"recipe": row.recipe, **{f"{role}_id": wanted[role] for role in _BOUND if _is_bound(wanted, role)}},
            codecs=codecs,
            recipe=row.recipe,
        )
        outcome = executor.run(job)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    now = runtime(threads).version.manifest
    made = outcome.saved.version
    tier, difference = _tier(identity, wanted, made.id, made.manifest, (compare or {}).get(made.kind))
    factors = (*erased, *differing(recorded, now)) or _unexplained(tier)
    return Verdict(tier, factors, identity, made.id, difference, outcome.seconds)


_BOUND = ("service", "trainer")
"""Definitions that a step was bound to by id (see `engine.Options.bound`), which its output names."""


def _erased(tx: Tx, project: str, inputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The inputs that no longer hold all that the step read, in words: no run can come nearer than up to these."""
    return [
        f"input {identity}: reproduced up to redaction {erasure}"
        for identity, manifest in inputs.items()
        for erasure in redactions.of_manifest(tx, project, manifest)
    ]


def _is_bound(manifest: Mapping[str, Any], role: str) -> bool:
    return is_id(str(manifest.get(role, "")))


def differing(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two runtimes, in words, most telling first."""
    found = [
        f"{name}: {recorded.get(name)} then, {now.get(name)} now"
        for name in ("python", "implementation", "platform", "machine", "libc", "blas")
        if recorded.get(name) != now.get(name)
    ]
    if recorded.get("threads") != now.get("threads"):
        found.append(f"threads: {recorded.get('threads')} then, {now.get('threads')} now")
    lost = sorted(set(recorded.get("cpu", ())) ^ set(now.get("cpu", ())))
    if lost:
        found.append(f"CPU features: {', '.join(lost[:6])}" + (f" and {len(lost) - 6} more" if lost[6:] else ""))
    return found + _packages(recorded.get("packages", {}), now.get("packages", {}))


def _packages(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted(recorded.keys() | now.keys()):
        old, new = recorded.get(name), now.get(name)
        if old == new:
            continue
        if old is None or new is None:
            found.append(f"package {name}: {'not there then' if old is None else 'gone'}")
        elif old["version"] != new["version"]:
            found.append(f"package {name}: {old['version']} then, {new['version']} now")
        else:
            found.append(f"package {name}: other files under the same version {new['version']}")
    return found


def _unexplained(tier: Tier) -> tuple[str, ...]:
    if tier in ("bit", "canonical"):
        return ()
    return ("nothing recorded differs: the step depends on something unseen (time, network, a file, chance)",)


def _tier(
    identity: str, wanted: Mapping[str, Any], again: str, manifest: Mapping[str, Any], compare: Compare | None
) -> tuple[Tier, float | None]:
    if again == identity:
        return "bit", None
    if wanted.get("digest") and wanted["digest"] == manifest.get("digest"):
        return "canonical", None
    difference = compare(wanted, manifest) if compare is not None else None
    if difference is None:
        return "different", None
    if difference == 0.0:
        return "functional", difference
    return ("numeric" if difference <= TOLERANCE else "different"), difference


def _write_code(ctx: Context, files: Mapping[str, str], root: Path) -> None:
    for name, identity in files.items():
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            raise InvalidInput(f"the code version names {name!r}, outside its folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ctx.store.get(identity))


def recipe_of(ctx: Context, identity: str) -> StepRow | None:
    """The latest step that made a version; None when nothing recorded did."""
    with ctx.read() as tx:
        rows = steps.of_output(tx, ctx.project, identity)
    return rows[0] if rows else None
