"""Steps on a Ray cluster: placed by their cores, memory and GPUs, run again elsewhere when their node dies.

The only module of flows that imports Ray. A cluster is named by its address and joined with its own token, never found:
Ray attaches to whatever cluster it meets on a host otherwise. Values travel through the object store of the workspace,
which every node must reach: a folder that all of them see, or a bucket. Code travels as the files of the run's code
version. A node holds what opens the object store and the step's own variables, for as long as a step runs, and never
the catalog: what a step gave is recorded by the driver of its run.
"""

import atexit
import functools
import importlib
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError, TaskCancelledError

from everloop.core.errors import Cancelled, Conflict, EverloopError, InvalidInput, StepFailed, Unavailable
from everloop.core.ports import Blobs, Job, Observer, Outcome, Resources, Use
from everloop.core.settings import use_ray_token
from everloop.flows import child
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.executors.nodes import on_this_node, packages_digest
from everloop.flows.executors.process import error_of, given_variables
from everloop.flows.identity.runtime import Runtime, runtime, thread_environment
from everloop.flows.observation.using import telling
from everloop.flows.perform import perform
from everloop.flows.running.finding import objects_of
from everloop.store import access, open_store

_AGAIN = 3
"""How often a step is placed again when its worker or node dies."""
_SHORT = 0.05
"""Seconds: steps that take less go to the cluster together, for a task of Ray costs a millisecond or two."""
_GATHER = 0.003
"""Seconds in which they wait for each other."""
_MANY = 16
"""Of them at most: a node that dies costs all of them another execution."""
_LOOK = 0.5
"""Seconds between two looks at whether the run was ended, and whether the head is there."""
_GONE = 5.0
"""Seconds after which a head that takes no connection is taken for dead. Ray itself waits for a minute, and then ends
this whole process."""


