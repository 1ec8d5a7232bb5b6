"""Who may ask which endpoint beyond loopback, over every protocol."""

import hashlib

import pytest
import serving_models
from serving_house import Place, bound, folder_of, one_row, revision

from everloop.serving.table import Route

TENSORS = [
    {"name": "distance", "shape": [1], "datatype": "FP64", "data": [1.5]},
    {"name": "hour", "shape": [1], "datatype": "INT64", "data": [2]},
    {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["AA"]},
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("door"))
    folder = folder_of(place.home, "m1", serving_models.Moody())
    opened = {"one": ["shop.delay"], "some": ["*.de*"], "all": ["shop"], "other": ["else.delay"]}
    tokens = {hashlib.sha256(token.encode()).hexdigest(): reached for token, reached in opened.items()}
    place.serve(*(Route("shop", name, [revision(folder, 1)]) for name in ("delay", "plain")), tokens=tokens)
    gateway = place.gateway(listener=bound("0.0.0.0"))
    place.until(lambda s: len(s["endpoints"]) == 2)
    yield gateway
    place.close()


def ask(gateway, token, path, **more):
    method = "POST" if more else "GET"
    return gateway.client.request(method, path, headers={"authorization": f"Bearer {token}"}, **more)


@pytest.mark.parametrize(
    ("token", "endpoint", "status"),
    [
        ("one", "delay", 200),
        ("one", "plain", 403),
        ("some", "delay", 200),
        ("some", "plain", 403),
        ("all", "plain", 200),
        ("other", "delay", 403),
        ("unknown", "delay", 401),
    ],
)
def test_a_token_opens_what_it_names(gateway, token, endpoint, status):
    plain = f"/endpoints/shop/{endpoint}"
    open_protocol = f"/v2/models/shop.{endpoint}"
    for _ in range(2):  # the second question goes the short way
        assert ask(gateway, token, f"{plain}/predict", json=one_row(1.5)).status_code == status
        assert ask(gateway, token, f"{open_protocol}/infer", json={"inputs": TENSORS}).status_code == status
    assert ask(gateway, token, f"{open_protocol}/generate_stream", json=one_row(1.5)).status_code == status
    for path in (f"{plain}/openapi.json", f"{plain}/ping", open_protocol, f"/api/2.0/endpoints/shop.{endpoint}"):
        assert ask(gateway, token, path).status_code == status
    assert ask(gateway, token, f"/v2/repository/models/shop.{endpoint}/load", json={}).status_code == status


def test_lists_name_what_the_token_opens(gateway):
    for token, names in (("one", ["shop.delay"]), ("all", ["shop.delay", "shop.plain"]), ("other", [])):
        assert [m["name"] for m in ask(gateway, token, "/v2/repository/index", json={}).json()] == names
        assert [e["name"] for e in ask(gateway, token, "/api/2.0/endpoints/").json()["endpoints"]] == names
        told = ask(gateway, token, "/metrics").text
        assert [name for name in ("shop.delay", "shop.plain") if f'"{name}"' in told] == names


def test_features_of_a_project_need_all_of_it(gateway):
    assert ask(gateway, "one", "/features/shop/inputs").status_code == 403
    assert ask(gateway, "all", "/features/shop/inputs").status_code == 404
