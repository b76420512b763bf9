"""Routes of jobs at their edges: repeated calls, waits, formats, searches, deletions, and ids that have expired."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import redis
from support.gateway import serve_gateway
from support.worker import begin, fail, finish, result_of

from videoqa.contract import Segment, SourceInfo
from videoqa.jobs import Ledger
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]
ASKED: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"]}
OTHER: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["Why?"]}
KEY = "idempotency-key"


@pytest.fixture
def http(connect: Connect) -> httpx.Client:
    return connect("submit", "read", tenant="a")


def submit(http: httpx.Client, **headers: str) -> str:
    made = http.post("/v1/jobs", json=ASKED, headers=headers)
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def count_jobs(http: httpx.Client) -> int:
    return len(http.get("/v1/jobs", params={"limit": 1000}).json()["jobs"])


# -- idempotency keys


def test_100_equal_submits_at_once_are_one_job(http: httpx.Client) -> None:
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda _: submit(http, **{KEY: '"k"'}), range(100)))
    assert len(set(made)) == count_jobs(http) == 1


def test_a_key_is_its_tenants_and_of_one_body(connect: Connect, http: httpx.Client) -> None:
    first = submit(http, **{KEY: '"a \\"b\\""'})
    assert submit(http, **{KEY: 'a "b"'}) == first
    assert http.post("/v1/jobs", json=ASKED | {"idempotency_key": 'a "b"'}).json()["id"] == first
    refused = http.post("/v1/jobs", json=OTHER, headers={KEY: 'a "b"'})
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (422, "idempotency_conflict")
    assert problem["retryable"] is False
    assert submit(connect("submit", "read", tenant="b"), **{KEY: 'a "b"'}) != first
    both = http.post("/v1/jobs", json=ASKED | {"idempotency_key": "x"}, headers={KEY: "y"})
    assert (both.status_code, both.json()["param"]) == (400, "idempotency_key")


@pytest.mark.parametrize("key", ["", '"', '"a', '""', "k" * 257, "\xe9", "a\tb", '"a"b"'])
def test_a_malformed_key_is_refused_on_each_route(http: httpx.Client, key: str) -> None:
    job_id = submit(http)
    headers = {KEY: key.encode("latin-1")}
    for path, body in (
        ("/v1/jobs", ASKED),
        ("/v1/jobs:batch", {"jobs": [ASKED]}),
        (f"/v1/jobs/{job_id}/retry", {}),
    ):
        refused = http.post(path, json=body, headers=headers)
        assert (refused.status_code, refused.json()["param"]) == (400, "Idempotency-Key"), path
    assert count_jobs(http) == 1


def test_a_batch_is_repeated_as_a_whole_and_another_body_refused(
    connect: Connect, http: httpx.Client
) -> None:
    batch = {"jobs": [ASKED, OTHER, ASKED | {"inputs": []}, ASKED]}

    def send(client: httpx.Client, body: dict[str, Any]) -> list[Any]:
        answer = client.post("/v1/jobs:batch", json=body, headers={KEY: "b1"})
        assert answer.status_code == 202, answer.text
        return [
            row["job"]["id"] if "job" in row else row["error"]["code"]
            for row in answer.json()["jobs"]
        ]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: send(http, batch), range(8)))
    assert all(one == found[0] for one in found)
    assert found[0][2] == "no_media"
    assert len(set(found[0])) == 4
    assert count_jobs(http) == 3
    refused = http.post("/v1/jobs:batch", json={"jobs": [ASKED, OTHER]}, headers={KEY: "b1"})
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_conflict")
    assert count_jobs(http) == 3
    submit(http, **{KEY: "b1"})  # a key of another route
    assert count_jobs(http) == 4
    assert set(send(connect("submit", tenant="b"), batch)) & set(found[0]) == {"no_media"}


def test_a_repeated_retry_queues_a_job_once(http: httpx.Client) -> None:
    job_id = submit(http)
    path, headers = f"/v1/jobs/{job_id}/retry", {KEY: "r1"}
    assert (
        http.post(path, headers=headers).status_code == 409
    )  # it is queued, and this is not noted
    http.post(f"/v1/jobs/{job_id}/cancel")
    assert http.post(path, headers=headers).json()["state"] == "queued"
    assert http.post(path, headers=headers).status_code == 202
    http.post(f"/v1/jobs/{job_id}/cancel")
    again = http.post(path, headers=headers)
    assert (again.status_code, again.json()["state"]) == (202, "canceled")
    assert http.post(path, headers={KEY: "r2"}).json()["state"] == "queued"
    assert http.post("/v1/jobs/job_0/retry", headers=headers).status_code == 404


# -- waiting


@pytest.mark.parametrize(
    ("prefer", "applied", "status"),
    [
        ("wait=-1", None, 202),
        ("wait=1e9", None, 202),
        ("wait=x", None, 202),
        ("respond-async", None, 202),
        ("wait=0", None, 202),
        ("respond-async, WAIT = 1", "wait=1", 202),
    ],
)
def test_prefer_is_never_refused(
    http: httpx.Client, prefer: str, applied: str | None, status: int
) -> None:
    made = http.post("/v1/jobs", json=ASKED, headers={"prefer": prefer})
    assert (made.status_code, made.headers.get("preference-applied")) == (status, applied)
    links = made.json()["links"]
    for name in ("self", "cancel", "result"):
        path = links[name]
        answer = http.post(path) if name == "cancel" else http.get(path)
        assert answer.status_code in (200, 409), path


def test_a_wait_is_cut_to_what_balancers_allow(http: httpx.Client, ledger: Ledger) -> None:
    worker = threading.Timer(0.3, lambda: finish(ledger, begin(ledger, "t"), q1="a cat"))
    worker.start()
    done = http.post("/v1/jobs", json=ASKED, headers={"prefer": "wait=1000000000"})
    worker.join()
    assert (done.status_code, done.headers["preference-applied"]) == (200, "wait=120")
    assert done.json()["result"]["answers"][0]["text"] == "a cat"
    assert all(
        isinstance(n, int)
        for name, n in done.json()["result"]["usage"].items()
        if name[-2:] != "_s"
    )


def test_a_result_that_is_gone_does_not_hide_the_job(http: httpx.Client, ledger: Ledger) -> None:
    def end() -> None:
        claim = begin(ledger, "t")
        ledger.finish(claim.job_id, "t", result=None, result_url="file:///no/such/result.json")

    worker = threading.Timer(0.3, end)
    worker.start()
    done = http.post("/v1/jobs", json=ASKED, headers={"prefer": "wait=20"})
    worker.join()
    assert (done.status_code, done.json()["state"], "result" in done.json()) == (
        200,
        "succeeded",
        False,
    )
    assert http.get(f"/v1/jobs/{done.json()['id']}/result").status_code == 410


@pytest.mark.parametrize("wait", ["-1", "1e9", "nan", "", "x"])
def test_a_wait_in_the_query_is_checked(http: httpx.Client, wait: str) -> None:
    refused = http.get(f"/v1/jobs/{submit(http)}", params={"wait": wait})
    assert (refused.status_code, refused.json()["param"]) == (400, "wait")


def test_a_job_is_waited_for_and_its_tag_holds(http: httpx.Client, ledger: Ledger) -> None:
    path = f"/v1/jobs/{submit(http)}"
    worker = threading.Timer(0.2, lambda: finish(ledger, begin(ledger, "t"), q1="a cat"))
    worker.start()
    done = http.get(path, params={"wait": "20"})
    worker.join()
    assert done.json()["state"] == "succeeded"
    for tag in (done.headers["etag"], f'"x", W/{done.headers["etag"]}', "*"):
        assert http.get(path, headers={"if-none-match": tag}).status_code == 304
    assert http.get(path, headers={"if-none-match": '"x"'}).status_code == 200
    result = http.get(f"{path}/result")
    had = {"if-none-match": result.headers["etag"]}
    assert http.get(f"{path}/result", headers=had).status_code == 304
    assert http.get(f"{path}/result", params={"format": "text"}, headers=had).status_code == 200


# -- results


@pytest.mark.parametrize("in_segments", [False, True])
def test_a_result_comes_as_subtitles(http: httpx.Client, ledger: Ledger, in_segments: bool) -> None:
    job_id = submit(http)
    claim = begin(ledger, "t")
    result = result_of(claim, q1="a <cat>")
    image = SourceInfo(url="https://a.org/x.jpg", kind="image", size_bytes=1, width=1, height=1)
    video = image.model_copy(update={"kind": "video", "duration_s": 4.0, "start": 1.0})
    update: dict[str, Any] = {"sources": (image, video)}
    if in_segments:
        parts = [
            Segment(number=n, start=2.0 * n, end=2.0 * n + 2, answers=result.answers, frames=())
            for n in range(2)
        ]
        update |= {"segments": tuple(parts), "answers": ()}
    ledger.finish(job_id, "t", result=result.model_copy(update=update), result_url="u")
    path, first = f"/v1/jobs/{job_id}/result", "00:00:0{}{}000 --> 00:00:0{}{}000"
    number = {} if in_segments else {"input": 1}
    vtt = http.get(path, params={"format": "vtt", **number})
    srt = http.get(path, params={"format": "srt", **number})
    assert vtt.headers["content-type"] == "text/vtt; charset=utf-8"
    assert vtt.text.startswith("WEBVTT\n\n")
    begins, ends = (0, 2) if in_segments else (1, 4)
    assert first.format(begins, ".", ends, ".") in vtt.text
    assert "a &lt;cat&gt;" in vtt.text
    assert srt.text.startswith(f"1\n{first.format(begins, ',', ends, ',')}\na <cat>")
    assert http.get(path, params={"format": "json"}).json()["job_id"] == job_id
    wrong: list[dict[str, Any]] = [{"format": "xml"}, {"format": "vtt", "input": -1}]
    if not in_segments:
        wrong += [{"format": "vtt"}, {"format": "srt", "input": 7}]
    for query in wrong:
        refused = http.get(path, params=query)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), query


def test_a_job_without_a_result_says_why(http: httpx.Client, ledger: Ledger) -> None:
    job_id = submit(http)
    early = http.get(f"/v1/jobs/{job_id}/result")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_finished")
    fail(ledger)
    failed = http.get(f"/v1/jobs/{job_id}/result", params={"format": "vtt"})
    assert (failed.status_code, failed.json()["code"]) == (409, "job_failed")
    assert failed.json()["failure"]["code"] == "model_error"


# -- lists


def test_jobs_are_found_by_their_text_and_all_filters_at_once(http: httpx.Client) -> None:
    def make(question: str, url: str, **fields: Any) -> str:
        asked = {"inputs": [url], "questions": [question], **fields}
        return str(http.post("/v1/jobs", json=asked).json()["id"])

    cat = make("Is it a CAT?", "https://a.org/1.mp4", tags=["t"], model="m")
    dog = make("Is it a dog?", "https://a.org/cats/2.mp4?token=secret", tags=["t"], model="n")
    other = make("Why?", "https://a.org/3.mp4", tags=["t"], model="m")
    http.post(f"/v1/jobs/{cat}/cancel")

    def find(**query: Any) -> list[str]:
        found = http.get("/v1/jobs", params=query)
        assert found.status_code == 200, found.text
        return [job["id"] for job in found.json()["jobs"]]

    assert find(q="cat") == [dog, cat]
    assert find(q="Cat", state="canceled") == [cat]
    assert find(q="cat", state="queued", tag="t", model="n") == [dog]
    assert find(q="secret") == find(q="cat", tag="u") == []
    assert find(tag="t", model="m", state="queued") == [other]
    created = http.get(f"/v1/jobs/{other}").json()["created_at"]
    assert find(q="a.org", since=created) == [other]
    for query in ({"q": ""}, {"q": "x" * 201}):
        refused = http.get("/v1/jobs", params=query)
        assert (refused.status_code, refused.json()["param"]) == (400, "q")


def test_a_search_is_bounded_and_its_cursor_honest(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videoqa.backends.redis_backend.MOST_SEARCHED", 10)
    monkeypatch.setattr("videoqa.backends.redis_backend.MOST_SEARCHED_AT_ONCE", 5)
    wanted = http.post("/v1/jobs", json=OTHER).json()["id"]
    http.post("/v1/jobs:batch", json={"jobs": [ASKED] * 24})
    cursor, pages, found = None, 0, []
    while pages == 0 or cursor is not None:
        page = http.get(
            "/v1/jobs", params={"q": "why"} | ({"cursor": cursor} if cursor else {})
        ).json()
        found += [job["id"] for job in page["jobs"]]
        cursor, pages = page["next_cursor"], pages + 1
        assert page["has_more"] == (cursor is not None)
    assert found == [wanted]
    assert 2 <= pages <= 4


def test_a_cursor_holds_when_its_job_is_deleted_and_bad_ones_are_refused(
    http: httpx.Client,
) -> None:
    made = [submit(http) for _ in range(3)]
    page = http.get("/v1/jobs", params={"limit": 1}).json()
    assert (page["jobs"][0]["id"], page["has_more"]) == (made[2], True)
    http.post(f"/v1/jobs/{made[2]}/cancel")
    assert http.delete(f"/v1/jobs/{made[2]}").status_code == 204
    rest = http.get("/v1/jobs", params={"cursor": page["next_cursor"]}).json()
    assert [job["id"] for job in rest["jobs"]] == [made[1], made[0]]
    assert (rest["next_cursor"], rest["has_more"]) == (None, False)
    for query, param in (
        ("cursor=x", "cursor"), ("cursor=1.000000-job_x", "cursor"), ("cursor=%00", "cursor"),
        ("limit=0", "limit"), ("limit=-1", "limit"), ("limit=1001", "limit"), ("limit=1e2", "limit"),
        ("state=done", "state"), ("since=2026-01-01T00:00:00", "since"), ("tag=", "tag"),
    ):  # fmt: skip
        refused = http.get(f"/v1/jobs?{query}")
        assert (refused.status_code, refused.json()["param"]) == (400, param), query


# -- ends


def test_a_job_is_deleted_when_it_has_ended(http: httpx.Client, ledger: Ledger) -> None:
    job_id = submit(http)
    claims = []
    for state in ("queued", "running"):
        refused = http.delete(f"/v1/jobs/{job_id}")
        assert (refused.status_code, refused.json()["code"]) == (409, "not_retryable")
        assert f"is {state}" in refused.json()["detail"]
        claims += [begin(ledger, "t")] if state == "queued" else []
    finish(ledger, claims[0], q1="a cat")
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    for answer in (
        http.delete(f"/v1/jobs/{job_id}"),
        http.get(f"/v1/jobs/{job_id}"),
        http.get(f"/v1/jobs/{job_id}/result"),
        http.get(f"/v1/jobs/{job_id}/events"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (410, "job_expired")
    assert count_jobs(http) == 0
    assert http.get("/v1/usage").json()["usage"][0]["succeeded"] == 1


def test_an_ended_job_says_when_it_expires_and_is_410_from_then_on(
    connect: Connect, http: httpx.Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    asked = ASKED | {"result_ttl_s": 3600}
    made = http.post("/v1/jobs", json=asked).json()
    assert made["expires_at"] is None
    finish(ledger, begin(ledger, "t"), q1="a cat")
    job = http.get(f"/v1/jobs/{made['id']}").json()
    ended, expires = (datetime.fromisoformat(job[name]) for name in ("finished_at", "expires_at"))
    assert expires - ended == timedelta(hours=1)
    assert 3590 < redis_client.ttl(ledger.keys.job(made["id"])) <= 3600
    redis_client.delete(ledger.keys.job(made["id"]))
    for path in ("", "/result", "/events"):
        gone = http.get(f"/v1/jobs/{made['id']}{path}")
        assert (gone.status_code, gone.json()["code"]) == (410, "job_expired"), path
        unknown = http.get(f"/v1/jobs/job_{'0' * 27}{path}")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "job_not_found"), path
        foreign = connect("read", tenant="b").get(f"/v1/jobs/{made['id']}{path}")
        assert (foreign.status_code, foreign.json()["code"]) == (404, "job_not_found"), path


def test_two_gateways_know_the_same_keys(
    settings: Settings, http: httpx.Client, connect: Connect
) -> None:
    batch = {"jobs": [ASKED, OTHER]}
    with (
        serve_gateway(settings) as other,
        httpx.Client(base_url=other.url, headers=http.headers) as second,
    ):
        found = [
            one.post("/v1/jobs:batch", json=batch, headers={KEY: "b"}).json()
            for one in (http, second)
        ]
    ids = [[row["job"]["id"] for row in one["jobs"]] for one in found]
    assert ids[0] == ids[1]


def test_answers_with_large_requests_are_bounded(connect: Connect) -> None:
    http = connect("submit", "read", tenant="a")
    questions = ["x" * 4000 for _ in range(60)]
    sent = []
    for _ in range(70):
        asked = {"inputs": ["https://a.org/x.mp4"], "questions": questions}
        sent.append(http.post("/v1/jobs", json=asked).json()["id"])
    found: list[str] = []
    pages, cursor = 0, None
    while True:
        params = {"include_request": "true", "limit": 1000} | ({"cursor": cursor} if cursor else {})
        answer = http.get("/v1/jobs", params=params)
        assert len(answer.content) < 16 << 20
        page = answer.json()
        found += [job["id"] for job in page["jobs"]]
        pages, cursor = pages + 1, page["next_cursor"]
        if cursor is None:
            break
    assert pages > 1
    assert sorted(found) == sorted(sent)
    many = {"ids": [sent[0]] * 300, "include_request": True}
    refused = http.post("/v1/jobs:get", json=many)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert len(http.post("/v1/jobs:get", json={"ids": many["ids"]}).json()["jobs"]) == 300
