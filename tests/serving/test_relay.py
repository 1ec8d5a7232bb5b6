"""Everything that is no prediction, passed to a server behind a UNIX socket and streamed both ways."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import pytest
import uvicorn


class Behind:
    """A real ASGI server on a UNIX socket; remembers what reached it."""

    def __init__(self, path):
        self.seen = []
        self.left = threading.Event()
        config = uvicorn.Config(self, uds=path, log_level="error", lifespan="off", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    async def __call__(self, scope, receive, send):
        self.seen.append(scope)
        start = {"type": "http.response.start", "status": 200, "headers": [(b"x-from", b"server")]}
        if scope["path"] == "/events":
            await send({**start, "headers": [(b"content-type", b"text/event-stream")]})
            for n in range(3):
                await send({"type": "http.response.body", "body": b"data: %d\n\n" % n, "more_body": True})
                await asyncio.sleep(0.15)
            with contextlib.suppress(OSError):
                while (await receive())["type"] != "http.disconnect":
                    pass
            self.left.set()
            return
        if scope["path"] == "/none":
            await send({**start, "status": 204})
            await send({"type": "http.response.body"})
            return
        body, pieces = b"", 0
        while True:
            message = await receive()
            body += message.get("body", b"")
            pieces += 1
            if not message.get("more_body"):
                break
        answer = json.dumps({"body": body.decode(), "pieces": pieces, "query": scope["query_string"].decode()})
        await send(start)
        await send({"type": "http.response.body", "body": answer.encode()})

    def close(self):
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def behind(tmp_path):
    served = Behind(str(tmp_path / "server.sock"))
    yield served
    served.close()


@pytest.fixture
def gateway(place, behind):
    gateway = place.gateway(server=str(place.home / "server.sock"))
    place.until(lambda s: s["sequence"] == -1)
    return gateway


def test_requests_and_answers_pass_with_honest_headers(gateway, behind):
    lies = {"x-forwarded-for": "1.2.3.4", "forwarded": "for=1.2.3.4", "x-real-ip": "1.2.3.4", "te": "trailers"}
    answer = gateway.client.post("/rest/things?a=b%20c", content=b"hello", headers={**lies, "x-mine": "1"})
    assert answer.json() == {"body": "hello", "pieces": 1, "query": "a=b%20c"}
    assert answer.headers["x-from"] == "server"
    assert answer.headers.get_list("date")[1:] == []
    headers = dict(behind.seen[-1]["headers"])
    assert headers[b"x-mine"] == b"1"
    assert headers[b"x-forwarded-for"] == b"127.0.0.1"
    assert headers[b"x-forwarded-proto"] == b"http"
    assert not {b"forwarded", b"x-real-ip", b"te"} & set(headers)


def test_pages_of_endpoints_are_the_servers_and_what_is_below_endpoints_is_answered_here(gateway):
    assert gateway.client.get("/shop/endpoints/delay").headers["x-from"] == "server"
    nothing = gateway.client.get("/endpoints/shop/delay")
    assert (nothing.status_code, nothing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "x-from" not in nothing.headers
    assert gateway.client.get("/endpoints/shop/delay/predict").status_code == 405


def test_bodies_stream_up(gateway):
    def pieces():
        for n in range(3):
            yield b"%d" % n * 70_000
            time.sleep(0.1)

    answer = gateway.client.post("/upload", content=pieces()).json()
    assert len(answer["body"]) == 210_000
    assert answer["pieces"] > 2


def test_events_stream_down_and_leaving_reaches_the_server(gateway, behind):
    arrived = []
    with gateway.client.stream("GET", "/events") as answer:
        started = time.monotonic()
        for piece in answer.iter_raw():
            arrived.append(time.monotonic() - started)
            if b"2" in piece:
                break
    assert arrived[-1] - arrived[0] > 0.15  # not held until the end
    assert behind.left.wait(5)


def test_streams_of_events_end_whole_when_the_gateway_stops(gateway, behind):
    with gateway.client.stream("GET", "/events") as answer:
        for piece in answer.iter_raw():
            if b"2" in piece:
                gateway.process.terminate()  # nothing more comes from the server: the stream is open without end
    assert gateway.process.wait(30) == 0
    assert behind.left.wait(5)


def test_answers_without_a_body(gateway):
    assert gateway.client.get("/none").status_code == 204
    assert gateway.client.head("/anything").status_code == 200


def test_few_connections_serve_requests_in_turn(gateway, behind):
    for number in range(5):
        assert gateway.client.post("/rest/x", content=str(number)).json()["body"] == str(number)
        assert gateway.client.get("/none").status_code == 204
    assert len(behind.server.server_state.connections) <= 3  # a request may come before the last one gave its back


def test_a_server_that_was_started_again_is_met_by_a_fresh_connection(gateway, behind, tmp_path):
    assert gateway.client.get("/rest/x").status_code == 200
    behind.close()
    again = Behind(str(tmp_path / "server.sock"))
    try:
        for _ in range(3):
            assert gateway.client.get("/rest/x").status_code == 200
        assert len(again.seen) == 3
    finally:
        again.close()


def test_without_a_server_there_is_one_clear_error(gateway, behind):
    behind.close()
    answer = gateway.client.get("/")
    assert answer.status_code == 503
    assert answer.json()["code"] == "unavailable"


def test_a_listener_without_no_delay_gets_it(gateway):
    assert gateway.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
