"""Perform one job where we are: load its inputs, call the function, save what it returns, measure.

Both executors come through here, so that a step means the same in this process and in a child.
"""

import functools
import inspect
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import FunctionType
from typing import Any

from everloop.core.errors import DefinitionError, EverloopError, InvalidInput
from everloop.core.ports import Blobs, Codec, Job, Outcome
from everloop.flows.assets import Asset, suggest
from everloop.flows.failure import step_failed
from everloop.flows.identity import closure_hash, runner_identity, runtime
from everloop.flows.identity.runtime import THREAD_VARIABLES
from everloop.flows.observation.using import peak_memory
from everloop.flows.search.trial import attempted
from everloop.flows.witness import watching


def perform(asset: Asset, job: Job, blobs: Blobs) -> Outcome:
    """Run `asset` as `job` says.

    Raises `StepFailed` for whatever the user's code raised; errors of the store and of codecs pass as they are.
    """
    inputs = {name: _load(job, identity, _annotation(asset, name), blobs) for name, identity in job.inputs.items()}
    inputs |= dict.fromkeys(job.facts.get("absent", ()))  # their assets were skipped
    codec = codec_of(asset, job.codecs)
    began, cpu = time.perf_counter(), _cpu()
    try:
        with (
            _seeded(job),
            _environment(job.env),
            watching(job.root, _aside(job), frozenset(THREAD_VARIABLES)) as watch,
        ):
            value = call(asset, inputs, job.params, job.facts)
    except StopIteration as error:  # must not end a generator of ours
        raise step_failed(job.step, error) from None
    except EverloopError as error:
        raise step_failed(job.step, error) from error
    except Exception as error:
        raise step_failed(job.step, error) from error
    seconds, cpu_seconds = time.perf_counter() - began, _cpu() - cpu
    facts = {**asset.facts, **job.facts, "inputs": dict(job.inputs), "params": dict(job.params), "step": job.step}
    facts["manifests"] = dict(job.manifests)
    saved = codec.save(value, asset.name, blobs, facts)
    seen = _seen(asset, job) if job.facts.get("describe") else {}
    return Outcome(saved, seconds, cpu_seconds, peak_memory(), reads=watch.reads, seen=seen)


def _aside(job: Job) -> tuple[str, ...]:
    """Where the platform itself reads while a step runs."""
    return (job.blobs,) if "://" not in job.blobs else ()


def _seen(asset: Asset, job: Job) -> dict[str, Any]:
    """The step's code and runtime from within its process: what really ran, whatever anybody believes."""
    assert asset.function is not None
    closure, runner, here = closure_hash(asset.function, job.root), runner_identity(asset.runner), runtime()
    return {
        "parts": dict(closure.parts),
        "packages": here.restricted({*closure.packages, *runner.packages}),
        "runtime": dict(here.version.manifest),
        "runner": f"{asset.runner} {runner.digest}",
        "hash_seed": os.environ.get("PYTHONHASHSEED", ""),
    }


def call(asset: Asset, inputs: Mapping[str, Any], params: Mapping[str, Any], facts: Mapping[str, Any]) -> Any:
    """Call the asset's function, through its runner where it has one, as a trial where it is searched."""
    if asset.function is None:
        raise InvalidInput(f"{asset.key} is given, not made", hint="capture its source first")
    if asset.search is not None:
        return attempted(lambda: _called(asset, inputs, params, facts), facts)
    return _called(asset, inputs, params, facts)


def _called(asset: Asset, inputs: Mapping[str, Any], params: Mapping[str, Any], facts: Mapping[str, Any]) -> Any:
    assert asset.function is not None
    if asset.runner:
        return resolve(asset.runner)(asset, inputs, params, facts)
    return asset.function(**inputs, **params)


@functools.cache
def resolve(reference: str) -> Any:
    """What `module:attribute` names; a class is made into an instance of it. Raises `DefinitionError`."""
    module, _, attribute = reference.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DefinitionError(
            f"{reference!r} cannot be loaded: {error}", hint="module:attribute, of something installed"
        ) from error
    return found() if isinstance(found, type) else found


