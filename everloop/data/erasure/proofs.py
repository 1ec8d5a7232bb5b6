"""Whether a recorded training frame held a subject's rows: answered offline, by a Merkle proof, for people and courts.

The subjects of a frame are committed as a Merkle tree (RFC 6962 hashing: leaves and nodes have prefixes of their own)
over their sorted keyed hashes: BLAKE3 keyed by a salt of the frame. Inclusion is a leaf and its path; exclusion is the
two neighbours between which the hash would lie, whose paths show that they stand next to each other. The root is signed
by the workspace. A proof names the subject by its hash only: who checks it must know the key and is given the salt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from everloop.core.errors import CorruptObject
from everloop.core.signing import SigningKey, VerifyKey

COMMITMENT = "https://everloop.dev/subjects/v1"
"""Predicate type of the signed root."""
_LOWEST, _HIGHEST = bytes(32), b"\xff" * 32
"""Leaves at both ends, so that every hash has two neighbours."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a proof shows, once it was verified."""

    read: bool
    """Whether the frame held rows of the subject."""
    model: str
    frame: str
    subjects: int
    redacted: tuple[str, ...]
    """Erasures that took rows out of the frame before it was committed."""
    unsure: tuple[str, ...] = ()
    """Columns of the frame that were made of subjects' in a way that nobody declared: they are not committed."""


def subject_hash(salt: bytes, key: str) -> bytes:
    """The hash that stands for a subject in the tree of one frame."""
    return blake3(key.encode(), key=salt).digest()


def tree_of(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """The levels of the tree, leaves first; a node without a sibling goes up as it is."""
    level = [_leaf(value) for value in _sorted(hashes)]
    levels = [level]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [_node(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        levels.append(level)
    return levels


def commit(key: SigningKey, salt: bytes, hashes: Sequence[bytes], about: Mapping[str, Any]) -> dict[str, Any]:
    """The signed root over the hashes of a frame's subjects; `about` says of what (model, frame, erasures)."""
    levels = tree_of(hashes)
    predicate = {**about, "root": levels[-1][0].hex(), "leaves": len(levels[0]), "salt": salt.hex()}
    return key.sign(COMMITMENT, {"frame": about["frame"], "model": about["model"]}, predicate)


def prove(commitment: Mapping[str, Any], hashes: Sequence[bytes], wanted: bytes) -> dict[str, Any]:
    """A proof about the subject with the hash `wanted`, JSON-ready: the commitment, one or two leaves, their paths."""
    leaves, levels = _sorted(hashes), tree_of(hashes)
    at = next(i for i, leaf in enumerate(leaves) if leaf >= wanted)
    places = [at] if leaves[at] == wanted else [at - 1, at]
    shown = [{"index": i, "leaf": leaves[i].hex(), "path": _path(levels, i)} for i in places]
    return {"form": 1, "commitment": dict(commitment), "shown": shown}


def check(proof: Mapping[str, Any], key: str, verify_key: VerifyKey) -> Answer:
    """What a proof shows about the subject `key`. Needs nothing but the proof and the workspace's public key.

    Raises `CorruptObject` when the proof does not hold, or is about somebody else.
    """
    try:
        said = verify_key.open(proof["commitment"], COMMITMENT)
        root, count = bytes.fromhex(said["root"]), int(said["leaves"])
        wanted = subject_hash(bytes.fromhex(said["salt"]), key)
        shown = [
            (int(s["index"]), bytes.fromhex(s["leaf"]), [bytes.fromhex(p) for p in s["path"]]) for s in proof["shown"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptObject("this is no proof about a subject", hint="everloop data proof makes one") from error
    if any(_root_of(leaf, path, index, count) != root for index, leaf, path in shown):
        raise CorruptObject("the proof does not hold", hint="a leaf does not lead to the root that was signed")
    match [(index, leaf) for index, leaf, _ in shown]:
        case [(_, leaf)] if leaf == wanted:
            read = True
        case [(before, low), (after, high)] if after == before + 1 and low < wanted < high:
            read = False
        case _:
            raise CorruptObject("the proof is not about this subject", hint="is the key written as the data has it?")
    return Answer(read, said["model"], said["frame"], count - 2, tuple(said["redacted"]), tuple(said.get("unsure", ())))


def _shown(leaf: Mapping[str, Any]) -> tuple[int, bytes, list[bytes]]:
    return int(leaf["index"]), bytes.fromhex(leaf["leaf"]), [bytes.fromhex(node) for node in leaf["path"]]


def _sorted(hashes: Sequence[bytes]) -> list[bytes]:
    return [_LOWEST, *sorted(set(hashes)), _HIGHEST]


def _leaf(value: bytes) -> bytes:
    return blake3(b"\0" + value).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return blake3(b"\1" + left + right).digest()


def _path(levels: list[list[bytes]], index: int) -> list[str]:
    path = []
    for level in levels[:-1]:
        if (sibling := index ^ 1) < len(level):
            path.append(level[sibling].hex())
        index //= 2
    return path


def _root_of(leaf: bytes, path: list[bytes], index: int, count: int) -> bytes:
    """Where a leaf's path leads in a tree of `count` leaves; the index says on which side each sibling stands."""
    if not 0 <= index < count:
        raise CorruptObject("the proof does not hold", hint="a leaf lies outside the tree")
    node, left = _leaf(leaf), list(path)
    while count > 1:
        if (index ^ 1) < count:
            if not left:
                raise CorruptObject("the proof does not hold", hint="a path is too short")
            sibling = left.pop(0)
            node = _node(sibling, node) if index & 1 else _node(node, sibling)
        index, count = index // 2, (count + 1) // 2
    if left:
        raise CorruptObject("the proof does not hold", hint="a path is too long")
    return node
