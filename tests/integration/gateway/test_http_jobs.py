"""Jobs over HTTP: submitted, looked at, waited for, followed, canceled and listed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.worker import begin, finish

from videoqa.jobs import Ledger

Connect = Callable[..., httpx.Client]

ASKED: dict[str, Any] = {
    "inputs": ["https://videos.example.org/a.mp4"],
    "questions": ["What is it?"],
}


@pytest.fixture
def http(connect: Connect) -> httpx.Client:
    return connect("submit", "read", tenant="a")


def test_a_job_is_submitted_looked_at_and_listed(http: httpx.Client) -> None:
    made = http.post("/v1/jobs", json=ASKED)
    job = made.json()
    assert (made.status_code, job["state"], job["tenant"]) == (202, "queued", "a")
    assert made.headers["location"] == f"/v1/jobs/{job['id']}"
    found = http.get(f"/v1/jobs/{job['id']}")
    assert found.json()["waiting_for"].startswith("no running worker serves")
    again = http.get(f"/v1/jobs/{job['id']}", headers={"if-none-match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert [one["id"] for one in http.get("/v1/jobs").json()["jobs"]] == [job["id"]]
    assert http.get("/v1/queues").json()["queues"][0]["waiting"] == 1
    assert http.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "canceled"
    assert http.get("/v1/jobs", params={"state": "canceled"}).json()["jobs"][0]["id"] == job["id"]
    assert http.post(f"/v1/jobs/{job['id']}/retry").json()["state"] == "queued"


def test_a_caller_that_prefers_to_wait_gets_the_finished_job(
    http: httpx.Client, ledger: Ledger
) -> None:
    def answer() -> None:
        finish(ledger, begin(ledger, "t"), q1="a cat")

    worker = threading.Timer(0.3, answer)
    worker.start()
    done = http.post("/v1/jobs", json=ASKED, headers={"prefer": "wait=20"})
    worker.join()
    assert done.status_code == 200, done.text
    assert done.headers["preference-applied"] == "wait=20"
    assert done.json()["result"]["answers"][0]["text"] == "a cat"
    result = http.get(f"/v1/jobs/{done.json()['id']}/result", params={"format": "text"})
    assert result.text == "a cat\n"


def test_events_are_streamed_and_resumed(http: httpx.Client, ledger: Ledger) -> None:
    job_id = http.post("/v1/jobs", json=ASKED).json()["id"]

    def read(after: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        headers = {} if after is None else {"last-event-id": after}
        found, event_id = [], ""
        with http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
            assert response.headers["x-accel-buffering"] == "no"
            for line in response.iter_lines():
                if line.startswith("id: "):
                    event_id = line.removeprefix("id: ")
                elif line.startswith("data: "):
                    found.append((event_id, json.loads(line.removeprefix("data: "))))
        return found

    finish(ledger, begin(ledger, "t"), q1="a cat")
    events = read()
    assert [event["state"] for _, event in events] == ["queued", "running", "succeeded"]
    assert read(events[0][0]) == events[1:]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "invalid_request", None),
        (b"[]", 400, "invalid_request", None),
        (b'{"a": NaN}', 400, "invalid_request", None),
        (b'{"a": 1, "a": 2}', 400, "invalid_request", None),
        (b"[" * 100_000, 400, "invalid_request", None),
        (b"\xff", 400, "invalid_request", None),
        (json.dumps(ASKED | {"tenant": "b"}).encode(), 400, "invalid_request", "tenant"),
        (json.dumps(ASKED | {"output": "s3://x/y"}).encode(), 400, "invalid_request", "output"),
        (json.dumps(ASKED | {"inputs": []}).encode(), 400, "no_media", "inputs"),
        (json.dumps(ASKED | {"question": "?"}).encode(), 400, "invalid_request", "question"),
    ],
)
def test_a_wrong_body_is_a_problem_with_a_code(
    http: httpx.Client, body: bytes, status: int, code: str, param: str | None
) -> None:
    refused = http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    problem = refused.json()
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.status_code, problem["code"]) == (status, code), problem
    assert param is None or problem["param"] == param
    assert problem["request_id"] == refused.headers["x-request-id"]


def test_unknown_and_foreign_jobs_are_the_same(connect: Connect, http: httpx.Client) -> None:
    job_id = http.post("/v1/jobs", json=ASKED).json()["id"]
    other = connect("submit", "read", tenant="b")
    for call in (
        other.get,
        lambda path: other.get(f"{path}/result"),
        lambda path: other.get(f"{path}/events"),
        lambda path: other.post(f"{path}/cancel"),
        lambda path: other.post(f"{path}/retry"),
        other.delete,
    ):
        foreign, unknown = (call(f"/v1/jobs/{one}") for one in (job_id, "job_" + "0" * 27))
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json()["code"] == unknown.json()["code"] == "job_not_found"
    assert other.get("/v1/jobs").json()["jobs"] == []


def test_no_key_or_a_wrong_one_is_refused(connect: Connect) -> None:
    for key in ("", "Bearer", "Bearer x", "Basic x", "Bearer vqa_" + "0" * 12 + "_" + "0" * 49):
        headers = {"authorization": key} if key else {}
        refused = connect().get("/v1/jobs", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "wrong_key")
        assert refused.headers["www-authenticate"].startswith("Bearer")
    assert connect().get("/livez").json() == connect().get("/readyz").json() == {"status": "ok"}


def test_roles_hold(connect: Connect, http: httpx.Client) -> None:
    refused = connect("read").post("/v1/jobs", json=ASKED)
    assert (refused.status_code, refused.json()["code"]) == (403, "operator_only")
    assert http.get("/v1/workers").status_code == 403
    assert connect("operate").get("/v1/workers").json() == {"workers": []}


def test_unknown_routes_methods_and_large_bodies(http: httpx.Client) -> None:
    assert http.get("/v2").json()["code"] == "route_not_found"
    assert http.put("/v1/jobs", json={}).json()["code"] == "method_not_allowed"
    as_json = {"content-type": "application/json"}
    large = http.post("/v1/jobs", content=b" " * 9_000_000, headers=as_json)
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    assert http.get("/v1/jobs", params={"limit": 0}).json()["param"] == "limit"
