"""Clients that nobody here wrote, default calls included, each in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import serving_models
from serving_house import folder_of, revision

from everloop.serving.table import Route

SCENARIO = Path(__file__).with_name("scenario.py")
PACKAGES = ("tritonclient[http,grpc]>=2.60,<3", "kserve>=0.15,<1", "aiohttp")
"""In an environment of their own: kserve holds back pandas and psutil, both hold back protobuf."""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with the clients."""
    place = tmp_path_factory.mktemp("clients") / "venv"
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(place)], check=True)
    subprocess.run([uv, "pip", "install", "-q", "-p", str(place), *PACKAGES], check=True)
    yield str(place / "bin" / "python")
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    from serving_house import Place

    place = Place(tmp_path_factory.mktemp("echo"))
    one = revision(folder_of(place.home, "m1", serving_models.Moody()), 1)
    place.serve(Route("shop", "delay", [one]))
    yield place.gateway().ready()
    place.close()


@pytest.mark.parametrize("client", ["triton_http", "triton_aio", "triton_grpc", "kserve_rest", "kserve_grpc"])
def test_a_client_of_the_open_protocol(python, echo, client):
    told(python, client, echo)


def told(python, client, echo):
    done = subprocess.run(
        [python, "-P", "-W", "ignore", str(SCENARIO), client, f"127.0.0.1:{echo.port}"],
        env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("client", ["mlflow_deployments", "mlflow_scoring"])
def test_a_client_of_mlflow(echo, client):
    told(sys.executable, client, echo)
