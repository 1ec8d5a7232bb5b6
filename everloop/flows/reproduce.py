"""Reproduce: run a version's recorded recipe again, in a clean process and without the cache, and compare.

| tier | what was found |
|---|---|
| `bit` | the same version id: every byte came out the same |
| `canonical` | other bytes, the same value by the kind's canonical digest |
| `functional` | another model, the same answers, bit for bit, on the recorded probe rows |
| `numeric` | answers that differ by no more than the tolerance |
| `statistical` | other answers, and metrics within the noise of other seeds |
| `different` | none of these; the factors name what is not as it was recorded |

What to expect: bit for bit with the same packages, CPU features and threads. On another CPU, or with another number
of threads, trees still come out the same, and whatever goes through BLAS differs in the last digits.
"""

import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from everloop.catalog import placements, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import redactions
from everloop.catalog.making import leaks, recipes
from everloop.catalog.making.recipes import Ingredients
from everloop.catalog.steps import StepRow
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import is_id, short
from everloop.core.ports import Executor, Job, Outcome, Resources
from everloop.flows import witness
from everloop.flows.reproducing import factors, spread
from everloop.flows.running.finding import logicals

Tier = Literal["bit", "canonical", "functional", "numeric", "statistical", "different"]
TIERS: tuple[str, ...] = get_args(Tier)
"""Nearest first."""
Compare = Callable[[Mapping[str, Any], Mapping[str, Any]], float | None]
"""From the two manifests to the largest difference of their answers on the recorded rows; None: cannot be compared."""

Verify = Callable[[Mapping[str, Any], Mapping[str, str]], Sequence[str]]
"""From an input's manifest and placements to what in its bytes is not as its id says."""

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
    step: str = ""
    environment: str = "here"
    """`here`: that of this process; `rebuilt`: the recorded one, made again."""
    statement: str = ""
    """The object with the signed verdict, where it was recorded."""

    @property
    def same(self) -> bool:
        """Whether the value is the same (bit or canonical)."""
        return self.tier in ("bit", "canonical")


@dataclass(frozen=True, slots=True)
class Now:
    """What is taken as it is at present, in place of the record: an experiment on what a difference is due to."""

    root: Path | None = None
    """This folder's code."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of the step's process."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Other versions, by parameter."""
    params: Mapping[str, Any] = field(default_factory=dict)
    cores: float | None = None


def reproduce(
    ctx: Context,
    identity: str,
    *,
    executor: Executor,
    codecs: Mapping[str, str],
    module: str,
    compare: Mapping[str, Compare] | None = None,
    verify: Verify | None = None,
    now: Now | None = None,
    repeats: int = 0,
) -> Verdict:
    """Run the recipe of a version again, from the recorded code, inputs, parameters and thread count.

    `compare` gives, for a kind of version, a function that compares the answers of two; `verify` reads the inputs when
    something else came out; `repeats` runs with other seeds tell, when all else differs, how far metrics are noise.
    A step over a list is run again for each of its items; a version that one item gave, for that one; of what a search
    found, its best trial. Nothing is recorded. Raises `NotFound` when no step made the version or its code or inputs
    are gone, `StepFailed` when the code fails now.
    """
    record = _recorded(ctx, identity)
    chosen = now or Now()
    root = Path(tempfile.mkdtemp(prefix="everloop-reproduce-"))
    try:
        if chosen.root is None:
            _write_code(ctx, record.files, root)
        job = _job(ctx, record, root, chosen, (module, codecs))
        again = spread.executions(ctx, identity, record.step, record.manifest, job)
        came = [_run(executor, one, compare or {}) for one in again]
        tier: Tier = max((one.tier for one in came), key=TIERS.index, default="bit")
        outcomes = [one.outcome for one in came]
        if tier == "different" and repeats and again[0].number is None:
            metrics = [_metrics(outcomes[0])]
            metrics += [_metrics(executor.run(replace(again[0].job, recipe=_seed(n)))) for n in range(1, repeats + 1)]
            tier = "statistical" if within_noise(_figures(record.manifest), metrics) else tier
    finally:
        shutil.rmtree(root, ignore_errors=True)
    seen: Mapping[str, Any] = outcomes[-1].seen if outcomes else {}
    found = [*record.erased, *factors.told(record.runtime, record.made_of, seen)]
    found += _changed(record.step, job)
    found += _items(came)
    read = {name: digest for one in outcomes for name, digest in one.reads.items()}
    reads = witness.undeclared(read, seen.get("parts", {}))
    if record.step.status == "leaky" or not _same(tier):
        found += factors.reads(record.reads, reads)
    if verify is not None and not _same(tier):
        for name, one in job.inputs.items():
            found += [f"input {name}: {said}" for said in verify(job.manifests[one], job.placements)]
    told = tuple(found) or _unexplained(tier)
    difference = max((one.difference for one in came if one.difference is not None), default=None)
    seconds = sum(one.seconds for one in outcomes)
    return Verdict(tier, told, identity, _made(record, came), difference, seconds, record.step.step)


@dataclass(frozen=True, slots=True)
class _Came:
    """What came of one execution that was run again."""

    number: int | None
    outcome: Outcome
    tier: Tier
    difference: float | None


def _run(executor: Executor, one: spread.Again, compare: Mapping[str, Compare]) -> _Came:
    outcome = executor.run(one.job)
    made = outcome.saved.version
    tier, difference = _tier(one.identity, one.manifest, made.id, made.manifest, compare.get(made.kind))
    return _Came(one.number, outcome, tier, difference)


