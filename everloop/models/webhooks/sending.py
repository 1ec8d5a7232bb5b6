"""One delivery: signed, posted to the address that was checked, never redirected, and over within seconds."""

import base64
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from everloop.core.errors import Unavailable
from everloop.models.webhooks.reach import Place

SIGNATURE, TIMESTAMP, DELIVERY = "X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id"
_CONNECT_SECONDS = 10.0
_WHOLE_SECONDS = 30.0
_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Reply:
    """What the other side said: the status and the beginning of its body."""

    status: int
    body: str


def signature(secret: str, delivery: str, timestamp: str, body: str) -> str:
    """The HMAC-SHA256 of `delivery.timestamp.body`, as Standard Webhooks writes it: `v1,<base64>`."""
    signed = f"{delivery}.{timestamp}.{body}".encode()
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def headers(secret: str, delivery: str, timestamp: str, body: str) -> dict[str, str]:
    """What a delivery says of itself; without a secret it is not signed."""
    found = {"Content-Type": "application/json", DELIVERY: delivery, TIMESTAMP: timestamp, "User-Agent": "everloop"}
    if secret:
        found[SIGNATURE] = signature(secret, delivery, timestamp, body)
    return found


def post(place: Place, body: str, said: Mapping[str, str]) -> Reply:
    """Post a body; any answer is a reply, a redirect too. Raises `Unavailable` when there is none in time."""
    plain = {"https": 443, "http": 80}[place.scheme] == place.port
    host = f"[{place.host}]" if ":" in place.host else place.host
    named = {**said, "Host": host if plain else f"{host}:{place.port}"}
    try:
        with socket.create_connection((place.address, place.port), _CONNECT_SECONDS) as raw:
            # each read has its own time; this ends a receiver that trickles
            limit = threading.Timer(_WHOLE_SECONDS, _hang_up, (raw,))
            limit.start()
            try:
                return _exchange(_secured(raw, place), place, body, named)
            finally:
                limit.cancel()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{place.host} did not answer: {error}", hint="it is tried again") from None


def _exchange(connected: socket.socket, place: Place, body: str, said: Mapping[str, str]) -> Reply:
    connection = http.client.HTTPConnection(place.host, place.port, timeout=_CONNECT_SECONDS)
    connection.sock = connected
    try:
        connection.request("POST", place.path, body.encode(), dict(said))
        answer = connection.getresponse()
        return Reply(answer.status, answer.read(_KEPT).decode("utf-8", "replace").replace("\x00", ""))
    finally:
        connection.close()


def _secured(raw: socket.socket, place: Place) -> socket.socket:
    if place.scheme == "http":
        return raw
    return ssl.create_default_context().wrap_socket(raw, server_hostname=place.host)


def _hang_up(raw: socket.socket) -> None:
    try:
        raw.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is over already