class RayExecutor:
    """Runs each job as a task of a cluster.

    Steps of this process's environment only: a node with other packages refuses. A step with a limit of memory or time
    runs in a child of its worker, which holds it to that; others run in the worker itself.
    """

    isolated = True
    """Steps may run beside each other."""
    unseen = True
    """What a step uses is told when it ended."""

    def __init__(self, address: str, token: str, *, files: Mapping[str, str], blobs: Blobs) -> None:
        """Join the cluster at `address` (`host:port` of its head, or `ray://host:port`).

        `files` are those of the run's code version, path -> object of `blobs`. Raises `InvalidInput` without an
        explicit address or a token, `Unavailable` when the cluster does not answer.
        """
        if not address or address in ("auto", "local"):
            raise InvalidInput("a cluster needs an address", hint="host:port of the head node, as `ray start` said it")
        if not token:
            raise InvalidInput("a cluster needs its token", hint="start its nodes with RAY_AUTH_MODE=token and a token")
        self._blobs, self._files = blobs, dict(files)
        self._closed = threading.Event()
        self._head = _Head(address)
        self._packages: dict[int, str] = {}
        self._tasks: dict[Resources, Any] = {}
        self._took: dict[str, float] = {}
        """Seconds that the last execution of each step took, by its key."""
        self._batches: dict[tuple[Resources, str], _Batch] = {}
        self._lock = threading.Lock()
        use_ray_token(token)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise Unavailable(
                f"the cluster at {address} does not answer: {error}", hint="is it up, and the token right?"
            ) from error

    def run(self, job: Job, observer: Observer | None = None) -> Outcome:
        """Run it somewhere; raises `StepFailed`, `Cancelled`, or `Unavailable` when its places died too often."""
        if self._closed.is_set():
            raise Cancelled(f"{job.step} was cancelled", hint="run it again: finished steps are reused")
        threads = max(1, int(job.resources.cores))
        if threads not in self._packages:
            self._packages[threads] = packages_digest(runtime(threads))
        job = replace(job, facts={**job.facts, "packages": self._packages[threads]})
        began = time.monotonic()
        said = self._waited(job, self._sent(job))
        self._took[job.step] = time.monotonic() - began if "error" in said else float(said["used"][0])
        if observer is not None:
            observer.used(Use(*said["used"]))
            if said["output"]:
                observer.wrote("out", said["output"])
        if "error" in said:
            raise error_of(said["error"], said["output"])
        outcome = child.outcome_from_json(said["outcome"], said["output"])
        made = outcome.saved
        for identity in objects_of(made.version.manifest, made.placements):
            if not self._blobs.has(identity):
                raise Unavailable(
                    f"what {job.step} made on {said['node']} is not in the object store here",
                    hint="every node must reach the same object store: a shared folder, or a bucket",
                )
        return outcome

    def environ(self, _step: str) -> dict[str, str]:
        """The variables that a step would see; what a node has of its own is taken to be like here."""
        return {**os.environ, **_fixed()}

    def close(self) -> None:
        """End what runs and leave the cluster, which goes on without us."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._head.gone():  # leaving it would wait for its answer until Ray ends this process
            _here["abandoned"] = True
            return
        with suppress(RayError):
            ray.shutdown()

    def _sent(self, job: Job) -> Any:
        """Hand it to the cluster: alone, or with others of its size that wait now, where its like are short."""
        task, line = self._task(job.resources), child.write_job(job)
        credentials = access(job.blobs, os.environ)
        if job.resources.limited or self._took.get(job.step, _SHORT) >= _SHORT:
            return task.remote([line], self._files, credentials)
        key = (job.resources, job.blobs)
        with self._lock:
            batch = self._batches.get(key)
            first = batch is None
            if batch is None:
                batch = self._batches[key] = _Batch()
            place = len(batch.lines)
            batch.lines.append(line)
            if len(batch.lines) == _MANY:
                self._batches.pop(key)
                batch.full.set()
        if first:
            batch.full.wait(_GATHER)
            with self._lock:
                if self._batches.get(key) is batch:
                    self._batches.pop(key)
            made = task.options(num_returns=len(batch.lines)).remote(batch.lines, self._files, credentials)
            batch.references = made if len(batch.lines) > 1 else [made]
            batch.sent.set()
        batch.sent.wait()
        return batch.references[place]

    def _task(self, resources: Resources) -> Any:
        """The remote function for steps of a size, exported once."""
        if resources not in self._tasks:
            wanted: dict[str, Any] = {"num_cpus": resources.cores, "num_gpus": resources.gpus}
            if resources.memory is not None:
                wanted["memory"] = resources.memory
            environ = {"env_vars": {**thread_environment(int(resources.cores)), **_fixed()}}
            again = {"max_retries": _AGAIN, "retry_exceptions": False}
            self._tasks[resources] = ray.remote(**wanted, **again, runtime_env=environ)(_work)
        return self._tasks[resources]

    def _waited(self, job: Job, reference: Any) -> dict[str, Any]:
        try:
            while True:
                if self._closed.is_set():
                    raise Cancelled(f"{job.step} was cancelled", hint="run it again: finished steps are reused")
                with suppress(GetTimeoutError):
                    said: dict[str, Any] = ray.get(reference, timeout=_LOOK)
                    return said
                if self._head.gone():
                    raise _lost(job.step, "the head of the cluster does not answer any more")
        except TaskCancelledError as error:
            raise Cancelled(f"{job.step} was cancelled") from error
        except RayTaskError as error:
            told = f"{job.step} failed on the cluster: {error}"
            raise StepFailed(told, step=job.step, exception="RayTaskError") from error
        except (RayError, ConnectionError) as error:
            if self._closed.is_set():
                raise Cancelled(f"{job.step} was cancelled") from error
            raise _lost(job.step, str(error).splitlines()[0][:300]) from error


class _Head:
    """Whether the head of a cluster takes connections; asked by every thread that waits for a step."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition("://")[2].rpartition(":")
        self._place = (host.strip("[]"), int(port)) if port.isdigit() else None
        self._lock = threading.Lock()
        self._asked = self._there = time.monotonic()

    def gone(self) -> bool:
        """It was asked for some seconds, and did not answer."""
        if self._place is None:
            return False
        with self._lock:
            if time.monotonic() - self._asked >= _LOOK:
                with suppress(OSError), socket.create_connection(self._place, timeout=_LOOK):
                    self._there = time.monotonic()
                self._asked = time.monotonic()
            return self._asked - self._there > _GONE


