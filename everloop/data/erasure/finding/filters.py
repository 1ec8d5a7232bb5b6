"""Which objects may hold a subject: a Bloom filter for each object, in a side object.

It is derived from the object's bytes, made when it is first asked for and kept (by a placement, as profiles are), so
that a second erasure reads only the candidates. 10 bits a key and 7 probes: 1 % of the others are read in vain. The
filter of an object that was erased goes with it.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from everloop.catalog import placements
from everloop.catalog.context import Context
from everloop.core.errors import CorruptObject, NotFound
from everloop.core.ids import manifest_id
from everloop.data.content.files import layered_file, local_object
from everloop.data.content.layers import Layers
from everloop.data.content.ordering import key_hashes
from everloop.data.erasure.finding import values
from everloop.data.erasure.finding.subjects import Subject

_BITS, _PROBES, _FORM = 10, 7, 2
Bits = np.ndarray[tuple[int], np.dtype[np.uint8]]


def filter_id(identity: str, columns: tuple[str, ...]) -> str:
    """The logical id under which the filter of an object for these columns is placed."""
    return manifest_id({"subjects_in": identity, "columns": list(columns), "form": _FORM})


def may_hold(ctx: Context, identity: str, subject: Subject) -> bool:
    """Whether an object may hold the subject's key: no is certain, yes is wrong one time in a hundred."""
    logical = filter_id(identity, subject.columns)
    with ctx.read() as tx:
        placed = placements.resolve(tx, ctx.project, [logical]).get(logical)
    if placed is not None:
        try:
            return _probe_all(ctx.store.get(placed), subject.key)
        except (NotFound, CorruptObject):  # derived: make it again below
            pass
    content = build(object_keys(ctx, identity, subject.columns))
    stored = ctx.store.put(content)
    with ctx.catalog.write() as tx:
        if placed is not None and placed != stored:
            placements.replace(tx, ctx.project, logical, old=placed, new=stored)
        placements.put(tx, ctx.project, {logical: stored})
    return _probe_all(content, subject.key)


def object_keys(ctx: Context, identity: str, columns: tuple[str, ...]) -> pa.Array:
    """The distinct keys that the bytes of an object hold in these columns, as text; of layers, their own."""
    path = local_object(ctx.store, identity, ctx.home / "cache")
    if layered_file(path):
        layers = Layers.decode(path.read_bytes())
        tables = [table for table in (layers.columns, layers.patch) if table is not None]
    else:
        file = pq.ParquetFile(path)
        tables = [file.read([name for name in columns if name in file.schema_arrow.names])]
    found = [values.keys(table[name]) for table in tables for name in columns if name in table.column_names]
    return pc.unique(pa.chunked_array(found, pa.large_string()))


def build(keys: pa.Array) -> bytes:
    """A filter of these keys."""
    size = max(len(keys) * _BITS, 64)
    bits = np.zeros((size + 7) // 8 * 8, bool)
    for places in _places(keys, len(bits)):
        bits[places] = True
    return np.packbits(bits).tobytes()


def _probe_all(content: bytes, key: str) -> bool:
    return any(probe(content, form) for form in values.forms(key))


def probe(content: bytes, key: str) -> bool:
    """Whether a filter may hold a key."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    return all(bool(bits[places].all()) for places in _places(pa.array([key], pa.large_string()), len(bits)))


def _places(keys: pa.Array, size: int) -> "list[np.ndarray[tuple[int], np.dtype[np.uint64]]]":
    """Bit numbers of each probe: double hashing (Kirsch and Mitzenmacher 2006) of the key's 64-bit hash."""
    if not len(keys):
        return []
    hashes = key_hashes(pa.table({"key": keys}), ["key"]).astype(np.uint64)
    first, second = hashes >> np.uint64(32), (hashes & np.uint64(0xFFFFFFFF)) | np.uint64(1)
    return [(first + np.uint64(i) * second) % np.uint64(size) for i in range(_PROBES)]
