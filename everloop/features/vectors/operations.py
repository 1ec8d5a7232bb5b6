"""The operation on vectors: the nearest neighbours of a vector, or of a row, in a dataset of an environment."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import Field

from everloop import data, features
from everloop.catalog import placements, versions
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.data.heads import head
from everloop.data.sensitive.masking import need_rows

_HELD = 4
"""Indexes that a process keeps, each as large as its vectors."""


class Nearest(Command):
    """A question: `vector`, or the key of a row as `like`. Without `like` no row is left out of the answer."""

    environment: str
    dataset: str
    vector: tuple[float, ...] = ()
    like: Mapping[str, str | int] = Field(default_factory=dict)
    column: str = ""
    """Empty: the only column of vectors."""
    k: int = 10
    metric: str = "cosine"
    """cosine, dot or euclidean."""


class Neighbour(Answer):
    """One row: its key, and how near it is (cosine and dot: larger is nearer; euclidean: smaller)."""

    key: dict[str, str | int | float | None]
    score: float


class Neighbours(Answer):
    """The nearest rows, best first, of exactly this version of the dataset."""

    version: str
    neighbours: list[Neighbour]


def _dataset(_ctx: Context, cmd: Nearest) -> Target:
    return Target("dataset", cmd.dataset, cmd.environment)


@operation("features.nearest", needs="read", on=_dataset, reads=True, engine=True)
def find_nearest(ctx: Context, cmd: Nearest) -> Neighbours:
    """Find the rows of a dataset whose vectors are nearest to one: exact, the same answer every time."""
    if bool(cmd.vector) == bool(cmd.like):
        raise InvalidInput("the question is neither a vector nor a row", hint="give vector=[…] or like={key: value}")
    version = head(ctx, cmd.environment, cmd.dataset)
    if version is None:
        raise NotFound(f"{cmd.environment} holds no data of {cmd.dataset!r}", hint="everloop data list")
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, version)
        parts = [part["logical"] for part in row.manifest["parts"]]
        placed = tuple(sorted(placements.resolve(tx, ctx.project, parts).values()))
    need_rows(ctx, row, cmd.environment)
    index, keys, names = _index(_Held(ctx), version, placed, cmd.column)
    if cmd.like:
        found = _row_of(keys, names, cmd.like, cmd.dataset)
        rows, scores = index.nearest(index.vectors[found], cmd.k + 1, cmd.metric)
        pairs = [(r, s) for r, s in zip(rows[0].tolist(), scores[0].tolist(), strict=True) if r != found][: cmd.k]
    else:
        rows, scores = index.nearest(cmd.vector, cmd.k, cmd.metric)
        pairs = list(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
    near = [Neighbour(key=dict(zip(names, keys[r], strict=True)), score=s) for r, s in pairs]
    return Neighbours(version=version, neighbours=near)


class _Held:
    """A context that does not count when an index is looked for: only where it is read from does."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.place = (str(ctx.home), ctx.project)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)


@lru_cache(maxsize=_HELD)
def _index(held: _Held, version: str, _placed: tuple[str, ...], column: str) -> tuple[Any, list[Any], tuple[str, ...]]:
    """The vectors and keys of a version; `_placed` are its objects, which an erasure replaces."""
    with held.ctx.read() as tx:
        names = tuple(versions.get(tx, held.ctx.project, version).manifest["key"])
    table = data.read(held.ctx, version)
    schema = table.collect_schema()
    vectors = [name for name, dtype in schema.items() if str(dtype).startswith("Array(")]
    if not column and len(vectors) == 1:
        (column,) = vectors
    if column not in vectors:
        said = f"{column!r} is no column of vectors" if column else "there is no column of vectors"
        said = f"{len(vectors)} columns hold vectors, and none is named" if vectors and not column else said
        raise InvalidInput(said, hint="vectors are in " + (", ".join(vectors) or "no column"))
    frame = table.select([*names, column]).collect().drop_nulls(column)
    index = features.nearest.Index.of(frame[column].to_numpy())
    keys = frame.select(names).rows() if names else [() for _ in range(frame.height)]
    return index, keys, names


def _row_of(keys: list[Any], names: tuple[str, ...], like: Mapping[str, str | int], dataset: str) -> int:
    wanted = tuple(like.get(name) for name in names)
    if not names or set(like) != set(names) or wanted not in keys:
        raise NotFound(f"{dataset} has no row {dict(like)}", hint="its key is " + (", ".join(names) or "not declared"))
    return keys.index(wanted)
