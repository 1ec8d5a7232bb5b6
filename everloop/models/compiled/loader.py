"""What a worker loads a model with: its compiled form where that was verified, else the model as it was fitted."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from everloop.models.predictor import CARD
from everloop.models.predictor import load as load_native


def load(folder: Path | str) -> Any:
    """A predictor, which says by `engine` what it is; raises what `predictor.load` raises."""
    folder = Path(folder)
    engine, card = chosen(folder)
    if engine == "onnx":
        return import_module("everloop.models.compiled.session").load(folder, card, load_native)
    predictor = load_native(folder)
    predictor.engine = engine
    return predictor


load_compiled = load
"""The same, under the name that says that a gateway may ask the model itself."""


def chosen(folder: Path) -> tuple[str, dict[str, Any]]:
    """`onnx`, or `native` with the reason in brackets where it was asked for; and the model's card."""
    try:
        card: dict[str, Any] = msgspec.json.decode((folder / CARD).read_bytes())
    except FileNotFoundError:
        return "native", {}
    said = card.get("compiled")
    if said is None:
        return "native", card
    if not said["verified"]:
        return f"native ({said['reason']})", card
    if find_spec("onnxruntime") is None:
        return "native (onnxruntime is not installed here)", card
    return "onnx", card