def codec_of(asset: Asset, codecs: Mapping[str, str]) -> Codec:
    """The codec that saves an asset's value."""
    found: Codec = resolve(asset.codec or _codec_name(asset.kind, codecs))
    return found


def _codec_name(kind: str, codecs: Mapping[str, str]) -> str:
    if kind not in codecs:
        raise InvalidInput(f"no codec for versions of kind {kind!r}", hint=suggest(kind, codecs))
    return codecs[kind]


def _load(job: Job, identity: str, wanted: str, blobs: Blobs) -> Any:
    manifest = job.manifests[identity]
    if wanted.rpartition(".")[2] == "Tree":
        return resolve("everloop.data.trees.reading:tree_of")(manifest, blobs, job.placements)
    codec: Codec = resolve(_codec_name(str(manifest["kind"]), job.codecs))
    return adapt(codec.load(manifest, blobs, job.placements), wanted)


def adapt(value: Any, wanted: str) -> Any:
    """Give a table in the form that the parameter's annotation asks for; anything else as it is."""
    library, _, name = wanted.rpartition(".")
    lazy = hasattr(value, "collect") and hasattr(value, "collect_schema")
    if name == "LazyFrame" and not lazy and hasattr(value, "lazy"):
        return value.lazy()
    if name in ("DataFrame", "Table") and lazy:
        value = value.collect()
    if name == "Table" and hasattr(value, "to_arrow"):
        return value.to_arrow()
    if name == "DataFrame" and library in ("pd", "pandas") and hasattr(value, "to_pandas"):
        return value.to_pandas()
    return value


def _annotation(asset: Asset, parameter: str) -> str:
    """The annotation as text; a class is named by its module's first part and its name."""
    if asset.function is None:
        return ""
    annotation = _annotations(asset.function).get(parameter)  # none: for the runner, not for the function
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and annotation is not inspect.Parameter.empty:
        return f"{annotation.__module__.partition('.')[0]}.{annotation.__name__}"
    return ""


def _annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    """What the parameters of a function are said to be; a plain one's signature is what it says itself."""
    if type(function) is FunctionType and not function.__dict__:
        return function.__annotations__
    return {name: one.annotation for name, one in inspect.signature(function).parameters.items()}


_spare: list[Any] = []


def _other(own: Any) -> Any:
    """A generator for a step: the same one each time, unless a step runs inside a step."""
    if not _spare:
        _spare.append(sys.modules["numpy"].random.MT19937(0))
    return _spare[0] if own is not _spare[0] else type(own)(0)


def warm(job: Job) -> None:
    """Do ahead what every step of a project does once a process: a server does it before it forks."""
    if "numpy" in sys.modules:
        import_module("numpy.random")  # loaded by its first use otherwise, in every child
        _other(None)
    with _seeded(job), watching(job.root, _aside(job), frozenset(THREAD_VARIABLES)):
        pass


@contextmanager
def _seeded(job: Job) -> Iterator[None]:
    """Seed `random` and numpy's global generator, from the step's key unless it is told; put their state back after."""
    seed = int(job.facts.get("seed", int(job.recipe.removeprefix("b3:")[:8] or "0", 16)))
    state = random.getstate()
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is None:
        try:
            yield
        finally:
            random.setstate(state)
        return
    # another generator in its place for as long: copying the state of numpy's own costs more than a short step
    own = numpy.random.get_bit_generator()
    numpy.random.set_bit_generator(_other(own))
    numpy.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        numpy.random.set_bit_generator(own)


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    """Set the job's variables for as long as the step runs (a child has them from its start)."""
    changed = {name: os.environ.get(name) for name, value in env.items() if os.environ.get(name) != value}
    os.environ.update({name: env[name] for name in changed})
    try:
        yield
    finally:
        for name, value in changed.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _cpu() -> float:
    """CPU seconds that this process has used."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime
