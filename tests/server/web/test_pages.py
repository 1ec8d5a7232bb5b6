"""What pages promise beside their looks: headers, isolation, refusals, streams, files that cannot run."""

import re
import time

import page_world
import pytest

from everloop.catalog.governance import access
from everloop.server.web.routes import PAGES
from everloop.server.web.views.endpoints import blank


def test_every_answer_has_a_strict_policy(http):
    answer = http().get("/shop")
    policy = answer.headers["content-security-policy"]
    assert "script-src" not in policy
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_no_page_holds_an_inline_script(http, world):
    for path in ("/shop", "/shop/endpoints/delay", f"/shop/runs/{world.run}", "/shop/changes/1"):
        text = http("ada").get(path).text
        assert "<script>" not in text
        assert " onclick=" not in text
        assert "javascript:" not in text


def test_a_page_that_is_not_there_says_so(http):
    for path in ("/shop/nothing/here", "/nowhere", "/shop/models/unknown", "/shop/changes/999", "/shop/runs/abc"):
        answer = http().get(path)
        assert answer.status_code in (400, 404), path
        assert 'role="alert"' in answer.text, path


@pytest.mark.parametrize("path", [path for path, _ in PAGES])
def test_another_project_needs_its_grant(http, world, path):
    page_world.other_project(world)
    token = world.ask("ada", "access.create_token", label="shop only", project="shop").secret
    values = {"number:int": "1", "path:path": "x", "name:path": "production", "spec:path": "model/delay"}
    values |= {"name": "delay", "run": "a" * 32, "id": "x"}
    whole = "/secret" + re.sub(r"{([^}]*)}", lambda place: values.get(place[1], "x"), path)
    client = http()
    answer = client.get(whole, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert "secret" not in answer.text
    assert client.get("/shop", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_who_may_read_little_sees_a_refusal(http, world):
    answer = http("eve").get("/shop/audit")
    assert answer.status_code == 403
    assert "audit.read" in answer.text
    assert http("eve").get("/shop").status_code == 200


def test_a_form_of_another_site_does_nothing(http, world):
    client = http("bob")
    before = world.ask("ada", "changes.show", number=3).comments
    for headers in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = client.post("/shop/changes/3/comment", data={"text": "forged"}, headers=headers)
        assert answer.status_code == 403
    assert world.ask("ada", "changes.show", number=3).comments == before


def test_an_approval_is_of_what_was_seen(http, site):
    client = http("bob", headers={"Origin": site})
    answer = client.post("/shop/changes/3/approve", data={"delta": "b3:" + "0" * 64, "evidence": ""})
    assert answer.status_code == 409
    assert "not what you saw" in answer.text


def test_forms_are_bounded_and_unknown_acts_refused(http, site):
    client = http("bob", headers={"Origin": site})
    assert client.post("/shop/changes/3/explode").status_code == 404
    assert client.post("/shop/changes/3/comment", data={"text": "x" * 300_000}).status_code == 400
    assert client.post("/shop/changes/3/comment", data={"text": ""}).status_code == 400


def test_no_redirect_leads_away(http):
    client = http()
    for path in ("//evil.example", "//evil.example/changes", "/\\evil.example"):
        answer = client.get(f"{client.base_url}{path}".replace("///", "//"), follow_redirects=False)
        assert "evil.example" not in answer.headers.get("location", "")


@pytest.mark.parametrize("path", ["page.html", "drawing.svg", "model.bin", "report/note.txt"])
def test_files_that_could_run_are_only_saved(http, world, path):
    answer = http().get(f"/shop/runs/{world.run}/raw/{path}")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_picture_is_shown_and_a_text_is_escaped(http, world):
    client = http()
    answer = client.get(f"/shop/runs/{world.run}/raw/plot.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == page_world.picture()
    assert "&lt;script&gt;" in client.get(f"/shop/runs/{world.run}/artifacts/page.html").text
    assert client.get(f"/shop/runs/{world.run}/artifacts/../../x").status_code == 404


def test_runs_are_paged_by_the_server(http, world):
    assert http().get("/shop/runs?token=wrong").status_code == 400


def test_values_of_tagged_columns_are_for_those_who_may_read_the_tag(http):
    text = http("eve").get("/shop/data/flights").text
    assert "Masked by their tags: tail" in text
    assert ">N7<" not in text
    assert ">N7<" in http("ada").get("/shop/data/flights").text  # a steward


def test_a_views_page_says_what_each_feature_is(http):
    page = http("ada").get("/shop/features/origin_notes?e.origin=EWR").text
    assert "newest 2 of distance" in page
    assert "(count over 24 h, where note == calm or note == &lt;" in page
    listed = http("ada").get("/shop/features").text
    assert listed.count("newest 2 of distance") == 1
    assert 'href="/shop/data/flights"' in listed


def test_the_search_box_finds_and_escapes(http):
    client = http("eve")
    assert 'action="/shop/search"' in client.get("/shop").text
    found = client.get("/shop/search?q=tail").text
    assert 'href="/shop/data/flights?version=2"' in found
    assert "Nothing that you may read" in client.get("/shop/search?q=zzzz").text
    assert "<script" not in client.get("/shop/search?q=%3Cscript%3Ealert(1)").text.replace('<script type="module"', "")
    lineage = client.get("/shop/lineage/data/flights").text
    assert '<summary class="mono">tail <span class="badge warn">pseudonymous</span>' in lineage


def test_the_stream_tells_of_sealed_facts(http, world):
    world.seal()
    with http().stream("GET", "/shop/events") as answer:
        lines = answer.iter_lines()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "event: hello" in [next(lines) for _ in range(3)]
        world.ask("ada", "changes.comment", number=3, text="for the stream")
        world.seal()
        told = next(line for line in lines if line.startswith("data:") and "kind" in line)
    assert "audit.allowed" in told
    position = world.ask("ada", "audit.facts", limit=1).facts[0].position
    with http().stream("GET", "/shop/events", headers={"Last-Event-ID": str(position - 1)}) as answer:
        assert any(line == f"id: {position}" for line in answer.iter_lines())


def test_the_stream_of_another_project_is_shut(http, world):
    token = world.ask("ada", "access.create_token", label="shop only", project="shop").secret
    answer = http().get("/secret/events", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401


def test_an_open_stream_does_not_keep_a_server_alive(world, serve):
    import httpx2

    with httpx2.Client() as client:
        with serve(world.workspace) as url:
            answer = client.send(client.build_request("GET", f"{url}/shop/events"), stream=True)
            lines = answer.iter_lines()
            next(lines)
            began = time.monotonic()
        assert time.monotonic() - began < 30  # the stream itself never ends
        list(lines)  # it ended, and was not cut off
        answer.close()


def test_counters_are_there_without_a_gateway(http):
    body = http().get("/shop/endpoints/delay/stats").json()
    assert [(one["label"], one["weight"]) for one in body["revisions"]] == [("v2", 10), ("v1", 90)]


def test_an_endpoint_that_nobody_asked_offers_a_question_that_can_be_asked():
    signature = {"inputs": [{"name": "amount", "type": "double"}, {"name": "gift", "type": "boolean"}]}
    models = [{"signature": signature}, {}, {"signature": {"inputs": '[{"name": "note", "type": "string"}]'}}]
    asked = blank(["place", "amount", "gift", "note"], models)
    assert asked == {"place": "", "amount": 0, "gift": False, "note": ""}


def test_the_audit_shows_a_broken_chain(tmp_path, serve):
    import sqlite3

    import httpx2

    world = page_world.make_world(tmp_path)
    with sqlite3.connect(tmp_path / ".everloop" / "catalog.sqlite") as connection:
        connection.execute("update facts set actor = 'mallory' where position = 7")
    connection.close()
    with serve(world.workspace) as url, httpx2.Client(cookies={"everloop_session": world.session("ada")}) as client:
        assert "chain broken at 7" in client.get(f"{url}/shop/audit").text
    world.workspace.close()


def test_solo_self_approval_is_said(tmp_path, serve):
    import httpx2

    world = page_world.make_world(tmp_path, "solo")
    with serve(world.workspace) as url, httpx2.Client(cookies={"everloop_session": world.session("ada")}) as client:
        assert "lets you approve it yourself" in client.get(f"{url}/shop/changes/2").text
        client.post(f"{url}/shop/changes/2/approve", headers={"Origin": url}, follow_redirects=True)
        text = client.get(f"{url}/shop/changes/2").text
        assert "self-approval" in text
        assert "self-approved by ada (solo policy)" in text
    world.workspace.close()


def test_an_address_that_demands_tokens_explains_the_way_in(world, tmp_path):
    from dataclasses import replace

    from everloop.workspace.opened import Workspace

    settings = replace(world.workspace.settings, host="0.0.0.0")
    from starlette.testclient import TestClient

    from everloop.server.app import build_app

    with Workspace.open(settings) as workspace:
        answer = TestClient(build_app(workspace), base_url="http://everloop.example").get("/shop")
    assert answer.status_code == 401
    assert "everloop up" in answer.text


def test_a_used_link_says_how_to_get_another(http, world):
    path = world.ask("bob", "access.login_link").path
    assert http().get(path, follow_redirects=False).status_code == 303
    answer = http().get(path)
    assert answer.status_code == 401
    assert "this link was used already" in answer.text
    assert "everloop access login-link" in answer.text


def test_sessions_end(http, world, site):
    client = http("bob", headers={"Origin": site})
    assert "bob" in client.get("/shop/account").text
    client.post("/logout")
    with world.workspace.catalog.read() as tx:
        assert access.actor_of_session(tx, client.cookies.get("everloop_session", ""), at=0) is None
