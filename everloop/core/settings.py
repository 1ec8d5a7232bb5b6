"""Settings of a workspace's processes: flag over environment variable over `everloop.toml`."""

import importlib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from everloop.core.errors import InvalidInput
from everloop.core.grants import SANDBOX


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set; each has the environment variable `EVERLOOP_<NAME>`."""

    home: Path = Path(".everloop")
    """The workspace's folder."""
    database: str = ""
    """SQLAlchemy URL of the catalog; empty means SQLite in `home`."""
    objects: str = ""
    """Folder or URL of the object store; empty means `objects` in `home`."""
    module: str = "project"
    """The Python module that defines the project, in the project's folder."""
    project: str = "default"
    """The project that commands mean."""
    host: str = "127.0.0.1"
    """Bind address; any other than loopback demands tokens."""
    port: int = 5050
    """Port of `everloop up`."""
    workers: int = 1
    """Task workers of `everloop up`."""
    server: str = ""
    """URL of a server: the CLI then works remotely."""
    token: str = ""
    """Token for the server."""
    replay: bool = False
    """Whether time comes from a replayer (header `Everloop-Time`)."""
    fsync: bool = False
    """Whether prediction log and objects are synced to disk before they are acknowledged."""


def load(flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Resolve the settings; raises `InvalidInput` naming the key and where it came from."""
    stored: Mapping[str, Any] = {}
    if file is not None and file.is_file():
        try:
            stored = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{file}: {error}") from error
    known = {field.name: field.type for field in fields(Settings)}
    unknown = sorted(set(stored) - set(known))
    if unknown:
        raise InvalidInput(f"{file}: unknown setting {unknown[0]!r}", hint="one of " + ", ".join(known))
    values: dict[str, Any] = {}
    for name in known:
        for origin, source, key in (
            ("flag", flags, name),
            ("environment", environ, f"EVERLOOP_{name.upper()}"),
            (str(file), stored, name),
        ):
            if source.get(key) is not None:
                values[name] = _typed(name, source[key], origin)
                break
    return Settings(**values)


EVERYWHERE = "*"
"""The table of bindings that hold in every environment."""


def bindings(home: Path, environment: str) -> dict[str, Any]:
    """The values of bindings in an environment.

    `bindings.toml` has a table for each environment, one `"*"` for all of them, and one `sandbox` for every
    sandbox; a sandbox never sees the table of another environment.
    """
    file = home / "bindings.toml"
    if not file.is_file():
        return {}
    try:
        stored = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{file}: {error}") from error
    own = "sandbox" if environment.startswith(SANDBOX) else environment
    return {**stored.get(EVERYWHERE, {}), **stored.get(own, {})}


def to_environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, for child processes; `load` reads them back."""
    values = {field.name: getattr(settings, field.name) for field in fields(Settings)}
    values["home"] = settings.home.resolve()
    return {f"EVERLOOP_{name.upper()}": str(value) for name, value in values.items() if value not in ("", None)}


def is_loopback(host: str) -> bool:
    """Whether a bind address or host name means this machine only."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _typed(name: str, value: Any, origin: str) -> Any:
    default = getattr(Settings(), name)
    try:
        if isinstance(default, bool):
            return (
                value
                if isinstance(value, bool)
                else {"1": True, "true": True, "0": False, "false": False}[str(value).lower()]
            )
        return type(default)(value) if not isinstance(default, Path) else Path(value)
    except (KeyError, TypeError, ValueError):
        raise InvalidInput(f"{name}={value!r} ({origin}) is not a {type(default).__name__}") from None


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an address is one of the public network, also when it wraps an IPv4 address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not is_public(str(inner)):
            return False
    return address.is_global and not address.is_multicast


FLOWS_RAY = "EVERLOOP_FLOWS_RAY"
"""The variable that holds `host:port` of the head of the Ray cluster on which steps run."""
FLOWS_TRACKING = "EVERLOOP_FLOWS_TRACKING"
"""The variable that holds the address under which steps on other machines reach a server of this workspace."""
SERVING_RAY = "EVERLOOP_SERVING_RAY"
"""The variable that holds `host:port` of the head of the Ray cluster on which models answer."""
RAY_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - a name
"""And the one that holds a cluster's token."""


def use_ray_token(token: str) -> None:
    """Have Ray in this process use a token, which it takes from the environment, and read once when it is imported."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    forget_ray_token()


def forget_ray_token() -> None:
    """Have Ray read its settings of authentication again."""
    compiled: Any = importlib.import_module("ray._raylet")  # there is no public way
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()
