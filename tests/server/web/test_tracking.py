"""The table of runs, a run's tabs and the registry, in a real browser and over HTTP."""

import io
import json

import page_world
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everloop.catalog.genai import spans, traces
from everloop.catalog.genai.rows import Root, Span
from everloop.catalog.tracking import artifacts, experiments, points, registry, runs
from everloop.catalog.tracking.rows import Point
from everloop.core.ports import Line
from everloop.core.version import Version
from everloop.models import console

MANY = 130


@pytest.fixture(scope="module")
def many(world):
    """An experiment of many runs: its id, and the ids of the runs, oldest first."""
    now, found = world.workspace.clock.wall(), []
    with world.workspace.catalog.write() as tx:
        home = experiments.create(tx, "shop", "sweep", at=now)
        for number in range(MANY):
            at = now - (MANY - number) * 1_000_000
            parent = {"mlflow.parentRunId": found[0]} if number in (1, 2) else {}
            run = runs.create(
                tx,
                "shop",
                experiment=home,
                actor="ada",
                at=at,
                name=f"sweep-{number:03d}",
                tags={"team": "core", **parent},
            )
            runs.log_params(tx, run, [("seed", str(number)), ("epochs", "3")])
            points.log(tx, "shop", run.number, [Point("score", (number * 37 % MANY) / MANY, at)])
            runs.finish(tx, "shop", run.id, status="FINISHED", at=at + number * 1_000_000)
            found.append(run.id)
    return home, found


@pytest.fixture(scope="module")
def rich(world):
    """A run with files, console, code and measurements of the machine."""
    now, store = world.workspace.clock.wall(), world.workspace.store
    table = io.BytesIO()
    pq.write_table(pa.table({"id": range(500), "text": [page_world.ATTACK] * 500}), table)
    files = {
        "data/rows.csv": ("id,text\n" + "".join(f'{n},"{"x" * n}"\n' for n in range(300))).encode(),
        "data/rows.parquet": table.getvalue(),
        "data/broken.parquet": b"PAR1 this is none",
        "deep/er/still/note.md": f"# note {page_world.ATTACK}".encode(),
        "page.html": f"<html>{page_world.ATTACK}</html>".encode(),
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>document.title="pwned"</script></svg>',
        "plot.png": page_world.picture(),
        "code/uncommitted.diff": f"--- a/shop.py\n@@ -1 +1 @@\n-RATE = 1\n+RATE = 2  # {page_world.ATTACK}\n".encode(),
    }
    code = Version("code", "tracked", {"files": {"shop.py": store.put(b"RATE = 2\n")}})
    with world.workspace.catalog.write() as tx:
        run = runs.create(
            tx,
            "shop",
            experiment=experiments.create(tx, "shop", "deep", at=now),
            actor="ada",
            at=now - 60_000_000,
            name="rich",
            tags={"mlflow.source.git.commit": "ab" * 20, "everloop.code": code.id},
        )
        for path, content in files.items():
            artifacts.put(tx, "shop", run.id, path, identity=store.put(content), size=len(content), at=now)
        curve = [
            Point(key, step / 9, now + step * 1_000_000, step)
            for step in range(10)
            for key in ("train/loss", "system/cpu_utilization_percentage")
        ]
        points.log(tx, "shop", run.number, curve)
    world.put(code)
    lines = [Line(now + n, "err" if n % 9 == 0 else "out", f"line {n} {page_world.ATTACK}") for n in range(700)]
    console.append(world.by("ada"), run.id, lines)
    return run.id


@pytest.fixture(scope="module")
def registered(world):
    """A model that an MLflow client registered, with three versions."""
    with world.workspace.catalog.write() as tx:
        now = world.workspace.clock.now()
        model = registry.register(tx, "shop", "churn model", actor="ada", at=now, description=page_world.ATTACK)
        for number in range(3):
            files = {"MLmodel": world.workspace.store.put(f"flavors: {number}".encode())}
            registry.create_version(
                tx, "shop", model, source="runs:/x", actor="ada", at=now, run=world.run, files=files
            )
    return "churn model"


