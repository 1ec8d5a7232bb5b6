"""Where the rows of a source come from, as an author says it. Pure values, no engine is loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput
from everloop.core.ids import checked_name
from everloop.data.streams.origins import FEEDS

Names = str | Sequence[str]

FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".xlsx": "excel",
}
"""Format by suffix; `.gz`, `.zst`, `.bz2` and `.zip` after it mean that it is compressed."""

_COMPRESSED = (".gz", ".zst", ".bz2", ".zip")
_PLACES = ("s3", "gs", "az", "https", "http")
_SECRET = (
    "x-amz-signature",
    "x-amz-security-token",
    "x-goog-signature",
    "sig",
    "signature",
    "token",
    "access_token",
    "api_key",
    "apikey",
    "password",
)
_HOW = "put the credential into a binding of the environment: Files(..., binding=...)"


class Origin(Protocol):
    """Where the rows of a source come from."""

    def manifest(self) -> dict[str, Any]:
        """Its part of the source's identity."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """Files that match a path or a glob, read in the order of their names.

    `pattern` is relative to the project's folder, or `s3://bucket/…`, `gs://…`, `az://…`, or one `https://…` address.
    The format follows from the suffix; `format` (parquet, csv, jsonl, arrow, excel) says it where the suffix does not.
    `binding` names the environment's options of the place (credentials). `sheet` is of a workbook, `encoding` of CSV.
    With `only_new` a capture reads the files that came since the one before, and appends their rows, or upserts them
    by key; when a file that was read changed or went, everything is read.
    """

    pattern: str
    format: str | None = None
    binding: str = ""
    sheet: str = ""
    encoding: str = ""
    only_new: bool = False

    def __post_init__(self) -> None:
        """Find the format; raises `InvalidInput`."""
        if not self.pattern:
            raise InvalidInput("Files needs a path or a glob", hint='for example Files("data/flights/*.parquet")')
        if "://" in self.pattern:
            _check_url(self.pattern)
        if self.format is None:
            object.__setattr__(self, "format", format_of(self.pattern))
        elif self.format not in FORMATS.values():
            raise InvalidInput(f"{self.format!r} is not a format of files", hint=_formats())
        if self.binding:
            checked_name(self.binding)
        if self.encoding and self.format != "csv":
            raise InvalidInput(f"{self.format} files have no encoding to choose", hint="encoding= is for CSV")
        if self.sheet and self.format != "excel":
            raise InvalidInput(f"{self.format} files have no sheets", hint="sheet= is for Excel")

    @property
    def scheme(self) -> str:
        """`s3`, `gs`, `az`, `https` or `http`; empty for files of the disk."""
        return self.pattern.partition("://")[0] if "://" in self.pattern else ""

    def manifest(self) -> dict[str, Any]:
        """Pattern and format, and what else is said; never the value of a binding."""
        more = {"binding": self.binding, "sheet": self.sheet, "encoding": self.encoding, "only_new": self.only_new}
        said = {name: value for name, value in more.items() if value}
        return {"type": "files", "pattern": self.pattern, "format": self.format, **said}


@dataclass(frozen=True, slots=True)
class SQL:
    """The rows of a query against the database that `binding` names in the environment (a URL; `duckdb:///file` too).

    `state` may be a cheap query (say, `select max(updated_at), count(*) from t`): while its answer stays the same,
    the real query is not run again. `cursor` names a column of the answer that grows as rows come and change: then
    only rows from the last value that was seen on are read, and upserted by key on the version before. `late` goes
    back further, for rows that are committed late: seconds for a cursor of times, a number for one of numbers.
    Rows that are deleted there stay here: a cursor does not see them.
    """

    binding: str
    query: str
    state: str = ""
    cursor: str = ""
    late: int = 0

    def __post_init__(self) -> None:
        """Check both; raises `InvalidInput`."""
        checked_name(self.binding)
        if not self.query.strip():
            raise InvalidInput(f"the query for {self.binding!r} is empty")
        if self.late < 0 or (self.late and not self.cursor):
            raise InvalidInput("late= is how far a cursor goes back", hint='SQL(..., cursor="updated_at", late=600)')

    def manifest(self) -> dict[str, Any]:
        """Binding's name (never its value) and query."""
        late = {"late": self.late} if self.late else {}
        said = {"cursor": self.cursor, **late} if self.cursor else {}
        return {"type": "sql", "binding": self.binding, "query": self.query, "state": self.state, **said}

    def since(self, column: str, value: str) -> str:
        """The query for rows whose cursor (quoted as `column`) is at `value`, after it, or null."""
        inner = self.query.strip().rstrip(";")
        return f"select * from ({inner}) as everloop_rows where {column} >= {value} or {column} is null"  # noqa: S608 - the author's query


