"""Reads a folder of TensorBoard event files, whoever wrote them: TensorFlow, PyTorch, tensorboardX.

A folder that holds event files is a run; one inside another run's folder is nested in it. Scalars become metrics,
the hparams plugin's session becomes parameters, texts, images and audio become files; histograms, curves and other
tensors become JSON lines in a file of their own tag. Graphs and profiles are left where they are.
"""

import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np

from everloop.catalog.tracking.rows import Point
from everloop.core.clock import Micros
from everloop.core.errors import CorruptObject, NotFound
from everloop.models.importing.sources.folders import Tails, open_plain, safe_path
from everloop.models.importing.sources.messages import Undecodable, declare
from everloop.models.importing.sources.records import BrokenFrameError, Health, check_tfrecords, tfrecords
from everloop.models.importing.values import (
    End,
    ImportedExperiment,
    ImportedFile,
    ImportedModel,
    ImportedName,
    ImportedRun,
    Item,
    Param,
    Selection,
    Tag,
    Unmapped,
    identity_of,
    stamp_of,
)

_MESSAGES = declare(
    "everloop_events",
    {
        "Event": {
            "wall_time": (1, "double"),
            "step": (2, "int64"),
            "graph_def": (4, "bytes"),
            "summary": (5, "Summary"),
            "tagged_run_metadata": (8, "bytes"),
            "meta_graph_def": (9, "bytes"),
        },
        "Summary": {"value": (1, "*Value")},
        "Value": {
            "tag": (1, "string"),
            "simple_value": (2, "float"),
            "image": (4, "Image"),
            "histo": (5, "Histogram"),
            "audio": (6, "Audio"),
            "tensor": (8, "Tensor"),
            "metadata": (9, "Metadata"),
        },
        "Image": {"encoded": (4, "bytes")},
        "Audio": {"encoded": (4, "bytes"), "content_type": (5, "string")},
        "Histogram": {
            "min": (1, "double"),
            "max": (2, "double"),
            "num": (3, "double"),
            "sum": (4, "double"),
            "limits": (6, "*double"),
            "counts": (7, "*double"),
        },
        "Metadata": {"plugin": (1, "Plugin"), "display_name": (2, "string")},
        "Plugin": {"name": (1, "string"), "content": (2, "bytes")},
        "Tensor": {
            "dtype": (1, "int32"),
            "shape": (2, "Shape"),
            "content": (4, "bytes"),
            "floats": (5, "*float"),
            "doubles": (6, "*double"),
            "ints": (7, "*int32"),
            "texts": (8, "*bytes"),
            "longs": (10, "*int64"),
            "bools": (11, "*bool"),
        },
        "Shape": {"dim": (2, "*Dim")},
        "Dim": {"size": (1, "int64")},
        "HParams": {"start": (3, "SessionStart"), "end": (4, "SessionEnd")},
        "SessionStart": {"entries": (1, "*Entry"), "group": (4, "string"), "seconds": (5, "double")},
        "Entry": {"key": (1, "string"), "value": (2, "AnyValue")},
        "AnyValue": {"number": (2, "double"), "text": (3, "string"), "flag": (4, "bool"), "null": (1, "int32")},
        "SessionEnd": {"status": (1, "int32"), "seconds": (2, "double")},
    },
    {
        "Value": ("simple_value", "image", "histo", "audio", "tensor"),
        "AnyValue": ("null", "number", "text", "flag"),
    },
)
_EVENTS = re.compile(r".*\.tfevents\..*")
_DIGITS = re.compile(r"([0-9]+)")
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 14: "bf16", 19: "<f2"}
_ENDS = {1: "FINISHED", 2: "FAILED", 3: "RUNNING"}
_LARGEST_TENSOR = 1 << 20


@dataclass(slots=True)
class TensorboardSource:
    """A log folder. `name` is the experiment that its runs go to."""

    folder: Path
    name: str
    scratch: "TemporaryDirectory[str]"
    kind: str = "tensorboard"

    @property
    def label(self) -> str:
        """The folder."""
        return str(self.folder)

    def experiments(self, selection: Selection) -> Iterator[ImportedExperiment | Unmapped]:
        """The folder is one experiment."""
        if selection.wants_experiment(self.name):
            yield ImportedExperiment(self.label, self.name)

    def runs(self, experiment: ImportedExperiment, selection: Selection) -> Iterator[ImportedRun | Unmapped]:
        """Every folder with event files, by path, so that a parent comes before its children."""
        known: dict[Path, str] = {}
        for folder, files, links in _folders(self.folder):
            yield from (Unmapped("file", str(link), "a symbolic link; links are not followed") for link in links)
            if not files:
                continue
            path = folder.relative_to(self.folder)
            name = path.as_posix() if path.parts else experiment.name
            run = _Run(folder, name, tuple(files), Path(self.scratch.name))
            parent = next((known[above] for above in folder.parents if above in known), "")
            identity = identity_of("tensorboard", path.as_posix(), files[0].name)
            known[folder] = identity
            if not selection.wants_run(name):
                continue
            problems = run.check()
            if problems and not selection.damaged:
                yield Unmapped("run", name, "damaged, so none of it is imported (--damaged takes what can be read)")
                yield from (Unmapped("file", f"{name}/{file}", reason) for file, reason in problems.items())
                continue
            if run.first is None:
                yield Unmapped("run", name, "its event files hold no event")
                continue
            sizes = [(file.name, file.stat().st_size) for file in files]
            yield ImportedRun(
                id=f"{path.as_posix()}#{files[0].name}",
                identity=identity,
                name=name,
                start=run.first,
                contents=run.contents,
                parent=parent,
                stamp=stamp_of(sizes),
            )

    def models(self, _experiment: ImportedExperiment) -> Iterator[ImportedModel | Unmapped]:
        """None: event files hold no models."""
        return iter(())

    def names(self) -> Iterator[ImportedName | Unmapped]:
        """None."""
        return iter(())

    def close(self) -> None:
        """Remove temporary files."""
        self.scratch.cleanup()


