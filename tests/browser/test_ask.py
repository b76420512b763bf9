"""The page Ask in a browser: upload, frames, mistakes, the streamed answer, and all of it without a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect
from support.browser import Watched
from support.gateway import make_key
from support.processes import wait_until
from support.worker import finish

import videoqa_worker
from videoqa.gateway.resources import Resources
from videoqa.jobs import Claim, Progress, queue_name

from .conftest import Site

OpenPage = Callable[..., Watched]

CLIP = (Path(videoqa_worker.__file__).parent / "demo/clips/parade.mp4").read_bytes()
HOSTILE = "<img src=x onerror=alert(2)>\"'&.mp4"
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def claim(site: Site, token: str) -> Claim:
    """Waits for the job of a page, and begins it."""
    queue = queue_name(site.ledger.keys.prefix, "demo", "interactive")
    found: list[Claim] = []

    def has_come() -> bool:
        one = site.ledger.claim([queue], worker="host:1", lease_s=600, token=token).claim
        found.extend([one] if one is not None else [])
        return bool(found)

    wait_until(has_come)
    return found[0]


def write(site: Site, begun: Claim, text: str) -> None:
    piece = Progress("generating", question_id="q1", text=text)
    assert site.ledger.progress(begun.job_id, begun.token, piece) == "ok"


def send_file(page: Page, name: str = HOSTILE) -> None:
    page.set_input_files("#ask-file", {"name": name, "mimeType": "video/mp4", "buffer": CLIP})


def test_a_clip_is_uploaded_seen_asked_and_answered(site: Site, open_page: OpenPage) -> None:
    watched = open_page("/ask")
    page = watched.page
    send_file(page)
    tiles = page.locator(".ask-tile")
    expect(tiles).to_have_count(8)
    expect(page.locator("[data-name]")).to_contain_text(HOSTILE.replace('"', "%22")[:10])
    page.select_option("#ask-method", "times")
    page.fill("#ask-times", "0, 0.5, 99")
    expect(page.locator("#ask-frames-body")).to_contain_text("99")
    page.fill("#ask-times", "0, 0.5")
    expect(tiles).to_have_count(2)
    assert tiles.nth(1).inner_text().startswith("0:00.")
    page.fill("#ask-question-0", "What is it?")
    page.select_option("#ask-model", "demo")
    expect(page.locator("#code-python")).to_contain_text("'What is it?'")
    page.click("#ask-send")
    begun = claim(site, "first")
    assert begun.request.sampling.times == (0, 0.5)
    _check_stream(site, page, begun)
    finish(site.ledger, begun, q1="a <b>cat</b> sleeps")
    expect(page.locator("#ask-state")).to_have_text("succeeded")
    expect(page.locator("#ask-answers .text")).to_have_text("a <b>cat</b> sleeps")
    assert page.get_attribute("#ask-job", "href") == f"/jobs/{begun.job_id}"
    watched.check()


def _check_stream(site: Site, page: Page, begun: Claim) -> None:
    """The text comes in pieces; a hidden tab has no stream, and misses nothing."""
    resources: Resources = site.server._app.state.resources
    answer = page.locator("#ask-answers .text")
    write(site, begun, "a <b>cat")
    expect(answer).to_have_text("a <b>cat")
    expect(page.locator("#ask-state")).to_have_text("running")
    wait_until(lambda: resources.streams._by_key.total() == 1)
    page.evaluate(HIDE, True)
    wait_until(lambda: resources.streams._by_key.total() == 0)
    write(site, begun, "</b> sle")
    page.evaluate(HIDE, False)
    expect(answer).to_have_text("a <b>cat</b> sle")


def test_mistakes_stand_beside_their_fields_and_a_job_can_be_canceled(
    site: Site, open_page: OpenPage
) -> None:
    page = open_page("/ask").page
    page.click("#ask-send")
    expect(page.locator('[data-mistake="inputs"]')).to_contain_text("expected at least one video")
    page.fill("#ask-url-0", "ftp://a.org/x.mp4")
    expect(page.locator("#ask-url-0-mistake")).to_contain_text("got scheme 'ftp'")
    expect(page.locator("#ask-question-0-mistake")).to_be_hidden()
    page.fill("#ask-url-0", "https://a.org/none.mp4")
    expect(page.locator("#ask-url-0-mistake")).not_to_contain_text("scheme")
    page.click("text=Add another question")
    page.fill("#ask-question-1", "<image> ?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#ask-question-0-mistake")).to_be_visible()
    expect(page.locator("#ask-question-0")).to_be_focused()
    page.locator("[data-question] [data-remove]").nth(1).click()
    page.fill("#ask-question-0", "What?")
    page.select_option("#ask-model", "demo")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#ask-state")).to_have_text("queued")
    page.click("#ask-cancel")
    expect(page.locator("#ask-state")).to_have_text("canceled")
    expect(page.locator("#ask-cancel")).to_be_hidden()


def test_a_limit_says_when_to_come_back_and_a_dropped_file_that_is_too_large_is_not_sent(
    site: Site, open_page: OpenPage
) -> None:
    key = make_key(site.settings, "submit", "read", jobs_per_day=1, max_file_bytes=1000)
    watched = open_page("/ask", key=key)
    page = watched.page
    page.evaluate(
        """name => {
          const data = new DataTransfer();
          data.items.add(new File(["x".repeat(2000)], name, { type: "video/mp4" }));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
        }""",
        HOSTILE,
    )
    upload = page.locator(".ask-upload")
    expect(upload).to_contain_text(HOSTILE)
    expect(upload.locator(".mistake")).to_contain_text("at most 1.0")
    page.fill("#ask-url-0", "https://a.org/none.mp4")
    page.fill("#ask-question-0", "What?")
    page.click("#ask-send")
    expect(page.locator("#ask-state")).to_have_text("queued")
    page.click("#ask-cancel")
    page.click("#ask-send")
    expect(page.locator("#ask-trouble")).to_contain_text("jobs")
    expect(page.locator("#ask-send")).to_be_enabled()


def test_without_a_script_a_file_is_uploaded_seen_and_asked_about(
    site: Site, open_page: OpenPage
) -> None:
    page = open_page("/ask", java_script_enabled=False).page
    send_file(page, "clip.mp4")
    page.click("button[form=ask-upload]")
    assert page.input_value("#ask-url-0").startswith("file-")
    expect(page.locator("[data-name]")).to_have_text("clip.mp4")
    page.fill("#ask-question-0", "What is it?")
    page.fill("#ask-frames", "3")
    page.click("text=Show the frames")
    expect(page.locator("img.ask-sheet")).to_have_attribute(
        "alt", "3 frames in the order of their times"
    )
    assert page.input_value("#ask-question-0") == "What is it?"
    page.fill("#ask-frames", "none")
    page.click("#ask-send")
    expect(page.locator("#ask-frames-mistake")).to_have_text("got 'none', expected a whole number")
    page.fill("#ask-frames", "")
    page.select_option("#ask-model", "demo")
    page.click("#ask-send")
    job_id = urlsplit(page.url).path.removeprefix("/jobs/")
    assert site.ledger.get(job_id).state == "queued"