KEEPS = ("here", "warehouse")


@dataclass(frozen=True, slots=True)
class Query:
    """A query that runs inside the warehouse (PostgreSQL) that `binding` names: its result is a table there first.

    With `keep="here"` the result is captured and its table goes; with `"warehouse"` it stays there, and the version
    pins it: by its digest, row count and schema. `state` is a cheap query, as of `SQL`.
    """

    binding: str
    sql: str
    keep: str = "here"
    state: str = ""

    def __post_init__(self) -> None:
        """Check them; raises `InvalidInput`."""
        checked_name(self.binding)
        if not self.sql.strip():
            raise InvalidInput(f"the query for {self.binding!r} is empty")
        if self.keep not in KEEPS:
            raise InvalidInput(f"keep={self.keep!r} says not where the result stays", hint="here, or warehouse")

    def manifest(self) -> dict[str, Any]:
        """Binding's name (never its value), query, and where the result stays."""
        said = {"type": "query", "binding": self.binding, "sql": self.sql, "keep": self.keep}
        return {**said, "state": self.state} if self.state else said


@dataclass(frozen=True, slots=True)
class Call:
    """The table that a function of the project returns (polars, pandas, Arrow, or an iterator of record batches).

    `function` is `module:name`, or the function itself. It is called with `arguments`, and with `now` (an aware
    datetime, the capture's event time) when it has a parameter of that name. `state` may name a second function, of
    the same arguments, whose small JSON answer tells whether the table has changed.
    """

    function: str | Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    state: str | Callable[..., Any] = ""

    def __post_init__(self) -> None:
        """Turn functions into `module:name`; raises `InvalidInput` for lambdas and inner functions."""
        object.__setattr__(self, "function", reference(self.function))
        object.__setattr__(self, "state", reference(self.state) if self.state else "")
        object.__setattr__(self, "arguments", dict(self.arguments))
        canonical_json(self.arguments)

    def manifest(self) -> dict[str, Any]:
        """The function's address and its arguments."""
        return {"type": "call", "function": self.function, "arguments": dict(self.arguments), "state": self.state}


@dataclass(frozen=True, slots=True)
class Folder:
    """Files of any kind (images, audio, text, PDF) that match a pattern: rows of path, size, media type and digest.

    `Folder("images/**")` means all below `images`, `"images/*.png"` some of it; paths are told from the first folder
    that has no wildcard. Hidden files stay out unless the pattern names their dot. `media` promises kinds ("image",
    "audio/wav"): a file of another is refused. `exclude` names paths that stay out, as patterns too.
    """

    pattern: str
    media: str | Sequence[str] = ()
    exclude: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check and complete it; raises `InvalidInput`."""
        if not self.pattern:
            raise InvalidInput("Folder needs a folder or a glob", hint='for example Folder("images/**")')
        object.__setattr__(self, "media", checked_names(self.media, "media"))
        object.__setattr__(self, "exclude", checked_names(self.exclude, "exclude"))

    def manifest(self) -> dict[str, Any]:
        """Pattern, promised kinds, exceptions."""
        return {"type": "folder", "pattern": self.pattern, "media": list(self.media), "exclude": list(self.exclude)}

    def globs(self) -> list[str]:
        """Globs, whose `*` takes folders too, of all that the pattern may mean: a project's code has none of it."""
        wild = self.pattern if any(c in self.pattern for c in "*?[") else f"{self.pattern.rstrip('/')}/*"
        return list(dict.fromkeys([wild, wild.replace("**/", "")]))