def open_tensorboard(folder: Path, name: str = "") -> TensorboardSource:
    """Open a log folder; raises `NotFound`."""
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}", hint="the folder that you give to tensorboard --logdir")
    whole = folder.resolve()
    return TensorboardSource(whole, name or whole.name, TemporaryDirectory(prefix="everloop-import-"))


@dataclass(slots=True)
class _Run:
    """The event files of one folder."""

    folder: Path
    name: str
    files: tuple[Path, ...]
    scratch: Path
    first: Micros | None = None
    healths: dict[str, Health] = field(default_factory=dict)

    def check(self) -> dict[str, str]:
        """What is damaged, by file; finds the time of the first event too."""
        damage = {}
        for file in self.files:
            with closing(open_plain(file)) as stream:
                health = check_tfrecords(stream, file.stat().st_size)
            self.healths[file.name] = health
            if health.damage:
                damage[file.name] = health.damage
        try:
            times = [_micros(event.wall_time) for file in self.files for event in self._head(file)]
        except CorruptObject as error:
            return {**damage, error.details["file"]: error.message}
        self.first = min((time for time in times if time is not None), default=None)
        return damage

    def contents(self) -> Iterator[Item]:
        """Everything in the files, in their order; long tags of tensors at the end."""
        tails = Tails(self.scratch, "tensorboard")
        plugins: dict[str, str] = {}
        last, status = self.first, "FINISHED"
        with closing(tails):
            for file in self.files:
                health = self.healths[file.name]
                if health.truncated:
                    yield Unmapped(
                        "record", file.name, "the last record is cut short: its writer was killed, or is alive"
                    )
                if health.damage:
                    yield Tag("import.damaged", f"{file.name}: {health.damage}")
                    yield Unmapped("record", file.name, f"{health.damage}; what follows is not read")
                for event in self._events(file, health.records):
                    at = _micros(event.wall_time)
                    last = at if last is None else max(last, at or last)
                    if event.graph_def or event.meta_graph_def or event.tagged_run_metadata:
                        yield Unmapped("graph", file.name, "graphs and profiles have no place here")
                    for value in event.summary.value:
                        for item in _items(value, event.step, at, plugins, tails):
                            if isinstance(item, End):
                                status, last = item.status, item.at or last
                            else:
                                yield item
            yield from tails.files()
            yield End(status, last)

    def _head(self, file: Path) -> Iterator[Any]:
        yield from self._events(file, min(1, self.healths[file.name].records))

    def _events(self, file: Path, most: int) -> Iterator[Any]:
        event, read = _MESSAGES["Event"], 0
        with closing(open_plain(file)) as stream:
            try:
                for frame in tfrecords(stream, file.stat().st_size):
                    if read == most:
                        return
                    yield event.FromString(frame.content)
                    read += 1
            except (BrokenFrameError, Undecodable) as error:
                if read == most:
                    return  # what follows is known to be cut short or damaged
                raise CorruptObject(
                    f"record {read + 1} is no event: {error}", hint="the file is damaged", file=file.name
                ) from error


def _items(value: Any, step: int, at: Micros | None, plugins: dict[str, str], tails: Tails) -> Iterator[Item | End]:
    """What a value of a summary becomes. A plugin is named once for a tag, at its first value."""
    tag, plugin = value.tag, value.metadata.plugin
    if plugin.name:
        plugins[tag] = plugin.name
    if plugin.name == "hparams":
        yield from _hparams(plugin.content)
        return
    if at is None:
        yield Unmapped("point", tag, "its event has no time")
        return
    which, named = value.WhichOneof("which"), plugins.get(tag, "")
    if which == "simple_value":
        yield Point(tag, value.simple_value, at, step)
    elif which == "image":
        yield _bytes_file("images", tag, step, _picture(value.image.encoded), value.image.encoded)
    elif which == "audio":
        yield _bytes_file("audio", tag, step, ".wav", value.audio.encoded)
    elif which == "histo":
        histogram = value.histo
        found = {name: _json(getattr(histogram, name)) for name in ("min", "max", "num", "sum")}
        lists = {name: [_json(one) for one in getattr(histogram, name)] for name in ("limits", "counts")}
        tails.add("histograms", tag, {"step": step, "time": at, **found, **lists})
    elif which == "tensor":
        yield from _tensor(value.tensor, named, _Where(tag, step, at), tails)
    elif which is not None:
        yield Unmapped(named or which, tag, "nothing here holds it")


