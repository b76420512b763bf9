"""Pages of the dashboard against hostile tenants, authors, pages of other sites, and careless operators."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import redis
from fastapi.routing import iter_route_contexts
from support.gateway import make_key, serve_frozen, serve_gateway
from support.processes import wait_until
from support.sample_jobs import SampleJobs

from videoqa.client import Client
from videoqa.contract import FailedRow, Failure, RunFailures, RunReport, WorkerInfo
from videoqa.gateway import GatewayServer, GatewaySettings, make_app
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.access.sessions import COOKIE, SessionStore
from videoqa.gateway.dashboard.frame import PageRoute
from videoqa.gateway.dashboard.login import find_network
from videoqa.jobs import Ledger
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

QUOTES = '"' * 32_000
"""A text whose characters take five bytes each in HTML."""
MOST_BYTES = 200_000


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    output = (tmp_path / "sheets").as_uri() + "/{job_id}.jpg"
    return settings.model_copy(update={"sheet_output": output})


@pytest.fixture
def jobs(client: Client, ledger: Ledger, tmp_path: Path) -> SampleJobs:
    return SampleJobs(client, ledger, tmp_path / "sheets")


def check_size(http: httpx.Client, path: str) -> str:
    page = http.get(path)
    assert page.status_code == 200, (path, page.text[-500:])
    assert len(page.content) < MOST_BYTES, f"{path}: {len(page.content):,} bytes"
    return page.text


def test_pages_of_a_hostile_job_are_bounded(connect: Connect, jobs: SampleJobs) -> None:
    http = connect("submit", "read")
    name = f"https://a.org/{'&' * 8000}.mp4"
    many = jobs.run(
        "?", *[QUOTES] * 64, questions=[QUOTES[:5500]] * 64, inputs=[name] * 32, custom_id=QUOTES[:256],
        metadata={f"{n}{QUOTES[:60]}": QUOTES[:1024] for n in range(32)}, tags=[f"{n}{QUOTES[:60]}" for n in range(8)],
        frames=256,
    )  # fmt: skip
    for path in ("/jobs", f"/jobs/{many}", f"/jobs/{many}?part=4", f"/ask?from={many}"):
        check_size(http, path)
    sampling = {"method": "segment", "segment_s": 4, "frames": 1}
    parts = jobs.run(QUOTES[:9000], QUOTES, segments=200, sampling=sampling, stream=True)
    check_size(http, f"/jobs/{parts}")


def test_a_list_of_hostile_jobs_is_bounded(connect: Connect, jobs: SampleJobs) -> None:
    for n in range(55):
        jobs.submit(
            QUOTES[:400], inputs=[f"https://a.org/{'&' * 400}.mp4"] * 2, tenant=f"{n}{QUOTES[:120]}",
            model=f"{n}{QUOTES[:200]}", tags=[f"{m}{QUOTES[:60]}" for m in range(8)],
        )  # fmt: skip
    http = connect("admin")
    for path in ("/", "/jobs", "/queues", "/jobs/bulk?action=cancel&state=queued"):
        check_size(http, path)


def test_dead_letters_with_distinct_hostile_messages_are_bounded(
    connect: Connect, jobs: SampleJobs, ledger: Ledger
) -> None:
    for n in range(30):
        claim = jobs.begin(
            jobs.submit(QUOTES[:400], tenant=QUOTES[:120], custom_id=f"{n}{QUOTES[:250]}")
        )
        message = f"{n} {chr(97 + n % 26) * n} {QUOTES[:3000]}"
        failure = Failure(code="model_error", message=message, attempt=1)
        ledger.fail(claim.job_id, claim.token, failure, delay_s=0)
    http = connect("admin")
    assert 'href="/dead/model_error?within=hour"' in check_size(http, "/")
    for path in (
        "/dead",
        "/dead/model_error",
        "/dead/all",
        "/jobs/bulk?action=purge&state=failed",
        "/jobs?state=failed",
    ):
        check_size(http, path)


def test_pages_of_many_workers_and_queues_are_bounded(
    connect: Connect, ledger: Ledger, client: Client
) -> None:
    now = datetime.now(UTC)
    for n in range(300):
        ledger.announce(
            WorkerInfo(
                id=f"host-{n}:1", model=f"model-{n}", queues=(f"q{n}",), slots=8, running=8, ready=True,
                started_at=now, seen_at=now, host="h" * 60, device_name="NVIDIA H200",
                job_ids=tuple(f"job_{n:020}{m}" for m in range(8)),
            )
        )  # fmt: skip
    for n in range(200):
        client.submit(inputs=["s3://b/x.mp4"], questions=["?"], model=f"none-{n}")
    http = connect("admin")
    shown = [check_size(http, path) for path in ("/", "/workers", "/queues", "/ask")]
    assert "host-299:1" in http.get("/workers?q=host-299").text
    assert "none-199" in http.get("/queues?q=none-199").text
    assert "More" in shown[1]
    assert "More" in shown[2]


def test_pages_of_a_hostile_run_are_bounded(connect: Connect, client: Client) -> None:
    row = FailedRow(row=QUOTES[:200], message=QUOTES[:300], job_id=QUOTES[:200])
    failures = tuple(RunFailures(code=f"code_{n}", count=5, examples=(row,) * 5) for n in range(20))
    for n in range(55):
        report = RunReport(
            id=f"run_{n:024}", kind="caption", name=QUOTES[:200], output=f"s3://b/{QUOTES[:2000]}", total=9,
            host=QUOTES[:200], who=QUOTES[:200], failures=failures, failed=100,
        )  # fmt: skip
        client.announce_run(report, begins=True)
    http = connect("admin")
    for path in ("/runs", f"/runs/{report.id}"):
        check_size(http, path)


# Sessions, logins and forms


@pytest.fixture
def sessions(settings: Settings, redis_client: redis.Redis) -> SessionStore:
    return SessionStore(redis_client, url=settings.redis_url, prefix=settings.prefix)


def test_a_session_of_a_leaked_key_ends_when_the_key_is_rotated(
    gateway: GatewayServer, keys: KeyStore, settings: Settings
) -> None:
    leaked = make_key(settings)
    key_id = leaked.split("_")[1]
    with httpx.Client(base_url=gateway.url) as http:
        assert http.post("/login", data={"key": leaked}).status_code == 303
        keys.rotate(key_id, overlap_s=3600)
        time.sleep(1.1)  # the session is checked again
        assert http.get("/jobs").status_code == 200, "the old text is valid as well"
        changed = keys.rotate(key_id)
        wait_until(lambda: http.get("/jobs").status_code == 401)
        assert http.post("/login", data={"key": changed.text}).status_code == 303
        assert http.get("/jobs").status_code == 200


def test_a_link_that_another_site_opens_is_asked_back(
    gateway: GatewayServer, sessions: SessionStore, settings: Settings
) -> None:
    """Else that site may have its visitor work, and upload videos, in a session of its own."""
    token = sessions.make_login(make_key(settings).split("_")[1])
    with httpx.Client(base_url=gateway.url) as http:
        for site in ("cross-site", "same-site"):
            asked = http.get("/login", params={"token": token}, headers={"sec-fetch-site": site})
            assert (asked.status_code, "set-cookie" in asked.headers) == (200, False)
            assert f'name="token" value="{token}"' in asked.text
        form = {"token": token, "next": "/jobs"}
        foreign = http.post("/login", data=form, headers={"sec-fetch-site": "cross-site"})
        assert (foreign.status_code, "set-cookie" in foreign.headers) == (403, False)
        own = http.post("/login", data=form, headers={"sec-fetch-site": "same-origin"})
        assert (own.status_code, own.headers["location"]) == (303, "/jobs")
        assert COOKIE in own.cookies
        assert http.post("/login", data=form).status_code == 401, "a link logs in once"


def test_tries_are_counted_for_what_one_caller_has_of_the_addresses() -> None:
    assert find_network("203.0.113.7") == "203.0.113.7"
    assert find_network("::ffff:203.0.113.7") == "203.0.113.7"
    assert find_network("2001:db8:1:2:3::4") == find_network("2001:db8:1:2:ffff::") != ""
    assert find_network("2001:db8:1:2::1") != find_network("2001:db8:1:3::1")
    assert find_network("unknown") == "unknown"


def test_a_form_of_separators_is_refused_before_it_is_parsed(
    gateway: GatewayServer, settings: Settings, sessions: SessionStore
) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    token = sessions.make_session(make_key(settings).split("_")[1])
    with httpx.Client(base_url=gateway.url, timeout=30) as http:
        begun_s = time.process_time()
        assert http.post("/login", content=b"&" * 5_000_000, headers=kind).status_code == 413
        assert http.post("/login", content=b"&" * 19_000, headers=kind).status_code == 400
        http.cookies.set(COOKIE, token)
        for path in ("/jobs/selected", "/ask/check", "/queues/pause", "/keys"):
            refused = http.post(path, content=b"&" * 5_000_000, headers=kind)
            assert (refused.status_code, refused.headers["content-type"][:9]) == (400, "text/html")
        took_s = time.process_time() - begun_s
    assert took_s < 3, f"{took_s:.1f} s of this process, which serves as well"


def test_an_open_gateway_serves_nobody_behind_a_proxy(settings: Settings) -> None:
    """The proxy says `Host: 127.0.0.1:8080`, as nginx does by default, and the caller's address in a header."""
    with (
        serve_gateway(settings, gateway_open=True) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        for path in ("/", "/v1/jobs", "/livez"):
            refused = http.get(path, headers={"x-forwarded-for": "203.0.113.7"})
            assert (refused.status_code, refused.json()["code"]) == (421, "foreign_host")
        assert http.get("/", headers={"x-forwarded-for": "127.0.0.1"}).status_code == 200
        # A cookie of earlier days, when the gateway asked for keys, changes nothing.
        gone = http.get("/none", headers={"accept": "text/html", "cookie": f"{COOKIE}=x"})
        assert gone.status_code == 404
        assert 'href="/jobs"' in gone.text


FORMS = sorted(
    str(route.path)
    for route in iter_route_contexts(make_app(GatewaySettings()).routes)
    if isinstance(getattr(route, "original_route", route), PageRoute)
    and "POST" in (route.methods or ())
)


def test_no_form_of_any_page_acts_without_the_token_of_its_session(
    gateway: GatewayServer,
    settings: Settings,
    sessions: SessionStore,
    client: Client,
    keys: KeyStore,
) -> None:
    job_id = client.submit(inputs=["s3://b/x.mp4"], questions=["?"]).id
    ids = {"job_id": job_id, "change": "pause", "code": "all"}
    key_ids = [make_key(settings).split("_")[1] for _ in range(2)]
    token = sessions.make_session(key_ids[0])
    with httpx.Client(base_url=gateway.url, timeout=30) as other:
        other.cookies.set(COOKIE, sessions.make_session(key_ids[0]))
        found = re.search('name="csrf" value="([0-9a-f]+)"', other.get("/").text)
        assert found is not None
    with httpx.Client(base_url=gateway.url, timeout=30) as http:
        http.cookies.set(COOKIE, token)
        for path in FORMS:
            filled = re.sub(r"{(\w+)}", lambda match: ids.get(match[1], key_ids[1]), path)
            for form in ({}, {"csrf": found[1]}):
                data = form | {
                    "action": "purge",
                    "ids": job_id,
                    "overlap_s": "0",
                    "name": "x",
                    "roles": "admin",
                }
                answer = http.post(filled, data=data)
                expected = (
                    (401,) if path == "/login" else (400, 415) if "upload" in path else (403,)
                )
                assert answer.status_code in expected, f"{path}: {answer.status_code}"
                assert "set-cookie" not in answer.headers or path == "/login"
    assert len(FORMS) > 15
    assert client.get(job_id).state == "queued"
    assert {key.id for key in keys.list()} == {*key_ids}


def test_no_value_of_an_address_or_a_header_breaks_a_page(connect: Connect, client: Client) -> None:
    http, first = connect("admin"), "0001-01-01T00:00:00+23:59"
    client.submit(inputs=["s3://b/x.mp4"], questions=["?"])
    part = {"hx-request": "true", "hx-target": "content"}
    assert http.get("/jobs/none", headers=part).status_code == 404
    assert http.get("/ask", headers=part).status_code == 200
    for cursor in ("0-0", "1-0", f"{1 << 64}-0", "9" * 20 + "-1", "\u0663-1"):
        for path in ("/audit", "/v1/audit"):
            assert http.get(path, params={"cursor": cursor}).status_code < 500, cursor
    form = {"action": "cancel", "state": "queued", "count": "1", "cut_off": first}
    assert http.post("/jobs/bulk", data=form).status_code < 500
    asked = {"action": "cancel", "filter": {"state": "queued"}, "cut_off": first}
    assert http.post("/v1/bulk-actions", json=asked).status_code < 500
    for value in (
        "%00",
        "%ff",
        "%ed%a0%80",
        "{x}",
        "A" * 3000,
        "9999-12-31T23:59:59%2B23:59",
        "1e999",
    ):
        for path in (
            f"/jobs/{value}", f"/dead/{value}", f"/runs/{value}", f"/keys/{value}", f"/webhooks/{value}",
            f"/jobs?q={value}", f"/jobs?state=failed&since={value}", f"/jobs?cursor={value}", f"/jobs?as_of={value}",
            f"/queues?q={value}", f"/workers?q={value}&start=9", f"/runs?cursor={value}", f"/audit?cursor={value}",
            f"/ask?from={value}", f"/login?next={value}", f"/dead/all?cursor={value}",
        ):  # fmt: skip
            assert http.get(path).status_code < 500, path


def test_a_page_of_an_outage_leads_back_to_itself(tmp_path: Path) -> None:
    with serve_frozen(tmp_path) as http:
        answer = http.get("/dead/%7Bcode%7D?within=day")
        assert answer.status_code == 503
        assert 'href="/dead/%7Bcode%7D?within=day"' in answer.text
