"""Who is asking: from a request's token, session cookie or nothing at all, an `Actor`; and the way in, `/login?code=`.

- On a loopback bind a request without a credential may read, and write runs and its own sandbox (`local`): an MLflow
  user changes one line. It never approves, merges or administers. On any other bind every request needs a credential.
- `Host` is checked on every method against the names of a loopback bind, so that a foreign page whose name was rebound
  to 127.0.0.1 gets nothing. `Origin` and `Sec-Fetch-Site` are checked on every method, so that no other site's page
  acts through a browser; a cookie changes state only where the browser itself says that the page is ours.
- A wrong token is never treated as none. Wrong login codes are counted by address, and after too many no code from
  there is looked at for a while. Tokens are not counted: they cannot be guessed, their look-up costs as little as any
  request, and a limit would let whoever sends wrong ones shut out their neighbours behind the same address.
"""

import base64
import binascii
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from everloop.catalog.context import Actor
from everloop.catalog.engine import Catalog
from everloop.catalog.governance import access
from everloop.core.clock import DAY, MINUTE, Clock, Micros
from everloop.core.errors import InvalidInput, NotAuthenticated, PermissionDenied
from everloop.core.settings import is_loopback
from everloop.server.web.pages import render

COOKIE = "everloop_session"
SESSION_LIFE: Micros = 14 * DAY
LOCAL = "local"
"""The name of whoever asks on loopback without a credential."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_GRANTS = (
    "read */*@*",
    "run.write */*",
    f"sandbox.write */*@sandbox/{LOCAL}",
    f"sandbox.write */*@sandbox/{LOCAL}/*",
)
_GUEST = replace(Actor.of(LOCAL, grants=_LOCAL_GRANTS), anonymous=True)


@dataclass(frozen=True, slots=True)
class Limit:
    """How many wrong login codes one address may send in a window of time."""

    failures: int = 20
    window: Micros = MINUTE


@dataclass(slots=True)
class _Failures:
    """Recent failures by address, bounded in number; safe among threads."""

    limit: Limit
    seen: OrderedDict[str, deque[Micros]] = field(default_factory=OrderedDict)
    lock: Lock = field(default_factory=Lock)

    def too_many(self, address: str, now: Micros) -> bool:
        with self.lock:
            times = self.seen.get(address, deque())
            while times and times[0] <= now - self.limit.window:
                times.popleft()
            return len(times) >= self.limit.failures

    def add(self, address: str, now: Micros) -> None:
        with self.lock:
            times = self.seen.setdefault(address, deque(maxlen=self.limit.failures))
            times.append(now)
            self.seen.move_to_end(address)
            while len(self.seen) > 10_000:
                self.seen.popitem(last=False)


class Authenticator:
    """Turns requests into actors. `host` is the bind address; `names` are further host names that mean this server."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        *,
        host: str = "127.0.0.1",
        names: frozenset[str] = frozenset(),
        limit: Limit | None = None,
    ) -> None:
        """Credentials are looked up in `catalog`; they run out by the wall time of `clock`."""
        self._catalog = catalog
        self._clock = clock
        self.loopback = is_loopback(host)
        self._names = frozenset(name.lower() for name in names) | {host.lower()}
        self._failures = _Failures(limit or Limit())

    def actor(self, request: Request, project: str) -> Actor:
        """Who asks for `project`; blocks on the catalog, so call it in a thread.

        Raises `InvalidInput` for a foreign Host, `PermissionDenied` for a foreign Origin, `NotAuthenticated` for a
        credential that does not hold, or for none where one is needed.
        """
        self.check_place(request)
        secret = _presented(request)
        if secret is not None:
            return self._checked(secret, project)
        cookie = request.cookies.get(COOKIE)
        if cookie is not None:
            if request.method not in _SAFE and not _surely_ours(request.headers):
                raise PermissionDenied(
                    "a session changes things only from our own pages", hint="programs present a token instead"
                )
            found = self._session(cookie)
            if found is not None:
                return found
        if self.loopback and not _forwarded_from_elsewhere(request.headers):
            return _GUEST
        raise NotAuthenticated(
            "this address demands a token", hint="Authorization: Bearer <token>, or MLFLOW_TRACKING_TOKEN"
        )

    def check_place(self, request: Request) -> None:
        """Refuse a foreign Host or Origin, whatever the method."""
        host = request.headers.get("host", "")
        name = _host_name(host)
        known = name in self._names or is_loopback(name) if self.loopback else name != ""
        if not known:
            raise InvalidInput(f"this server does not answer to the name {host!r}", hint="use its own address")
        origin = request.headers.get("origin")
        if origin is not None and not _same_place(origin, host):
            raise PermissionDenied(
                f"the page {origin} may not use this server", hint="open it on the server's own pages"
            )
        crossing = request.headers.get("sec-fetch-site") in {"cross-site", "same-site"}
        if crossing and (request.method not in _SAFE or request.headers.get("sec-fetch-mode") != "navigate"):
            raise PermissionDenied(
                "another site's page may not use this server", hint="open it on the server's own pages"
            )

    def login(self, code: str, address: str) -> str:
        """Exchange a one-time code for a session's secret; raises `NotAuthenticated`."""
        now = self._clock.wall()
        self._refuse_hammering(address, now)
        with self._catalog.write() as tx:
            name = access.take_code(tx, code, at=now)
            if name is not None:
                return access.open_session(tx, name, at=now, expires=now + SESSION_LIFE)
        self._failures.add(address, now)
        raise NotAuthenticated("this link was used already, or is too old", hint="ask for a new login link")

    def logout(self, secret: str) -> None:
        """End a session."""
        with self._catalog.write() as tx:
            access.close_session(tx, secret)

    def _checked(self, secret: str, project: str) -> Actor:
        with self._catalog.read() as tx:
            found = access.actor_of_token(tx, secret, project, at=self._clock.wall())
        if found is None:
            raise NotAuthenticated(
                "the token is not valid here", hint="it may be revoked, too old, or made for another project"
            )
        return found

    def _session(self, cookie: str) -> Actor | None:
        """The session's actor; None when it ran out, which is no attack: the browser just kept the cookie."""
        with self._catalog.read() as tx:
            return access.actor_of_session(tx, cookie, at=self._clock.wall())

    def _refuse_hammering(self, address: str, now: Micros) -> None:
        if self._failures.too_many(address, now):
            raise NotAuthenticated("too many failed sign-ins from this address", hint="wait a minute, then try again")


