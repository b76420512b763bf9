"""The picture of a job: read from the place that the settings name, and from nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.worker import begin, result_of

from videoqa.async_client import THREADS
from videoqa.client import Client
from videoqa.contract import Sheet, add_thumbnail
from videoqa.jobs import Claim, Ledger
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

ASKED: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["What is it?"]}
PICTURE = b"\xff\xd8\xff\xfe a picture"
LAYOUT = Sheet(columns=1, tile_width=320, tile_height=180, frames=(0,))


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """The gateway's, with a folder of sheets."""
    output = (tmp_path / "sheets").as_uri() + "/{job_id}.jpg"
    return settings.model_copy(update={"sheet_output": output})


@pytest.fixture
def http(connect: Connect) -> httpx.Client:
    return connect("submit", "read", tenant="a")


def finish(ledger: Ledger, claim: Claim, url: str | None) -> None:
    result = result_of(claim, q1="a cat").model_copy(
        update={"sheet_url": url, "sheet": LAYOUT if url else None}
    )
    ledger.finish(claim.job_id, claim.token, result=result, result_url="u")


def place(tmp_path: Path, job_id: str) -> Path:
    path = tmp_path / "sheets" / f"{job_id}.jpg"
    path.parent.mkdir(exist_ok=True)
    return path


def test_a_sheet_is_served_with_a_tag_and_expires(
    http: httpx.Client, connect: Connect, ledger: Ledger, tmp_path: Path
) -> None:
    job = http.post("/v1/jobs", json=ASKED | {"sheet": True}).json()
    address = job["links"]["sheet"]
    early = http.get(address)
    assert (early.status_code, early.json()["code"]) == (409, "job_not_finished")
    path = place(tmp_path, job["id"])
    path.write_bytes(PICTURE)
    finish(ledger, begin(ledger), path.as_uri())
    found = http.get(address)
    assert (found.status_code, found.content) == (200, PICTURE)
    assert found.headers["content-type"] == "image/jpeg"
    assert found.headers["cache-control"] == "private, max-age=3600, immutable"
    assert found.headers["vary"] == "Authorization, Cookie"
    assert found.headers["x-content-type-options"] == "nosniff"
    again = http.get(address, headers={"if-none-match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    foreign = connect("read", tenant="b").get(address)
    assert (foreign.status_code, foreign.json()["code"]) == (404, "job_not_found")
    path.unlink()
    gone = http.get(address)
    assert (gone.status_code, gone.json()["code"]) == (410, "sheet_expired")


def test_a_thumbnail_is_read_from_the_head_of_the_sheet_and_without_the_result(
    http: httpx.Client, connect: Connect, ledger: Ledger, tmp_path: Path
) -> None:
    job = http.post("/v1/jobs", json=ASKED | {"sheet": True}).json()
    address = f"{job['links']['sheet']}?thumbnail=true"
    early = http.get(address)
    assert (early.status_code, early.json()["code"]) == (409, "job_not_finished")
    path, small = place(tmp_path, job["id"]), b"\xff\xd8\xff small"
    head = b"\xff\xd8\xff\xfe\0\x06mark"
    path.write_bytes(add_thumbnail(head + b"\xff\xda picture", small))
    finish(ledger, begin(ledger), "s3://elsewhere/that/is/never/asked.jpg")
    found = http.get(address)
    assert (found.status_code, found.content) == (200, small)
    assert found.headers["content-type"] == "image/jpeg"
    assert connect("read", tenant="b").get(address).json()["code"] == "job_not_found"
    path.write_bytes(head)
    none = http.get(address)
    assert (none.status_code, none.json()["code"]) == (404, "sheet_not_kept")


def test_a_job_without_a_sheet_says_so(http: httpx.Client, ledger: Ledger) -> None:
    job_id = http.post("/v1/jobs", json=ASKED).json()["id"]
    finish(ledger, begin(ledger), None)
    none = http.get(f"/v1/jobs/{job_id}/sheet")
    assert (none.status_code, none.json()["code"]) == (404, "sheet_not_kept")


@pytest.mark.parametrize(
    "elsewhere",
    [
        "{folder}/secret.jpg",
        "{folder}/sheets/../secret.jpg",
        "{folder}/sheets/{job_id}.jpg/../../secret.jpg",
        "{folder}/sheets/job_other.jpg",
        "s3://secrets/{job_id}.jpg",
        "http://127.0.0.1/{job_id}.jpg",
        "nonsense",
    ],
)
def test_nothing_else_is_read_whatever_a_result_says(
    http: httpx.Client, ledger: Ledger, tmp_path: Path, elsewhere: str
) -> None:
    """A result object may lie where a tenant writes too."""
    job_id = http.post("/v1/jobs", json=ASKED).json()["id"]
    place(tmp_path, "job_other").write_bytes(PICTURE)
    (tmp_path / "secret.jpg").write_bytes(PICTURE)
    finish(ledger, begin(ledger), elsewhere.format(folder=tmp_path.as_uri(), job_id=job_id))
    refused = http.get(f"/v1/jobs/{job_id}/sheet")
    assert (refused.status_code, refused.json()["code"]) == (502, "output_denied")
    assert PICTURE not in refused.content


def test_a_file_that_is_no_picture_is_not_served(
    http: httpx.Client, ledger: Ledger, tmp_path: Path
) -> None:
    job_id = http.post("/v1/jobs", json=ASKED).json()["id"]
    path = place(tmp_path, job_id)
    path.write_text("<script>")
    finish(ledger, begin(ledger), path.as_uri())
    refused = http.get(f"/v1/jobs/{job_id}/sheet")
    assert (refused.status_code, refused.json()["code"]) == (410, "sheet_expired")


def test_a_store_that_hangs_holds_up_no_other_call(
    http: httpx.Client, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = http.post("/v1/jobs", json=ASKED | {"sheet": True}).json()
    answers, began = threading.Event(), threading.Semaphore(0)

    def hang(client: Client, job_id: str, *, thumbnail: bool = False) -> bytes:
        began.release()
        answers.wait(300)
        return PICTURE

    monkeypatch.setattr(Client, "sheet", hang)
    reader = connect("read", tenant="a")
    threads = [
        threading.Thread(target=reader.get, args=[job["links"]["sheet"]]) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            assert began.acquire(timeout=60)
        assert http.get(job["links"]["self"], timeout=60).json()["state"] == "queued"
        assert http.get("/readyz", timeout=60).is_success
    finally:
        answers.set()
        for thread in threads:
            thread.join()
