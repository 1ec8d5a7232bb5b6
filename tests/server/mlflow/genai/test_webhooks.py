"""Webhooks with a real receiver: who may make them, what is told, how it is signed, and what is tried again."""

import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import pytest
from sqlalchemy import select

from everloop.catalog import chain, tasks
from everloop.catalog.context import Actor, Context
from everloop.catalog.governance import access
from everloop.catalog.operating import webhooks
from everloop.catalog.tables.operating import webhooks as table
from everloop.core.clock import DAY, SystemClock
from everloop.core.errors import CorruptObject, InvalidInput, PolicyRefused, Unavailable
from everloop.models.webhooks.delivery import TASK, deliver, dispatch, opened
from everloop.models.webhooks.reach import Reach
from everloop.server.worker import KINDS
from everloop.workspace.work.tasks import perform

API = "/api/2.0/mlflow"
CLOCK = SystemClock()
SECRET = "a secret of the receiver"


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it is sent; the path says how it answers."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, dict(self.headers), body.decode()))
        status = int(self.path.strip("/") or 200)
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/200")
        self.end_headers()
        self.wfile.write(b"thanks")

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def receiver():
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.got = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def web(hooked):
    now = CLOCK.wall()
    with hooked.catalog.write() as tx:
        secret = access.issue_token(tx, "root", at=now, expires=now + DAY)[1]
    with httpx2.Client(base_url=hooked.url, headers={"Authorization": f"Bearer {secret}"}, timeout=20) as client:
        yield client
        for hook in client.get(f"{API}/webhooks").json()["webhooks"]:
            client.delete(f"{API}/webhooks/{hook['webhook_id']}")


@pytest.fixture
def context(hooked, signing_key):
    """What the worker's child does its task with."""
    ports = {"reach": Reach(("http",), private=True)}
    actor = Actor.of("worker", grants=["read */*"])
    return Context(actor, "default", CLOCK, hooked.catalog, hooked.store, signing_key, hooked.home, ports=ports)


