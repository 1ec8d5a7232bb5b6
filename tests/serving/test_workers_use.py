"""What an endpoint's workers use is read off those of a real gateway."""

import time

import serving_models
from serving_house import folder_of, one_row, revision

from everloop.flows.compute.working import Workers
from everloop.serving.rollout.observe import gateways
from everloop.serving.table import Route


def test_the_workers_of_a_real_gateway_are_measured(place):
    folder = folder_of(place.home, "m1", serving_models.Moody())
    place.serve(Route("shop", "delay", [revision(folder, 1)]))
    gateway = place.gateway().ready()
    workers = Workers()

    def look():
        wall = time.time_ns() // 1000
        told = gateways(place.home, wall)
        workers.look(told, wall)
        return told

    (said,) = look()
    (its,) = said["endpoints"]["shop.delay"].values()
    (crew,) = its["workers"].values()
    assert len(crew["pids"]) == crew["processes"] == 1
    until = time.monotonic() + 20
    rows = {}
    while not rows and time.monotonic() < until:
        for _ in range(50):
            assert gateway.predict(one_row()).status_code == 200
        look()
        found = workers.rows(time.time_ns() // 1000, lambda _project, _endpoint: None)
        rows = {row.step: row for row in found.get("shop", ()) if row.cpu_seconds > 0}
    assert set(rows) == {"delay"}
    assert rows["delay"].seconds > 0
    assert rows["delay"].peak_memory > 20_000_000
