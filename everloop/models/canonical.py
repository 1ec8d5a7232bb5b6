"""The canonical digest of a fitted model: equal for models that predict alike, whatever their bytes.

Two pickles of one model may differ (thread counts are stored, memory layout, shared references, padding between the
fields of tree nodes). The digest walks values instead: parameters less those that only say how fast to work, then
every fitted attribute; arrays as dtype, shape and C-order elements, structured arrays field by field.
Measured: forests trained with `n_jobs` 1, 2 and 4 have one digest and three pickles.
"""

import copyreg
import json
import operator
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from blake3 import blake3

from everloop.core.ids import PREFIX
from everloop.models.flavours import is_of

SPEED_ONLY = frozenset(
    {"n_jobs", "verbose", "n_threads", "_n_threads", "nthread", "num_threads", "thread_count", "warm_start", "memory"}
)
"""Attributes that change how a model is computed, not what it answers."""

_PLAIN = (bool, int, str, bytes, complex, type(None), type(...))


def canonical_digest(estimator: Any) -> str:
    """The `b3:` digest of a fitted model by value; see the module for the rule."""
    walk = _Walk()
    native = _native(estimator)
    walk.value(native(estimator) if native is not None else estimator)
    return PREFIX + walk.hasher.hexdigest()


def _native(value: Any) -> Callable[[Any], Any] | None:
    """What reads a model of a library that keeps it outside of Python."""
    return next((read for package, read in _NATIVE if is_of(value, package)), None)


class _Walk:
    """Feeds one hasher; an object that was seen before is named by its position."""

    def __init__(self) -> None:
        self.hasher = blake3()
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []

    def value(self, value: Any) -> None:
        if type(value) in _PLAIN:
            self._say(type(value).__name__, value if isinstance(value, bytes) else repr(value).encode())
        elif type(value) is float:
            self._say("float", value.hex().encode())
        elif isinstance(value, np.ndarray):
            self._array(value)
        elif isinstance(value, np.generic):
            self._say(f"scalar {value.dtype.str}", value.tobytes())
        elif isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
            self._say("named", f"{value.__module__}:{value.__qualname__}".encode())
            if isinstance(value, types.FunctionType) and value.__name__ == "<lambda>":
                self._say("code", value.__code__.co_code)
        else:
            self._compound(value)

    def _say(self, kind: str, content: bytes) -> None:
        self.hasher.update(f"{kind} {len(content)}\n".encode())
        self.hasher.update(content)

    def _array(self, array: np.ndarray[Any, Any]) -> None:
        self._say("array", f"{array.shape}".encode())
        if array.dtype.names is not None:
            for name in array.dtype.names:
                self._say("field", name.encode())
                self._array(array[name])
        elif array.dtype.kind == "O":
            for item in array.ravel():
                self.value(item)
        else:
            self._say(array.dtype.str, np.ascontiguousarray(array).tobytes())

    def _compound(self, value: Any) -> None:
        position = self._seen.get(id(value))
        if position is not None and not isinstance(value, tuple):
            self._say("again", str(position).encode())
            return
        self._seen[id(value)] = len(self._alive)
        self._alive.append(value)
        if isinstance(value, Mapping) and type(value).__module__ == "builtins":
            self._mapping("dict", value)
        elif isinstance(value, list | tuple):
            self._say(type(value).__name__, str(len(value)).encode())
            for item in value:
                self.value(item)
        elif isinstance(value, set | frozenset):
            self._say("set", b"".join(sorted(_one(item) for item in value)))
        else:
            self._object(value)

    def _mapping(self, kind: str, mapping: Mapping[Any, Any]) -> None:
        """Keys that are text are sorted, for the order of attributes carries no meaning; others keep their order."""
        keys = list(mapping)
        keys = sorted(keys) if all(isinstance(key, str) for key in keys) else keys
        self._say(kind, str(len(keys)).encode())
        for key in keys:
            self.value(key)
            self.value(mapping[key])

    def _object(self, value: Any) -> None:
        kind = type(value)
        if (
            hasattr(value, "predict") and (native := _native(value)) is not None
        ):  # inside a pipeline, or a class of ours
            self.value(native(value))
            return
        self._say("object", f"{kind.__module__}.{kind.__qualname__}".encode())
        state = getattr(value, "__dict__", None)
        if state is not None and kind.__module__ != "numpy.random":
            kept = {k: v for k, v in state.items() if k not in SPEED_ONLY and k != "_sklearn_version"}
            self._mapping("state", kept)
        if state is None or hasattr(value, "__getnewargs__") or "__reduce__" in _names(kind):
            for part in _reduced(value):
                self.value(part)


def _names(kind: type) -> set[str]:
    """Names that a class or its bases define, those of `object` aside."""
    return {name for base in kind.__mro__[:-1] for name in vars(base)}


def _reduced(value: Any) -> tuple[Any, ...]:
    """What copying an object without attributes of its own would be made from: constructor, arguments, state."""
    reduce = copyreg.dispatch_table.get(type(value))
    parts = reduce(value) if reduce is not None else value.__reduce_ex__(2)
    if isinstance(parts, str):
        return (parts,)
    constructor, arguments, *rest = parts
    return (constructor, arguments, *(part if i == 0 else list(part or ()) for i, part in enumerate(rest[:3])))


def _one(value: Any) -> bytes:
    walk = _Walk()
    walk.value(value)
    return walk.hasher.digest()


def _of_xgboost(estimator: Any) -> Any:
    """Trees with their statistics, and what their sum starts from and goes through; no thread counts in either."""
    booster = estimator.get_booster() if hasattr(estimator, "get_booster") else estimator
    learner = json.loads(booster.save_config())["learner"]
    around = [learner["learner_model_param"], learner["objective"]["name"]]
    return ["xgboost", booster.get_dump(with_stats=True, dump_format="json"), booster.feature_names, around]


def _of_lightgbm(estimator: Any) -> Any:
    """The text of the trees; what follows `parameters:` names thread counts."""
    booster = getattr(estimator, "booster_", estimator)
    return ["lightgbm", booster.model_to_string().partition("\nparameters:")[0]]


def _of_torch(estimator: Any) -> Any:
    """The state dict by name; architecture counts as its textual form."""
    state = {name: tensor.detach().cpu().numpy() for name, tensor in estimator.state_dict().items()}
    return ["torch", repr(estimator), state]


def _of_onnx(model: Any) -> Any:
    """The protocol buffer less what says who made it; the sets of operators are listed in the order of a set."""
    copy = type(model)()
    copy.CopyFrom(model)
    for said in ("producer_name", "producer_version", "doc_string"):
        copy.ClearField(said)
    for graph in _graphs(copy.graph):
        graph.ClearField("doc_string")
        for item in (*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
            item.ClearField("doc_string")
    for listed, by in (("opset_import", "domain"), ("metadata_props", "key")):
        held = sorted(getattr(copy, listed), key=operator.attrgetter(by))
        del getattr(copy, listed)[:]
        getattr(copy, listed).extend(held)
    return ["onnx", copy.SerializeToString(deterministic=True)]


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those within its nodes (branches, loops)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graphs(inner)


_NATIVE: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("xgboost", _of_xgboost),
    ("lightgbm", _of_lightgbm),
    ("torch", _of_torch),
    ("onnx", _of_onnx),
)