def make(web, receiver, *events, path="/", **more):
    url = f"http://127.0.0.1:{receiver.server_port}{path}"
    named = [{"entity": entity, "action": action} for entity, action in events or [("MODEL_VERSION", "CREATED")]]
    answer = web.post(f"{API}/webhooks", json={"name": "hook", "url": url, "events": named} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()["webhook"]


def queued(hooked):
    """Tasks that the log of facts asks for, taken out of the queue."""
    chain.seal(hooked.catalog, CLOCK)
    dispatch(hooked.catalog, CLOCK)
    found = []
    while (task := tasks.claim(hooked.catalog, "test", [TASK], 60, CLOCK.wall())) is not None:
        found.append(task)
        with hooked.catalog.write() as tx:
            tasks.finish(tx, task, now=CLOCK.wall())
    return found


def test_the_client_makes_changes_and_deletes_one(hooked, web, receiver):
    hook = make(web, receiver, ("MODEL_VERSION", "CREATED"), ("PROMPT", "CREATED"), secret=SECRET)
    assert (hook["status"], "secret" in hook) == ("ACTIVE", False)
    path = f"{API}/webhooks/{hook['webhook_id']}"
    changed = web.patch(path, json={"status": "DISABLED", "events": [{"entity": 5, "action": 1}]})
    assert changed.status_code == 400  # enumerations of webhooks are names
    changed = web.patch(path, json={"status": "DISABLED", "description": "off"}).json()["webhook"]
    assert (changed["status"], changed["description"], len(changed["events"])) == ("DISABLED", "off", 2)
    assert [one["webhook_id"] for one in web.get(f"{API}/webhooks").json()["webhooks"]] == [hook["webhook_id"]]
    assert web.get(path, headers={"x-mlflow-workspace": "other"}).status_code in {403, 404}
    assert web.delete(path).json() == {}
    assert web.get(path).json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_a_secret_is_stored_sealed_for_its_webhook(hooked, web, receiver, context):
    hook = make(web, receiver, secret=SECRET)
    with hooked.catalog.read() as tx:
        kept = webhooks.get(tx, "default", hook["webhook_id"])
        stored = tx.execute(select(table.c.secret)).scalar_one()
    assert SECRET not in stored
    assert base64.b64encode(SECRET.encode()).decode()[:-4] not in stored
    assert opened(context, kept) == SECRET
    with pytest.raises(CorruptObject):
        opened(Context(context.actor, "other", CLOCK, context.catalog, context.store, context.key), kept)


def test_what_happens_is_told_once_signed_and_in_order(hooked, web, receiver, context):
    web.post(f"{API}/registered-models/create", json={"name": "before"})
    chain.seal(hooked.catalog, CLOCK)
    make(
        web,
        receiver,
        ("REGISTERED_MODEL", "CREATED"),
        ("MODEL_VERSION_TAG", "SET"),
        ("PROMPT", "CREATED"),
        secret=SECRET,
    )
    web.post(f"{API}/registered-models/create", json={"name": "told", "description": "größe"})
    web.post(f"{API}/registered-models/set-tag", json={"name": "told", "key": "k", "value": "v"})  # nobody asked
    prompt = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    web.post(f"{API}/registered-models/create", json={"name": "greet", "tags": prompt})
    found = queued(hooked)
    assert [task.payload["event"] for task in found] == ["registered_model.created", "prompt.created"]
    assert queued(hooked) == []
    assert deliver(context, found[0].payload) == {"status": 200}
    ((_, headers, body),) = receiver.got
    told = json.loads(body)
    assert (told["entity"], told["action"], told["workspace"]) == ("registered_model", "created", "default")
    assert told["data"] == {"name": "told", "tags": {}, "description": "größe"}
    signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{body}".encode()
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["X-MLflow-Signature"] == f"v1,{expected}"
    assert TASK in KINDS
    perform(context, TASK, found[0].payload, "")  # as the worker's child does it
    assert receiver.got[1][1]["X-MLflow-Delivery-Id"] == headers["X-MLflow-Delivery-Id"]  # the same delivery, again


def test_what_may_help_is_tried_again_and_a_redirect_never_followed(hooked, web, receiver, context):
    payload = {"event": "model_version.created", "data": {"name": "m"}, "at": "2025-01-01T00:00:00Z", "delivery": "d"}
    for status, error in ((503, Unavailable), (429, Unavailable), (302, PolicyRefused), (404, PolicyRefused)):
        hook = make(web, receiver, path=f"/{status}")
        with pytest.raises(error, match=str(status)):
            deliver(context, payload | {"webhook": hook["webhook_id"]})
        web.delete(f"{API}/webhooks/{hook['webhook_id']}")
    assert [path for path, *_ in receiver.got] == ["/503", "/429", "/302", "/404"]
    assert deliver(context, payload | {"webhook": "gone"}) == {"skipped": "the webhook was deleted"}
    hook = make(web, receiver, status="DISABLED")
    assert deliver(context, payload | {"webhook": hook["webhook_id"]}) == {"skipped": "the webhook is disabled"}


def test_a_name_that_means_another_machine_at_delivery_leads_nowhere(hooked, web, receiver, context):
    hook = make(web, receiver)
    payload = {"webhook": hook["webhook_id"], "event": "model_version.created", "data": {}, "at": "", "delivery": "d"}
    strict = Context(
        context.actor,
        "default",
        CLOCK,
        context.catalog,
        context.store,
        context.key,
        ports={"reach": Reach(("http",), resolve=lambda _host, _port: ["127.0.0.1"])},
    )
    with pytest.raises(InvalidInput, match="non-public"):
        deliver(strict, payload)
    assert receiver.got == []


def test_one_delivery_on_trial(web, receiver):
    hook = make(web, receiver, ("PROMPT_ALIAS", "CREATED"), path="/200")
    path = f"{API}/webhooks/{hook['webhook_id']}/test"
    assert web.post(path).json()["result"] == {"success": True, "response_status": 200, "response_body": "thanks"}
    assert json.loads(receiver.got[0][2])["data"] == {"name": "example", "version": "1", "alias": "example_alias"}
    refused = make(web, receiver, path="/500")
    result = web.post(f"{API}/webhooks/{refused['webhook_id']}/test").json()["result"]
    assert (result["success"], result["response_status"]) == (False, 500)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "https://example.com/x"},
        {"url": "file:///etc/passwd"},
        {"url": "http://user@127.0.0.1/"},
        {"url": "http://no.such.host.invalid/"},
        {"name": "a/b"},
        {"name": ""},
        {"events": []},
        {"events": [{"entity": "MODEL_VERSION", "action": "EXCEEDED"}]},
        {"events": [{"entity": "NOTHING", "action": "CREATED"}]},
        {"secret": "x" * 1001},
    ],
)
def test_what_makes_no_sense_is_refused(web, wrong):
    given = {"name": "n", "url": "http://127.0.0.1/", "events": [{"entity": "PROMPT", "action": "CREATED"}]} | wrong
    answer = web.post(f"{API}/webhooks", json=given)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_only_who_manages_the_system_may(hooked):
    with httpx2.Client(base_url=hooked.url, timeout=20) as guest:
        assert guest.get(f"{API}/webhooks").json()["error_code"] == "PERMISSION_DENIED"
