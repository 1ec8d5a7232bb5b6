"""Workers as the load asks for them: more, fewer, none; queues that end; memory that is bounded."""

import asyncio
import time

import graph_models
import httpx2
import pytest
import serving_models
from serving_house import folder_of, one_row, revision

from everloop.core.errors import DefinitionError
from everloop.serving.definitions import EndpointDef, Workers
from everloop.serving.modelworker import MOST_ROWS, Pace
from everloop.serving.table import Route

X = {"inputs": [["x", "FP64"]], "caller": [["x", "FP64"]], "example": {"x": [1.0]}}
ONE = f"b3:{1:064x}"


def slow(place, seconds, **route):
    model = revision(folder_of(place.home, "m1", graph_models.Slow(seconds)), 1, **X)
    place.serve(Route("shop", "delay", [model], **route))
    return place.gateway()


async def together(gateway, count, **row):
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        ask = [client.post("/endpoints/shop/delay/predict", json=row or {"x": 1}) for _ in range(count)]
        return await asyncio.gather(*ask)


def its(stats):
    return stats["endpoints"]["shop.delay"][ONE]


def test_workers_are_started_where_requests_pile_up_and_share_the_work(place):
    gateway = slow(place, 0.2, most=3).ready()
    before = its(place.stats())["workers"][""]["processes"]

    async def story():
        async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
            end = time.monotonic() + place.patience

            async def caller():
                while time.monotonic() < end and its(place.stats())["workers"][""]["processes"] < 3:
                    answer = await client.post("/endpoints/shop/delay/predict", json={"x": [1.0] * 300})
                    assert answer.status_code == 200

            await asyncio.gather(*(caller() for _ in range(16)))

    asyncio.run(story())
    assert before == 1
    place.until(lambda s: its(s)["workers"][""]["processes"] == 3)
    assert its(place.stats())["errors"] == 0


def test_an_idle_endpoint_sleeps_and_is_woken_by_the_next_question(place):
    gateway = slow(place, 0.0, least=0, idle_micros=500_000, deadline_micros=60_000_000)
    place.until(lambda s: s["sequence"] == place.sequence)
    assert its(place.stats())["state"] == "asleep"  # it has never run
    assert gateway.client.get("/v2/health/ready").status_code == 200
    assert gateway.predict({"x": 1}).json()["predictions"][0]["rows"] == 1.0
    place.until(lambda s: its(s)["requests"] == 1)
    place.until(lambda s: its(s)["state"] == "asleep" and not its(s)["workers"][""]["processes"])
    assert {answer.status_code for answer in asyncio.run(together(gateway, 8))} == {200}
    assert its(place.stats())["errors"] == 0


def test_a_queue_that_is_full_is_said_at_once(place):
    gateway = slow(place, 0.5, max_queue=4).ready()
    answers = asyncio.run(together(gateway, 20))
    statuses = sorted(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert all(answer.json()["error_code"] for answer in refused)
    counted = its(place.until(lambda s: its(s)["overloaded"] == len(refused)))
    assert counted["errors"] == 0  # nobody's failure


def test_what_cannot_be_answered_in_time_is_refused_rather_than_queued(place):
    gateway = slow(place, 0.3, deadline_micros=1_500_000).ready()
    many = {"x": [1.0] * MOST_ROWS}  # a batch of its own each

    async def story():
        async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
            asked = [client.post("/endpoints/shop/delay/predict", json=many) for _ in range(60)]
            return await asyncio.gather(*asked)

    first = asyncio.run(story())  # nothing is known of the model's pace yet
    second = asyncio.run(story())
    for answers in (first, second):
        assert {answer.status_code for answer in answers} <= {200, 429, 503}
        assert sum(answer.status_code == 200 for answer in answers) >= 2
    late = [answer for answer in second if answer.status_code == 429 and "some" in answer.text]
    assert late
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in late)


