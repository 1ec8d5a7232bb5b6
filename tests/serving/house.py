"""What serving's tests share: a workspace with real gateways, workers, model folders, and a small HTTP load."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import joblib
import numpy as np

from everloop.core.signing import SigningKey
from everloop.serving import table as tables
from everloop.serving.table import Revision, Route, Table

HERE = Path(__file__).parent
LOADER = "predictors:load"


def folder_of(root: Path, name: str, predictor: Any) -> str:
    """A model folder in the simplest form: a joblib file that `predictors.load` reads."""
    folder = root / name
    folder.mkdir(parents=True)
    joblib.dump(predictor, folder / "model.joblib")
    return str(folder)


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
    sequence: int = 0
    gateways: "list[Gateway]" = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.home / "serving").mkdir(parents=True, exist_ok=True)
        (self.home / "verify.pem").write_bytes(self.key.public.to_pem())

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

    def until(self, condition: Any, seconds: float = 15.0, name: str = "g0") -> dict[str, Any]:
        """Wait until the counters satisfy `condition`."""
        end = time.monotonic() + seconds
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
            [sys.executable, "-m", "everloop.serving.gateway", "--home", str(self.place.home), "--name", self.name]
            + ["--fd", str(self.listener.fileno()), "--verify-key", str(self.place.home / "verify.pem"), *more],
            pass_fds=(self.listener.fileno(),),
            env={**os.environ, "PYTHONPATH": str(HERE)},
        )

    def ready(self, seconds: float = 20.0) -> "Gateway":
        end = time.monotonic() + seconds
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
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.listener.close()

    def predict(self, row: dict[str, Any], address: str = "shop.delay", **headers: str) -> httpx2.Response:
        project, name = address.split(".")
        return self.client.post(f"/endpoints/{project}/{name}/predict", json=row, headers=headers)

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def matrix(columns: dict[str, Any], *names: str) -> Any:
    return np.column_stack([np.asarray(columns[name], float) for name in names])
