"""Bad input over HTTP, and what the worker meets: one clear error with a hint, and nothing half written."""

import json

import pytest
from chaos_story import live_shop
from shop_house import BEGIN, PROJECT_FILE

from everloop.catalog import refs, versions
from everloop.core.clock import DAY, iso
from everloop.data.definitions import SQL, SourceDef

NOW = BEGIN + 20 * DAY
VIEW = """
zone_numbers = project.feature_view(
    "zone_numbers", source=outcomes, entity="place", features=[el.max("number", over="2d")]
)
"""
NEEDS = "from pathlib import Path\n\nKEPT = Path({path!r}).read_text()\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A live endpoint, whose project reads a file beside it as it is imported."""
    folder = tmp_path_factory.mktemp("bad") / "shop"
    folder.mkdir()
    (folder / "kept.txt").write_text("kept")
    text = PROJECT_FILE.read_text()
    text = text.replace("inputs = project.feature_service(", VIEW + "inputs = project.feature_service(")
    text = text.replace("import everloop as el\n", "import everloop as el\n" + NEEDS.format(path=f"{folder}/kept.txt"))
    made = live_shop(folder, text=text)
    ledger = SourceDef("ledger", SQL("warehouse", "select nothing from nothing_here"), key=("id",))
    with made.workspace.catalog.write() as tx:
        versions.put(tx, "shop", ledger.version(), actor="ada", at=NOW)
    yield made
    assert made.down() == 0
    made.close()


@pytest.fixture
def unchanged(shop):
    """Whatever the test asks for, nothing of it is kept: no version, no pointer, no object, no frame of the log."""
    before = _kept(shop)
    yield
    assert _kept(shop) == before


def _kept(shop):
    with shop.workspace.catalog.read() as tx:
        newest = {
            (kind, name): [row.id for row in versions.history(tx, "shop", kind, name, limit=100)]
            for kind in ("data", "model", "frame", "snapshot")
            for name in versions.names(tx, "shop", kind)
        }
        pointers = refs.all(tx, "shop", "")
    objects = sorted(shop.workspace.store.ids())
    temporary = [path.name for path in (shop.home / "objects" / "tmp").iterdir()]
    log = {str(path): path.stat().st_size for path in (shop.home / "serving" / "log").rglob("*.seg")}
    online = shop.person("ada").call(
        "features.get", environment="production", service="inputs", entities=[{"place": "a"}], at=NOW
    )
    return newest, pointers, objects, temporary, log, online


GOOD = {"place": "a", "amount": 10.0, "items": 1.0}
TENSORS = [
    {"name": "place", "datatype": "BYTES", "shape": [1], "data": ["a"]},
    {"name": "amount", "datatype": "FP64", "shape": [1], "data": [10.0]},
    {"name": "items", "datatype": "FP64", "shape": [1], "data": [1.0]},
]


def tensor(one, rows):
    """A tensor of so many rows."""
    return {**one, "shape": [rows], "data": one["data"] * rows}


PREDICT, INVOKE = "/endpoints/shop/comeback/predict", "/endpoints/shop/comeback/invocations"
INFER = "/v2/models/shop.comeback/infer"


def without(name):
    return {key: value for key, value in GOOD.items() if key != name}


def columns(**values):
    return {name: values.get(name, [value]) for name, value in GOOD.items()}


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        (PREDICT, b"not JSON", 400, "not JSON"),
        (PREDICT, 7, 400, "columns"),
        (PREDICT, without("amount"), 400, "amount"),
        (PREDICT, without("place"), 400, "place"),
        (PREDICT, {**GOOD, "amount": "dear"}, 400, "amount"),
        (PREDICT, columns(amount=[1.0, 2.0]), 400, "rows"),
        (PREDICT, columns(place=["a"] * 100_001, amount=[1.0] * 100_001, items=[1.0] * 100_001), 400, "100000"),
        (PREDICT, [], 400, "no rows"),
        (INVOKE, b"not JSON", 400, "not JSON"),
        (INVOKE, {"rows": [GOOD]}, 400, "dataframe_split"),
        (INVOKE, {"dataframe_records": [without("amount")]}, 400, "amount"),
        (INVOKE, {"dataframe_split": {"columns": list(GOOD), "data": [["a", 1.0, 1.0], ["a"]]}}, 400, "row"),
        (INVOKE, {"inputs": columns(items=["few"])}, 400, "items"),
        (INFER, b"not JSON", 400, "not JSON"),
        (INFER, {"inputs": TENSORS[:2]}, 400, "items"),
        (INFER, {"inputs": [*TENSORS[:2], {**TENSORS[2], "data": [[1.0], []]}]}, 400, "items"),
        (INFER, {"inputs": [*TENSORS[:2], {**TENSORS[2], "datatype": "BYTES", "data": ["few"]}]}, 400, "items"),
        (INFER, {"inputs": [*(tensor(t, 2) for t in TENSORS[:2]), tensor(TENSORS[2], 3)]}, 400, "items"),
        ("/v2/models/shop.nothing/infer", {"inputs": TENSORS}, 404, "nothing"),
        ("/v2/models/shop.comeback/versions/99/infer", {"inputs": TENSORS}, 404, "99"),
        ("/endpoints/shop/nothing/predict", GOOD, 404, "nothing"),
        ("/endpoints/elsewhere/comeback/invocations", {"inputs": columns()}, 404, "elsewhere"),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_question_of_the_wrong_shape(shop, path, body, status, says):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with shop.http() as http:
        answer = http.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    told = answer.json()
    message = told["error"] if path.startswith("/v2") else told["message"]
    assert says in message
    assert message.endswith(")"), f"no hint: {message}"
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


