"""The distributed engine on two real nodes: what the embedded engine is tested for, and what only a cluster can lose.

The first tests are those of the embedded engine, imported: the same code asks a gateway whose models answer elsewhere.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import graph_models
import pytest
import serving_models
from batch.test_parallel import many, serve, wait_for
from batch.test_scoring import SCORER
from serving_house import Caller, folder_of, one_row, revision, sealed_of
from streaming.test_streamed import (
    importable,  # noqa: F401 - a fixture of the test below
    test_parts_come_as_events_and_the_whole_is_logged_once,  # noqa: F401
)
from test_engine import (
    test_a_queue_that_is_full_is_said_at_once,  # noqa: F401
    test_a_worker_leaves_what_nobody_waits_for_any_more,  # noqa: F401
    test_an_idle_endpoint_sleeps_and_is_woken_by_the_next_question,  # noqa: F401
    test_models_have_the_threads_that_their_workers_are_given,  # noqa: F401
    test_workers_are_started_where_requests_pile_up_and_share_the_work,  # noqa: F401
)
from test_fused_graphs import test_a_switch_behind_a_transform_is_decided_first_and_the_transform_counts_once  # noqa: F401
from test_gateway import (
    test_a_revision_that_cannot_load_leaves_the_endpoint_as_it_was,  # noqa: F401
    test_no_request_is_dropped_while_revisions_change,  # noqa: F401
    test_one_poisoned_request_fails_alone_in_its_batch,  # noqa: F401
    test_the_previous_revision_answers_when_the_chosen_one_fails,  # noqa: F401
    test_what_a_model_raises_is_one_clear_error,  # noqa: F401
)
from test_graph import (
    test_a_switch_answers_row_by_row,  # noqa: F401
    test_a_transform_is_the_projects_own_function_in_a_worker,  # noqa: F401
    test_time_limits_retries_and_defaults,  # noqa: F401
)

from everloop.core.errors import InvalidInput
from everloop.data.reading.forms import read
from everloop.serving.batch import scoring
from everloop.serving.distributed.linking import Cluster
from everloop.serving.table import Route

sys.path.insert(0, str(Path(__file__).parent))

from ray_cluster import Nodes, RayPlace  # beside this file: the line above makes it importable

pytestmark = pytest.mark.slow
ONE = f"b3:{1:064x}"


@pytest.fixture(scope="module")
def nodes():
    made = Nodes()
    yield made
    made.end()


@pytest.fixture
def place(tmp_path, nodes):
    made = RayPlace(tmp_path, nodes)
    yield made
    made.close()


@pytest.fixture(scope="module")
def moody(tmp_path_factory, nodes):
    place = RayPlace(tmp_path_factory.mktemp("moody"), nodes)
    model = revision(folder_of(place.home, "m1", serving_models.Moody()), 1)
    place.serve(Route("shop", "delay", [model]))
    yield place.gateway().ready()
    place.close()


def test_a_cluster_is_named_and_has_a_token():
    for address, token in (("", "x"), ("auto", "x"), ("ray://127.0.0.1:1", "x"), ("127.0.0.1:1", "")):
        with pytest.raises(InvalidInput):
            Cluster(address, token, "p", "o")


def test_a_cluster_that_does_not_answer_is_said(tmp_path, nodes):
    place = RayPlace(tmp_path, nodes)
    place.serve(Route("shop", "delay", [revision(folder_of(place.home, "m1", serving_models.Constant(1.0)), 1)]))
    gateway = super(RayPlace, place).gateway(ray="127.0.0.1:1")
    said = place.until(lambda s: s["endpoints"].get("shop.delay", {}).get(ONE, {}).get("state") == "failed")
    assert "does not answer" in said["endpoints"]["shop.delay"][ONE]["problem"]
    assert gateway.predict(one_row()).status_code == 503
    place.close()


def test_a_replica_that_dies_or_hangs_is_replaced(place):
    model = revision(folder_of(place.home, "m1", serving_models.Moody()), 1)
    place.serve(Route("shop", "delay", [model], deadline_micros=4_000_000))
    gateway = place.gateway().ready()
    for distance in (-2, -3):  # it ends its process; it never answers
        assert gateway.predict(one_row(distance)).status_code == 503
        wait_for(lambda: gateway.predict(one_row(1)).status_code == 200, place.patience)


def test_a_gateway_that_was_killed_finds_its_replicas_warm(place):
    folder = folder_of(place.home, "m1", serving_models.Counted())
    place.serve(Route("shop", "delay", [revision(folder, 1, sealed=sealed_of(folder))]))  # its node compares the files
    gateway = place.gateway().ready()
    assert gateway.predict(one_row()).json()["predictions"] == [4.0]  # three questions warmed it up
    gateway.kill()
    gateway.restart()
    gateway.ready()
    assert gateway.predict(one_row()).json()["predictions"] == [5.0]


@pytest.fixture
def halfway(context, nodes, monkeypatch):
    """The dataset whose scoring on the cluster was killed when a part of it was written."""
    place = serve(context, graph_models.Slow(0.02))
    data = many(context)
    monkeypatch.setenv("EVERLOOP_SERVING_RAY", nodes.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", nodes.token)
    arguments = [context.catalog.url, context.store.url, str(context.home), context.project, data]
    script = SCORER.replace("scoring.Means(1)", "scoring.Means(2, cluster=True)")
    killed = subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE)
    wait_for(lambda: list((context.home / "scoring").glob("*/*.parquet")), 120)
    killed.kill()
    killed.wait()
    killed.stdout.close()
    yield data
    place.close()


def test_a_dataset_is_scored_on_the_cluster_and_goes_on_after_a_kill(context, halfway):
    told = scoring.score(context, "delay", halfway, environment="sandbox/ada", means=scoring.Means(2, cluster=True))
    assert told.reused >= 1
    assert read(context, told.id).collect()["id"].to_list() == list(range(300_000))


WATCHED = """
import sys, time, ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
ours = lambda: [name for name in serve.status().applications if "-score-" in name]
print("waits" if ours() else "nobody")
end = time.monotonic() + 150
while ours() and time.monotonic() < end:
    time.sleep(1)
