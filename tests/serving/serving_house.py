"""What serving's tests share: a workspace with real gateways, workers, model folders, and a small HTTP load."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import joblib

from everloop.core.ids import object_id
from everloop.core.signing import SigningKey
from everloop.serving import log
from everloop.serving import table as tables
from everloop.serving.sealing.files import digest
from everloop.serving.table import Revision, Route, Table

HERE = Path(__file__).parent
LOADER = "serving_models:load"


def folder_of(root: Path, name: str, predictor: Any) -> str:
    """A model folder in the simplest form: a joblib file that `serving_models.load` reads."""
    folder = root / name
    folder.mkdir(parents=True)
    joblib.dump(predictor, folder / "model.joblib")
    return str(folder)


def sealed_of(folder: str | Path) -> str:
    """The digest of a folder's files, as a signed table holds it."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return digest({path.relative_to(folder).as_posix(): object_id(path.read_bytes()) for path in files})


def revision(folder: str, number: int, weight: int = 100, **more: Any) -> Revision:
    """A revision of a model with two numbers and a text, unless told otherwise."""
    columns = [["distance", "FP64"], ["hour", "INT64"], ["carrier", "BYTES"]]
    fields = {
        "id": f"b3:{number:064x}",
        "model": f"b3:{number + 1000:064x}",
        "inputs": columns,
        "caller": columns,
        "example": {"distance": [100.0], "hour": [3], "carrier": ["AA"]},
        "loader": LOADER,
        **more,
    }
    return Revision(number=number, weight=weight, folder=folder, **fields)


def one_row(value: float = 100.0) -> dict[str, Any]:
    return {"distance": value, "hour": 3, "carrier": "AA"}


@dataclass
class Place:
    """A workspace's serving folder, its key, and the gateways that run on it."""

    home: Path
    key: SigningKey = field(default_factory=SigningKey.generate)
    patience: float = 60.0
    """Seconds that workers may take to start."""
    sequence: int = 0
    gateways: "list[Gateway]" = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.home / "serving").mkdir(parents=True, exist_ok=True)
        (self.home / "keys").mkdir()
        (self.home / "keys" / "verify.pem").write_bytes(self.key.public.to_pem())

    def serve(self, *routes: Route, **more: Any) -> Table:
        self.sequence += 1
        table = Table(self.sequence, "production", list(routes), **more)
        tables.write(self.home / "serving" / "routes.json", table, self.key)
        return table

    def gateway(self, name: str = "g0", listener: socket.socket | None = None, **options: str) -> "Gateway":
        gateway = Gateway(self, name, listener or bound(), options)
        self.gateways.append(gateway)
        return gateway

    def stats(self, name: str = "g0") -> dict[str, Any]:
        try:
            return json.loads((self.home / "serving" / "stats" / f"{name}.json").read_bytes())
        except FileNotFoundError:
            return {}

    def until(self, condition: Any, seconds: float | None = None, name: str = "g0") -> dict[str, Any]:
        """Wait until the counters satisfy `condition`."""
        end = time.monotonic() + (seconds or self.patience)
        while time.monotonic() < end:
            stats = self.stats(name)
            if stats and condition(stats):
                return stats
            time.sleep(0.05)
        raise AssertionError(f"never so: {self.stats(name)}")

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.stop()


def bound(host: str = "127.0.0.1") -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, 0))
    listener.listen(1024)
    return listener


class Gateway:
    """One real gateway process on a socket that we own, as the supervisor does."""

    def __init__(self, place: Place, name: str, listener: socket.socket, options: dict[str, str]) -> None:
        self.place, self.name, self.listener, self.options = place, name, listener, options
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = self._start()
        self.client = httpx2.Client(base_url=self.url, timeout=30)

    def _start(self) -> subprocess.Popen[bytes]:
        more = [text for name, value in self.options.items() for text in ("--" + name, value)]
        return subprocess.Popen(
            [sys.executable, "-m", "everloop.serving.gateway", "--home", str(self.place.home)]  # noqa: RUF005 - reads better
            + ["--name", self.name, "--fd", str(self.listener.fileno()), *more],
            pass_fds=(self.listener.fileno(),),
            env={**os.environ, "PYTHONPATH": str(HERE)},
        )

    def ready(self, seconds: float | None = None) -> "Gateway":
        end = time.monotonic() + (seconds or self.place.patience)
        while time.monotonic() < end:
            response = self.client.get("/v2/health/ready")
            if response.status_code == 200 and self.place.stats(self.name).get("sequence", -1) == self.place.sequence:
                return self
            time.sleep(0.05)
        raise AssertionError("the gateway did not become ready")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self._start()

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                assert self.process.wait(self.place.patience) == 0, "it did not stop cleanly"
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.listener.close()

    def predict(self, row: dict[str, Any], address: str = "shop.delay", **headers: str) -> httpx2.Response:
        project, name = address.split(".")
        return self.client.post(f"/endpoints/{project}/{name}/predict", json=row, headers=headers)


class Caller:
    """A bounded load: keep-alive connections that ask one after the other; counts what came back."""

    def __init__(self, port: int, connections: int, path: str = "/endpoints/shop/delay/predict") -> None:
        self.port, self.connections, self.path = port, connections, path
        self.ids: list[str] = []
        self.statuses: list[int] = []
        self.revisions: list[str] = []
        self.slowest = 0.0
        self.lost = 0
        """Connections that ended without an answer."""

    async def run(self, until: asyncio.Event, body: bytes | None = None, pause: float = 0.002) -> None:
        content = body or json.dumps(one_row()).encode()
        await asyncio.gather(*(self._connection(until, content, pause) for _ in range(self.connections)))

    async def _connection(self, until: asyncio.Event, body: bytes, pause: float) -> None:
        request = (
            f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body
        while not until.is_set():
            writer = None
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                while not until.is_set():
                    started = time.monotonic()
                    writer.write(request)
                    await self._answer(reader)
                    self.slowest = max(self.slowest, time.monotonic() - started)
                    await asyncio.sleep(pause)
            except (OSError, asyncio.IncompleteReadError):
                self.lost += 1
                await asyncio.sleep(0.02)
            finally:
                if writer is not None:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        self.statuses.append(int(head.split(" ", 2)[1]))
        if "prediction_id" in answer:
            self.ids.append(answer["prediction_id"])
            self.revisions.append(answer["revision"])


def logged(home: Path, name: str = "g0") -> list[log.Entry]:
    """Everything in a gateway's log."""
    return [e for path in log.segments(home / "serving" / "log" / name) for _, _, e in log.read(path.read_bytes())]
