"""A fitted estimator as files in MLflow's model format, the same bytes for the same model.

The files are written by rule rather than by `mlflow.sklearn.save_model`: that imports mlflow (seconds), infers
requirements by loading the model in another process (seconds more), writes the time and a random id into `MLmodel`,
and saves by skops, whose bytes never repeat. The plain mlflow client loads what is written here.
"""

import ast
import io
import json
import pickle
import pickletools
import platform
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np

from everloop.core.errors import InvalidInput
from everloop.core.ids import object_id
from everloop.models.flavours import (
    TORCH_FILE,
    check_answer,
    flavours_of,
    is_torch,
    loader_of,
    names_of,
    native_files,
    pickle_inside,
    torch_bytes,
)
from everloop.models.predictor import CARD, Predictor, restore
from everloop.models.signature import Field

PICKLE = "model.pkl"
_MLFLOW_OUTPUT = {
    "probability": "predict_proba",
    "probabilities": "predict_proba",
    "class": "predict",
    "value": "predict",
}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Package:
    """A model's files by path, and the predictor that was loaded back from them."""

    files: Mapping[str, bytes]
    card: Mapping[str, Any]
    predictor: Predictor


def package(estimator: Any, fields: tuple[Field, ...], example: Mapping[str, Array], output: str) -> Package:
    """Write a fitted estimator down, load it back, and have it answer for `example` (a few rows).

    `output` is what it is asked for (see `TrainerDef.output`). Raises `InvalidInput` when the object is no fitted
    model, cannot be pickled, or does not answer for its own example.
    """
    if not hasattr(estimator, "predict") and not is_torch(estimator):
        raise InvalidInput(
            f"the function returned a {type(estimator).__name__}, which has no predict",
            hint="return the fitted estimator: `return model.fit(...)`",
        )
    _check_classes(estimator, output)
    content, form = serialized(estimator)
    modules = named_modules(pickle_inside(content) if form == "torch" else content)
    files = {f"code/{name}": text for name, text in _code(modules).items()}
    card: dict[str, Any] = {
        "file": TORCH_FILE if form == "torch" else PICKLE,
        "format": form,
        "inputs": [field.manifest() for field in fields],
        "output": output,
        "classes": np.asarray(estimator.classes_).tolist() if hasattr(estimator, "classes_") else None,
    }
    predictor = _first_that_answers(content, card, example, named=names_of(estimator) is not None)
    card["frame"] = predictor.frame
    answer = predictor.answer(example)
    check_answer(estimator, answer, output)
    rows = {name: _plain(array) for name, array in example.items()}
    requirements = _requirements(modules, form)
    files |= {
        card["file"]: content,
        **native_files(estimator),
        CARD: _json(card),
        "example.json": _json(rows),
        "input_example.json": _json(_split(rows)),
        "serving_input_example.json": _json({"dataframe_split": _split(rows)}),
        "requirements.txt": "".join(f"{line}\n" for line in requirements).encode(),
        "python_env.yaml": yaml(
            {
                "python": platform.python_version(),
                "build_dependencies": ["pip", "setuptools", "wheel"],
                "dependencies": ["-r requirements.txt"],
            }
        ),
        "conda.yaml": yaml(
            {
                "name": "mlflow-env",
                "channels": ["conda-forge"],
                "dependencies": [f"python={platform.python_version()}", "pip", {"pip": requirements}],
            }
        ),
    }
    files["MLmodel"] = yaml(
        _mlmodel(estimator, card, answer, content, has_code=any(name.startswith("code/") for name in files))
    )
    return Package(dict(sorted(files.items())), card, predictor)


def serialized(estimator: Any) -> tuple[bytes, str]:
    """The bytes, and how they were made: pickle protocol 5, or cloudpickle for what pickle refuses (lambdas).

    Torch modules are saved as torch does: its tensors' own pickles name addresses, so that no two are alike.
    """
    if is_torch(estimator):
        try:
            return torch_bytes(estimator), "torch"
        except Exception as error:
            raise InvalidInput(
                f"the module cannot be saved: {type(error).__name__}: {error}",
                hint="define its class in a module of the project, and keep open files and connections out of it",
            ) from error
    buffer = io.BytesIO()
    try:
        pickle.Pickler(buffer, protocol=5).dump(estimator)
    except Exception as refused:  # noqa: BLE001 - objects refuse pickling by any exception
        try:
            return cloudpickle.dumps(estimator, protocol=5), "cloudpickle"
        except Exception as error:
            raise InvalidInput(
                f"the model cannot be pickled: {type(error).__name__}: {error}",
                hint=f"pickle says: {refused}; keep open files, locks and connections out of it",
            ) from error
    return buffer.getvalue(), "pickle"


def named_modules(content: bytes) -> list[str]:
    """Imported modules whose names stand in a pickle: those that it needs to be loaded again."""
    said = [(opcode.name, text) for opcode, text, _ in pickletools.genops(content) if isinstance(text, str)]
    # old protocols, which torch writes, name module and attribute in one text
    texts = [text.partition(" ")[0] if name == "GLOBAL" else text for name, text in said if name != "STRING"]
    return sorted({text for text in texts if text in sys.modules})


