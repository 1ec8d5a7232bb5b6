"""A workspace's folder: what is where, how it is made, and how bindings are resolved.

home/everloop.toml   settings                     home/objects/   the object store
home/catalog.sqlite  the catalog                  home/online/    online features (LMDB)
home/keys/           signing key pair (0600)      home/serving/   routing table, models, prediction log
home/bindings.toml   values of bindings           home/run/       sockets, process ids, logs
home/clock           the time of a replay         home/code/      project files by code version
"""

import os
import struct
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from everloop.core.clock import Micros, SystemClock
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import SANDBOX
from everloop.core.signing import SigningKey, VerifyKey

_TIME = struct.Struct("<q")


def exists(home: Path) -> bool:
    """Whether `home` holds a workspace."""
    return (home / "keys" / "signing.pem").is_file()


def create(home: Path) -> SigningKey:
    """Make the folders and the key pair; keeps a key that is there already."""
    for name in ("keys", "online", "serving", "run", "code"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "keys").chmod(0o700)
    private = home / "keys" / "signing.pem"
    if not private.exists():
        key = SigningKey.generate()
        _write_private(private, key.to_pem())
        (home / "keys" / "verify.pem").write_bytes(key.public.to_pem())
    return SigningKey.from_pem(private.read_bytes())


def signing_key(home: Path) -> SigningKey:
    """The workspace's private key; raises `NotFound` when `home` is no workspace."""
    if not exists(home):
        raise NotFound(f"{home} is not a workspace", hint="make one: everloop init")
    return SigningKey.from_pem((home / "keys" / "signing.pem").read_bytes())


def verify_key(home: Path) -> VerifyKey:
    """The workspace's public key."""
    return VerifyKey.from_pem((home / "keys" / "verify.pem").read_bytes())


def bind(home: Path, environment: str, name: str, value: str) -> None:
    """Set one binding, keeping the others. Raises `InvalidInput` for a single sandbox: all of them share a table."""
    if environment.startswith(SANDBOX):
        raise InvalidInput(f"{environment} has no bindings of its own", hint='all sandboxes share one: "sandbox"')
    file = home / "bindings.toml"
    stored: dict[str, dict[str, Any]] = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    stored.setdefault(environment, {})[name] = value
    lines = [line for table, values in stored.items() for line in _table(table, values)]
    _write_private(file, "\n".join(lines).encode())


class HomeClock(SystemClock):
    """The clock of a replay workspace: its event time is what the replayer wrote into `home/clock`."""

    def __init__(self, home: Path) -> None:
        """Nothing is read yet; until the replayer sets a time, it is the machine's."""
        self._file = home / "clock"

    def now(self) -> Micros:
        """The replayed event time."""
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return self.wall()
        return int(_TIME.unpack(content)[0])

    def advance(self, to: Micros) -> None:
        """Move to `to`; an earlier time is ignored."""
        if self._file.exists() and self.now() >= to:
            return
        fresh = self._file.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(_TIME.pack(to))
        fresh.replace(self._file)


class FixedClock(SystemClock):
    """The clock of one request in a replay workspace: its event time came with the request."""

    def __init__(self, at: Micros) -> None:
        """Stand still at `at`."""
        self._at = at

    def now(self) -> Micros:
        """The request's event time."""
        return self._at


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    escaped = {k: str(v).replace("\\", "\\\\").replace('"', '\\"') for k, v in values.items()}
    return [f'["{name}"]', *(f'{key} = "{value}"' for key, value in escaped.items()), ""]


def _write_private(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)