def _lost(step: str, why: str) -> Unavailable:
    hint = "is its head up? everloop flows resume goes on with the run"
    return Unavailable(f"{step} was lost by the cluster: {why}", hint=hint, step=step)


def _fixed() -> dict[str, str]:
    """What a worker's interpreter must start with, for the same bytes to come out as of a child of ours."""
    others = ("PATH", "HOME", "CUDA_VISIBLE_DEVICES")  # Ray's own to set
    return {name: value for name, value in given_variables().items() if name not in others}


_here: dict[str, Any] = {}
"""Of one process: on a node the code that it has imported and its warm process; of a driver whether its head died."""


@atexit.register
def _ended() -> None:
    """End a process whose cluster died here: Ray's own end would wait for the head, or fall over without it."""
    if _here.get("abandoned"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


@functools.cache
def _node() -> str:
    return str(ray.util.get_node_ip_address())


@functools.lru_cache(maxsize=4)
def _stores(url: str) -> Blobs:
    """An object store, opened once a process."""
    return open_store(url)


class _Batch:
    """Short steps that go to the cluster together."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.full, self.sent = threading.Event(), threading.Event()
        self.references: list[Any] = []


def _work(lines: list[bytes], files: Mapping[str, str], credentials: Mapping[str, str]) -> Any:
    """On a node: do the jobs one after the other and say what came of each, as a child of ours would."""
    os.environ.update(credentials)
    place: dict[str, Path] = {}
    done = [_one(line, files, place) for line in lines]
    return done if len(done) > 1 else done[0]


def _one(line: bytes, files: Mapping[str, str], place: dict[str, Path]) -> dict[str, Any]:
    """One job; `place` is where the code of this batch lies, once this node was found to be like the driver's."""
    job = child.job_of(line)
    told: dict[str, Any] = {"output": "", "node": _node()}
    heard = _Used()
    try:
        store = _stores(job.blobs)
        if "code" not in place:
            _same(job)
            place["code"] = on_this_node(files, store)
            _imported(place["code"])
        job = replace(job, root=place["code"])
        if job.resources.limited:
            outcome = _here.setdefault("forked", ForkedExecutor()).run(job, heard)
            told["output"] = outcome.output
        else:
            with telling(heard):
                outcome = perform(child.find_asset(job), job, store)
        told["outcome"] = child.outcome_to_json(outcome)
    except EverloopError as error:
        told["error"] = child.error_to_json(error)
        told["output"] = str(error.details.get("output", ""))
    told["used"] = child.use_to_json(heard.use)
    return told


class _Used:
    """Hears on a node what a step used there."""

    shows = False

    def __init__(self) -> None:
        self.use = Use()

    def began(self, pid: int) -> None:
        pass

    def wrote(self, stream: str, text: str) -> None:
        pass

    def used(self, use: Use) -> None:
        self.use = use


def _imported(root: Path) -> None:
    """Forget the project's modules of another code version, which this worker had before."""
    before = _here.get("root")
    if before not in (None, root):
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(f"{before}{os.sep}"):
                del sys.modules[name]
        sys.path[:] = [path for path in sys.path if path != str(before)]
        importlib.invalidate_caches()
    _here["root"] = root


def _same(job: Job) -> None:
    """Raise `Conflict` on a node whose packages are others than those that the recipe names."""
    here: Runtime = runtime(max(1, int(job.resources.cores)))
    wanted = job.facts.get("packages")
    if wanted and wanted != packages_digest(here):
        raise Conflict(
            f"node {_node()} has other packages than the driver of the run",
            hint="install the same environment on every node",
        )