print("left" if ours() else "ended")
"""


@pytest.mark.usefixtures("halfway")
def test_replicas_of_a_scoring_that_was_killed_and_left_end(nodes):
    watched = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCHED, nodes.address],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert watched.stdout.split() == ["waits", "ended"], watched.stderr  # at first it may go on


async def answered(caller, count):
    end = time.monotonic() + 60
    while len(caller.ids) < count and time.monotonic() < end:  # noqa: ASYNC110 - a caller tells nobody
        await asyncio.sleep(0.05)


def test_a_node_that_is_killed_costs_no_request(place, nodes):
    model = revision(folder_of(place.home, "m1", serving_models.Constant(1.0)), 1)
    place.serve(Route("shop", "delay", [model], least=4, most=4))
    gateway = place.gateway().ready()
    place.until(lambda s: s["endpoints"]["shop.delay"][ONE]["workers"][""]["processes"] == 4)

    async def story():
        caller, done = Caller(gateway.port, 6), asyncio.Event()
        load = asyncio.create_task(caller.run(done))
        await answered(caller, 100)
        await asyncio.to_thread(nodes.kill, nodes.second)
        fewer = await asyncio.to_thread(
            place.until, lambda s: s["endpoints"]["shop.delay"][ONE]["workers"][""]["processes"] < 4
        )
        healed = await asyncio.to_thread(
            place.until, lambda s: s["endpoints"]["shop.delay"][ONE]["workers"][""]["processes"] == 4
        )
        await answered(caller, len(caller.ids) + 100)
        done.set()
        await load
        return caller, fewer, healed

    caller, fewer, healed = asyncio.run(story())
    assert fewer["endpoints"]["shop.delay"][ONE]["state"] == healed["endpoints"]["shop.delay"][ONE]["state"] == "ready"
    assert set(caller.statuses) == {200}
    assert caller.lost == 0
