"""The pages of jobs in a browser: frames, player, answers as they come, a list that stays where its reader is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.browser import Watched
from support.gateway import make_key, serve_gateway
from support.processes import wait_until
from support.sample_jobs import HOSTILE, LONG_WORD, SampleJobs
from support.videos import Recipe, write_clip

from videoqa.client import Client
from videoqa.jobs import Ledger, connect
from videoqa.settings import Settings
from videoqa_worker.embedded.redis_server import RedisServer

from .conftest import Site

OpenPage = Callable[..., Watched]


@pytest.fixture(scope="module")
def jobs(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SampleJobs]:
    folder = tmp_path_factory.mktemp("jobs")
    settings = Settings(
        redis_url=redis_server.url, prefix="jobpages",
        sheet_output=f"{(folder / 'sheets').as_uri()}/{{job_id}}.jpg",
    )  # fmt: skip
    with connect(settings) as redis_client, Client(settings=settings) as client:
        ledger = Ledger(redis_client, url=settings.redis_url, prefix=settings.prefix)
        yield SampleJobs(client, ledger, folder / "sheets")


@pytest.fixture(scope="module")
def clip(jobs: SampleJobs) -> Path:
    path = jobs.sheets.parent / "media" / "clip.webm"
    path.parent.mkdir()
    write_clip(path, Recipe(codec="libvpx", frames=100))
    return path


@pytest.fixture(scope="module")
def site(browser: Browser, jobs: SampleJobs, clip: Path) -> Iterator[Site]:
    """A gateway with the jobs of these tests alone."""
    settings = jobs.client.settings
    with serve_gateway(settings, gateway_media=f"{clip.parent.as_uri()}/") as server:
        yield Site(server, settings, jobs.ledger, {}, make_key(settings), {})


def test_a_frame_is_larger_on_a_click_and_the_video_plays_from_it(
    open_page: OpenPage, jobs: SampleJobs, clip: Path
) -> None:
    job_id = jobs.run("What is it?", "A number.", inputs=[clip.as_uri()], frames=4)
    watched = open_page(f"/jobs/{job_id}")
    page = watched.page
    expect(page.locator(".frame")).to_have_count(4)
    expect(page.locator(".frame .inexact")).to_have_count(1)
    colours = page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(40, 40).getContext("2d");
            const images = [...document.querySelectorAll(".frame svg image")];
            const picture = new Image();
            picture.src = images[0].getAttribute("href");
            await picture.decode();
            return images.length * picture.naturalWidth;
        }"""
    )
    assert colours > 0
    wait_until(lambda: page.evaluate("document.querySelector('video').readyState") >= 1)
    watched.check()
    page.locator(".frame a").nth(1).click()
    expect(page.locator("#frame-title")).to_have_text("Frame 2 at 0:01.04")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#frame-title")).to_have_text("Frame 3 at 0:02.08")
    large = page.locator("#frame .tile > svg")
    assert large.evaluate("tile => getComputedStyle(tile).overflow") == "hidden"  # no neighbour
    assert watched.find_axe_violations() == []
    page.get_by_role("button", name="Play from here").click()
    expect(page.locator("#frame")).to_be_hidden()
    wait_until(lambda: page.evaluate("document.querySelector('video').currentTime") >= 2)
    page.goto(f"{page.url}#")
    with page.expect_navigation():
        page.get_by_role("link", name="Ask again").evaluate("link => location.assign(link.href)")
    assert page.url.endswith(f"/ask?from={job_id}")


def test_a_caption_jumps_in_the_video(open_page: OpenPage, jobs: SampleJobs, clip: Path) -> None:
    sampling = {"method": "segment", "segment_s": 4, "frames": 1}
    job_id = jobs.run(
        "Describe it.", "One.", "Two.", inputs=[clip.as_uri()], segments=120, sampling=sampling
    )
    watched = open_page(f"/jobs/{job_id}")
    page = watched.page
    expect(page.locator(".segments > li")).to_have_count(50)
    wait_until(lambda: page.evaluate("document.querySelector('video').readyState") >= 1)
    watched.check()
    page.locator(".segments button.instant").nth(0).click()
    expect(page.locator(".segments > li").nth(0)).to_have_class("is-now")
    page.get_by_role("link", name="Later").click()
    expect(page.locator(".segments > li").first).to_have_id("segment-50")


