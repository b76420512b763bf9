"""The frame of the dashboard over HTTP: prefixes, proxies, forms, errors, and what Redis pays for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from support.gateway import make_key, serve_frozen, serve_gateway
from support.processes import wait_until
from support.redis import read_commands
from support.worker import announce, fail

from videoqa.gateway import GatewayServer, GatewaySettings
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.access.sessions import COOKIE, SessionStore
from videoqa.gateway.dashboard import login
from videoqa.gateway.dashboard.links import choose_local_path
from videoqa.gateway.dashboard.static_files import VERSION
from videoqa.jobs import Ledger
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]
HTML = "text/html; charset=utf-8"


class Links(HTMLParser):
    """The addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = ("href", "src", "action", "hx-get", "hx-post")
        self.found += [(tag, value or "") for name, value in attrs if name in names]

    def of(self, tag: str) -> list[str]:
        return [value for name, value in self.found if name == tag and not value.startswith("#")]


@pytest.fixture
def log_in(gateway: GatewayServer, settings: Settings, redis_client: redis.Redis) -> Connect:
    """Returns a function that makes a browser with a session of a new key."""
    sessions = SessionStore(redis_client, url=settings.redis_url, prefix=settings.prefix)

    def log_in(*roles: str, tenant: str | None = None, url: str | None = None) -> httpx.Client:
        key_id = make_key(settings, *roles, tenant=tenant).split("_")[1]
        cookies = {COOKIE: sessions.make_session(key_id)}
        return httpx.Client(base_url=url or gateway.url, cookies=cookies, timeout=30)

    return log_in


def find_token(http: httpx.Client) -> str:
    found = re.search('name="csrf" value="([0-9a-f]+)"', http.get("/").text)
    assert found is not None
    return found[1]


# Static files


def test_a_static_file_is_kept_for_good_under_the_hash_of_all(connect: Connect) -> None:
    http = connect()
    own = http.get(f"/static/{VERSION}/app.css")
    assert own.headers["content-type"] == "text/css; charset=utf-8"
    assert own.headers["cache-control"] == "public, max-age=31536000, immutable"
    again = http.get(own.url.path, headers={"if-none-match": own.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = http.get("/static/another-release/app.css")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")
    for name in ("nothing.css", "..%2fframe.py", "%2e%2e"):
        assert http.get(f"/static/{VERSION}/{name}").status_code == 404


def test_the_style_and_the_script_are_the_gateways_own(connect: Connect) -> None:
    http = connect()
    style, script = (http.get(f"/static/{VERSION}/{name}").text for name in ("app.css", "app.js"))
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(r"https?://|eval\(|new Function|innerHTML", script)


# Headers and errors


def test_a_page_allows_nothing_inline_and_nothing_foreign(log_in: Connect) -> None:
    answer = log_in().get("/")
    policy = answer.headers["content-security-policy"].split("; ")
    assert {
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
    } <= {*policy}
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<style|\sstyle=|<script(?! src)|\son\w+=", answer.text)
    assert len(answer.content) < 200_000


def test_errors_of_pages_are_pages_and_those_of_the_api_are_not(
    connect: Connect, log_in: Connect
) -> None:
    nobody, submitter = connect().get("/?a=1"), log_in("submit").get("/")
    assert (nobody.status_code, nobody.headers["content-type"]) == (401, HTML)
    assert 'name="next" value="/?a=1"' in nobody.text
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    assert (submitter.status_code, submitter.headers["content-type"]) == (403, HTML)
    assert "expected read" in submitter.text
    unknown = {
        path: log_in().get(path, headers={"accept": "text/html"}) for path in ("/no", "/no/no")
    }
    for answer in unknown.values():
        assert (answer.status_code, answer.headers["content-type"]) == (404, HTML)
    assert "/&lt;b&gt;" in log_in().get("/<b>", headers={"accept": "text/html"}).text
    for path in ("/no", "/v1/jobs/none"):
        assert connect("admin").get(path).headers["content-type"] == "application/problem+json"


def test_the_navigation_leads_only_where_the_key_may_go(log_in: Connect) -> None:
    for roles, tenant in (
        (("read",), None), (("read", "submit"), "a"), (("read", "operate"), None),
        (("admin",), None), (("admin",), "a"),
    ):  # fmt: skip
        http = log_in(*roles, tenant=tenant)
        links = Links(http.get("/").text).of("a")
        assert "/" in links
        for link in links:
            assert http.get(link).status_code == 200, f"{roles} of {tenant}: {link}"


# Login and forms


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/jobs?state=failed", "/jobs?state=failed"), ("", "/"), (None, "/"), ("https://evil.example", "/"),
        ("//evil.example", "/"), ("/\\evil.example", "/"), ("/a\r\nb", "/"), ("/" + "a" * 3000, "/"), ("jobs", "/"),
        ("/a\\b", "/"), ("/\tevil", "/"),
    ],
)  # fmt: skip
def test_a_login_leads_to_a_path_of_the_gateway_alone(given: str | None, path: str) -> None:
    assert choose_local_path(given) == path


