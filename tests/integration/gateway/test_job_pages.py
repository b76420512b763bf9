"""The pages of jobs over HTTP, as a browser without scripts gets them: filters, pages, actions, strangers' words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from support.gateway import serve_gateway
from support.processes import wait_until
from support.sample_jobs import HOSTILE, LONG_WORD, SampleJobs

from videoqa.client import Client
from videoqa.contract import SourceInfo
from videoqa.gateway import GatewayServer, GatewaySettings
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.access.sessions import SessionStore
from videoqa.jobs import Ledger
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

CLIP = b"not really a video"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    output = (tmp_path / "sheets").as_uri() + "/{job_id}.jpg"
    return settings.model_copy(update={"sheet_output": output})


@pytest.fixture
def gateway_settings(gateway_settings: GatewaySettings, tmp_path: Path) -> GatewaySettings:
    return gateway_settings.model_copy(update={"gateway_media": f"{tmp_path.as_uri()}/media/"})


@pytest.fixture
def jobs(client: Client, ledger: Ledger, tmp_path: Path) -> SampleJobs:
    return SampleJobs(client, ledger, tmp_path / "sheets")


def list_rows(text: str) -> list[str]:
    return re.findall(r'id="row-(job_\w+)"', text)


def test_strangers_words_are_text_and_secrets_are_left_out(
    connect: Connect, jobs: SampleJobs
) -> None:
    job_id = jobs.run(
        HOSTILE + LONG_WORD, HOSTILE + LONG_WORD * 2,
        inputs=["https://me:hunter2@a.org/<script>.mp4?token=SECRET"],
        tags=[HOSTILE[:50]], custom_id=HOSTILE, metadata={"<b>k</b>": HOSTILE},
        warnings=(),
    )  # fmt: skip
    http = connect("submit", "read")
    for path in ("/jobs", f"/jobs/{job_id}"):
        page = http.get(path)
        assert page.status_code == 200
        assert len(page.content) < 200_000
        assert "&lt;script&gt;alert(" in page.text
        assert not re.search(r"<script>|<img src=x|<b>k|SECRET|hunter2", page.text)


def test_filters_combine_and_stay_in_the_address(connect: Connect, jobs: SampleJobs) -> None:
    news = jobs.run("Is it a parade?", tags=["news"], tenant="a")
    other = jobs.run("Is it a match?", tags=["news"], tenant="b")
    failed = jobs.submit("Is it a match?", tenant="a")
    jobs.fail(jobs.begin(failed), delay_s=None)
    http = connect("submit", "read")
    assert list_rows(http.get("/jobs").text) == [failed, other, news]
    assert list_rows(http.get("/jobs?tag=news&tenant=b").text) == [other]
    assert list_rows(http.get("/jobs?q=MATCH&state=succeeded").text) == [other]
    assert list_rows(http.get("/jobs?code=model_error").text) == [failed]
    assert list_rows(http.get("/jobs?worker=gpu-1:1200&within=1h&state=failed").text) == [failed]
    page = http.get("/jobs?tag=news&tenant=b").text
    assert 'href="/jobs?tenant=b" aria-label="Remove the filter tag"' in page
    assert "1 job<" in page
    found = http.get("/jobs", params={"state": "failed", "search": 'tenant:"a" big  match'})
    assert (found.status_code, found.headers["location"]) == (
        303,
        "/jobs?state=failed&tenant=a&q=big+match",
    )
    by_id = http.get("/jobs", params={"search": news}, follow_redirects=True)
    assert list_rows(by_id.text) == [news]
    wrong = http.get("/jobs?state=bogus&since=yesterday")
    assert (wrong.status_code, list_rows(wrong.text)) == (200, [])
    assert "expected a time such as" in wrong.text
    own = connect("read", tenant="a").get("/jobs")
    assert list_rows(own.text) == [failed, news]
    assert "data-pick" not in own.text, "who may only read picks nothing"


def test_pages_go_on_without_a_script_and_newer_jobs_are_only_counted(
    connect: Connect, jobs: SampleJobs
) -> None:
    ids = [jobs.submit(f"Question {n}") for n in range(60)]
    http = connect("read")
    first = http.get("/jobs").text
    assert list_rows(first) == ids[:9:-1]
    assert "60 jobs<" in first
    older = re.search(r'rel="next" href="([^"]+)"', first)
    poll = re.search(r'hx-get="([^"]+)"', first)
    assert older
    assert poll
    second = http.get(older[1].replace("&amp;", "&")).text
    assert list_rows(second) == ids[9::-1]
    jobs.submit("Newer")
    block = {"hx-request": "true", "hx-target": "rows"}
    news = ""

    def has_news() -> bool:
        nonlocal news
        news = http.get(poll[1].replace("&amp;", "&"), headers=block).text
        return "1 newer job<" in news

    wait_until(has_news)  # a look is shared for 2 s
    assert list_rows(news) == ids[:9:-1]
    assert "<html" not in news


@pytest.fixture
def browser(
    gateway: GatewayServer, keys: KeyStore, settings: Settings, redis_client: redis.Redis
) -> Iterator[httpx.Client]:
    """A client with the cookie of a session, as a browser has it."""
    sessions = SessionStore(redis_client, url=settings.redis_url, prefix=settings.prefix)
    key = keys.create("test", ["submit", "read"]).key
    own = {"origin": gateway.url, "sec-fetch-site": "same-origin"}
    with httpx.Client(base_url=gateway.url, headers=own, follow_redirects=True) as http:
        http.get("/login", params={"token": sessions.make_login(key.id)})
        yield http


def test_actions_work_once_and_show_the_present_state(
    browser: httpx.Client, connect: Connect, jobs: SampleJobs
) -> None:
    job_id = jobs.submit()
    token = re.search('name="csrf" value="([0-9a-f]+)"', browser.get(f"/jobs/{job_id}").text)
    assert token

    def act(name: str, **fields: str) -> httpx.Response:
        return browser.post(f"/jobs/{job_id}/{name}", data={"csrf": token[1]} | fields)

    assert act("cancel", csrf="").status_code == 403
    assert jobs.client.get(job_id).state == "queued"
    for _ in range(2):
        assert "The job was canceled." in act("cancel").text
    assert "The job is queued again." in act("retry").text
    assert "Nothing was changed: the job is queued." in act("retry").text
    assert "Nothing was deleted" in act("delete").text
    act("cancel")
    gone = act("delete")
    assert (gone.url.path, f"The record of {job_id} was deleted." in gone.text) == ("/jobs", True)
    assert browser.get(f"/jobs/{job_id}").status_code == 410
    assert connect("read").post(f"/jobs/{job_id}/delete").status_code == 403


def test_picked_jobs_are_asked_back_and_refusals_are_listed(
    connect: Connect, jobs: SampleJobs
) -> None:
    done, queued = jobs.run(), jobs.submit("Which one?")
    http = connect("submit", "read")
    picked = {"id": [done], "ids": f"{queued} {done}", "action": "cancel"}
    asked = http.post("/jobs/selected", data=picked)
    assert "Cancel 2 jobs?" in asked.text
    assert "Which one?" in asked.text
    assert jobs.client.get(queued).state == "queued"
    result = http.post("/jobs/selected/run", data=picked)
    assert "1 of 2 jobs were canceled." in result.text
    assert f"{done}</a>" in result.text
    assert "it has succeeded" in result.text
    assert jobs.client.get(queued).state == "canceled"
    foreign = connect("submit", "read", tenant="b").post(
        "/jobs/selected/run", data=picked | {"action": "purge"}
    )
    assert "0 of 2 jobs were deleted." in foreign.text
    assert http.post("/jobs/selected", data={"id": done, "action": "explode"}).status_code == 400


def test_all_jobs_of_a_filter_are_changed_after_a_look_at_them(
    connect: Connect, jobs: SampleJobs
) -> None:
    ids = [jobs.submit(f"Number {n}", tags=["all"]) for n in range(3)]
    other = jobs.submit("Another")
    http = connect("submit", "read")
    assert 'href="/jobs/bulk?action=cancel&amp;tag=all"' in http.get("/jobs?tag=all").text
    seen = http.get("/jobs/bulk?action=cancel&tag=all").text
    assert "Cancel 3 jobs?" in seen
    assert "Number 0" in seen
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', seen))
    late = jobs.submit("Too late", tags=["all"])
    started = http.post("/jobs/bulk", data=fields)
    again = http.post("/jobs/bulk", data=fields)
    assert started.headers["location"] == again.headers["location"], "sent twice, begun once"
    progress = started.headers["location"]
    wait_until(lambda: "completed" in http.get(progress).text)
    assert {jobs.client.get(job_id).state for job_id in ids} == {"canceled"}
    assert {jobs.client.get(job_id).state for job_id in (other, late)} == {"queued"}
    assert connect("read", tenant="b").get(progress).status_code == 404
    assert "Nothing was changed" in http.get("/jobs/bulk?action=cancel").text, "no filter"
    purge = http.get("/jobs/bulk?action=purge&state=canceled&tag=all").text
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', purge))
    wrong = http.post("/jobs/bulk", data=fields | {"typed": "2"})
    assert "expected &#39;3&#39;" in wrong.text
    right = http.post("/jobs/bulk", data=fields | {"typed": "3"})
    wait_until(lambda: "completed" in http.get(right.headers["location"]).text)
    assert http.get(f"/jobs/{ids[0]}").status_code == 410
    assert "tag=all" in http.get("/jobs/bulk").text


def test_a_job_shows_frames_attempts_and_a_changed_source(
    connect: Connect, jobs: SampleJobs, tmp_path: Path
) -> None:
    clip = tmp_path / "media" / "clip.mp4"
    clip.parent.mkdir()
    clip.write_bytes(CLIP)
    etag = f"{len(CLIP)}-{clip.stat().st_mtime_ns}"
    source = SourceInfo(
        url=clip.as_uri(), kind="video", size_bytes=len(CLIP), etag=etag, width=1, height=1,
        start_offset_s=2.5,
    )  # fmt: skip
    job_id = jobs.run("What?", inputs=[clip.as_uri()], sources=[source], frames=8)
    http = connect("read", tenant=None)
    page = http.get(f"/jobs/{job_id}").text
    assert page.count('<svg class="tile"') == 8
    assert page.count("≈ inexact") == 1
    assert f'src="/v1/jobs/{job_id}/inputs/0/media"' in page
    assert 'data-offset="2.5"' in page
    assert "source changed" not in page
    assert "Attempt 1" in page
    thumbnail = http.get(f"/jobs/{job_id}/thumbnail")
    assert (thumbnail.status_code, thumbnail.content[:2]) == (200, b"\xff\xd8")
    clip.write_bytes(b"other")
    other = jobs.run("And now?", inputs=[clip.as_uri()], sources=[source], has_sheet=False)
    page = http.get(f"/jobs/{other}").text
    assert "source changed" in page
    assert "No pictures were kept" in page
    none = http.get(f"/jobs/{other}/thumbnail")
    assert (none.status_code, none.headers["content-type"]) == (200, "image/svg+xml")
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/thumbnail"):
        assert connect("read", tenant="b").get(path).status_code == 404


def test_a_job_links_its_trace(
    keys: KeyStore, jobs: SampleJobs, gateway_settings: GatewaySettings
) -> None:
    job_id = jobs.submit()
    trace_id = jobs.client.get(job_id).trace_id
    assert trace_id
    viewer = {"trace_url": "http://jaeger:16686/trace/{trace_id}"}
    headers = {"authorization": f"Bearer {keys.create('test', ['read']).text}"}
    with (
        serve_gateway(gateway_settings, **viewer) as server,
        httpx.Client(base_url=server.url, headers=headers) as http,
    ):
        assert f'href="http://jaeger:16686/trace/{trace_id}"' in http.get(f"/jobs/{job_id}").text


def test_two_thousand_segments_come_in_parts(connect: Connect, jobs: SampleJobs) -> None:
    sampling = {"method": "segment", "segment_s": 4, "frames": 1}
    job_id = jobs.run("Describe it.", "One.", "Two.", segments=2000, sampling=sampling)
    http = connect("read")
    first, last = http.get(f"/jobs/{job_id}").text, http.get(f"/jobs/{job_id}?part=40").text
    assert "2,000 segments" in first
    assert "Part 1 of 40" in first
    assert len(first) < 200_000
    assert re.findall(r'id="segment-(\d+)"', last) == [str(n) for n in range(1950, 2000)]
    assert '<svg class="tile"' in last


def test_texts_are_hidden_where_the_operator_says_so(
    keys: KeyStore, jobs: SampleJobs, gateway_settings: GatewaySettings
) -> None:
    sampling = {"method": "segment", "segment_s": 4, "frames": 1}
    ids = [
        jobs.run("Who is ill?", "The patient.", system="Is he ill?", refine="So ill?",
                 answer=["ill?", "The patient."]),
        jobs.run("Who is ill?", "The patient.", segments=2, sampling=sampling, summary="ill?",
                 inputs=[f"{jobs.sheets.parent.as_uri()}/media/a.mp4"]),
        jobs.submit("Who is ill?", stream=True),
    ]  # fmt: skip
    headers = {"authorization": f"Bearer {keys.create('test', ['submit', 'read']).text}"}
    with (
        serve_gateway(gateway_settings, hide_text=True) as server,
        httpx.Client(base_url=server.url, headers=headers) as http,
    ):
        pages = [http.get("/jobs"), http.get("/jobs/bulk?action=purge&state=succeeded")]
        pages += [http.get(f"/jobs/{job_id}") for job_id in ids]
        pages += [http.get(f"/ask?from={job_id}") for job_id in ids]
        pages.append(http.post("/jobs/selected", data={"id": ids[0], "action": "purge"}))
    assert "<video" in pages[3].text
    for page in pages:
        assert page.status_code == 200
        assert not re.search("Who is ill|The patient|ill[?]", page.text)
        # No script of the page writes them, and no player shows them.
        assert not re.search("data-stream|format=|<track|/result", page.text)
        assert "data-may-read" not in page.text or 'data-may-read="hidden"' in page.text