def test_an_answer_is_shown_as_it_is_generated(
    open_page: OpenPage, site: Site, jobs: SampleJobs
) -> None:
    job_id = jobs.submit("What does she say?", stream=True)
    claim = jobs.begin(job_id)
    jobs.pass_stages(claim)
    jobs.write(claim, "She says ", HOSTILE)
    watched = open_page(f"/jobs/{job_id}")
    page = watched.page
    text = page.locator("[data-stream] [data-part]")
    expect(text).to_have_text(f"She says {HOSTILE}")
    jobs.write(claim, " and no more")
    expect(text).to_have_text(f"She says {HOSTILE} and no more")
    watched.check()
    streams = site.server._app.state.resources.streams
    hide = """is_hidden => {
        Object.defineProperty(document, "hidden", {value: is_hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    wait_until(lambda: streams._by_key.total() == 0)
    page.evaluate(hide, False)
    expect(text).to_have_text(f"She says {HOSTILE} and no more")
    jobs.succeed(claim, "She says yes.")
    expect(page.locator(".answer .text")).to_have_text("She says yes.")
    expect(page.locator(".badge").first).to_have_text("succeeded")
    assert watched.mistakes == []


def list_shown(page: Page) -> list[str]:
    found: list[str] = page.locator("[data-row]").evaluate_all("rows => rows.map(row => row.id)")
    return found


def test_rows_stay_where_they_are_and_keep_their_ticks(
    open_page: OpenPage, jobs: SampleJobs
) -> None:
    ids = [jobs.submit(f"Question {n}", tags=["stay"], priority="bulk") for n in range(55)]
    watched = open_page("/jobs?tag=stay")
    page = watched.page
    shown = list_shown(page)
    assert shown[0] == f"row-{ids[-1]}"
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    bar = page.locator("[data-selection]")
    expect(bar).to_contain_text("2 selected")
    jobs.submit("A newer one", tags=["stay"], priority="bulk")
    jobs.client.cancel(ids[-1])
    expect(page.get_by_role("link", name="1 newer job")).to_be_visible()
    expect(page.locator(f"#row-{ids[-1]}")).to_contain_text("canceled")
    assert list_shown(page)[:50] == shown[:50]
    assert page.locator("[data-pick]:checked").count() == 2
    assert page.evaluate("document.activeElement.closest('[data-row]').id") == shown[1]
    watched.check()
    page.get_by_role("link", name="Older").scroll_into_view_if_needed()
    expect(page.locator("[data-row]")).to_have_count(55)
    bar.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 2 jobs?")
    watched.check()
    page.get_by_role("button", name="Cancel 2 jobs").click()
    expect(page.get_by_role("status").first).to_contain_text("2 of 2 jobs were canceled.")
    page.goto(f"{page.url}?tag=stay&state=canceled")
    expect(page.locator("[data-row]")).to_have_count(2)
    page.reload()
    expect(page.locator("[data-row]")).to_have_count(2)
    page.get_by_role("link", name="Remove the filter state").click()
    assert page.url.endswith("/jobs?tag=stay")
    expect(page.locator("[data-row]")).to_have_count(50)
    page.wait_for_load_state()  # before that no script listens to keys
    page.keyboard.press("/")
    page.keyboard.type("newer")
    page.keyboard.press("Enter")
    expect(page.locator("[data-row]")).to_have_count(1)
    assert watched.mistakes == []


def test_an_empty_list_and_a_dialog_of_cancel_are_clear(
    open_page: OpenPage, jobs: SampleJobs
) -> None:
    watched = open_page("/jobs?tag=nobody-has-it")
    page = watched.page
    expect(page.get_by_role("heading", name="No job matches")).to_be_visible()
    assert watched.mistakes == []
    page.goto(page.url.partition("/jobs")[0] + f"/jobs/{jobs.submit('Never?', model='no-one')}")
    expect(page.get_by_role("status")).to_contain_text("Waiting: no running worker serves")
    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    dialog.get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".job-title")).to_contain_text("canceled")
    assert watched.mistakes == []


def test_strangers_words_run_nothing_and_hold_the_layout(
    open_page: OpenPage, jobs: SampleJobs
) -> None:
    job_id = jobs.run(
        HOSTILE + LONG_WORD, HOSTILE + LONG_WORD, inputs=[f"https://a.org/{'x' * 900}.mp4"],
        tags=[HOSTILE[:60], "\u202eabc"], custom_id=HOSTILE, metadata={"<b>k</b>" * 5: HOSTILE},
        tenant="\u202e<i>t</i>",
    )  # fmt: skip
    for path in (f"/jobs/{job_id}", "/jobs?q=alert"):
        watched = open_page(path)
        expect(watched.page.locator("main")).to_contain_text('<script>alert("x")</script>')
        watched.check()
