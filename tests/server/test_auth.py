"""The way in: what a request's token, cookie, Host and Origin make of it, over real HTTP."""

import base64
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from web_house import listening

from everloop.catalog.governance import access
from everloop.changes.access import link
from everloop.core.clock import DAY, ReplayClock, SystemClock
from everloop.core.errors import EverloopError
from everloop.core.grants import Grant, Target
from everloop.server.auth import COOKIE, Authenticator, Limit, is_loopback, login_routes

NOW = SystemClock().wall()
BOTH = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Door:
    """An authenticator behind a real server, which says whom it took the request for."""

    def __init__(self, catalog, host, names=frozenset()):
        self.catalog = catalog
        self.auth = Authenticator(catalog, SystemClock(), host=host, names=names, limit=Limit(failures=3))
        app = Starlette(routes=[*login_routes(self.auth), Route("/", self.who, methods=BOTH)])
        app.add_exception_handler(EverloopError, lambda _request, error: JSONResponse(error.problem(), error.status))
        self.served = ExitStack()
        self.url = self.served.enter_context(listening(app))
        self.port = urlsplit(self.url).port

    def who(self, request):
        actor = self.auth.actor(request, "flights")
        return JSONResponse(
            {"name": actor.name, "anonymous": actor.anonymous, "grants": [str(g) for g in actor.grants]}
        )

    def ask(self, method="GET", secret=None, cookie=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        if cookie is not None:
            headers["Cookie"] = f"{COOKIE}={cookie}"
        return httpx2.request(method, self.url, headers=headers)

    def login_path(self, name="ada", at=None):
        with self.catalog.write() as tx:
            return link(tx, name, at=SystemClock().wall() if at is None else at).path

    def session(self, name="ada"):
        with self.catalog.write() as tx:
            return access.open_session(tx, name, at=NOW, expires=NOW + DAY)

    def token(self, name="ada", **more):
        with self.catalog.write() as tx:
            return access.issue_token(tx, name, **{"at": NOW, "expires": NOW + DAY, **more})

    def close(self):
        self.served.close()


@pytest.fixture
def door_at(sqlite_catalog):
    with sqlite_catalog.write() as tx:
        access.create_user(tx, "ada", kind="person", roles=["admin", "approver"], actor="ada", at=NOW)
    doors = []

    def make(host, names=frozenset()):
        doors.append(Door(sqlite_catalog, host, names))
        return doors[-1]

    yield make
    for door in doors:
        door.close()


@pytest.fixture
def door(door_at):
    return door_at("127.0.0.1")


def test_on_loopback_nobody_is_local(door):
    answer = door.ask().json()
    assert (answer["name"], answer["anonymous"]) == ("local", True)
    assert sorted(grant.split()[0] for grant in answer["grants"]) == [
        "read",
        "run.write",
        "sandbox.write",
        "sandbox.write",
    ]


def test_a_guest_may_do_just_that(door):
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost:5050")]})
    actor = door.auth.actor(request, "flights")
    assert actor.may("read", Target("dataset", "x", "production"))
    assert actor.may("run.write", Target("run", "x"))
    assert actor.may("sandbox.write", Target("environment", "x", "sandbox/local/tuning"))
    for verb, target in (
        ("sandbox.write", Target("environment", "x", "sandbox/ada")),
        ("sandbox.write", Target("environment", "x", "production")),
        ("read", Target("dataset", "x", "", frozenset({"pseudonymous"}))),
        ("change.approve", Target("change", "1", "production")),
        ("change.merge", Target("change", "1", "production")),
        ("access.write", Target("user", "ada")),
        ("audit.read", Target()),
    ):
        assert not actor.may(verb, target), verb


def test_elsewhere_everybody_needs_a_credential(door_at):
    door = door_at("0.0.0.0")
    for method in BOTH:
        assert door.ask(method).status_code == 401
    assert door.ask(secret=door.token()[1]).json()["name"] == "ada"
    assert door.ask(cookie=door.session()).json()["name"] == "ada"


@pytest.mark.parametrize("method", BOTH)
def test_a_foreign_host_or_origin_is_refused_on_every_method(door, method):
    secret = door.token()[1]
    port = door.port
    for host in ("evil.example", "evil.example:5050", "127.0.0.1.evil.example", "localhost.evil.example", "", "@"):
        assert door.ask(method, secret, Host=host).status_code == 400, host
    for origin in (
        "https://evil.example",
        "null",
        f"http://127.0.0.1:{port + 1}",
        "file://",
        f"http://127.0.0.1:{port}.x",
    ):
        assert door.ask(method, secret, Origin=origin).status_code == 403, origin
    assert door.ask(method, secret, Sec_Fetch_Site="cross-site").status_code == 403
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"):
        assert door.ask(method, secret, Host=host, Origin=f"http://{host}").status_code == 200, host


def test_a_link_from_another_site_may_be_followed(door):
    assert door.ask(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status_code == 200
    assert door.ask("POST", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status_code == 403


def test_further_names_can_be_given(door_at):
    door = door_at("127.0.0.1", frozenset({"models.example"}))
    assert door.ask(Host="models.example").status_code == 200
    assert door.ask(Host="other.example").status_code == 400


def test_a_wrong_credential_is_not_none(door):
    for header in (
        "Bearer nonsense",
        "Bearer",
        "Basic !!",
        "Basic " + base64.b64encode(b"ada:").decode(),
        "Digest x",
        "",
    ):
        assert door.ask(Authorization=header).status_code == 401, header


def test_tokens_end(door):
    old = door.token(expires=NOW - 1)[1]
    token, secret = door.token()
    other = door.token(project="elsewhere")[1]
    assert door.ask(secret=secret).status_code == 200
    with door.catalog.write() as tx:
        access.revoke_token(tx, token.id, at=NOW)
    assert {door.ask(secret=one).status_code for one in (old, secret, other)} == {401}
    kept = door.token()[1]
    with door.catalog.write() as tx:
        access.set_disabled(tx, "ada", disabled=True)
    assert door.ask(secret=kept).status_code == 401


def test_a_scope_only_narrows(door):
    scope = [Grant.parse("change.approve */*@staging"), Grant.parse("run.write */*")]  # ada writes no runs
    answer = door.ask(secret=door.token(grants=scope)[1]).json()
    assert answer["grants"] == ["change.approve */*@staging"]


def test_a_cookie_changes_things_from_our_own_pages_only(door):
    cookie = door.session()
    assert door.ask(cookie=cookie).json()["name"] == "ada"
    assert door.ask("POST", cookie=cookie).status_code == 403
    assert door.ask("POST", cookie=cookie, Sec_Fetch_Site="none").status_code == 403
    assert door.ask("POST", cookie=cookie, Origin="null").status_code == 403
    assert door.ask("POST", cookie=cookie, Origin=door.url).json()["name"] == "ada"
    assert door.ask("DELETE", cookie=cookie, Sec_Fetch_Site="same-origin").json()["name"] == "ada"


def test_an_old_cookie_is_nobody(door, door_at):
    with door.catalog.write() as tx:
        old = access.open_session(tx, "ada", at=NOW - 2 * DAY, expires=NOW - DAY)
    assert door.ask(cookie=old).json()["anonymous"]
    assert door_at("0.0.0.0").ask(cookie=old).status_code == 401


def test_a_login_link_works_once(door):
    path = door.login_path()
    with httpx2.Client(base_url=door.url, follow_redirects=False) as browser:
        first = browser.get(path)
        assert (first.status_code, first.headers["location"]) == (303, "/")
        cookie = first.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert browser.get("/").json()["name"] == "ada"
        assert browser.post("/logout", headers={"Origin": "https://evil.example"}).status_code == 403
        kept = browser.cookies[COOKIE]
        browser.post("/logout", headers={"Origin": door.url})
    assert httpx2.get(door.url + path).status_code == 401
    assert door.ask(cookie=kept).json()["anonymous"]


def test_many_wrong_codes_shut_the_door_for_a_while(door):
    good = door.login_path()
    for _ in range(3):
        assert httpx2.get(door.url + "/login?code=guess").status_code == 401
    shut = httpx2.get(door.url + good)
    assert shut.status_code == 401
    assert "too many" in shut.text
    assert door.ask(secret=door.token()[1]).status_code == 200  # tokens go on


def test_the_door_opens_again(sqlite_catalog):
    class Ticking(ReplayClock):
        def wall(self):
            return self.now()

    clock = Ticking(NOW)
    auth = Authenticator(sqlite_catalog, clock, limit=Limit(failures=1))
    with sqlite_catalog.write() as tx:
        access.create_user(tx, "ada", kind="person", roles=[], actor="ada", at=NOW)
        code = access.issue_code(tx, "ada", at=NOW, expires=NOW + DAY)
    with pytest.raises(EverloopError):
        auth.login("wrong", "here")
    with pytest.raises(EverloopError, match="too many"):
        auth.login(code, "here")
    clock.advance(NOW + Limit().window)
    assert auth.login(code, "here")


def test_an_old_code_opens_nothing(door):
    path = door.login_path(at=NOW - DAY)
    assert httpx2.get(door.url + path).status_code == 401


def test_secrets_are_not_in_the_database(door):
    secret, cookie = door.token()[1], door.session()
    code = door.login_path().partition("=")[2]
    stored = b"".join(path.read_bytes() for path in _files(door.catalog))
    assert not any(text.encode() in stored for text in (secret, cookie, code))


def _files(catalog):
    file = Path(catalog.url.removeprefix("sqlite+pysqlite:///"))
    return [path for path in file.parent.iterdir() if path.name.startswith(file.name)]


def test_loopback_is_known_by_its_names():
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "LocalHost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "example.com", "10.0.0.1", "", "127.0.0.1.x"))
