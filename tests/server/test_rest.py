"""REST on the real server: who may do what by default, one shape of errors, and no input that makes it stumble."""

import json
from contextlib import contextmanager

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_house import listening

from everloop.catalog.context import Actor
from everloop.catalog.governance import access
from everloop.catalog.operation import Command, operation, operations
from everloop.client import connect, local
from everloop.core.clock import DAY
from everloop.core.errors import DefinitionError, EverloopError
from everloop.core.settings import Settings
from everloop.server.app import build_app
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations

load_operations()
NAMES = sorted(operations())
LOWEST = {"read"}
MINIMAL = {"string": "x", "integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}, "null": None}


@contextmanager
def serving(settings):
    """The server's application on a real port; yields its URL."""
    with (
        Workspace.open(settings) as workspace,
        listening(build_app(workspace), lifespan="off", log_level="error") as address,
    ):
        yield address, workspace


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    place = tmp_path_factory.mktemp("rest") / "home"
    settings = Settings(home=place, project="shop")
    initialise(settings, "ada", "team", place.parent)
    return settings


@pytest.fixture(scope="module")
def open_place(home):
    """A server that believes to listen on every address."""
    wide = Settings(home=home.home, project="shop", host="0.0.0.0")
    with serving(wide) as (url, workspace):
        at = workspace.clock.wall()
        tokens = {}
        with workspace.catalog.write() as tx:
            access.create_user(tx, "vera", kind="person", roles=("viewer",), actor="ada", at=at)
            for name in ("ada", "vera"):
                tokens[name] = access.issue_token(tx, name, at=at, expires=at + DAY, kind="person")[1]
        with httpx2.Client(base_url=url, timeout=30) as http:
            yield http, tokens, workspace


@pytest.fixture(scope="module")
def document(open_place):
    http, tokens, _ = open_place
    answer = http.get("/rest/v1/openapi.json", headers={"Authorization": f"Bearer {tokens['vera']}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask(http, name, body=None, token="", **headers):
    given = {"Authorization": f"Bearer {token}"} if token else {}
    return http.post(f"/rest/v1/shop/{name}", json={} if body is None else body, headers=given | headers)


OF_PATTERN = {"^[0-9a-f]{32}$": "0" * 32, "^m-[0-9a-f]{32}$": "m-" + "0" * 32, "^(in|out)$": "in"}


def least(schema, defs):  # noqa: PLR0911 - a case a kind
    """The smallest body that a JSON schema lets pass."""
    if "$ref" in schema:
        return least(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    if "anyOf" in schema:
        return least(schema["anyOf"][0], defs)
    if schema.get("type") == "object":
        inner = schema.get("properties", {})
        return {name: least(inner[name], defs) for name in schema.get("required", ())}
    if schema.get("type") == "array":
        return [least(schema.get("items", {}), defs)] * schema.get("minItems", 0)
    if schema.get("type") == "integer":
        return max(1, schema.get("minimum", 1))
    if "pattern" in schema:
        return OF_PATTERN[schema["pattern"]]
    return MINIMAL[schema.get("type", "string")]


def body_of(name):
    schema = operations()[name].command.model_json_schema()
    return least(schema, schema.get("$defs", {}))


def is_problem(answer):
    """RFC 9457, with our hint."""
    told = answer.json()
    assert answer.headers["content-type"].startswith("application/problem+json"), (answer.status_code, answer.text)
    assert told["status"] == answer.status_code
    assert set(told) >= {"type", "title", "status", "detail"}
    assert "Traceback" not in answer.text
    return told


# -- default deny ------------------------------------------------------------------------------------------


def test_every_operation_is_a_route_of_the_document(document):
    assert document["openapi"].startswith("3.")
    routes = {path.rpartition("/")[2]: methods for path, methods in document["paths"].items()}
    assert sorted(routes) == NAMES
    references = set()
    for name, methods in routes.items():
        assert set(methods) == {"post"}
        said = methods["post"]
        assert said["operationId"] == name
        assert f"`{operations()[name].needs}`" in said["description"]
        references |= set(_references(methods))
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references <= defined
    assert {"200", "403"} <= set(said["responses"])


def _references(value):
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


@pytest.mark.parametrize("token", ["", "el_wrong", "b3:" + "0" * 64])
def test_without_a_token_that_holds_nothing_answers(open_place, token):
    http, _, _ = open_place
    for name in NAMES:
        answer = ask(http, name, body_of(name), token)
        assert answer.status_code == 401, (name, answer.text)
        is_problem(answer)


@pytest.mark.parametrize("body", [b"", b"{", b'{"no such field": 1}', b"[1]"], ids=repr)
def test_who_asks_is_looked_at_before_what_is_asked(open_place, body):
    http, _, _ = open_place
    for name in NAMES:
        answer = http.post(f"/rest/v1/shop/{name}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 401, (name, answer.text)
        assert is_problem(answer)["code"] == "not_authenticated"


def test_the_lowest_role_writes_nothing(open_place):
    http, tokens, workspace = open_place
    # what anybody may do about their own credentials
    own = {"access.create_token", "access.revoke_token", "access.login_link"}
    before = _everything(workspace)
    for name in NAMES:
        op = operations()[name]
        answer = ask(http, name, body_of(name), tokens["vera"])
        assert answer.status_code < 500, (name, answer.text)
        if answer.status_code >= 400:
            is_problem(answer)
        if not op.reads and name not in own:
            assert op.needs not in LOWEST, f"{name} writes and needs no more than a viewer has"
            assert answer.status_code in (403, 404), (name, answer.status_code, answer.text)
    assert _everything(workspace) == before


def _everything(workspace):
    """How many rows there are, credentials and audit aside."""
    with workspace.catalog.read() as tx:
        tables = tx.exec_driver_sql("select name from sqlite_master where type='table'").scalars().all()
        aside = ("facts", "token", "code", "session", "sqlite", "alembic", "heads", "chain", "sealed")
        kept = [t for t in tables if not any(word in t for word in aside)]
        return {t: tx.exec_driver_sql(f"select count(*) from {t}").scalar() for t in kept}


def test_an_operation_that_needs_nothing_cannot_be_declared():
    class Nothing(Command):
        """Asks nothing."""

    for needs in ("", None):
        with pytest.raises((DefinitionError, TypeError)):

            @operation("tests.open_to_all", needs=needs)
            def open_to_all(ctx, cmd: Nothing) -> Nothing:
                """Never declared."""

    assert "tests.open_to_all" not in operations()


# -- where from, and when ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_a_foreign_page_gets_nothing_by_any_method(home, method):
    with serving(home) as (url, _), httpx2.Client(base_url=url) as http:
        for path in ("/rest/v1/shop/environments.list", "/api/2.0/mlflow/experiments/search", "/"):
            for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
                answer = http.request(method, path, headers=headers)
                assert answer.status_code in (400, 403, 404, 405), (method, path, headers, answer.status_code)


def test_time_cannot_be_said_outside_of_a_replay(open_place):
    http, tokens, _ = open_place
    answer = ask(http, "environments.list", token=tokens["ada"], **{"Everloop-Time": "2013-05-01T00:00:00Z"})
    assert answer.status_code == 400
    assert "time" in is_problem(answer)["detail"]


def test_nonsense_is_told_as_such(open_place):
    http, tokens, _ = open_place
    ours = {"Authorization": f"Bearer {tokens['ada']}"}
    for method, path, body, status in (
        ("POST", "/rest/v1/shop/no.such", b"{}", 404),
        ("GET", "/rest/v1/shop/environments.list", b"", 405),
        ("POST", "/rest/v1/shop/environments.list", b"{", 400),
        ("POST", "/rest/v1/shop/environments.list", b"[]", 400),
        ("POST", "/rest/v1/shop/environments.list", b"\xff\xfe", 400),
        ("POST", "/rest/v1/shop/environments.list", b'{"more": 1}', 400),
        ("POST", "/rest/v1/shop/changes.show", b'{"number": "x"}', 400),
        ("POST", "/rest/v1/%00/environments.list", b"{}", 400),
        ("POST", "/rest/v1/shop/changes.show", b'{"number": 99999999999999999999999}', 400),
    ):
        answer = http.request(method, path, content=body, headers={**ours, "Content-Type": "application/json"})
        assert answer.status_code in (status, 404, 400) if status != 405 else answer.status_code in (400, 405), (
            path,
            body,
            answer.text,
        )
        assert is_problem(answer).get("hint"), (path, body)


# -- the SDK -----------------------------------------------------------------------------------------------


def test_near_and_far_clients_answer_alike(open_place):
    http, tokens, workspace = open_place
    ctx = workspace.context(_actor(workspace, "ada"), "shop")
    far, near = connect(str(http.base_url), token=tokens["ada"], project="shop"), local(ctx)
    with far:
        for name in NAMES:
            if operations()[name].reads and name not in ("system.verify", "access.whoami"):
                told = [_outcome(client, name, body_of(name)) for client in (near, far)]
                assert told[0] == told[1], name
        with pytest.raises(AttributeError, match="list"):
            _ = far.changes.unknown
        with pytest.raises(EverloopError, match="no operation"):
            far.call("no.such")


def _actor(workspace, name):
    with workspace.catalog.read() as tx:
        found = access.user(tx, name)
    return Actor.of(found.name, *sorted(found.roles))


def _outcome(client, name, body):
    try:
        return client.call(name, **body)
    except EverloopError as error:
        return type(error), error.message, error.hint


# -- whatever is sent --------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.sampled_from(
        ["", "production", "sandbox/ada/x", "data/orders@7", "b3:" + "0" * 64, "../../etc", "a\x00b", "é", "x" * 3000]
    ),
    st.text(max_size=20),
)
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)


def fitting(schema, defs):  # noqa: PLR0911 - a case a kind
    """Values that a JSON schema lets pass, nearly always."""
    if "$ref" in schema:
        return fitting(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if "anyOf" in schema:
        return st.one_of(*(fitting(one, defs) for one in schema["anyOf"]))
    kind = schema.get("type")
    if kind == "object":
        if "properties" not in schema:
            return st.dictionaries(TEXTS, ANY, max_size=3)
        required = {n: fitting(s, defs) for n, s in schema["properties"].items() if n in schema.get("required", ())}
        optional = {n: fitting(s, defs) for n, s in schema["properties"].items() if n not in required}
        return st.fixed_dictionaries(required, optional=optional)
    if kind == "array":
        return st.lists(fitting(schema.get("items", {}), defs), max_size=3)
    plain = {
        "string": TEXTS,
        "integer": st.one_of(st.integers(-3, 2000), st.integers(-(2**66), 2**66)),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return plain.get(kind, ANY)


@st.composite
def calls(draw):
    name = draw(st.sampled_from(NAMES))
    schema = operations()[name].command.model_json_schema()
    body = draw(st.one_of(*[fitting(schema, schema.get("$defs", {}))] * 4, ANY))
    return name, body


@given(call=calls())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_that_is_sent_makes_the_server_stumble(open_place, call):
    http, tokens, _ = open_place
    name, body = call
    answer = http.post(
        f"/rest/v1/shop/{name}",
        content=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {tokens['ada']}", "Content-Type": "application/json"},
    )
    assert answer.status_code < 500, (name, body, answer.text)
    if answer.status_code >= 400:
        is_problem(answer)
