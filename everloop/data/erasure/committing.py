"""The subjects of a model's training frame, committed once: what proofs about the model are made of.

The commitment (with the keyed hashes of the subjects, never their keys) is an object that a placement finds by the
model. It is made when it is first asked for; erasures that took rows out of the frame before are named in it, and later
ones do not change it: what the model read stays provable.
"""

import json
import secrets
from typing import Any

from everloop.catalog import placements, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.core.errors import InvalidInput
from everloop.core.ids import manifest_id
from everloop.data.codec import manifest_of, paths_of, tables
from everloop.data.erasure import proofs
from everloop.data.erasure.finding import following, values


def proof(ctx: Context, model: str, key: str) -> dict[str, Any]:
    """Whether the training frame of a model held rows of a subject, as a proof for `proofs.check`.

    Raises `NotFound`, or `InvalidInput` for a model whose frame has no column of subjects.
    """
    kept = committed(ctx, model)
    salt = bytes.fromhex(kept["salt"])
    hashes = [bytes.fromhex(text) for text in kept["hashes"]]
    return proofs.prove(kept["commitment"], hashes, proofs.subject_hash(salt, key))


def committed(ctx: Context, model: str) -> dict[str, Any]:
    """The commitment of a model with its salt and hashes; made and stored when there is none."""
    logical = manifest_id({"subjects_of_model": model, "form": 1})
    with ctx.read() as tx:
        placed = placements.resolve(tx, ctx.project, [logical]).get(logical)
    if placed is not None:
        found: dict[str, Any] = json.loads(ctx.store.get(placed))
        return found
    made = _commit(ctx, model)
    stored = ctx.store.put(json.dumps(made).encode())
    with ctx.catalog.write() as tx:
        placements.put(tx, ctx.project, {logical: stored})
        placed = placements.resolve(tx, ctx.project, [logical])[logical]
    return made if placed == stored else committed(ctx, model)


def _commit(ctx: Context, model: str) -> dict[str, Any]:
    if ctx.key is None:
        raise InvalidInput("a commitment needs the workspace's key", hint="run it on the workspace's machine")
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, model)
    frame = row.manifest.get("frame")
    if row.kind != "model" or not isinstance(frame, str):
        raise InvalidInput(f"{row.kind}/{row.name} names no training frame", hint="a model that a trainer made")
    manifest = manifest_of(ctx, frame)
    columns = following.subject_columns(ctx)
    mine = [name for name, _ in manifest["schema_fields"] if name in columns]
    held = following.follow(ctx, {frame: manifest}, columns).get(frame, following.Holding())
    if not mine:
        raise InvalidInput(
            f"the frame of {row.name} has no column of subjects", hint='tag it in its source: {"customer": "subject"}'
        )
    subjects: set[str] = set()
    for table in tables(paths_of(ctx, manifest)):
        for name in mine:
            subjects.update(values.keys(table[name]).to_pylist())
    with ctx.read() as tx:
        redacted = redactions.of_manifest(tx, ctx.project, manifest)
    salt = secrets.token_bytes(32)
    hashes = sorted(proofs.subject_hash(salt, subject) for subject in subjects)
    about = {"model": model, "frame": frame, "columns": mine, "redacted": redacted}
    about |= {"unsure": sorted(held.unsure)} if held.unsure else {}
    commitment = proofs.commit(ctx.key, salt, hashes, about)
    return {"commitment": commitment, "salt": salt.hex(), "hashes": [value.hex() for value in hashes]}
