"""A real browser on every page: light and dark, wide and narrow, with JavaScript and without."""

import page_world
import pytest

WIDTHS = {"wide": 1280, "narrow": 390}


def addresses(world):
    run, other = world.run, world.other_run
    return [
        "/shop",
        "/shop/environments/production",
        "/shop/environments/sandbox/ada/second",
        "/shop/changes",
        "/shop/changes?state=open",
        "/shop/changes/1",
        "/shop/changes/2",
        "/shop/models",
        "/shop/models/delay",
        "/shop/models/delay/1",
        "/shop/runs",
        "/shop/runs?filter=metrics.roc_auc+%3E+0.5&order=metrics.%60loss%60+ASC&column=params.depth",
        f"/shop/runs/{run}",
        f"/shop/runs/{run}/artifacts/report/figures.json",
        f"/shop/runs/{run}/artifacts/plot.png",
        f"/shop/runs/{run}/artifacts/page.html",
        f"/shop/runs/{run}/artifacts/model.bin",
        f"/shop/compare?runs={run},{other}",
        f"/shop/compare?runs={run}&runs={other}&only=differences",
        "/shop/data",
        "/shop/data/flights",
        "/shop/data/flights?version=2&against=1",
        "/shop/features?e.origin=EWR",
        "/shop/features/origin_load",
        "/shop/features/origin_load?e.origin=EWR",
        "/shop/features/origin_notes?e.origin=EWR",
        "/shop/lineage/model/delay@1",
        "/shop/versions/code/shop",
        "/shop/versions/data/flights",
        "/shop/why",
        "/shop/why?old=data/flights@1&new=data/flights@2",
        "/shop/why?old=code/shop@1&new=code/shop@2",
        "/shop/endpoints",
        "/shop/endpoints/delay",
        "/shop/endpoints/compared",
        f"/shop/predictions/{world.prediction}",
        "/shop/alarms",
        "/shop/alarms?show=all",
        f"/shop/alarms/{world.alarm}",
        "/shop/audit",
        "/shop/audit?kind=change.*&actor=ada",
        "/shop/account",
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", "wide"), ("dark", "narrow")])
def test_every_page_is_whole(visitor, world, scheme, width):
    context = visitor("ada", color_scheme=scheme, viewport={"width": WIDTHS[width], "height": 900})
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    for address in addresses(world):
        answer = page.goto(address, wait_until="load")
        assert answer.status == 200, address
        assert said == [], address
        assert page.locator("h1").count() == 1, address
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{address} is {wide} pixels too wide"
        assert "pwned" not in page.title() or "<script>" in page.title(), address
        unlabelled = page.evaluate(
            "[...document.querySelectorAll('main input:not([type=hidden]), main select, main textarea')]"
            ".filter(f => !f.labels.length && !f.ariaLabel).map(f => f.name)"
        )
        assert unlabelled == [], address
    assert page.evaluate("getComputedStyle(document.body).colorScheme") != "none"


def test_the_colours_follow_the_scheme(visitor):
    papers = set()
    for scheme in ("light", "dark"):
        page = visitor(color_scheme=scheme).new_page()
        page.goto("/shop")
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(papers) == 2


def test_charts_are_drawn_and_have_their_numbers_beside_them(visitor, world):
    page = visitor().new_page()
    page.goto(f"/shop/runs/{world.run}")
    page.wait_for_selector("svg.plot[tabindex]")
    assert page.locator("svg.plot").count() == 2
    assert page.locator("details.numbers tbody tr").count() == 80


def test_two_people_review_and_merge_in_place(visitor, world):
    author, reviewer = visitor("ada").new_page(), visitor("bob").new_page()
    author.goto("/shop/changes/2")
    assert page_world.ATTACK in author.locator("h1").inner_text()
    assert page_world.ATTACK in author.locator("#comments").inner_text()
    assert page_world.ATTACK in author.locator(".code .add").inner_text()
    author.get_by_role("button", name="Approve").click()
    assert "author of this change" in author.get_by_role("alert").inner_text()
    reviewer.goto("/shop/changes/2")
    reviewer.get_by_role("button", name="Merge into production").click()
    assert "cannot be merged" in reviewer.get_by_role("alert").inner_text()
    reviewer.get_by_label("Word with the approval").fill("looks right")
    reviewer.get_by_role("button", name="Approve").click()
    assert reviewer.url.endswith("/shop/changes/2")
    assert "counts" in reviewer.locator(".approval").inner_text()
    reviewer.get_by_role("textbox", name="Comment", exact=True).fill("merging <b>now</b>")
    reviewer.get_by_role("button", name="Comment").click()
    assert "merging <b>now</b>" in reviewer.locator("#comments").inner_text()
    reviewer.get_by_role("button", name="Merge into production").click()
    assert reviewer.locator("#decision h2").inner_text() == "Merged"
    assert "good_enough" in reviewer.locator("#checks").inner_text()
    environment = world.ask("ada", "environments.show", environment="production")
    assert environment.change == "2"
    reviewer.goto("/shop")
    assert "through change #2" in reviewer.locator(".lane.production").inner_text()


def test_without_scripts_pages_say_the_same_and_forms_work(visitor, world):
    page = visitor("ada", java_script_enabled=False).new_page()
    for address in addresses(world)[::3]:
        assert page.goto(address).status == 200, address
        assert page.locator("footer").last.inner_text().startswith("Everloop 0"), address
    page = visitor("bob", java_script_enabled=False).new_page()
    page.goto("/shop/models/delay")
    page.get_by_text("Numbers", exact=True).click()
    assert page.locator("details.numbers tbody tr").count() == 4
    assert page.locator("svg.plot").is_visible()
    page.goto("/shop/changes/4")
    page.get_by_role("button", name="Approve").click()
    assert "checks have not passed" in page.get_by_role("alert").inner_text()
    page.get_by_role("button", name="Close without merging").click()
    assert page.locator("#decision h2").inner_text() == "Closed"


def test_an_alarm_is_looked_after_in_place(visitor, world):
    page = visitor("bob").new_page()
    page.goto(f"/shop/alarms/{world.alarm}")
    assert page_world.ATTACK in page.locator("h1").inner_text()
    page.get_by_label("Is it real?").select_option("yes")
    page.get_by_label("Note").fill("a new terminal")
    page.get_by_role("button", name="Acknowledge").click()
    told = page.locator("#alarm").inner_text()
    assert "bob" in told
    assert "a real change" in told
    page.get_by_role("button", name="Snooze").click()
    assert "snoozed until" in page.locator("main").inner_text()
    page.get_by_role("button", name="Resolve").click()
    assert page.get_by_role("button", name="Resolve").count() == 0


def test_a_stranger_learns_how_to_sign_in(visitor):
    page = visitor().new_page()
    page.goto("/shop/changes/3")
    page.get_by_role("button", name="Approve").click()
    assert "may not change.approve" in page.get_by_role("alert").inner_text()
    page.get_by_role("link", name="How to sign in").click()
    assert "open the link that everloop up printed" in page.locator("main").inner_text()


def test_signing_in_and_out(visitor, world, site):
    link = world.ask("bob", "access.login_link")
    page = visitor().new_page()
    page.goto(link.path)
    page.goto("/shop/account")
    assert page.locator("h1").inner_text() == "bob"
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.goto("/shop/account")
    assert page.locator("h1").inner_text() == "Sign in"


def test_a_page_moves_when_something_happens(visitor, world):
    page = visitor("bob").new_page()
    with page.expect_response(lambda answer: answer.url.endswith("/shop/events")):
        page.goto("/shop/changes/3")
    world.ask("ada", "changes.comment", number=3, text="no reload was needed")
    world.seal()
    page.locator("#comments").get_by_text("no reload was needed").wait_for(timeout=8000)


def test_runs_are_filtered_ordered_and_compared(visitor):
    page = visitor().new_page()
    page.goto("/shop/runs?filter=params.learning_rate+!%3D+'0.3'")
    page.get_by_role("link", name="loss").click()
    assert page.get_by_role("columnheader", name="loss").get_attribute("aria-sort") == "descending"
    assert page.locator("#rows tr").count() == 2
    assert "filter=" in page.url
    for box in page.locator("#rows input[type=checkbox]").all():
        box.check()
    page.get_by_role("button", name="Compare").click()
    assert page.locator("h1").inner_text() == "2 runs compared"
    assert page.locator("tr.differ th[scope=row]").all_inner_texts() == ["learning_rate", "loss"]
    page.get_by_role("link", name="Only what differs").click()
    assert page.locator("tbody th[scope=row]").all_inner_texts() == ["learning_rate", "loss"]
    page.get_by_role("link", name="Curves").click()
    page.wait_for_selector("svg.plot[tabindex]")


def test_a_wrong_filter_is_explained(visitor):
    page = visitor().new_page()
    page.goto("/shop/runs?filter=metrics.loss+%3E+1+and+params.depth+%3D%3D+6")
    assert "Expected a number or a quoted text" in page.get_by_role("alert").inner_text()
    assert page.locator("#wrong mark").inner_text() == "="
    assert page.locator("#wrong code").inner_text() == "metrics.loss > 1 and params.depth == 6"
    page.goto("/shop/runs?filter=depth+%3D+'6'")
    assert page.locator("#wrong mark").inner_text() == "depth"


def test_the_links_that_mlflow_clients_print_lead_to_the_run(visitor, world):
    page = visitor("ada").new_page()
    page.goto(f"/#/experiments/1/runs/{world.run}")
    page.wait_for_url(f"**/shop/runs/{world.run}")
    page = visitor("ada", java_script_enabled=False).new_page()
    page.goto(f"/#/experiments/1/runs/{world.run}")
    assert "Without scripts" in page.content()
