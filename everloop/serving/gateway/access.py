"""Who may ask: the address that a gateway is bound to, the caller's `Host` and `Origin`, tokens.

On loopback a prediction needs no token, but `Host` must be loopback too, so that a page of another site
cannot reach it under a name of its own (DNS rebinding). Any other address demands a token.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from everloop.core.errors import NotAuthenticated, PermissionDenied
from everloop.core.grants import matches
from everloop.core.settings import is_loopback
from everloop.serving.table import Table

_LOCAL_NAMES = frozenset((b"localhost", b"127.0.0.1", b"[::1]"))


def _without_port(host: bytes) -> bytes:
    if host.startswith(b"["):
        return host.partition(b"]")[0] + b"]"
    return host.partition(b":")[0]


class Door:
    """The checks that every request for a prediction passes."""

    def __init__(self, bound: str) -> None:
        """`bound` is the address of the listening socket."""
        self._local = is_loopback(bound)
        self._hosts = _LOCAL_NAMES | {bound.encode()}

    def check(self, headers: Mapping[bytes, bytes], table: Table | None, address: str) -> None:
        """Raise `PermissionDenied` or `NotAuthenticated` when this caller may not ask what is at `address`.

        That is an endpoint (`project.name`), all of a project (`project`), or what any known caller may (empty).
        """
        host = headers.get(b"host", b"")
        if self._local and _without_port(host).lower() not in self._hosts:
            raise PermissionDenied("the Host header is not this machine", hint="use localhost or 127.0.0.1")
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2] != host:
            raise PermissionDenied("a page of another site may not ask", hint="call from your own server")
        self.check_token(headers, table, address)

    def check_token(self, headers: Mapping[bytes, bytes], table: Table | None, address: str) -> None:
        """Raise `NotAuthenticated` or `PermissionDenied` for who needs a token that reaches `address` and has none.

        All that is checked for callers that no page of a browser can be: those of gRPC.
        """
        if not self._local:
            reached = self._reached(headers.get(b"authorization", b""), table)
            if address and not _reaches(reached, address):
                project, _, endpoint = address.partition(".")
                what = f"endpoint {endpoint[:80]!r} of project" if endpoint else "project"
                raise PermissionDenied(f"the token does not reach {what} {project[:80]!r}")

    def reach(self, headers: Mapping[bytes, bytes], table: Table | None) -> Callable[[str], bool]:
        """Which endpoints (`project.name`) this caller may ask; raises `NotAuthenticated`."""
        if self._local:
            return lambda _address: True
        reached = self._reached(headers.get(b"authorization", b""), table)
        return lambda address: _reaches(reached, address)

    def check_explaining(self, headers: Mapping[bytes, bytes], table: Table | None) -> None:
        """Raise `PermissionDenied` when this caller may not ask what an answer is made of."""
        if not self._local and (table is None or self.caller(headers, table) not in table.explaining):
            raise PermissionDenied("explanations need endpoint.explain", hint="a token of a contributor or an auditor")

    @staticmethod
    def caller(headers: Mapping[bytes, bytes], table: Table | None) -> str:
        """Who asks, as its limits know it: the digest of a known token; empty for everybody else together."""
        _, _, token = headers.get(b"authorization", b"").partition(b" ")
        digest = hashlib.sha256(token.strip()).hexdigest()
        return digest if table is not None and digest in table.tokens else ""

    @staticmethod
    def _reached(authorization: bytes, table: Table | None) -> list[str]:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise NotAuthenticated("a token is needed here", hint="Authorization: Bearer <token>")
        reached = table.tokens.get(hashlib.sha256(token.strip()).hexdigest()) if table else None
        if reached is None:
            raise NotAuthenticated("the token is not known", hint="it may have expired; make another")
        return reached


def _reaches(reached: Sequence[str], address: str) -> bool:
    """Whether a token opens an address: `*` is all, `project` one of them, `project.name` an endpoint, with globs."""
    project, _, endpoint = address.partition(".")
    if project in reached or "*" in reached:
        return True
    parted = [one.partition(".") for one in reached if "." in one]
    return bool(endpoint) and any(own in ("*", project) and matches(name, endpoint) for own, _, name in parted)