@dataclass(frozen=True, slots=True)
class _Where:
    """Where a value belongs."""

    tag: str
    step: int
    at: Micros

    @property
    def row(self) -> dict[str, Any]:
        """The beginning of a line of a file."""
        return {"step": self.step, "time": self.at}


def _tensor(tensor: Any, plugin: str, where: _Where, tails: Tails) -> Iterator[Item]:
    tag, step = where.tag, where.step
    if plugin == "images":
        for place, encoded in enumerate(tensor.texts[2:]):  # the first two are width and height
            yield _bytes_file(
                "images", f"{tag}/{place}" if len(tensor.texts) > 3 else tag, step, _picture(encoded), encoded
            )
        return
    if plugin == "audio":
        yield from (_bytes_file("audio", tag, step, ".wav", encoded) for encoded in tensor.texts[:1])
        return
    if tensor.texts:
        texts = [text.decode("utf-8", "replace") for text in tensor.texts]
        tails.add("texts", tag, {**where.row, "text": texts[0] if len(texts) == 1 else texts})
        return
    numbers = _numbers(tensor)
    if numbers is None:
        yield Unmapped(plugin or "tensor", tag, "a tensor of this type or size is not read")
    elif plugin == "scalars" or numbers.size == 1:
        yield Point(tag, float(numbers.reshape(-1)[0]), where.at, step)
    else:
        values = [_json(float(one)) for one in numbers.reshape(-1)]
        shape = list(numbers.shape)
        tails.add(plugin or "tensors", tag, {**where.row, "shape": shape, "values": values})


def _numbers(tensor: Any) -> np.ndarray[Any, Any] | None:
    shape = [dim.size for dim in tensor.shape.dim]
    dtype = _DTYPES.get(tensor.dtype, "")
    if not dtype or dtype == "bf16" or any(size < 0 for size in shape) or math.prod(shape) > _LARGEST_TENSOR:
        return None
    if tensor.content:
        if len(tensor.content) != math.prod(shape) * np.dtype(dtype).itemsize:
            return None
        return np.frombuffer(tensor.content, dtype=dtype).reshape(shape)
    held = list(tensor.floats or tensor.doubles or tensor.ints or tensor.longs or tensor.bools)
    if not held or len(held) > math.prod(shape):
        return None
    whole = held + [held[-1]] * (math.prod(shape) - len(held))  # TensorFlow writes equal values at the end once
    return np.array(whole, dtype=np.float64).reshape(shape)


def _hparams(content: bytes) -> Iterator[Item]:
    try:
        data = _MESSAGES["HParams"].FromString(content)
    except Undecodable:
        yield Unmapped("hparams", "session", "its record cannot be decoded")
        return
    for entry in data.start.entries:
        which = entry.value.WhichOneof("which")
        if which in {"number", "text", "flag"}:
            found = getattr(entry.value, which)
            whole = which == "number" and math.isfinite(found) and found == int(found)
            yield Param(entry.key, str(int(found)) if whole else str(found))
    if data.start.group:
        yield Tag("hparams.group", data.start.group)
    if data.HasField("end"):
        yield End(_ENDS.get(data.end.status, "FINISHED"), _micros(data.end.seconds))


def _bytes_file(kind: str, tag: str, step: int, suffix: str, content: bytes) -> ImportedFile:
    def stream() -> BinaryIO:
        return io.BytesIO(content)

    return ImportedFile(f"tensorboard/{kind}/{safe_path(tag)}/{step}{suffix}", stream, len(content))


def _picture(content: bytes) -> str:
    return ".png" if content.startswith(b"\x89PNG") else ".jpg" if content.startswith(b"\xff\xd8") else ".bin"


def _json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _micros(seconds: float) -> Micros | None:
    return round(seconds * 1_000_000) if math.isfinite(seconds) and 0 < seconds < 253_402_300_799 else None


def _in_turn(name: str) -> list[str | int]:
    """Orders event files as they were begun: names hold a time, a process and a count, none of them padded."""
    return [int(part) if part.isascii() and part.isdigit() else part for part in _DIGITS.split(name)]


def _folders(root: Path) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """Every folder below a root, by path: its event files in turn, and its links."""
    for name, below, files in os.walk(root, followlinks=False):
        folder = Path(name)
        links = [folder / one for one in (*below, *files) if (folder / one).is_symlink()]
        below[:] = sorted(one for one in below if folder / one not in links)
        there = [one for one in files if _EVENTS.fullmatch(one) and folder / one not in links]
        events = [folder / one for one in sorted(there, key=_in_turn)]
        yield folder, events, [link for link in links if _EVENTS.fullmatch(link.name) or link.is_dir()]
