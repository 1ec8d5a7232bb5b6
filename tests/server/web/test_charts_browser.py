"""Charts in a real browser: seen without scripts; with them a read-out, hiding, a range in the address, life."""

import math
import re

import pytest

from everloop.catalog import steps
from everloop.catalog.steps import StepRow
from everloop.catalog.tracking import experiments, points, runs
from everloop.catalog.tracking.rows import Point
from everloop.core.version import Version

SECOND = 1_000_000


class Study:
    """An experiment of its own beside what is on the pages already."""

    def __init__(self, world):
        self.world, self.now = world, world.workspace.clock.wall()
        with world.workspace.catalog.write() as tx:
            self.experiment = experiments.create(tx, "shop", "charted", at=self.now)

    def run(self, name, metrics, params=(), status="FINISHED"):
        """A run whose metrics are `{key: [values by step]}`; its id."""
        with self.world.workspace.catalog.write() as tx:
            run = runs.create(tx, "shop", experiment=self.experiment, actor="ada", at=self.now, name=name)
            runs.log_params(tx, run, list(params))
        self.add(run.id, metrics)
        if status != "RUNNING":
            with self.world.workspace.catalog.write() as tx:
                runs.finish(tx, "shop", run.id, status=status, at=self.now + 60 * SECOND)
        return run.id

    def add(self, run, metrics, start=0):
        with self.world.workspace.catalog.write() as tx:
            rows = [
                Point(key, value, self.now + step * SECOND, step)
                for key, values in metrics.items()
                for step, value in enumerate(values, start)
            ]
            points.log(tx, "shop", runs.find(tx, "shop", run).number, rows)


@pytest.fixture(scope="module")
def study(world):
    return Study(world)


@pytest.fixture(scope="module")
def sweep(study):
    """Fourteen runs: one more than there are colours for, with numbers, texts and a run without one of the values."""
    made = []
    for number in range(14):
        rate, kind = 10 ** (-4 + number / 4), ("adam", "sgd")[number % 2]
        metrics = {"loss": [math.exp(-step * rate) for step in range(30)], "score": [0.5 + number / 100]}
        params = [("rate", f"{rate:.4g}"), ("kind", kind), ("seed", "1")]
        made.append(study.run(f"sweep-{number:02d}", metrics, params if number else params[1:]))
    return made


def test_charts_are_seen_without_scripts(visitor, study):
    run = study.run("calm", {"loss": [3.0, 2.0, 1.0]})
    page = visitor(java_script_enabled=False).new_page()
    page.goto(f"/shop/runs/{run}/metrics/loss")
    plot = page.locator("svg.plot")
    assert plot.is_visible()
    assert page.locator("svg.plot > title").text_content() == "loss"
    assert page.locator("path.line").bounding_box()["width"] > 300
    page.get_by_text("Numbers", exact=True).click()
    assert page.locator("details.numbers tbody tr").all_inner_texts() == ["0\t3", "1\t2", "2\t1"]


def test_the_pointer_and_the_arrow_keys_read_values(visitor, study):
    run = study.run("read", {"loss": [3.25, 2.5, 1.125]})
    page = visitor().new_page()
    page.goto(f"/shop/runs/{run}/metrics/loss")
    page.locator("svg.plot[tabindex]").wait_for()
    box = page.locator("svg.paths").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + 30)
    assert page.locator(".readout").inner_text().split() == ["1", "loss", "2.5"]
    page.mouse.move(0, 0)
    assert page.locator(".readout").count() == 0
    page.locator("svg.plot").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".readout").inner_text().split() == ["2", "loss", "1.125"]


def test_a_dragged_range_is_in_the_address_and_back_again(visitor, study):
    run = study.run("long", {"loss": [float(step % 7) for step in range(3000)]})
    page = visitor().new_page()
    page.goto(f"/shop/runs/{run}/metrics/loss")
    page.locator("svg.plot[tabindex]").wait_for()
    shown = page.locator(".figure").get_attribute("data-chart")
    box = page.locator("svg.paths").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 40, steps=3)
    page.mouse.up()
    page.get_by_role("link", name="Show all").wait_for()
    low, high = map(int, re.search(r"steps=(\d+)\.\.(\d+)", page.url).groups())
    assert 1400 < low < 1600
    assert 1700 < high < 1900
    assert page.locator(".figure").get_attribute("data-chart") != shown
    page.reload()  # the address holds it
    assert page.get_by_role("link", name="Show all").is_visible()
    page.go_back()
    page.get_by_role("link", name="Show all").wait_for(state="detached")
    assert "steps=" not in page.url


def test_a_wrong_range_is_explained(http, study):
    run = study.run("wrong", {"loss": [1.0, 2.0]})
    for asked in ("steps=9..1", "steps=a..b", "steps=1e999..2e999", "smooth=1", "x=moon"):
        answer = http().get(f"/shop/runs/{run}/metrics/loss?{asked}")
        assert answer.status_code == 400, asked
        assert "This did not work" in answer.text
    assert http().get(f"/shop/runs/{run}/metrics/none").status_code == 404


def test_a_running_run_moves_and_says_when_it_is_over(visitor, study):
    run = study.run("alive", {"loss": [3.0, 2.0]}, status="RUNNING")
    page = visitor().new_page()
    with page.expect_response(lambda answer: answer.url.endswith("/live")):
        page.goto(f"/shop/runs/{run}/metrics/loss")
    study.add(run, {"loss": [1.0]}, start=2)
    page.locator(".numbers tbody tr").nth(2).wait_for(state="attached", timeout=8000)


