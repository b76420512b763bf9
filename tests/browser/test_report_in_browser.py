"""The page of an archive in a browser: 10,000 videos, hostile texts, both themes, by keyboard."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect
from support.browser import Watched, watch

from videoqa.bulk.report.page import make_page

from .conftest import HOSTILE

COUNT = 10_000


def make_line(n: int) -> dict[str, Any]:
    """Returns a line: every 10th failed, the second is hostile, the third has segments and a huge caption."""
    words = HOSTILE if n == 1 else f"A clip of number {n}."
    answers: list[dict[str, Any]] = [
        {"question": "What happens?", "text": words},
        {"question": "Sure?", "text": "no" if n % 4 else "yes", "confidence": 0.5 + n / 2 / COUNT},
    ]
    line: dict[str, Any] = {
        "custom_id": HOSTILE if n == 1 else f"a/clip {n:05}.mp4", "ok": True, "inputs": [f"s3://b/a/clip {n:05}.mp4"],
        "answers": answers, "frames": [{"pts_s": 61.96}], "segments": [], "warnings": [], "job_id": f"job_{n}",
        "error": None,
    }  # fmt: skip
    if n % 10 == 9:
        failed = {"code": "video_corrupt", "message": "no picture decodes"}
        line |= {"ok": False, "answers": [], "frames": [], "error": failed}
    if n == 2:
        huge = [{"question": "What happens?", "text": "word" * 6000}]
        parts = [{"start": k, "end": k + 1, "answers": huge, "frames": []} for k in range(40)]
        line |= {"answers": [], "segments": parts, "warnings": [{"code": "fewer_frames"}]}
    return line


@pytest.fixture
def report(browser: Browser, tmp_path: Path) -> Iterator[Watched]:
    picture = io.BytesIO()
    Image.new("RGB", (640, 360), "teal").save(picture, "JPEG")
    (tmp_path / "report_files").mkdir()
    (tmp_path / "report_files/job_0.jpg").write_bytes(picture.getvalue())
    path = tmp_path / "report.html"
    pictures = {"job_0": "report_files/job_0.jpg"}
    path.write_bytes(make_page(map(make_line, range(COUNT)), pictures, "s3://b/captions"))
    with browser.new_context(offline=True) as context:
        watched = watch(context, path.as_uri())
        watched.page.goto(path.as_uri())
        yield watched


def test_the_page_of_10_000_videos_is_searched_filtered_and_leafed_through(report: Watched) -> None:
    page = report.page
    videos, count = page.locator("#list > li"), page.locator("#count")
    expect(count).to_have_text("1 to 25 of 10,000 videos")
    expect(videos).to_have_count(25)
    assert page.locator("img").first.evaluate("one => one.complete && one.naturalWidth") == 640
    expect(videos.first).to_contain_text("1 frame at 1:02")
    report.check()

    page.keyboard.press("/")
    page.keyboard.type("NUMBER 4711")
    expect(count).to_have_text("1 to 1 of 1 videos, of 10,000 in all")
    page.get_by_role("button", name="Clear").press("Enter")
    page.get_by_label("Outcome").select_option("xvideo_corrupt")
    expect(count).to_have_text("1 to 25 of 1,000 videos, of 10,000 in all")
    expect(videos.first).to_contain_text("no picture decodes")
    page.get_by_label("Outcome").select_option("")
    page.get_by_label("Answer").select_option(label="yes (2,500)")
    expect(count).to_contain_text("of 2,500 videos")
    page.get_by_label("Confidence below").fill("0.6")
    expect(count).to_contain_text("of 500 videos")
    page.get_by_label("Order").select_option("sure")
    expect(videos.first).to_contain_text("clip 00000.mp4")

    page.get_by_role("navigation", name="Pages, below").get_by_role("button", name="Next").press(
        "Enter"
    )
    expect(count).to_contain_text("26 to 50 of 500")
    assert page.evaluate("document.activeElement.id") == "list"
    page.get_by_label("Search").fill("nothing is like this")
    expect(page.locator("#empty")).to_be_visible()
    assert not report.mistakes


def test_hostile_and_huge_texts_are_shown_as_texts(report: Watched) -> None:
    page = report.page
    hostile, huge = page.locator("#list > li").nth(1), page.locator("#list > li").nth(2)
    expect(hostile.get_by_role("heading")).to_have_text(HOSTILE)
    assert page.locator("#list script, #list img[src=x]").count() == 0
    expect(huge.locator("dd")).to_have_count(20)
    huge.get_by_role("button", name="Show all 24,000 characters").first.press("Enter")
    expect(huge.locator("dd").first).to_contain_text("results.jsonl has the rest")
    huge.get_by_role("button", name="Show all 40 answers").press("Enter")
    expect(huge.locator("dd")).to_have_count(40)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not report.mistakes