def login_routes(auth: Authenticator) -> list[BaseRoute]:
    """`GET /login?code=` opens a session once and goes to the start page; `POST /logout` ends it."""

    async def login(request: Request) -> Response:
        auth.check_place(request)
        code = request.query_params.get("code", "")
        try:
            secret = await run_in_threadpool(auth.login, code, address_of(request))
        except NotAuthenticated as error:
            return render("signin.html", {"error": error, "title": "Sign in"}, status=401)
        answer = RedirectResponse("/", 303, headers=_PRIVATE)
        answer.set_cookie(
            COOKIE,
            secret,
            max_age=SESSION_LIFE // 1_000_000,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    async def logout(request: Request) -> Response:
        auth.check_place(request)
        secret = request.cookies.get(COOKIE)
        if secret is not None and _surely_ours(request.headers):
            await run_in_threadpool(auth.logout, secret)
        answer = RedirectResponse("/", 303, headers=_PRIVATE)
        answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return answer

    return [Route("/login", login, methods=["GET"]), Route("/logout", logout, methods=["POST"])]


_PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


def address_of(request: Request) -> str:
    """Where a sign-in comes from: the peer, or over a UNIX socket whom our own front process says it is."""
    if request.client is not None and request.client.host:
        return request.client.host
    return request.headers.get("x-forwarded-for", "local").rpartition(",")[2].strip()


def _presented(request: Request) -> str | None:
    """The token of an Authorization header: Bearer's value, or Basic's password; None when there is no header."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() == "basic":
        try:
            _, _, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            password = ""
        if password:
            return password
    raise NotAuthenticated("the Authorization header is not understood", hint="Bearer <token>, or Basic user:<token>")


def _surely_ours(headers: Mapping[str, str]) -> bool:
    """Whether the browser itself says that the request comes from a page of this very server."""
    origin = headers.get("origin")
    if origin is not None:
        return _same_place(origin, headers.get("host", ""))
    return headers.get("sec-fetch-site") == "same-origin"


def _same_place(origin: str, host: str) -> bool:
    parts = urlsplit(origin)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        return False  # `null` among others
    port = {"http": "80", "https": "443"}[parts.scheme]

    def whole(place: str) -> str:
        name = _host_name(place)
        rest = place.lower().rpartition("]")[2] if place.startswith("[") else place
        return f"{name}:{rest.partition(':')[2] or port}"

    return whole(parts.netloc) == whole(host)


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _forwarded_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a proxy says that the request came from another machine."""
    chain = headers.get("x-forwarded-for", "")
    places = [place.strip() for place in chain.split(",") if place.strip()]
    return "forwarded" in headers or any(not is_loopback(place) for place in places)