def test_hidden_series_stay_hidden_when_the_chart_is_drawn_anew(visitor, study):
    first, second = (study.run(f"hide-{n}", {"loss": [1.0 + n, 2.0, 3.0]}) for n in range(2))
    page = visitor().new_page()
    page.goto(f"/shop/compare?runs={first},{second}&view=curves")
    page.get_by_role("button", name="hide-1").click()
    assert page.locator(".s1 path.line").is_hidden()
    assert page.locator(".s0 path.line").is_visible()
    box = page.locator("svg.paths").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 30)
    assert "hide-1" not in page.locator(".readout").inner_text()
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 40, steps=3)
    page.mouse.up()
    page.get_by_role("link", name="Show all").wait_for()
    assert page.locator(".s1 path.line").is_hidden()


def test_every_view_of_compared_runs_is_an_address(visitor, sweep):
    page = visitor(viewport={"width": 390, "height": 900}, color_scheme="dark").new_page()
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    ids = ",".join(sweep)
    for view, drawn in (
        ("", "table.compare"),
        ("curves&x=relative&smooth=0.9&y=log", ".shaded path.line"),
        ("curves&x=time&metric=loss&times=0..99999999999999999", ".shaded path.line"),
        ("parallel", "path.thread"),
        ("scatter&x=params.rate&y=metrics.loss&logx=1&colour=metrics.score", "circle.thing"),
        ("scatter&x=params.kind&y=metrics.loss", "circle.thing"),
        ("scatter&x=metrics.loss&y=metrics.loss", "rect"),
    ):
        answer = page.goto(f"/shop/compare?runs={ids}&view={view}")
        assert answer.status == 200, view
        assert page.locator(f"main {drawn}").count() > 1 or drawn == "table.compare", view
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view
        assert said == [], view


def test_what_differs_between_many_runs(visitor, sweep):
    page = visitor().new_page()
    page.goto(f"/shop/compare?runs={','.join(sweep)}&only=differences")
    assert page.locator("tbody tr:not(.group) th").all_inner_texts() == ["kind", "rate", "loss", "score"]
    assert page.locator("thead a").count() == 14
    page.goto(f"/shop/compare?runs={','.join(sweep)}")
    assert "seed" in page.locator("tbody tr:not(.group) th").all_inner_texts()


def test_code_environment_and_data_are_compared_by_the_step_behind_each_run(http, world, study):
    code = [Version("code", "compared", {"files": {}, "turn": turn}) for turn in (1, 2)]
    runtime, data = Version("runtime", "python", {"packages": {}}), Version("data", "compared", {"rows": 3})
    world.put(*code, runtime, data)
    made = [study.run(f"step-{turn}", {"loss": [1.0, 0.5]}, status="RUNNING") for turn in (1, 2)]
    with world.workspace.catalog.write() as tx:
        for turn, run in enumerate(made):
            recipe, inputs = f"recipe-{turn}", {"rows": data.id}
            runs.set_tags(tx, runs.find(tx, "shop", run), {"everloop.recipe": recipe})
            row = StepRow(recipe, "model/delay", None, code[turn].id, runtime.id, {}, inputs, study.now, run=run)
            steps.record(tx, "shop", row)
    whole = http().get(f"/shop/compare?runs={','.join(made)}").text
    assert "code/compared v1" in whole
    assert "runtime/python v1" in whole
    assert "data/compared v1" in whole
    differing = http().get(f"/shop/compare?runs={','.join(made)}&only=differences").text
    assert "code/compared v2" in differing
    assert "runtime/python v1" not in differing
    assert "data/compared v1" not in differing


def test_a_range_dragged_along_an_axis_chooses_runs(visitor, sweep):
    page = visitor().new_page()
    page.goto(f"/shop/compare?runs={','.join(sweep)}&view=parallel&column=params.kind&column=metrics.score")
    page.locator(".figure[data-zoom]").wait_for()
    box = page.locator("svg.parallel svg.paths").bounding_box()
    plot = page.locator("svg.parallel").bounding_box()
    right, top = plot["x"] + plot["width"] - 24, plot["y"] + 40
    tall = plot["height"] - 58
    assert box["height"] > 0
    page.mouse.move(right, top + 2)
    page.mouse.down()
    page.mouse.move(right, top + tall * 0.5, steps=4)
    page.mouse.up()
    page.locator("rect.brush").wait_for()
    assert "brush=metrics.score" in page.url
    out = page.locator("path.thread.out").count()
    assert 0 < out < 14
    page.reload()
    assert f"{14 - out} of 14 runs within" in page.locator("main").inner_text()


def test_a_hundred_runs_are_the_most(http, sweep):
    assert http().get(f"/shop/compare?runs={sweep[0]}").status_code == 400
    assert http().get("/shop/compare?runs=" + ",".join(f"{n:032x}" for n in range(101))).status_code == 400
    assert http().get(f"/shop/compare?runs={sweep[0]},{'0' * 32}").status_code == 404
    assert http().get(f"/shop/compare?runs={sweep[0]},{sweep[1]}&view=globe").status_code == 400
    assert http().get(f"/shop/compare?runs={sweep[0]},{sweep[1]}&view=parallel&brush=params.rate:x").status_code == 400
