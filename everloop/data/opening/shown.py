"""What a table of another format shows, as values: versions in pieces, and where everything lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput
from everloop.data.opening.pieces import Piece
from everloop.store.layout import file_of

_ROOT = Path()
MILLI: Micros = 1000
"""Both formats count time in milliseconds."""
Columns = tuple[tuple[str, pa.DataType], ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One version as a table shows it."""

    number: int
    id: str
    at: Micros
    """When it was made; later than the one before it in the table."""
    columns: Columns
    pieces: tuple[Piece, ...]
    key: tuple[str, ...] = ()
    bounded: bool = False
    """Whether the range of the first column of the key may be told."""
    heads: tuple[str, ...] = ()
    """Environments whose head it is."""

    @property
    def rows(self) -> int:
        """Rows that are shown."""
        return sum(piece.rows - len(piece.deleted) for piece in self.pieces)

    @property
    def label(self) -> dict[str, str]:
        """What tells people which version it is."""
        return {"everloop.version": str(self.number), "everloop.id": self.id}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of another format over some versions of a dataset, oldest first; the last one is current."""

    identity: str
    """A UUID."""
    name: str
    location: str
    """Its folder, as a URL: `file:///…`, `s3://…`."""
    store: str
    """Where engines find the objects, as a URL."""
    shown: tuple[Shown, ...]
    sizes: Mapping[str, int]
    generation: int = 1
    """Counts how often it was written."""

    @property
    def local(self) -> bool:
        """Whether it lies in a folder beside a store in a folder: then it may hold links."""
        return self.location.startswith("file:") and self.store.startswith("file:")

    def address(self, piece: Piece) -> str:
        """Where engines find a piece; raises `InvalidInput` where the same file comes twice in a bucket."""
        if not piece.copy:
            return f"{self.store}/{object_name(piece.object)}"
        if not self.local:
            raise InvalidInput(
                f"two parts of {self.name} hold the same rows, and engines know a file by its address",
                hint="give the dataset a key, or open it from a store in a folder",
            )
        return f"{self.location}/{link_name(piece)}"


def object_name(identity: str) -> str:
    """Where an object lies in its store."""
    return "/".join(file_of(_ROOT, identity).parts)


def link_name(piece: Piece) -> str:
    """Where a table holds its link to a piece."""
    digits = piece.object.removeprefix("b3:")
    return f"parts/{digits}{f'-{piece.copy}' if piece.copy else ''}.parquet"


@dataclass(frozen=True, slots=True)
class Files:
    """What belongs into a table's folder."""

    contents: Mapping[str, bytes]
    """By name within the folder, in the order in which they are to appear."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Names of links to objects: {name: object}."""
    times: Mapping[str, Micros] = field(default_factory=dict)
    """When some of them are to say that they were written."""


def refused(name: str, type_: Any, what: str) -> InvalidInput:
    """The error for a column that another format cannot hold."""
    return InvalidInput(
        f"{what} has no type for the column {name!r} ({type_})",
        hint=f"convert it (`everloop data evolve … --retype {name}=…`), or open the table without it: --without {name}",
    )
