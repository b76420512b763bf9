"""The frame of all pages in a browser: updates that disturb nobody, keys, themes, times, and life without a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from fastapi import Request, Response
from jinja2 import ChoiceLoader, DictLoader
from playwright.sync_api import Page, Route, expect
from playwright.sync_api import Response as Answer
from support.browser import Watched

from videoqa.errors import RedisUnavailable
from videoqa.gateway.access.caller import Reader
from videoqa.gateway.dashboard import templating
from videoqa.gateway.dashboard.frame import PageRouter, leave_page, read_form, show_page

from .conftest import HOSTILE, Site

OpenPage = Callable[..., Watched]

PROBE = """{% extends "layout.html" %}
{% block content %}
{{ ui.heading("Probe") }}
<form method="get">{{ ui.field("Search", "q", data_search=True) }}</form>
<div {{ live("live") }}>{% block live %}
<p id="count">{{ probe.shown }}</p>
<p id="fixed">a sentence that is selected</p>
{{ ui.field("Words", "words") }}
{{ ui.check("Chosen", "chosen") }}
<details id="more"><summary>More</summary><p>there is more</p></details>
{{ ui.confirm("sure", "Delete", "/probe", "Delete it?", "This cannot be undone.", {"what": "it"}) }}
<p>{{ ui.time(page.now) }} {{ ui.age(page.now) }}</p>
<table class="table"><tbody>
{% for n in range(40) %}
<tr data-row id="row-{{ n }}"><td><a href="{{ url('/jobs/{n}', n=n) }}">row {{ n }}</a></td></tr>
{% endfor %}
</tbody></table>
<p>{{ hostile }}</p>
{% endblock %}</div>
{% endblock %}"""


@dataclass
class Probe:
    """The state of the page of these tests, and the forms that it was sent."""

    shown: int = 0
    counts: bool = True
    """It shows another number each time."""
    is_broken: bool = False
    sent: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def probe(site: Site) -> Iterator[Probe]:
    """A page with one of each thing that an update could disturb."""
    probe, router = Probe(), PageRouter()

    @router.get("/probe")
    async def show(request: Request, caller: Reader) -> Response:
        if probe.is_broken:
            raise RedisUnavailable("Redis does not answer")
        probe.shown += probe.counts
        return show_page(request, "probe.html", probe=probe, hostile=HOSTILE)

    @router.post("/probe")
    async def act(request: Request, caller: Reader) -> Response:
        form = await read_form(request)
        probe.sent.append(str(form["what"]))
        return leave_page(request, "/probe", notice="It is deleted.")

    environment = templating._load()
    before = environment.loader
    assert before is not None
    environment.loader = ChoiceLoader([before, DictLoader({"probe.html": PROBE})])
    site.server._app.include_router(router)
    yield probe
    environment.loader = before


@pytest.fixture(autouse=True)
def _reset(probe: Probe) -> None:
    probe.counts, probe.is_broken = True, False
    probe.sent.clear()


def update(page: Page, times: int = 1) -> None:
    """Lets time pass until the page has asked so many times."""
    for _ in range(times):
        ask(page)


def ask(page: Page) -> Answer:
    """Lets time pass until the page has asked, and returns the answer."""
    page.wait_for_function("() => !document.querySelector('.htmx-request')")
    with page.expect_response(lambda answer: "hx-request" in answer.request.headers) as got:
        page.clock.run_for(3000)
    got.value.finished()
    page.wait_for_function("() => !document.querySelector('.htmx-request')")
    return got.value


@pytest.fixture
def watched(open_page: OpenPage, probe: Probe) -> Watched:
    """The probe, whose clock the test turns."""
    watched = open_page("/login", key="")
    watched.page.clock.install()
    watched.page.goto(watched.page.url.replace("/login", "/probe"))
    watched.page.clock.pause_at(watched.page.evaluate("() => Date.now() + 1000"))
    return watched


def test_a_minute_of_updates_keeps_what_the_reader_does(watched: Watched) -> None:
    page = watched.page
    page.get_by_label("Words").fill("half a sent")
    page.get_by_label("Chosen").check()
    page.locator("#more summary").click()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#fixed'))")
    page.locator("#row-30 a").focus()
    page.evaluate("scrollTo(0, 300)")
    before = int(page.locator("#count").inner_text())
    update(page, 20)
    assert int(page.locator("#count").inner_text()) >= before + 20
    assert page.get_by_label("Words").input_value() == "half a sent"
    assert page.get_by_label("Chosen").is_checked()
    assert page.locator("#more p").is_visible()
    assert page.evaluate("String(getSelection())") == "a sentence that is selected"
    assert page.evaluate("document.activeElement.closest('tr').id") == "row-30"
    assert page.evaluate("scrollY") == 300
    page.get_by_role("button", name="Delete").click()
    update(page, 2)
    expect(page.get_by_role("dialog", name="Delete it?")).to_be_visible()
    page.clock.resume()  # axe-core waits by it
    watched.check()


def test_a_form_acts_once_and_tells_it_once(watched: Watched, probe: Probe) -> None:
    page = watched.page
    page.get_by_role("button", name="Delete").click()
    page.evaluate(
        "() => { const form = document.querySelector('#sure form[method=post]');"
        " form.requestSubmit(); form.requestSubmit(); }"
    )
    expect(page.get_by_role("status").filter(has_text="It is deleted.")).to_be_visible()
    assert probe.sent == ["it"]
    page.reload()
    expect(page.get_by_text("It is deleted.")).to_have_count(0)


def test_an_unchanged_region_costs_no_answer(watched: Watched, probe: Probe) -> None:
    page = watched.page
    assert ask(page).status == 200
    page.goto(page.url.replace("/probe", "/"))
    ask(page)
    again = ask(page)
    assert "if-none-match" in again.request.headers
    assert again.status == 304


def test_a_paused_page_and_a_hidden_one_ask_nothing(watched: Watched, probe: Probe) -> None:
    page = watched.page
    update(page)
    page.keyboard.press("p")
    shown = probe.shown
    page.clock.run_for(30_000)
    expect(page.locator("#sign")).to_have_text("paused 30\u00a0s")
    assert probe.shown == shown
    with page.expect_response("**/probe"):
        page.locator("#sign").click()
    expect(page.locator("#sign")).to_have_text("live")
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true})"
    )
    page.evaluate("window.away = true")
    shown = probe.shown
    page.clock.run_for(30_000)
    assert probe.shown == shown
    with page.expect_response("**/probe"):
        page.evaluate(
            "() => { window.away = false; document.dispatchEvent(new Event('visibilitychange')); }"
        )


def test_a_page_that_gets_no_answer_says_how_old_it_is(watched: Watched, probe: Probe) -> None:
    page = watched.page
    update(page)

    def away(route: Route) -> None:
        route.abort()

    page.route("**/probe", away)
    with page.expect_event("requestfailed"):
        page.clock.run_for(4000)
    expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer")
    for _ in range(5):
        page.clock.run_for(3000)
    expect(page.locator("#sign")).to_contain_text("stale")
    page.unroute("**/probe", away)
    update(page)
    expect(page.locator("#sign")).to_have_text("live")
    expect(page.get_by_role("alert")).to_be_hidden()
    probe.is_broken = True
    update(page)
    expect(page.get_by_role("alert")).to_contain_text("Redis does not answer")
    expect(page.locator("#sign")).to_contain_text("stale")


def test_a_session_that_ends_leaves_the_page_and_offers_the_form(
    watched: Watched, site: Site
) -> None:
    page = watched.page
    page.context.clear_cookies()
    update(page)
    expect(page.get_by_role("alert")).to_contain_text("Your session has ended.")
    page.get_by_role("link", name="Log in again").click()
    page.get_by_label("API key").fill(site.key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Probe")).to_be_visible()


def test_keys_move_over_rows_search_and_show_themselves(watched: Watched) -> None:
    page = watched.page
    find_row = "document.activeElement.closest('tr')?.id"
    for key, row in (("j", "row-0"), ("j", "row-1"), ("k", "row-0"), ("k", "row-0")):
        page.keyboard.press(key)
        assert page.evaluate(find_row) == row
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("jk?")
    assert page.get_by_label("Search").input_value() == "jk?"
    page.locator("#row-2 a").focus()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/3")


def test_the_first_tab_skips_the_navigation(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_theme_and_zone_stay_chosen(open_page: OpenPage, probe: Probe) -> None:
    page = open_page("/probe", timezone_id="Asia/Tokyo", color_scheme="light").page
    time = page.locator("time[data-time]").first
    stamp = str(time.get_attribute("datetime"))
    find_back = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(find_back)
    title = str(time.get_attribute("title"))
    assert "Asia/Tokyo" in title
    assert f"{stamp[:10]} {stamp[11:19]} UTC" in title
    assert (int(time.inner_text()[:2]) - int(stamp[11:13])) % 24 == 9
    page.get_by_role("button", name="Times in Asia/Tokyo").click()
    assert time.inner_text() == stamp[11:19]
    page.get_by_role("button", name="Theme: Auto").click()
    page.get_by_role("button", name="Theme: Light").click()
    dark = page.evaluate(find_back)
    assert dark != light
    page.reload()
    assert page.evaluate(find_back) == dark
    expect(page.get_by_role("button", name="Times in UTC")).to_be_visible()


def test_what_strangers_wrote_is_text(open_page: OpenPage, probe: Probe) -> None:
    watched = open_page("/probe")
    watched.page.on("dialog", lambda dialog: watched.mistakes.append(f"script: {dialog.message}"))
    update_words = watched.page.locator("#live > p").last
    assert update_words.inner_text() == HOSTILE
    assert watched.page.locator("img").count() == 0
    assert not watched.mistakes


def test_all_goes_without_a_script(open_page: OpenPage, site: Site, probe: Probe) -> None:
    watched = open_page("/probe?q=a", key=None, java_script_enabled=False)
    page = watched.page
    assert "401" in watched.mistakes.pop()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    expect(page.get_by_text("Not logged in")).to_have_count(0)
    page.get_by_label("API key").fill("vqa_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("got what is no API key")
    page.get_by_label("API key").fill(site.key)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/probe?q=a")
    page.get_by_role("button", name="Delete").click()  # the dialog opens by its address
    page.locator("#sure form[method=post]").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("It is deleted.")).to_be_visible()
    assert probe.sent == ["it"]
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto(site.url)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
