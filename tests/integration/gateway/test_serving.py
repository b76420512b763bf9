"""The gateway's server: connections that do not stall, TLS, proxies, and a laptop without keys."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import redis
import trustme
from support.gateway import serve_gateway

from videoqa.errors import ConfigurationError
from videoqa.gateway import GatewayServer, GatewaySettings
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.access.sessions import SessionStore
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]


def test_an_answer_waits_for_no_acknowledgement(gateway: GatewayServer) -> None:
    """A delayed acknowledgement takes 40 ms of each answer on a kept connection, unless TCP_NODELAY is set."""
    host = gateway.url.removeprefix("http://")
    with closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        connection.request("GET", "/livez")
        connection.getresponse().read()
        (open_one,) = gateway.server_state.connections
        its_socket = open_one.transport.get_extra_info("socket")
        assert its_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def log_in(
    http: httpx.Client, keys: KeyStore, settings: Settings, client: redis.Redis, **headers: str
) -> str:
    """Opens a link, and returns the cookie that the browser is given."""
    sessions = SessionStore(client, url=settings.redis_url, prefix=settings.prefix)
    token = sessions.make_login(keys.create("x", ["read"]).key.id)
    answer = http.get("/login", params={"token": token}, headers=headers)
    assert answer.status_code == 303
    return answer.headers["set-cookie"]


def test_a_gateway_speaks_tls(
    settings: Settings, keys: KeyStore, redis_client: redis.Redis, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(tmp_path / "cert.pem", append=True)
    trust = ssl.create_default_context()
    files = {
        "gateway_tls_cert": str(tmp_path / "cert.pem"),
        "gateway_tls_key": str(tmp_path / "key.pem"),
    }
    with serve_gateway(settings, **files) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(f"{server.url}/livez", verify=trust)
        authority.configure_trust(trust)
        with httpx.Client(base_url=server.url, verify=trust) as http:
            assert http.get("/livez").status_code == 200
            assert "secure" in log_in(http, keys, settings, redis_client).lower()


@pytest.mark.parametrize(("proxies", "is_believed"), [("127.0.0.0/8", True), ("10.0.0.7", False)])
def test_only_listed_proxies_are_believed(
    settings: Settings,
    keys: KeyStore,
    redis_client: redis.Redis,
    proxies: str,
    is_believed: bool,
) -> None:
    forged = {"x-forwarded-proto": "https", "x-forwarded-for": "10.0.0.7"}
    with (
        serve_gateway(settings, gateway_proxies=proxies) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        cookie = log_in(http, keys, settings, redis_client, **forged)
        assert ("secure" in cookie.lower()) == is_believed


@pytest.mark.parametrize("proxies", ["*", "proxy.example", "10.0.0.0/8,*", "", "10.0.0.0/33"])
def test_proxies_are_addresses_and_networks(proxies: str) -> None:
    with pytest.raises(ConfigurationError, match="expected addresses and networks"):
        GatewaySettings(gateway_proxies=proxies)


def test_a_laptop_without_keys_reads_its_own_files(settings: Settings) -> None:
    """The folders that a worker may read bound them there."""
    asked = {"inputs": ["file:///home/me/x.mp4", "s3://mine/x.mp4"], "questions": ["What?"]}
    with serve_gateway(settings, gateway_open=True) as server:
        assert httpx.post(f"{server.url}/v1/jobs", json=asked).status_code == 202
        foreign = {"host": "evil.example"}
        assert httpx.get(f"{server.url}/v1/jobs", headers=foreign).status_code == 421


@pytest.mark.parametrize("kind", ["raw", "form", "upload"])
def test_a_file_is_as_large_as_its_key_may_upload(
    gateway: GatewayServer, keys: KeyStore, kind: str
) -> None:
    made = keys.create("x", ["submit"], max_file_bytes=100_000)
    data = b"x" * 200_000
    headers = {"authorization": f"Bearer {made.text}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=30) as http:
        if kind == "raw":
            refused = http.post("/v1/files", content=data, headers={"content-type": "video/mp4"})
        elif kind == "form":
            fields = {"purpose": "user_data"}
            refused = http.post("/v1/files", data=fields, files={"file": ("x.mp4", data)})
        else:
            body = {"filename": "x.mp4", "purpose": "user_data", "bytes": 200_000}
            refused = http.post("/v1/uploads", json=body | {"mime_type": "video/mp4"})
        code = refused.json().get("code") or refused.json()["error"]["code"]
        assert (refused.status_code, code) == (413, "file_too_large"), refused.text
