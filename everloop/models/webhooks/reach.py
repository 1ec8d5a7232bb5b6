"""Where a webhook may lead: to public addresses, decided on the address that is then connected to.

A name is resolved once for each delivery, every address that it has must be public, and the connection goes to one of
those addresses: a name that means another machine a moment later (DNS rebinding) leads nowhere else.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from everloop.core.errors import InvalidInput, Unavailable
from everloop.core.settings import is_public

_PORTS = {"https": 443, "http": 80}
_LONGEST = 2048

Resolve = Callable[[str, int], list[str]]
"""Addresses of a host name; raises OSError."""


def addresses_of(host: str, port: int) -> list[str]:
    """What the system's resolver says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Place:
    """A URL, and the address that it was found to mean."""

    scheme: str
    host: str
    port: int
    path: str
    address: str


@dataclass(frozen=True, slots=True)
class Reach:
    """The policy: which schemes, whether private addresses, and who resolves names."""

    schemes: tuple[str, ...] = ("https",)
    private: bool = False
    resolve: Resolve = addresses_of

    def place(self, url: str) -> Place:
        """The place to connect to; raises `InvalidInput` where it may not lead, `Unavailable` for an unknown name."""
        if len(url) > _LONGEST or any(character.isspace() or not character.isprintable() for character in url):
            raise InvalidInput("Invalid webhook URL", hint=f"at most {_LONGEST} characters, without spaces")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            raise InvalidInput(f"Invalid webhook URL: {url[:200]}", hint="https://example.com/hook") from None
        if parts.scheme not in self.schemes:
            raise InvalidInput(
                f"Invalid webhook URL scheme: '{parts.scheme}'. Allowed schemes are: {', '.join(self.schemes)}.",
                hint="use https",
            )
        if not host or "@" in parts.netloc or not port:
            raise InvalidInput(f"Invalid webhook URL: {url[:200]}", hint="a host, and no user name")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Place(parts.scheme, host, port, path, self._address(host, port))

    def _address(self, host: str, port: int) -> str:
        try:
            found = self.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"Cannot resolve webhook URL hostname: {host}", hint=str(error)) from None
        if not found:
            raise Unavailable(f"Cannot resolve webhook URL hostname: {host}", hint="it has no address")
        if not self.private and not all(is_public(address) for address in found):
            raise InvalidInput(
                f"Webhook URL must not resolve to a non-public address: {host}", hint="name a public host"
            )
        return found[0]
