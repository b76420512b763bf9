"""https:// against a real TLS server, whose certificate a private authority issued."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from support.servers import HttpServer, Route, serving

from videoqa.errors import AddressForbidden, SourceError, SourceHttpError
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources

BODY = bytes(range(256)) * 40_000
"""Ten megabytes: taken in ranges, over several connections."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[HttpServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with serving(context) as server:
        server.routes["/a.mp4"] = Route(BODY)
        yield server


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trusts the authority as an operator makes a worker trust a company's own."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


def refusal(server: HttpServer, url: str, spool: Path) -> SourceError:
    config = SourceConfig(spool_dir=spool, private_addresses=True)
    with Sources(config) as sources, pytest.raises(SourceError) as caught, sources.open(url):
        pass
    return caught.value


@pytest.mark.usefixtures("trusting")
def test_parts_of_a_file_come_from_a_server_whose_authority_is_trusted(
    tls_server: HttpServer, tmp_path: Path
) -> None:
    config = SourceConfig(spool_dir=tmp_path / "spool", private_addresses=True)
    with Sources(config) as sources, sources.open(tls_server.url("/a.mp4")) as copy:
        copy.ensure([(0, 1000), (5_000_000, 5_100_000), (len(BODY) - 1000, len(BODY))])
        with copy.path.open("rb") as file:
            file.seek(5_000_000)
            assert file.read(100_000) == BODY[5_000_000:5_100_000]
        assert copy.fetched_bytes < len(BODY) // 2


def test_a_server_whose_authority_is_unknown_is_refused_with_the_next_step(
    tls_server: HttpServer, tmp_path: Path
) -> None:
    error = refusal(tls_server, tls_server.url("/a.mp4"), tmp_path)
    assert type(error) is SourceHttpError
    assert "certificate" in str(error)
    assert "SSL_CERT_FILE" in str(error)
    assert not error.retryable
    assert tls_server.routes["/a.mp4"].seen == []


@pytest.mark.usefixtures("trusting")
def test_a_certificate_of_another_host_is_refused(tls_server: HttpServer, tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{tls_server.server_port}/a.mp4"
    error = refusal(tls_server, url, tmp_path)
    assert "certificate" in str(error)
    assert tls_server.routes["/a.mp4"].seen == []


@pytest.mark.usefixtures("trusting")
def test_a_redirect_from_https_to_http_is_not_followed(
    tls_server: HttpServer, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a.mp4"] = Route(BODY)
    tls_server.routes["/moved"] = Route(status=302, headers={"Location": http_server.url("/a.mp4")})
    url = tls_server.url("/moved")
    for written in (url, url.replace("https:", "HTTPS:")):
        assert type(refusal(tls_server, written, tmp_path)) is AddressForbidden
    assert http_server.routes["/a.mp4"].seen == []
