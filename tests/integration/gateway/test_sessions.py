"""Browsers: a link logs in once, its cookie reads, and no other page makes changes with it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
import redis
from support.processes import wait_until

from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore, NewKey
from videoqa.gateway.access.sessions import COOKIE, SessionStore
from videoqa.settings import Settings

ASKED = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"]}


@pytest.fixture
def made(keys: KeyStore) -> NewKey:
    return keys.create("browser", ["admin"])


@pytest.fixture
def sessions(settings: Settings, redis_client: redis.Redis) -> SessionStore:
    return SessionStore(redis_client, url=settings.redis_url, prefix=settings.prefix)


@pytest.fixture
def browser(gateway: GatewayServer, made: NewKey, sessions: SessionStore) -> Iterator[httpx.Client]:
    """A client that has opened the link."""
    with httpx.Client(base_url=gateway.url, timeout=30) as http:
        token = sessions.make_login(made.key.id)
        answer = http.get("/login", params={"token": token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "secure" not in cookie, "the gateway speaks plain HTTP on loopback"
        assert token not in str(answer.headers)
        again = httpx.get(f"{gateway.url}/login", params={"token": token})
        assert again.status_code == 401
        assert "this link was used" in again.text
        yield http


def test_a_session_reads_as_its_key_until_it_logs_out(
    browser: httpx.Client, gateway: GatewayServer, redis_client: redis.Redis
) -> None:
    cookie = browser.cookies[COOKIE]
    assert browser.get("/v1/jobs").status_code == 200
    assert browser.get("/v1/workers").status_code == 200
    assert not [key for key in redis_client.scan_iter("*") if cookie in str(key)]
    own = {"origin": gateway.url, "sec-fetch-site": "same-origin"}
    refused = browser.post("/logout", headers=own)
    assert refused.status_code == 403, "the form has no token"
    token = re.search('name="csrf" value="([0-9a-f]+)"', browser.get("/").text)
    assert token is not None
    out = browser.post("/logout", headers=own, data={"csrf": token[1]})
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert COOKIE not in browser.cookies
    refused = browser.get("/v1/jobs", headers={"cookie": f"{COOKIE}={cookie}"})
    assert (refused.status_code, refused.json()["code"]) == (401, "wrong_login")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_origin_makes_no_change_with_a_cookie(
    browser: httpx.Client, headers: dict[str, str]
) -> None:
    for path in ("/v1/jobs", "/logout"):
        refused = browser.post(path, json=ASKED, headers=headers)
        assert refused.status_code == 403
        assert "foreign_origin" in refused.text
    assert browser.get("/v1/jobs").json()["jobs"] == []


def test_a_page_of_the_gateway_makes_changes(browser: httpx.Client, gateway: GatewayServer) -> None:
    made = browser.post("/v1/jobs", json=ASKED, headers={"origin": gateway.url})
    assert made.status_code == 202


def test_a_session_ends_with_its_key(browser: httpx.Client, keys: KeyStore, made: NewKey) -> None:
    assert browser.get("/v1/jobs").status_code == 200
    keys.revoke(made.key.id)
    wait_until(lambda: browser.get("/v1/jobs").status_code == 401)


@pytest.mark.parametrize("token", ["x", "a" * 5000, "\udcff", "x\r\nset-cookie: a=b"])
def test_a_token_that_is_none_is_refused(gateway: GatewayServer, token: str) -> None:
    with httpx.Client(base_url=gateway.url) as http:
        text = token.encode("utf-8", "surrogateescape")
        refused = http.get("/login", params={"token": text})
        assert refused.status_code == 401
        assert "set-cookie" not in refused.headers
        cookie = {"cookie": f"{COOKIE}={token}"} if token.isalnum() else {}
        assert http.get("/v1/jobs", headers=cookie).status_code == 401