def _made(record: "_Record", came: Sequence[_Came]) -> str:
    """The id of what came out: of a list that was made item by item, the list's."""
    if came and came[0].number is None:
        return came[0].outcome.saved.version.id
    made = {one.number: one.outcome.saved.version for one in came if one.number is not None}
    return spread.joined(record.step.step.partition("/")[2], int(record.manifest["count"]), made)


def _items(came: Sequence[_Came]) -> list[str]:
    """Which items of a list came out as something else."""
    other = [f"{one.number} ({one.tier})" for one in came if one.number is not None and not _same(one.tier)]
    rest = f" and {len(other) - _NAMED} more" if other[_NAMED:] else ""
    return [f"of {len(came)} items these: {', '.join(other[:_NAMED])}{rest}"] if other else []


_NAMED = 10
"""Items that are named at most."""


@dataclass(frozen=True, slots=True)
class _Record:
    """All that the catalog holds of how a version came to be."""

    step: StepRow
    manifest: Mapping[str, Any]
    runtime: Mapping[str, Any]
    made_of: Ingredients | None
    files: Mapping[str, str]
    inputs: Mapping[str, Mapping[str, Any]]
    placed: Mapping[str, str]
    erased: Sequence[str]
    reads: Mapping[str, str]


def _recorded(ctx: Context, identity: str) -> _Record:
    with ctx.read() as tx:
        row = steps.made(tx, ctx.project, [identity]).get(identity)
        if row is None or not row.runtime:
            raise NotFound(
                f"no recorded step made {identity}", hint="only outputs of steps can be reproduced, not captured data"
            )
        inputs = versions.manifests(tx, ctx.project, list(row.inputs.values()))
        needed = [logical for manifest in inputs.values() for logical in logicals(manifest)]
        return _Record(
            row,
            versions.get(tx, ctx.project, identity).manifest,
            versions.get(tx, ctx.project, row.runtime).manifest,
            recipes.several(tx, ctx.project, [row.recipe]).get(row.recipe),
            versions.get(tx, ctx.project, row.code).manifest["files"],
            inputs,
            placements.resolve(tx, ctx.project, needed),
            _erased(tx, ctx.project, inputs),
            next((one.reads for one in leaks.of(tx, ctx.project, row.recipe) if one.output == identity), {}),
        )


def _job(ctx: Context, record: _Record, root: Path, now: Now, how: tuple[str, Mapping[str, str]]) -> Job:
    row, inputs, placed = record.step, dict(record.inputs), dict(record.placed)
    if now.inputs:
        with ctx.read() as tx:
            inputs |= versions.manifests(tx, ctx.project, list(now.inputs.values()))
            needed = [logical for manifest in inputs.values() for logical in logicals(manifest)]
            placed |= placements.resolve(tx, ctx.project, needed)
    bound = {f"{role}_id": record.manifest[role] for role in _BOUND if _is_bound(record.manifest, role)}
    threads = int(record.runtime["threads"].get("OMP_NUM_THREADS") or 1)
    return Job(
        step=row.step,
        root=now.root or root,
        module=how[0],
        inputs={**row.inputs, **now.inputs},
        manifests=inputs,
        placements=placed,
        params={**row.params, **now.params},
        blobs=str(getattr(ctx.store, "url", "")),
        resources=Resources(cores=threads if now.cores is None else now.cores),
        env=now.env,
        facts={"recipe": row.recipe, "describe": True, **bound},
        codecs=how[1],
        recipe=row.recipe,
    )


def _changed(row: StepRow, job: Job) -> list[str]:
    """What was asked for in place of the record."""
    found = [
        f"parameter {name}: {row.params.get(name)} then, {value} now"
        for name, value in job.params.items()
        if row.params.get(name) != value
    ]
    return found + [
        f"input {name}: {short(row.inputs.get(name, ''))} then, {short(one)} now"
        for name, one in job.inputs.items()
        if row.inputs.get(name) != one
    ]


def within_noise(recorded: Mapping[str, float], again: Sequence[Mapping[str, float]]) -> bool:
    """Whether every recorded metric lies where those of runs with other seeds do: in a 99 % prediction interval.

    Runs that do not depend on the seed have no noise, so that nothing lies within it. The factor is Student's t.
    """
    names = [name for name in recorded if all(name in one for one in again)]
    if len(again) <= _LEAST or not names:
        return False
    for name in names:
        values = [one[name] for one in again]
        mean, spread = statistics.fmean(values), statistics.stdev(values)
        reach = _T99[min(len(values) - 1, len(_T99) - 1)] * spread * math.sqrt(1 + 1 / len(values))
        if spread == 0 or abs(recorded[name] - mean) > reach:
            return False
    return True


_LEAST = 2
_T99 = (math.inf, 63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169)
"""Student's t at 99.5 % by degrees of freedom (any table; computed by SciPy in the tests)."""


def _metrics(outcome: Outcome) -> Mapping[str, float]:
    return dict(outcome.saved.metrics) or _figures(outcome.saved.version.manifest)


def _figures(manifest: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(text) for name, text in dict(manifest.get("metrics", {})).items()}


def _seed(number: int) -> str:
    return f"b3:{number:08x}"


def _same(tier: str) -> bool:
    return tier in ("bit", "canonical")


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