def test_a_key_logs_in_and_leads_back(connect: Connect, settings: Settings) -> None:
    http, key = connect(), make_key(settings)
    answer = http.post("/login", data={"key": f" {key}\n", "next": "/?page=2"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?page=2")
    cookie = answer.headers["set-cookie"].lower()
    assert {"httponly", "samesite=lax", "path=/"} <= set(cookie.split("; "))
    assert key not in str(answer.headers)
    assert http.get("/").status_code == 200
    wrong = connect().post("/login", data={"key": key[:-1] + ("a" if key[-1] != "a" else "b")})
    assert (wrong.status_code, wrong.headers["content-type"]) == (401, HTML)
    assert key[:-1] not in wrong.text
    foreign = connect().post(
        "/login", data={"key": key}, headers={"origin": "https://evil.example"}
    )
    assert foreign.status_code == 403


def test_an_address_has_a_limit_of_tries(
    connect: Connect, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "TRIES", "3/h")
    http = connect()
    statuses = [http.post("/login", data={"key": "vqa_x"}).status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]
    refused = http.post("/login", data={"key": make_key(settings)})
    assert (refused.status_code, refused.headers["content-type"]) == (429, HTML)
    assert int(refused.headers["retry-after"]) > 0
    assert "set-cookie" not in refused.headers


def test_a_form_without_the_token_of_its_session_is_refused(log_in: Connect) -> None:
    http, other = log_in(), log_in()
    for token in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": find_token(other)}):
        refused = http.post("/logout", data=token)
        assert (refused.status_code, refused.headers["content-type"]) == (403, HTML)
        assert "stale_form" in refused.text
    assert http.get("/").status_code == 200
    assert http.post("/logout", data={"csrf": find_token(http)}).status_code == 303
    assert http.get("/").status_code == 401


def test_a_notice_that_nobody_has_signed_is_not_shown(log_in: Connect) -> None:
    http = log_in()
    http.cookies.set("videoqa_notice", "WyJnb29kIiwiZm9yZ2VkIl0.0000")
    answer = http.get("/")
    assert "forged" not in answer.text
    assert "videoqa_notice" in answer.headers["set-cookie"], "it is deleted"


# Prefixes and proxies


@pytest.fixture
def prefixed(gateway_settings: GatewaySettings) -> Iterator[GatewayServer]:
    with serve_gateway(gateway_settings, gateway_prefix="/team/video") as server:
        yield server


@pytest.mark.parametrize("is_stripped", [True, False])
@pytest.mark.parametrize("is_setting", [True, False])
def test_no_link_leaves_the_prefix(
    request: pytest.FixtureRequest, log_in: Connect, is_stripped: bool, is_setting: bool
) -> None:
    server = request.getfixturevalue("prefixed") if is_setting else None
    http = log_in(url=server.url if server else None)
    if not is_setting:
        http.headers["x-forwarded-prefix"] = "/team/video/"
    start = "" if is_stripped else "/team/video"
    answer = http.get(f"{start}/?a=1")
    assert answer.status_code == 200
    links = [value for _, value in Links(answer.text).found if not value.startswith("#")]
    assert len(links) > 5
    for link in links:
        assert link.startswith("/team/video/"), link
    assert "/team/video/?a=1" in links, "the page asks itself"
    (style,) = [link for link in links if link.endswith("app.css")]
    assert http.get(style.removeprefix("" if not is_stripped else "/team/video")).status_code == 200
    assert http.get(f"{start}/v1/jobs").status_code == 200
    out = http.post(
        f"{start}/logout", data={"csrf": re.findall('csrf" value="(\\w+)"', answer.text)[0]}
    )
    assert out.headers["location"] == "/team/video/login"
    assert "path=/team/video" in out.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/a b", "a", "/a/../..//b", "/" + "a" * 300, '/"><b']
)
def test_a_prefix_that_is_none_is_ignored(log_in: Connect, prefix: str) -> None:
    links = Links(log_in().get("/", headers={"x-forwarded-prefix": prefix}).text)
    assert "/login" not in links.found
    assert "/" in links.of("a")


def test_only_listed_proxies_are_believed(
    gateway_settings: GatewaySettings, log_in: Connect
) -> None:
    with serve_gateway(gateway_settings, gateway_proxies="10.0.0.0/8") as server:
        http = log_in(url=server.url)
        answer = http.get(
            "/", headers={"x-forwarded-prefix": "/team", "x-forwarded-proto": "https"}
        )
        assert "/" in Links(answer.text).of("a")


def test_forms_work_behind_a_proxy_that_ends_tls(connect: Connect, settings: Settings) -> None:
    """One that hands on the name, and one that does not: then the browser itself says that it is no foreign page."""
    proxy = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7"}
    named = {"host": "video.example.org", "origin": "https://video.example.org"}
    renamed = {"origin": "https://video.example.org", "sec-fetch-site": "same-origin"}
    for headers in (proxy | named, proxy | renamed):
        answer = connect().post("/login", data={"key": make_key(settings)}, headers=headers)
        assert answer.status_code == 303, answer.text
        assert "secure" in answer.headers["set-cookie"].lower()
    plain = connect().post(
        "/login",
        data={"key": make_key(settings)},
        headers=proxy | {"origin": "http://evil.example"},
    )
    assert plain.status_code == 403


# What Redis pays, and its absence


def test_fifty_readers_cost_redis_what_one_does(
    gateway: GatewayServer, log_in: Connect, redis_client: redis.Redis
) -> None:
    http = log_in()
    http.get("/")
    snapshots = gateway._app.state.resources.snapshots

    def cost(readers: int) -> int:
        snapshots.drop()
        redis_client.config_resetstat()
        part = {"hx-request": "true", "hx-target": "live"}
        with ThreadPoolExecutor(readers) as pool:
            answers = list(pool.map(lambda _: http.get("/", headers=part), range(readers)))
        assert {answer.status_code for answer in answers} == {200}
        return sum(read_commands(redis_client).values())

    one = cost(1)
    fifty = cost(50)
    # Another second may have begun, in which the session is checked again, by a few at once.
    assert fifty <= one + 50, f"{one} commands for one, {fifty} for fifty"


def test_a_part_that_is_unchanged_is_304(log_in: Connect) -> None:
    http = log_in()
    part = {"hx-request": "true", "hx-target": "live"}
    first = http.get("/", headers=part)
    assert "<html" not in first.text
    again = http.get("/", headers=part | {"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert abs(int(again.headers["videoqa-now"]) / 1000 - time.time()) < 5


def test_a_frozen_redis_is_a_page_within_five_seconds(tmp_path: Path) -> None:
    with serve_frozen(tmp_path) as http:
        begun = time.monotonic()
        answer: Any = http.get("/")
        assert time.monotonic() - begun < 5
        assert (answer.status_code, answer.headers["content-type"]) == (503, HTML)
        assert "Redis does not answer" in answer.text
        assert http.get("/livez").status_code == 200
        assert http.get("/readyz").status_code == 503


def test_an_open_gateway_needs_no_login(settings: Settings, keys: KeyStore) -> None:
    with (
        serve_gateway(settings, gateway_open=True) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        assert http.get("/").status_code == 200
        assert http.get("/login").headers["location"] == "/"
        assert "Log out" not in http.get("/").text


# The overview


def test_the_overview_begins_with_what_needs_attention(
    log_in: Connect, connect: Connect, ledger: Ledger
) -> None:
    submitter, http = connect("submit"), log_in("read", "operate")
    assert "Nothing needs attention." in http.get("/").text
    asked = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"], "model": "org/<b>one</b>"}
    for _ in range(3):
        submitter.post("/v1/jobs", json=asked)
    fail(ledger, model="org/<b>one</b>")
    client = submitter.post("/v1/jobs", json=asked | {"priority": "bulk"})
    assert client.status_code == 202
    assert connect("operate").post("/v1/queues:pause", json={"model": "org/<b>one</b>"}).is_success
    announce(ledger, "demo")
    wait_until(lambda: "Nothing needs attention." not in http.get("/").text)
    text = http.get("/").text
    assert "org/&lt;b&gt;one&lt;/b&gt; (bulk): paused" in text
    assert text.index("paused for") < text.index("Waiting")
    assert "<b>one" not in text
    assert re.search(r"model_error</a>\s+1|model_error 1", text)
    assert "host:1" in text
    assert "host:1" not in log_in("read").get("/").text, "the worker strip is an operator's"


def test_a_tenant_sees_its_own_figures(log_in: Connect, connect: Connect) -> None:
    asked = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"], "model": "m"}
    for tenant, jobs in (("a", 1), ("b", 2)):
        for _ in range(jobs):
            assert connect("submit", tenant=tenant).post("/v1/jobs", json=asked).status_code == 202
    for tenant, jobs in (("a", 1), ("b", 2)):
        text = log_in("read", tenant=tenant).get("/").text
        assert f"The jobs of tenant {tenant}." in text
        waiting = re.search(r'data-label="Waiting" class="number">(\d+)<', text)
        assert waiting is not None
        assert int(waiting[1]) == jobs