TREE_KEY = ("path",)
"""The key of the table of a folder."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that the program has: a pandas, Polars or Arrow table, a DuckDB relation, a Hugging Face `datasets` object.

    They are captured where the program runs; the definition holds none of them, so only the program can capture it.
    """

    rows: Any = field(default=None, compare=False, repr=False)

    def manifest(self) -> dict[str, Any]:
        """That rows are given, not which."""
        return {"type": "table"}


ORIGINS: Mapping[str, Callable[..., Origin]] = {
    "files": Files,
    "sql": SQL,
    "call": Call,
    "folder": Folder,
    "table": Table,
    "query": Query,
    **FEEDS,
}
"""Kinds of origins by the `type` of their manifests."""


def origin_of(manifest: Mapping[str, Any]) -> Origin:
    """The origin that `manifest` wrote; raises `InvalidInput`."""
    fields = {k: v for k, v in manifest.items() if k != "type"}
    if manifest.get("type") not in ORIGINS:
        raise InvalidInput(f"{manifest.get('type')!r} is no origin of rows", hint="one of " + ", ".join(ORIGINS))
    return ORIGINS[manifest["type"]](**fields)


def format_of(path: str) -> str:
    """The format of a file by its suffix; raises `InvalidInput`."""
    name = urlsplit(path).path if path.startswith(("https://", "http://")) else path
    suffixes = [s.lower() for s in PurePath(name).suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        raise InvalidInput(f"the format of {path!r} does not follow from its suffix", hint=_formats())
    return FORMATS[suffixes[-1]]


def _formats() -> str:
    return "formats are " + ", ".join(sorted(set(FORMATS.values()))) + '; for example Files("events/*.log", "jsonl")'


def _check_url(url: str) -> None:
    """Refuse what is no place of files, and what holds a credential, which would lie in a version for good."""
    scheme, _, rest = url.partition("://")
    if scheme not in _PLACES or not rest.partition("/")[0] or not rest.partition("/")[2]:
        raise InvalidInput(
            f"{scheme}://… is no place of files", hint="s3://bucket/key, gs://, az:// or https://host/path"
        )
    query = urlsplit(url).query if scheme.startswith("http") else ""
    if "@" in rest.partition("/")[0] or any(name.lower() in _SECRET for name, _ in parse_qsl(query)):
        raise InvalidInput("the address of the files holds a credential", hint=_HOW)
    if scheme.startswith("http") and "*" in rest:
        raise InvalidInput("an address of the web is one file: it has no wildcards", hint="name the file")


def checked_names(value: Names | None, what: str) -> tuple[str, ...]:
    """One or several names as a tuple; raises `InvalidInput` for what is none, and for one that comes twice."""
    names = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidInput(f"{what} must be names of columns, not {value!r}")
    if len(set(names)) != len(names):
        raise InvalidInput(f"{what} names a column twice: {', '.join(names)}")
    return names


def reference(function: str | Callable[..., Any]) -> str:
    """`module:name` of a function that can be imported again; raises `InvalidInput`."""
    if isinstance(function, str):
        module, colon, name = function.partition(":")
        if not colon or not module or not name:
            raise InvalidInput(f"{function!r} does not name a function", hint="write module:function")
        return function
    name = getattr(function, "__qualname__", "")
    module = getattr(function, "__module__", "")
    if not name or not module or "<" in name:
        raise InvalidInput(f"{function!r} cannot be imported by name", hint="define it at the top level of a module")
    return f"{module}:{name}"