def test_a_revision_that_is_not_there(shop, unchanged):
    with shop.http() as http:
        answer = http.post(PREDICT, json=GOOD, headers={"everloop-revision": "b3:" + "0" * 64})
    assert answer.status_code == 404, answer.text
    assert answer.json()["message"].endswith(")")


def row(**more):
    return {"number": 5, "at": NOW - 7 * 3_600_000_000, "place": "a", "returned": 1, "known_at": NOW - 1} | more


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ({"rows": [{k: v for k, v in row().items() if k != "number"}]}, 422, "number"),
        ({"rows": [{k: v for k, v in row().items() if k != "known_at"}]}, 422, "known_at"),
        ({"rows": [row(), row(returned="perhaps")]}, 422, "returned"),
        ({"rows": [row(at="yesterday")]}, 422, "at"),
        ({"rows": [row(known_at=NOW + 30 * DAY)]}, 422, "after the time of the push"),
        ({"rows": "all"}, 400, "rows"),
        ({"rows": [7]}, 400, "rows"),
        ({"rows": [row()], "dataset": "nothing"}, 404, "nothing"),
        ({"rows": [row()], "environment": "nowhere"}, 404, "nowhere"),
    ],
)
def test_facts_of_the_wrong_shape(shop, unchanged, command, status, says):
    refused(shop, "features.push", {"environment": "production", "dataset": "outcomes", **command}, status, says)


def refused(shop, operation, command, status, says):
    """REST answers one problem with a hint."""
    with shop.http() as http:
        answer = http.post(
            f"/rest/v1/shop/{operation}",
            json=command,
            headers={"Authorization": f"Bearer {shop.token('ada')}", "Everloop-Time": iso(NOW)},
        )
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert says in told["detail"], told
    assert told["hint"], told
    assert "Traceback" not in answer.text
    assert "sqlalchemy" not in answer.text.lower()


def test_a_source_without_its_binding(shop, unchanged):
    refused(shop, "data.capture", {"source": "ledger", "environment": "sandbox/ada/main"}, 400, "warehouse")


@pytest.mark.parametrize(
    ("url", "status", "says"),
    [("sqlite:///{folder}/w.db", 422, "nothing"), ("postgresql://nobody@127.0.0.1:1/none", 503, "warehouse")],
)
def test_a_source_whose_database_refuses(shop, unchanged, url, status, says):
    assert shop.cli("bind", "warehouse", url.format(folder=shop.folder)).returncode == 0
    refused(shop, "data.capture", {"source": "ledger", "environment": "sandbox/ada/main"}, status, says)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("data.refresh", {"model": "comeback", "environment": "production"}),
        ("flow.retrain", {"model": "comeback", "environment": "sandbox/auto/7", "reason": "to see it", "number": 7}),
    ],
)
def test_a_project_that_does_not_import_in_the_worker(shop, unchanged, kind, payload):
    kept = shop.folder / "kept.txt"
    kept.unlink()
    try:
        task = shop.task(kind, payload)
    finally:
        kept.write_text("kept")
    assert task.state == "failed"
    told = json.loads(task.error)
    assert "kept.txt" in told["detail"]
    assert "shop.py" in told["detail"] + told["hint"]
    assert told["hint"]
    assert "Traceback" not in task.error