def test_a_worker_leaves_what_nobody_waits_for_any_more(place):
    gateway = slow(place, 1.0, deadline_micros=600_000).ready()
    assert {answer.status_code for answer in asyncio.run(together(gateway, 6))} == {503}
    patient = revision(str(place.home / "m1"), 1, **X)
    place.serve(Route("shop", "delay", [patient], deadline_micros=9_000_000))
    gateway.ready()
    batches = gateway.predict({"x": 1}).json()["predictions"][0]["batches"]
    # three at its start, one that was begun; the others were taken back (a killed worker would begin anew)
    assert batches <= 5


def test_workers_that_were_asked_longest_ago_make_room(place):
    names = ("a", "b", "c")
    routes = [
        Route("shop", name, [revision(folder_of(place.home, name, graph_models.Slow(0.0)), number, **X)])
        for number, name in enumerate(names, 1)
    ]
    place.serve(*routes)
    first = place.gateway().ready()
    one = max(worker_memory(first))
    first.stop()
    place.gateways.clear()
    gateway = place.gateway(memory=str(int(one * 2.4) // 2**20))
    place.until(lambda s: s["sequence"] == place.sequence)

    def awake(stats):
        return {name for name in names for it in stats["endpoints"][f"shop.{name}"].values() if it["pid"]}

    place.until(lambda s: len(awake(s)) == 2)
    for name in names:  # all of them answer, whoever sleeps
        assert gateway.predict({"x": 1}, f"shop.{name}").status_code == 200
    place.until(lambda s: awake(s) == {"b", "c"})


def worker_memory(gateway):
    import psutil

    return [child.memory_info().rss for child in psutil.Process(gateway.process.pid).children()]


def test_models_have_the_threads_that_their_workers_are_given(place):
    usual = revision(folder_of(place.home, "m1", serving_models.Threads()), 1)
    large = revision(folder_of(place.home, "m2", serving_models.Threads()), 2, needs={"cores": 2000, "memory": 10**8})
    place.serve(Route("shop", "usual", [usual]), Route("shop", "large", [large]))
    gateway = place.gateway().ready()
    told = [gateway.predict(one_row(), address=f"shop.{name}").json()["predictions"] for name in ("usual", "large")]
    assert told == [[1.0], [2.0]]


def test_a_worker_learns_how_many_rows_fit_into_its_budget():
    pace = Pace(512, 0.05)
    for rows in (1, 4, 30, 2, 9):
        pace.learn(rows, 0.010 + 0.002 * rows)
    assert pace.limit == pytest.approx(20, abs=1)
    for _ in range(300):
        pace.learn(10, 0.001)  # it became fast, in batches of one size
    assert pace.limit == pytest.approx(500, abs=2)
    assert (Pace(400, 0.05).limit, Pace(MOST_ROWS, 0.05).limit) == (400, 512)  # nothing is known yet
    large = Pace(MOST_ROWS, 0.05)
    for rows in (1, 500, 200):
        large.learn(rows, 0.0005 + 4e-6 * rows)
    assert large.limit == MOST_ROWS


def test_an_author_says_how_many_workers_and_how_long_a_queue():
    for wrong in (
        {"least": 3, "most": 2},
        {"queue": 0},
        {"idle": "soon"},
        {"cores": 0},
        {"gpus": 1.5},
        {"memory": "much"},
    ):
        with pytest.raises(DefinitionError):
            Workers(**wrong)
    said = EndpointDef("delay", "m", workers=Workers(least=0, most=4, idle="1m", queue=9)).manifest()["workers"]
    assert said == {"least": 0, "most": 4, "idle_micros": 60_000_000, "queue": 9}
    large = EndpointDef("delay", "m", workers=Workers(cores=2, memory="4GiB", gpus=0.5)).manifest()["workers"]
    assert large["needs"] == {"cores": 2000, "memory": 4 << 30, "gpus": 500}
    assert "workers" not in EndpointDef("delay", "m").manifest()