def test_every_tab_and_page_is_whole(visitor, many, rich, registered):
    addresses = [
        f"/shop/runs?experiment={many[0]}&order=metrics.score+DESC&column=status&column=metrics.score&column=params.seed",
        "/shop/runs?view=deleted",
        f"/shop/runs/{rich}",
        f"/shop/runs/{rich}/system",
        f"/shop/runs/{rich}/artifacts",
        f"/shop/runs/{rich}/artifacts/data/rows.csv",
        f"/shop/runs/{rich}/artifacts/data/rows.parquet",
        f"/shop/runs/{rich}/artifacts/page.html",
        f"/shop/runs/{rich}/console",
        f"/shop/runs/{rich}/console?after=100",
        f"/shop/runs/{rich}/code",
        "/shop/models?search=churn",
        f"/shop/models/{registered}",
        f"/shop/models/{registered}/2",
        f"/shop/models/{registered}/compare?version=1&version=3",
        "/shop/models/delay/compare?version=1&version=2",
    ]
    for scheme, width in (("dark", 1280), ("light", 390)):
        page = visitor("ada", color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
        said = []
        page.on("console", lambda message, said=said: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        for address in addresses:
            answer = page.goto(address, wait_until="load")
            assert (answer.status, said) == (200, []), address
            assert page.locator("h1").count() == 1, address
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, address
            assert page.title() != "pwned", address
            unlabelled = page.evaluate(
                "[...document.querySelectorAll('main input:not([type=hidden]), main select, main textarea')]"
                ".filter(f => !f.labels.length && !f.ariaLabel).map(f => f.name)"
            )
            assert unlabelled == [], address


def test_thousands_of_rows_come_as_one_scrolls(visitor, many):
    page = visitor("ada").new_page()
    page.goto(f"/shop/runs?experiment={many[0]}&filter=tags.team+%3D+'core'")
    assert "of 130 runs" in page.locator("#count").inner_text()
    assert page.locator("#rows tr").count() in (100, MANY)
    page.locator("#rows tr").nth(99).scroll_into_view_if_needed()
    page.locator("#rows tr").nth(MANY - 1).wait_for(state="attached")
    assert "1\N{EN DASH}130" in page.locator("#count").inner_text()
    names = page.locator("#rows th a").all_inner_texts()
    assert len(set(names)) == MANY
    page.get_by_label("Tick all").check()
    assert "130 ticked" in page.locator("#picked").inner_text()


def test_without_scripts_a_link_leads_on(visitor, many):
    page = visitor("ada", java_script_enabled=False).new_page()
    page.goto(f"/shop/runs?experiment={many[0]}&filter=tags.team+%3D+'core'&order=metrics.`score`+DESC&rows=50")
    first = page.locator("#rows th a").all_inner_texts()
    assert len(first) == 50
    page.get_by_role("link", name="Next 50").click()
    second = page.locator("#rows th a").all_inner_texts()
    assert "51\N{EN DASH}100" in page.locator("#count").inner_text()
    assert not set(first) & set(second)
    page.get_by_role("link", name="score").click()
    assert page.get_by_role("columnheader", name="score").get_attribute("aria-sort") == "ascending"
    boxes = page.locator("#rows input[type=checkbox]")
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Compare").click()
    assert page.locator("h1").inner_text() == "2 runs compared"


def test_columns_are_chosen_and_the_view_is_saved_for_everybody(visitor, many):
    page = visitor("ada").new_page()
    page.goto(f"/shop/runs?experiment={many[0]}")
    assert page.get_by_role("columnheader", name="epochs").count() == 0  # the same in every row
    page.locator("summary", has_text="Columns").click()
    page.get_by_label("Find a column").fill("epo")
    assert page.locator("#keys label:visible").all_inner_texts() == ["epochs\n130"]
    page.get_by_label("epochs").check()
    page.get_by_role("button", name="Apply").click()
    assert page.get_by_role("columnheader", name="epochs").count() == 1
    page.get_by_text("Save view").click()
    page.get_by_label("Name of the view").fill("epochs <b>too</b>")
    page.get_by_role("button", name="Save", exact=True).click()
    address = page.url
    other = visitor("bob").new_page()
    other.goto("/shop/runs")
    other.get_by_role("link", name="epochs <b>too</b>").click()
    assert other.url == address
    assert other.get_by_role("columnheader", name="epochs").count() == 1
    other.get_by_role("button", name="Delete the view epochs <b>too</b>").click()
    assert other.get_by_role("link", name="epochs <b>too</b>").count() == 0


def test_runs_are_deleted_and_restored_together(visitor, many):
    page = visitor("ada").new_page()
    page.goto(f"/shop/runs?experiment={many[0]}&filter=params.seed+IN+('7','8')")
    page.get_by_label("Tick all").check()
    page.get_by_role("button", name="Delete").click()
    assert page.locator("#rows tr").count() == 0
    page.goto(f"/shop/runs?experiment={many[0]}&view=deleted")
    assert page.locator("#rows tr.gone").count() == 2
    page.get_by_label("Tick all").check()
    page.get_by_role("button", name="Restore").click()
    assert page.locator("#rows tr").count() == 0


def test_a_run_is_edited_in_place(visitor, many):
    page = visitor("ada").new_page()
    page.goto(f"/shop/runs/{many[1][0]}")
    assert page.get_by_role("link", name="sweep-001").count() == 1  # nested
    page.get_by_text("Write one").click()
    page.get_by_label("Note").last.fill(f"promising {page_world.ATTACK}")
    page.get_by_role("button", name="Save").last.click()
    assert page_world.ATTACK in page.locator(".note-text").inner_text()
    page.get_by_label("Key of a new tag").fill("reviewed")
    page.get_by_label("Value of a new tag").fill("yes")
    page.get_by_role("button", name="Add").click()
    assert "reviewed yes" in page.locator(".chips-row").inner_text()
    page.get_by_role("button", name="Remove the tag reviewed").click()
    assert "reviewed" not in page.locator(".chips-row").inner_text()
    page.get_by_text("Rename").click()
    page.get_by_label("Name").fill("the first")
    page.get_by_role("button", name="Save").first.click()
    assert page.locator("h1").inner_text() == "the first"
    page.get_by_label("Key of a new tag").fill("mlflow.user")
    page.get_by_role("button", name="Add").click()
    assert "written by programs" in page.get_by_role("alert").inner_text()


def test_who_may_only_read_is_offered_nothing_and_refused(http, site, many):
    reader = http("eve", headers={"Origin": site})
    run = many[1][5]
    text = reader.get(f"/shop/runs/{run}").text
    assert "Add" not in text
    assert "Rename" not in text
    for path, form in (
        (f"/shop/runs/{run}/tag", {"key": "a", "value": "b"}),
        (f"/shop/runs/{run}/delete", {}),
        ("/shop/runs/acts/delete", {"runs": run}),
        ("/shop/runs/views/save", {"name": "mine"}),
        ("/shop/models/delay/describe", {"description": "mine"}),
        ("/shop/models/delay/alias", {"alias": "mine", "number": "1"}),
    ):
        assert reader.post(path, data=form).status_code == 403, path
    forged = http("ada")
    assert forged.post(f"/shop/runs/{run}/delete").status_code == 403  # no page of ours says so
    assert "deleted" not in reader.get(f"/shop/runs/{run}").text


def test_files_are_looked_into_and_run_nothing(visitor, rich):
    page = visitor("ada").new_page()
    page.goto(f"/shop/runs/{rich}/artifacts")
    for name in ("deep", "er", "still", "note.md"):
        page.locator(".tree a").get_by_text(name, exact=True).click()
    assert page_world.ATTACK in page.locator("pre.text").inner_text()
    page.goto(f"/shop/runs/{rich}/artifacts/data/rows.parquet")
    assert "500 rows, 2 columns · the first 100 rows" in page.locator("main").inner_text()
    assert page.locator("table.dense thead .type").all_inner_texts() == ["int64", "string"]
    page.goto(f"/shop/runs/{rich}/artifacts/data/broken.parquet")
    assert "no Parquet file" in page.locator(".empty").inner_text()
    page.goto(f"/shop/runs/{rich}/artifacts/page.html")
    assert page_world.ATTACK in page.locator("pre.text").inner_text()
    page.goto(f"/shop/runs/{rich}/artifacts/drawing.svg")
    assert page.locator("pre.text").count() == 1
    assert page.title() != "pwned"


@pytest.mark.parametrize("path", ["..%2f..%2fx", "%2e%2e/x", "a%5cb", "data%2f..%2f..%2fetc", "%252e%252e/x"])
def test_no_path_leads_out_of_a_run(http, rich, path):
    client = http("ada")
    for part in ("artifacts", "raw"):
        assert client.get(f"/shop/runs/{rich}/{part}/{path}").status_code in (400, 404)


def test_console_code_and_machine(visitor, rich):
    page = visitor("ada").new_page()
    page.goto(f"/shop/runs/{rich}/console")
    assert "Lines 201\N{EN DASH}700 of 700" in page.locator("main").inner_text()
    assert page_world.ATTACK in page.locator(".console tr").last.inner_text()
    page.get_by_role("link", name="From the start").click()
    assert page.locator(".console .said").first.inner_text().startswith("line 0 ")
    page.goto(f"/shop/runs/{rich}/code")
    assert page.locator(".code .add").inner_text().startswith("+RATE = 2")
    assert "code/tracked v1" in page.locator("main").inner_text()
    page.goto(f"/shop/runs/{rich}/system")
    assert page.locator("svg.plot").count() == 1
    page.goto(f"/shop/runs/{rich}")
    assert page.locator("svg.plot").count() == 1  # what the machine did has its own place


def test_a_run_of_a_plain_script_says_how_to_get_what_it_lacks(http, world):
    for tab in ("system", "console"):
        said = http().get(f"/shop/runs/{world.run}/{tab}").text
        assert "everloop track python train.py" in said, tab
    assert "mlflow.enable_system_metrics_logging()" in http().get(f"/shop/runs/{world.run}/system").text


def test_a_model_is_described_pointed_to_and_compared(visitor, http, registered):
    page = visitor("ada").new_page()
    page.goto("/shop/models")
    page.get_by_label("Part of the name").fill("CHURN")
    page.get_by_role("button", name="Search").click()
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("link", name=registered).click()
    for number in ("1", "3"):
        page.get_by_label("Alias", exact=True).fill("candidate")
        page.get_by_label("Version that it points to").select_option(number)
        page.get_by_role("button", name="Point").click()
    assert page.locator(".timeline li").count() == 2
    assert "candidate v3" in page.locator(".headline-row").inner_text()
    page.goto(f"/shop/models/{registered}?at=2020-01-01T00:00")
    assert "none then" in page.locator("main").inner_text()
    page.goto(f"/shop/models/{registered}")
    for number in ("1", "3"):
        page.get_by_label(f"Tick v{number}").check()
    page.get_by_role("button", name="Compare two").click()
    assert page.locator("h1").inner_text() == f"{registered}: v1 and v3"
    page.goto(f"/shop/models/{registered}/2")
    page.get_by_text("Describe this version").click()
    page.get_by_label("Description").fill("the second one")
    page.get_by_role("button", name="Save").click()
    assert page.locator(".note-text").inner_text() == "the second one"
    answer = http("ada").get(f"/shop/models/{registered}/2/files/MLmodel")
    assert answer.content == b"flavors: 1"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_protected_alias_is_refused_with_its_reason(http, site):
    client = http("ada", headers={"Origin": site})
    answer = client.post("/shop/models/delay/alias", data={"alias": "production", "number": "1"})
    assert answer.status_code == 409
    assert "moves by changes only" in answer.text


def test_an_open_console_moves_by_itself(visitor, world, rich):
    page = visitor("ada").new_page()
    with page.expect_response(lambda answer: answer.url.endswith(f"/runs/{rich}/live")):
        page.goto(f"/shop/runs/{rich}/console")
    console.append(world.by("ada"), rich, [Line(world.workspace.clock.wall(), "out", "and one more")])
    page.get_by_text("and one more").wait_for(timeout=10_000)
    at_end = "document.getElementById('console').scrollTop + document.getElementById('console').clientHeight"
    assert page.evaluate(f"document.getElementById('console').scrollHeight - ({at_end})") <= 8


def test_a_trace_is_shown_as_a_tree_of_spans(visitor, world, many):
    begun, identity = world.workspace.clock.wall() * 1000, "tr-" + "a1" * 16

    def span(number, parent="", **more):
        value = {"string_value": page_world.ATTACK}
        whole = {
            "name": f"step {number}",
            "start_time_unix_nano": str(begun + number * 10**9),
            "end_time_unix_nano": str(begun + (number + 1) * 10**9),
            "attributes": [{"key": "mlflow.spanInputs", "value": value}],
            "status": {"code": 2 if number == 3 else 1, "message": ""},
        }
        times = {"start": begun + number * 10**9, "end": begun + (number + 1) * 10**9}
        text = {"name": f"step {number}", "type": "LLM", "status": "OK", "body": json.dumps(whole)}
        return Span(trace=identity, id=f"{number:016x}", parent=parent, **text, **times, **more)

    with world.workspace.catalog.write() as tx:
        children = [span(2, parent=f"{1:016x}"), span(3, parent=f"{2:016x}")]
        spans.record(tx, "shop", many[0], [*children, span(1, root=Root("{}", "{}"))])
        traces.link_run(tx, "shop", [identity], many[1][3])
    page = visitor("ada").new_page()
    page.goto(f"/shop/runs/{many[1][3]}/traces")
    page.locator("tbody th a").click()
    assert page.locator(".span-name").all_inner_texts() == ["step 1", "step 2", "step 3 error"]
    assert [li.get_attribute("style")[:10] for li in page.locator(".spans li").all()] == [
        "--depth: 0",
        "--depth: 1",
        "--depth: 2",
    ]
    page.locator(".spans summary").first.click()
    assert page_world.ATTACK in page.locator(".spans dd").first.inner_text()
    page.goto("/shop/traces?filter=nonsense")
    assert page.get_by_role("alert").inner_text()
    page.goto(f"/shop/traces?experiment={many[0]}")
    assert page.locator("tbody tr").count() == 1
