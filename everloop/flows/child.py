"""`python -m everloop.flows.child`: the process in which one step runs.

It reads its job (JSON) from standard input, answers on the file descriptor named by its argument, and never opens
the catalog. Standard input stays open while its parent lives: when it closes, the child ends itself and its group.
"""

import functools
import os
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from everloop.core.errors import DefinitionError, EverloopError
from everloop.core.ports import Job, Outcome, Resources, Saved, Use
from everloop.core.version import Version
from everloop.flows.assets import Asset, suggest
from everloop.flows.failure import step_failed
from everloop.flows.identity.importing import import_from_source
from everloop.flows.observation.using import Counting
from everloop.flows.perform import perform
from everloop.store import open_store


def main(answer_to: int) -> int:
    """Run the job that waits on standard input; the exit code is 0 whenever an answer was given."""
    return answer(read_job(sys.stdin.buffer), answer_to)


def answer(job: Job, answer_to: int) -> int:
    """Run a job in this process, which is the job's own, and answer; 0 whenever an answer was given."""
    os.set_inheritable(answer_to, False)
    os.environ.update(job.env)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for file in job.facts.get("groups", ()):  # before it starts anything: what it starts is in them too
        with suppress(OSError), open(file, "w", encoding="ascii") as group:  # noqa: PTH123 - one call of the system
            group.write("0")
    _limit(job.resources)
    counting = Counting(whole=True)
    try:
        said: dict[str, Any] = {"outcome": outcome_to_json(perform(find_asset(job), job, open_store(job.blobs)))}
    except EverloopError as error:
        said = {"error": error_to_json(error)}
    except MemoryError as error:
        said = {"error": error_to_json(step_failed(job.step, error))}
    except Exception as error:  # noqa: BLE001 - the edge of the process: the parent must hear of everything
        said = {"error": error_to_json(step_failed(job.step, error))}
    said["used"] = use_to_json(counting.use())
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(answer_to, "wb") as pipe:
        pipe.write(msgspec.json.encode(said) + b"\n")
    return 0


def find_asset(job: Job) -> Asset:
    """Import the project from the job's folder and find the step; raises `StepFailed` or `DefinitionError`.

    `job.module` is `module` or `module:attribute`; without an attribute the module must hold exactly one project,
    that is one object with a method `assets()`.
    """
    try:
        place, assets = _assets(str(job.root), job.module)
    except _Broken as error:
        raise step_failed(job.step, error.cause) from error.cause
    if job.step not in assets:
        raise DefinitionError(f"{place}:1: no asset {job.step}", hint=suggest(job.step, assets))
    return assets[job.step]


class _Broken(Exception):
    """The project's module does not import."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@functools.lru_cache(maxsize=1)
def _assets(root: str, reference: str) -> tuple[str, Mapping[str, Asset]]:
    """The file and the assets of a project: read once in this process, and by a server before it forks."""
    module_name, _, attribute = reference.partition(":")
    import_from_source(Path(root))
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        module = import_module(module_name)
    except Exception as error:
        raise _Broken(error) from error
    if attribute:
        found = [getattr(module, attribute, None)]
    else:
        named = (v for v in vars(module).values() if not isinstance(v, type) and callable(getattr(v, "assets", None)))
        found = list({id(value): value for value in named}.values())
    if len(found) != 1 or found[0] is None:
        raise DefinitionError(
            f"{module.__file__}:1: the module defines {len(found)} projects, not one",
            hint='project = el.Project("name")',
        )
    return str(module.__file__), found[0].assets()


def read_job(stream: BinaryIO) -> Job:
    """Read the one line that holds a job; what follows is only there to end."""
    return job_of(stream.readline())


def job_of(line: bytes) -> Job:
    """The job of a line that `write_job` wrote."""
    raw = msgspec.json.decode(line)
    raw["root"] = Path(raw["root"])
    raw["resources"] = Resources(**raw["resources"])
    return Job(**raw)


def write_job(job: Job) -> bytes:
    """The line that `read_job` reads; raises `InvalidInput` through the engine before it comes to this."""
    fields = {name: getattr(job, name) for name in Job.__slots__}
    return msgspec.json.encode({**fields, "root": str(job.root)}) + b"\n"


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """What the child says of a step that came to its end."""
    version = outcome.saved.version
    return {
        "version": [version.kind, version.name, version.manifest, version.inputs],
        "metrics": outcome.saved.metrics,
        "placements": outcome.saved.placements,
        "rests": outcome.saved.rests,
        "measured": [outcome.seconds, outcome.cpu_seconds, outcome.peak_memory],
        "reads": outcome.reads,
        "seen": outcome.seen,
    }


def outcome_from_json(raw: Mapping[str, Any], output: str) -> Outcome:
    """Rebuild an outcome; the version's id is computed again from its manifest."""
    kind, name, manifest, inputs = raw["version"]
    version = Version(kind, name, manifest, tuple((role, identity) for role, identity in inputs))
    seconds, cpu_seconds, memory = raw["measured"]
    saved = Saved(version, raw["metrics"], raw["placements"], raw["rests"])
    return Outcome(saved, seconds, cpu_seconds, memory, output, raw["reads"], raw["seen"])


def use_to_json(use: Use) -> list[float]:
    """A use as its numbers, in the order of its fields."""
    return [use.seconds, use.cpu_seconds, use.peak_memory, use.gpu_seconds, use.written]


def error_to_json(error: EverloopError) -> dict[str, Any]:
    """An error of ours as values."""
    details = {name: value for name, value in error.details.items() if isinstance(value, str | int | float | list)}
    return {"type": type(error).__name__, "message": error.message, "hint": error.hint, "details": details}


def _limit(resources: Resources) -> None:
    """Hold the process to its memory and its CPU time; the parent keeps the clock."""
    if resources.memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (resources.memory, resources.memory))
    if resources.seconds is not None:
        allowed = max(1, int(resources.seconds * max(1.0, resources.cores)) + 1)
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, allowed + 5))


def _end_with_parent() -> None:
    # the bare descriptor: a thread that waits inside sys.stdin delays the end of the interpreter by a second
    while os.read(0, 65536):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
