"""Whoever may not read a tag finds its values nowhere: every page and every reading operation is walked."""

import re

import pytest

from everloop.catalog.operation import operations
from everloop.server.web.routes import PAGES

VALUE = re.compile(r"(?<=[>\"' ])N\d{1,2}(?=[<\"' ])")
"""Values of the column `tail`, which is tagged, in the world's table of flights."""


def addresses(world):
    values = {
        "number:int": ["1", "2"],
        "id": [f"alarm-{1:012d}", world.prediction],
        "run": [world.run],
        "name:path": ["production"],
    }
    values |= {"spec:path": ["data/flights", "model/delay"], "name": ["flights", "delay"], "metric:path": ["loss"]}
    for path, _ in PAGES:
        made = [path]
        for place in re.findall(r"{([^}]*)}", path):
            made = [one.replace("{" + place + "}", value, 1) for one in made for value in values.get(place, ["x"])]
        yield from made
    yield "/data/flights?version=2&against=1"
    yield "/search?q=tail"
    yield "/why?old=data/flights@1&new=data/flights@2"


def test_no_page_shows_a_value_of_a_tag_that_the_visitor_may_not_read(http, world):
    viewer, steward, shown = http("eve", timeout=120), http("ada", timeout=120), []
    for address in addresses(world):
        text = viewer.get("/shop" + address).text
        assert VALUE.search(text) is None, address
        shown.append(VALUE.search(steward.get("/shop" + address).text) is not None)
    assert sum(shown) >= 2  # the walk reaches pages that have such values


COMMANDS = (
    {"version": "data/flights"},
    {"old": "data/flights@1", "new": "data/flights@2"},
    {"name": "flights"},
    {"asset": "data/flights"},
    {"query": "flights"},
    {"dataset": "flights"},
    {},
)


def test_no_reading_operation_answers_one_over_http(http, world):
    token = world.ask("eve", "access.create_token", label="walk", project="shop").secret
    headers, seen = {"Authorization": f"Bearer {token}"}, set()
    for name, operation in operations().items():
        if not operation.reads:
            continue
        for fields in COMMANDS:
            if set(fields) <= set(operation.command.model_fields):
                answer = http(timeout=120).post(f"/rest/v1/shop/{name}", json=fields, headers=headers)
                seen.add((name, answer.status_code))
                assert VALUE.search(answer.text) is None, (name, fields)
    assert {("data.sample", 200), ("data.compare", 200), ("data.show", 200), ("data.expect", 200)} <= seen


@pytest.mark.parametrize("rows", [1, 1000])
def test_a_steward_gets_them(world, rows):
    found = world.ask("ada", "data.sample", version="data/flights", rows=rows)
    assert found.masked == []
    assert VALUE.search(str(found.rows))