def yaml(value: Any, indent: str = "") -> bytes:
    """Block YAML of maps and lists of JSON's scalars; texts in double quotes, where JSON and YAML agree."""
    return ("\n".join(_yaml_lines(value, indent)) + "\n").encode()


def _yaml_lines(value: Any, indent: str) -> Iterable[str]:
    pairs = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
    for key, item in pairs:
        start = f"{indent}-" if key is None else f"{indent}{key}:"
        if isinstance(item, Mapping | list) and item:
            yield start
            yield from _yaml_lines(item, indent + "  ")
        else:
            yield f"{start} {json.dumps(item)}"


def _check_classes(estimator: Any, output: str) -> None:
    classes = getattr(estimator, "classes_", None)
    if output == "probability" and classes is not None and len(classes) != 2:
        raise InvalidInput(
            f"the model knows {len(classes)} classes, and one probability is asked for",
            hint='two classes are needed in the training rows; for more declare output="probabilities"',
        )


def _first_that_answers(content: bytes, card: Mapping[str, Any], example: Mapping[str, Array], *, named: bool) -> Any:
    """The predictor with the lightest form of input that gives the right answer: a matrix, else a DataFrame."""
    answers: list[tuple[Predictor, Array]] = []
    problems: list[str] = []
    libraries = [library for library in ("pandas", "polars") if library in sys.modules or named]
    for form in ("", *libraries):
        predictor = restore(content, {**card, "frame": form})
        try:
            answers.append((predictor, predictor.scores(example)))
        except InvalidInput:
            raise
        except Exception as error:  # noqa: BLE001 - a model may refuse a form of input in any way
            problems.append(f"{type(error).__name__}: {error}")
        if answers and (not named or len(answers) == 2):
            break
    if not answers:
        raise InvalidInput(
            f"the model does not answer for its own training rows: {problems[0].splitlines()[0][:300]}",
            hint="fit it on all columns of the feature service, in their order: frame.drop(label)",
        )
    lightest, answer = answers[0]
    if len(answers) == 2 and not np.array_equal(answer, answers[1][1]):
        return answers[1][0]
    return lightest


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _requirements(modules: Iterable[str], form: str) -> list[str]:
    tops = {module.partition(".")[0] for module in modules} | ({"cloudpickle"} if form == "cloudpickle" else set())
    names = {name for top in tops for name in _distributions().get(top, ()) if top != "everloop"} | {"mlflow-skinny"}
    # what follows a plus sign names a build (torch's `+cpu`), which no public index has
    return sorted(f"{name}=={found.partition('+')[0]}" for name in names if (found := _version(name)))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _code(modules: Iterable[str]) -> dict[str, bytes]:
    """Sources of the project's modules that a pickle names, and of those that they import."""
    waiting, found, seen = list(modules), dict[str, bytes](), set[str]()
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if name in seen or module is None or not _of_project(module):
            continue
        seen.add(name)
        file = Path(str(module.__file__))
        place = name.replace(".", "/") + ("/__init__.py" if file.name == "__init__.py" else ".py")
        found[place] = file.read_bytes()
        waiting += [name.rpartition(".")[0], *_imported(found[place], str(module.__package__ or ""))]
    return found


def _imported(source: bytes, package_name: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package_name) if node.level else node.module
            yield from [str(base), *(f"{base}.{alias.name}" for alias in node.names)]


def _of_project(module: ModuleType) -> bool:
    name, file = module.__name__, getattr(module, "__file__", None)
    top = name.partition(".")[0]
    if not file or not file.endswith(".py") or top in {"everloop", "__main__"} or top in sys.stdlib_module_names:
        return False
    path = Path(file).resolve()
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    return not path.is_relative_to(standard) and not {"site-packages", "dist-packages"}.intersection(path.parts)


def _mlmodel(
    estimator: Any, card: Mapping[str, Any], answer: Array, content: bytes, *, has_code: bool
) -> dict[str, Any]:
    inputs = [{"type": f["type"], "name": f["name"], "required": True} for f in card["inputs"]]
    shape = [-1, *answer.shape[1:]]
    dtype = "str" if answer.dtype.kind in "OU" else str(answer.dtype)
    outputs = [{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}]
    code = "code" if has_code else None
    return {
        "flavors": {
            "python_function": {
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                **loader_of(estimator, card, _MLFLOW_OUTPUT[card["output"]]),
                "python_version": platform.python_version(),
                **({"code": code} if code else {}),
            },
            **flavours_of(estimator, card, code=code, version=_version),
        },
        "mlflow_version": _version("mlflow-skinny") or _version("mlflow"),
        "model_size_bytes": len(content),
        "model_uuid": object_id(content).removeprefix("b3:")[:32],
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "pandas_orient": "split",
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
        },
        "signature": {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None},
    }


def _split(rows: Mapping[str, list[Any]]) -> dict[str, Any]:
    return {"columns": list(rows), "data": [list(row) for row in zip(*rows.values(), strict=True)]}


def _plain(array: Array) -> list[Any]:
    return [None if isinstance(v, float) and not np.isfinite(v) else v for v in array.tolist()]


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
