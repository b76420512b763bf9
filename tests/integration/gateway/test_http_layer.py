"""Parts of HTTP that all routes share: one envelope, HEAD and OPTIONS, gzip, CORS, and who may call without a key."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from typing import Any

import httpx
import pytest
import redis
from support.gateway import serve_gateway
from support.logs import configured_logs, parse_lines
from support.processes import wait_until

from videoqa import Client
from videoqa.gateway import GatewaySettings
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]
ASKED: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"]}
PAGE = "https://app.example.org"


@pytest.fixture
def http(connect: Connect) -> httpx.Client:
    return connect("submit", "read", tenant="a")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "route_not_found"),
        ("GET", "/v1/jobs/", 404, "route_not_found"),
        ("GET", "/nowhere", 404, "route_not_found"),
        ("OPTIONS", "/v1/nothing", 404, "route_not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("TRACE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=x", 400, "invalid_request"),
        ("GET", "/v1/jobs?status=queued", 400, "invalid_request"),
        ("GET", "/v1/jobs?state=queued&state=failed", 400, "invalid_request"),
        ("POST", "/v1/jobs?wait=30", 400, "invalid_request"),
        ("GET", "/v1/queues?x", 400, "invalid_request"),
        ("GET", "/v1/usage?since=2020-01-01", 400, "invalid_request"),
        ("GET", "/v1/jobs?since=2020-01-01", 400, "invalid_request"),
    ],
)
def test_each_refusal_has_the_same_envelope(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    refused = http.request(method, path, headers={"x-request-id": "mine-1"})
    assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["request_id"] == refused.headers["x-request-id"] == "mine-1"
    if status == 405:
        assert refused.headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_an_unexpected_error_has_it_as_well_and_no_words_of_python(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Client, "list", fail)
    with caplog.at_level(logging.ERROR):
        refused = http.get("/v1/jobs")
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (500, "internal_error")
    assert problem["request_id"] == refused.headers["x-request-id"]
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in refused.text
    assert problem["request_id"] in caplog.text


def test_head_is_get_without_the_body_and_a_stream_ends_after_its_head(http: httpx.Client) -> None:
    job_id = http.post("/v1/jobs", json=ASKED).json()["id"]
    for path in (
        "/v1/jobs",
        f"/v1/jobs/{job_id}",
        "/v1/models",
        "/livez",
        f"/v1/jobs/{job_id}/events",
    ):
        head = http.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        if not path.endswith("events"):
            got = http.get(path)
            assert head.headers["content-length"] == got.headers["content-length"], path
            assert head.headers["content-type"] == got.headers["content-type"], path
    assert http.head("/v1/jobs/job_0").status_code == 404
    assert http.head("/v1/jobs:batch").status_code == 405


def test_options_names_the_methods_of_a_path_without_a_key(connect: Connect) -> None:
    nobody = connect()
    for path, allow in (
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/v1/jobs/job_1", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/jobs/job_1/cancel", "OPTIONS, POST"),
    ):
        found = nobody.options(path)
        assert (found.status_code, found.headers["allow"], found.content) == (204, allow, b"")
        assert "access-control-allow-origin" not in found.headers


def test_large_answers_are_compressed_and_streams_never_are(http: httpx.Client) -> None:
    many = {"jobs": [{**ASKED, "custom_id": f"c{n}"} for n in range(20)]}
    job_id = http.post("/v1/jobs:batch", json=many).json()["jobs"][0]["job"]["id"]
    packed = http.get("/v1/jobs")
    plain = http.get("/v1/jobs", headers={"accept-encoding": "br, gzip;q=0"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) * 3 < int(plain.headers["content-length"])
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    http.post(f"/v1/jobs/{job_id}/cancel")
    with http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        assert "content-encoding" not in stream.headers


@pytest.fixture
def open_to_pages(settings: Settings) -> Iterator[httpx.Client]:
    with (
        serve_gateway(
            settings, gateway_open=True, gateway_cors_origins=f"{PAGE}, https://b.org"
        ) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        yield http


def test_listed_origins_may_call_and_read_what_they_need(open_to_pages: httpx.Client) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,prefer",
    }
    allowed = open_to_pages.options("/v1/jobs", headers={"origin": PAGE, **asked})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    refused = open_to_pages.options("/v1/jobs", headers={"origin": "https://evil.org", **asked})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    for path in ("/v1/jobs", "/v1/nothing"):
        answer = open_to_pages.get(path, headers={"origin": PAGE})
        assert answer.headers["access-control-allow-origin"] == PAGE
        exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
        assert {"location", "retry-after", "x-request-id", "ratelimit", "etag"} <= {*exposed}
        assert "access-control-allow-credentials" not in answer.headers
    made = open_to_pages.post("/v1/jobs", json=ASKED, headers={"origin": PAGE})
    assert made.status_code == 202


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"origin": "https://evil.org"}, 403, "foreign_origin"),
        ({"origin": "null"}, 403, "foreign_origin"),
        ({"sec-fetch-site": "cross-site"}, 403, "foreign_origin"),
        ({"host": "evil.org"}, 421, "foreign_host"),
        ({"host": "127.0.0.1.evil.org:80"}, 421, "foreign_host"),
        ({"host": ""}, 421, "foreign_host"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content-type": ""}, 415, "unsupported_media_type"),
        ({"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ],
)
def test_a_web_page_of_another_site_cannot_use_a_gateway_without_keys(
    open_to_pages: httpx.Client, headers: dict[str, str], status: int, code: str
) -> None:
    refused = open_to_pages.post("/v1/jobs", json=ASKED, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    assert open_to_pages.get("/v1/jobs").json()["jobs"] == []
    if code == "foreign_host":
        assert open_to_pages.get("/v1/jobs", headers=headers).status_code == 421


def test_its_own_pages_and_programs_may(open_to_pages: httpx.Client) -> None:
    port = open_to_pages.base_url.port
    for headers in (
        {},
        {"host": f"localhost:{port}"},
        {"host": f"[::1]:{port}", "origin": f"http://[::1]:{port}"},
    ):
        assert open_to_pages.post("/v1/jobs", json=ASKED, headers=headers).status_code == 202


def test_a_body_without_a_type_is_refused_with_keys_too(http: httpx.Client) -> None:
    refused = http.post("/v1/jobs", content=b"{}")
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "origins", ["app.example.org", "https://a.org/", "ftp://a.org", "https://a.org b", "*"]
)
def test_origins_that_match_no_page_are_refused_at_the_start(origins: str) -> None:
    with pytest.raises(ValueError, match="VIDEOQA_GATEWAY_CORS_ORIGINS"):
        GatewaySettings(gateway_open=True, gateway_cors_origins=origins)


def test_messages_do_not_tell_of_the_server(
    http: httpx.Client,
    settings: Settings,
    redis_client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = settings.redis_url.partition("://")[2].partition("/")[0]
    job_id = http.post("/v1/jobs", json=ASKED).json()["id"]
    record = f"{settings.prefix}:job:{job_id}"
    unknown = http.get("/v1/jobs/job_" + "0" * 27)
    batch = http.post("/v1/jobs:batchGet", json={"ids": ["job_" + "0" * 27]})
    redis_client.hset(record, "request", "{")
    garbage = http.get(f"/v1/jobs/{job_id}")
    redis_client.delete(record)
    redis_client.set(record, "another type")
    of_type = http.get(f"/v1/jobs/{job_id}")
    for response in (unknown, batch, garbage, of_type):
        for word in (address, settings.prefix, "VIDEOQA_", "Redis at"):
            assert word not in response.text, response.text
    assert unknown.json()["code"] == "job_not_found"
    assert garbage.json()["code"] == "record_unreadable"
    assert f"request {garbage.headers['x-request-id']}: record {record}" in caplog.text


def test_an_outage_tells_callers_nothing_of_redis_and_the_log_all(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    away = settings.model_dump() | {"redis_url": "redis://:secret@127.0.0.1:1/0"}
    with (
        serve_gateway(GatewaySettings(**away, gateway_port=0, gateway_open=True)) as gateway,
        httpx.Client(base_url=gateway.url) as http,
    ):
        for path in ("/v1/jobs", "/v1/files", "/readyz"):
            refused = http.get(path)
            assert refused.status_code == 503
            assert "127.0.0.1:1" not in refused.text
    assert "Redis at 127.0.0.1:1 " in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("/v1/jobs?limit=5000", None, "limit: got '5000', expected at most 1000"),
        ("/v1/jobs?limit=x", None, "limit: got 'x', expected a whole number"),
        ("/v1/jobs?state=done", None, "state: got 'done', expected 'queued', "),
        ("/v1/jobs", {"questions": ["?"]}, "inputs: got none, expected a value"),
        (
            "/v1/jobs",
            ASKED | {"sampling": {"frames": "8"}},
            "sampling.frames: got '8', expected a ",
        ),
        ("/v1/jobs", ASKED | {"tags": "a"}, "tags: got 'a', expected a list"),
        ("/v1/jobs", ASKED | {"sampling": 8}, "sampling: got 8, expected an object"),
        ("/v1/batches", {"endpoint": "/v1"}, "input_file_id: got none, expected a value"),
        ("/v1/keys", {"name": 1, "roles": ["read"]}, "name: got 1, expected text"),
        ("/v1/keys", {"name": "a", "roles": []}, "roles: got 0, expected at least 1 items"),
        ("/v1/queues:pause", {"model": 1}, "model: got 1, expected text"),
    ],
)
def test_a_wrong_field_is_told_what_was_got_and_what_was_expected(
    connect: Connect, path: str, body: Any, detail: str
) -> None:
    http = connect("admin")
    refused = http.get(path) if body is None else http.post(path, json=body)
    assert refused.status_code == 400
    found = refused.json().get("detail") or refused.json()["error"]["message"]
    assert detail in found, found
    assert "nput should" not in found


def test_each_request_is_one_line_with_its_id_route_status_and_time(
    http: httpx.Client,
) -> None:
    """The id is on the lines within the request as well; probes are lines for debugging."""
    trace = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    # Not by capsys: a line that is written while it reads is lost.
    with redirect_stderr(io.StringIO()) as written, configured_logs("json", level="DEBUG"):
        unknown = "job_00000000000aaaaaaaaaaaaaaaa"
        http.get(f"/v1/jobs/{unknown}", headers={"x-request-id": "mine-1", **trace})
        http.get("/nothing/here?a=hush")
        http.get("/livez")
        wait_until(lambda: "/livez" in written.getvalue())  # a line is written behind its answer
    text = written.getvalue()
    lines = [line for line in parse_lines(text) if line["event"] in ("request", "probe")]
    assert all(line.pop("ms") >= 0 for line in lines)
    found = [
        tuple(line.get(name) for name in ("event", "method", "route", "status", "trace_id"))
        for line in lines
    ]
    assert found == [
        ("request", "GET", "/v1/jobs/{job_id}", 404, "ab" * 16),
        ("request", "GET", "(no route)", 404, None),
        ("probe", "GET", "/livez", 200, None),
    ]
    assert lines[0]["request_id"] == "mine-1"
    assert lines[1]["request_id"].startswith("req_")
    assert "hush" not in text
