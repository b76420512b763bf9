"""http:// against a real server that misbehaves in every way a server can."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.addresses import FORBIDDEN_HOSTS, PRIVATE_HOSTS
from support.servers import HttpServer, Route

from videoqa.errors import (
    AddressForbidden,
    InputChanged,
    JobCanceled,
    SourceDenied,
    SourceEmpty,
    SourceError,
    SourceHttpError,
    SourceNotFound,
    SourceTimeout,
    SourceTooLarge,
    SourceUnavailable,
    SourceUnreachable,
)
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources

BODY = bytes(range(256)) * 400


@contextmanager
def opened(spool: Path, **settings: object) -> Iterator[Sources]:
    config = SourceConfig(spool_dir=spool, **{"private_addresses": True, **settings})  # type: ignore[arg-type]
    with Sources(config) as sources:
        yield sources


def refusal(kind: type[SourceError], url: str, spool: Path, **settings: object) -> str:
    with opened(spool, **settings) as sources, pytest.raises(kind) as caught, sources.open(url):
        pass
    assert type(caught.value) is kind
    return str(caught.value)


def test_the_bytes_come_with_what_is_known_of_them(http_server: HttpServer, tmp_path: Path) -> None:
    route = http_server.routes["/a b.mp4?sig=x%2By"] = Route(
        BODY, headers={"Content-Type": "video/mp4"}
    )
    http_server.routes["/a%20b.mp4?sig=x%2By"] = route
    steps: list[tuple[int, int | None]] = []
    with (
        opened(tmp_path) as sources,
        sources.open(
            http_server.url("/a b.mp4?sig=x%2By"), progress=lambda *step: steps.append(step)
        ) as copy,
    ):
        assert copy.path.read_bytes() == BODY
        assert (copy.size_bytes, copy.fetched_bytes) == (len(BODY), len(BODY))
        assert (copy.etag, copy.version_id) == ("v1", None)
    assert steps[-1] == (len(BODY), len(BODY))
    assert route.seen[0]["accept-encoding"] == "identity"
    assert route.seen[0]["host"] == f"127.0.0.1:{http_server.server_port}"


def test_a_body_without_length_is_taken_as_it_ends(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a"] = Route(BODY, declares_length=False)
    with opened(tmp_path) as sources, sources.open(http_server.url("/a")) as copy:
        assert copy.path.read_bytes() == BODY


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (404, SourceNotFound, False),
        (410, SourceNotFound, False),
        (401, SourceDenied, False),
        (403, SourceDenied, False),
        (408, SourceUnavailable, True),
        (425, SourceUnavailable, True),
        (429, SourceUnavailable, True),
        (500, SourceUnavailable, True),
        (503, SourceUnavailable, True),
        (400, SourceHttpError, False),
        (418, SourceHttpError, False),
        (204, SourceEmpty, False),
        (206, SourceHttpError, False),
    ],
)
def test_each_status_has_its_error(
    status: int, kind: type[SourceError], retryable: bool, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(b"" if status == 204 else b"no", status=status)
    assert str(status) in refusal(kind, http_server.url("/a"), tmp_path)
    assert kind.retryable is retryable


def test_messages_do_not_tell_credentials(http_server: HttpServer, tmp_path: Path) -> None:
    url = http_server.url("/a?token=hush").replace("http://", "http://ann:hush@")
    assert "hush" not in refusal(SourceNotFound, url, tmp_path)


def test_user_and_password_are_sent_to_their_own_server_only(
    http_server: HttpServer, tmp_path: Path
) -> None:
    with HttpServer() as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        route = http_server.routes["/a"] = Route(status=302, headers={"Location": other.url("/b")})
        landed = other.routes["/b"] = Route(BODY)
        url = http_server.url("/a").replace("http://", "http://ann:p%40ss@")
        with opened(tmp_path) as sources, sources.open(url):
            pass
        other.shutdown()
    assert base64.b64decode(route.seen[0]["authorization"].split()[1]) == b"ann:p@ss"
    assert "authorization" not in landed.seen[0]


def test_user_and_password_are_sent_to_where_their_own_server_redirects_on_itself(
    http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(status=302, headers={"Location": http_server.url("/b")})
    landed = http_server.routes["/b"] = Route(BODY)
    url = http_server.url("/a").replace("http://", "http://ann:p%40ss@")
    with opened(tmp_path) as sources, sources.open(url):
        pass
    assert base64.b64decode(landed.seen[0]["authorization"].split()[1]) == b"ann:p@ss"


def test_no_bytes_is_empty(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a"] = Route(b"")
    refusal(SourceEmpty, http_server.url("/a"), tmp_path)


@pytest.mark.parametrize("declares_length", [True, False])
def test_too_large_is_refused_declared_or_not(
    declares_length: bool, http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, declares_length=declares_length)
    refusal(SourceTooLarge, http_server.url("/a"), tmp_path, max_bytes=len(BODY) - 1)
    assert len(route.seen) == 1


# Bodies that end early


def test_a_range_that_ends_early_is_continued_where_it_ended(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, cuts=[30_000, 20_000])
    with opened(tmp_path) as sources, sources.open(http_server.url("/a")) as copy:
        assert copy.path.read_bytes() == BODY
        assert (copy.fetched_bytes, copy.requests) == (len(BODY), 4)
    assert route.ranges_seen == ["0-65535", "30000-65535", "50000-65535", "65536-102399"]
    assert [seen.get("if-range") for seen in route.seen] == [None, '"v1"', '"v1"', '"v1"']


def test_a_body_without_ranges_that_ends_early_is_fetched_anew(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, ranges=False, cuts=[30_000])
    with opened(tmp_path) as sources, sources.open(http_server.url("/a")) as copy:
        assert copy.path.read_bytes() == BODY
        assert copy.fetched_bytes == 30_000 + len(BODY)
    assert route.ranges_seen == ["0-65535", None]


def test_last_modified_serves_as_validator_too(http_server: HttpServer, tmp_path: Path) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    route = http_server.routes["/a"] = Route(
        BODY, etag=None, cuts=[30_000], headers={"Last-Modified": date}
    )

    def accept(route: Route) -> None:
        if "if-range" in route.seen[-1]:
            route.etag = route.seen[-1]["if-range"]

    route.on_request = accept
    with opened(tmp_path) as sources, sources.open(http_server.url("/a")) as copy:
        assert copy.path.read_bytes() == BODY
    assert route.seen[1]["if-range"] == date


def test_a_file_that_changes_between_two_parts_is_not_glued_together(
    http_server: HttpServer, tmp_path: Path
) -> None:
    def change(route: Route) -> None:
        if len(route.seen) == 2:
            route.etag, route.body = '"v2"', BODY[::-1]

    http_server.routes["/a"] = Route(BODY, cuts=[30_000], on_request=change)
    with opened(tmp_path) as sources, sources.open(http_server.url("/a")) as copy:
        assert (copy.path.read_bytes(), copy.etag) == (BODY[::-1], "v2")
    http_server.routes["/a"] = Route(BODY, cuts=[30_000], on_request=change)
    message = refusal(InputChanged, http_server.url("/a"), tmp_path, whole_read_bytes=0)
    assert 'ETag "v1" at first, then ETag "v2"' in message


def test_a_range_that_always_ends_early_is_given_up(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, cuts=[1000] * 10)
    message = refusal(SourceUnavailable, http_server.url("/a"), tmp_path, range_attempts=3)
    assert "ended early 3 times in the range from byte 1000 on" in message
    assert len(route.seen) == 4


def test_a_body_that_always_ends_early_is_given_up(http_server: HttpServer, tmp_path: Path) -> None:
    route = http_server.routes["/a"] = Route(BODY, ranges=False, cuts=[1000] * 10)
    message = refusal(SourceUnavailable, http_server.url("/a"), tmp_path, http_retries=2)
    assert "ended early 3 times, the last time after 1000 of 102400" in message
    assert len(route.seen) == 3


# Slow


def test_silence_is_a_timeout(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a"] = Route(BODY, wait_s=30)
    refusal(SourceTimeout, http_server.url("/a"), tmp_path, read_timeout_s=0.2)


def test_a_drip_does_not_outlast_the_deadline(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a"] = Route(BODY, drip_s=0.02)
    message = refusal(SourceTimeout, http_server.url("/a"), tmp_path, deadline_s=0.5)
    assert "not complete after 0.5 s" in message


def test_cancel_is_heard_while_the_server_is_silent(
    http_server: HttpServer, tmp_path: Path
) -> None:
    canceled = threading.Event()
    http_server.routes["/a"] = Route(BODY, wait_s=60, on_request=lambda route: canceled.set())

    def check() -> None:
        if canceled.is_set():
            raise JobCanceled("canceled")

    with (
        opened(tmp_path) as sources,
        pytest.raises(JobCanceled),
        sources.open(http_server.url("/a"), check=check),
    ):
        pass


def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    refusal(SourceUnreachable, f"http://127.0.0.1:{port}/a", tmp_path)
    refusal(SourceUnreachable, "http://no-such-host.invalid/a", tmp_path)


def test_a_server_that_speaks_no_http_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=answer, daemon=True).start()
        refusal(SourceUnreachable, f"http://127.0.0.1:{server.getsockname()[1]}/a", tmp_path)


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n\x01", b"HTTP/1.1 200 OK\r\nContent-Encoding: "],
)
def test_a_server_that_sends_the_request_back_puts_no_secret_into_a_message(
    head: bytes, tmp_path: Path
) -> None:
    """The library quotes what it cannot parse: there the request's own password and signature."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                echo = connection.recv(4096).replace(b"\r\n", b" ")
                connection.sendall(head + echo + b"\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://me:marker@127.0.0.1:{server.getsockname()[1]}/a?sig=marker"
        with opened(tmp_path) as sources, pytest.raises(SourceError) as caught, sources.open(url):
            pass
    message = str(caught.value).lower()
    assert "marker" not in message
    assert base64.b64encode(b"me:marker").decode().lower() not in message


def test_plain_http_at_an_https_address_is_unreachable(
    http_server: HttpServer, tmp_path: Path
) -> None:
    url = http_server.url("/a").replace("http:", "https:")
    refusal(SourceUnreachable, url, tmp_path)


# Redirects and addresses


def redirect(server: HttpServer, path: str, to: str, status: int = 302) -> None:
    server.routes[path] = Route(status=status, headers={"Location": to})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int, http_server: HttpServer, tmp_path: Path) -> None:
    redirect(http_server, "/a", "/b", status)
    http_server.routes["/b"] = Route(BODY)
    with opened(tmp_path) as sources, sources.open(http_server.url("/a")) as copy:
        assert copy.path.read_bytes() == BODY


def test_a_redirect_to_a_name_that_is_not_quoted_is_followed(
    http_server: HttpServer, tmp_path: Path
) -> None:
    redirect(http_server, "/a", "/é b.mp4".encode().decode("latin-1"))
    http_server.routes["/%C3%A9%20b.mp4"] = Route(BODY)
    redirect(http_server, "/c", "/\xe9.mp4")
    http_server.routes["/%C3%A9.mp4"] = Route(BODY)
    for path in ("/a", "/c"):
        with opened(tmp_path) as sources, sources.open(http_server.url(path)) as copy:
            assert copy.path.read_bytes() == BODY


def test_redirects_end_somewhere(http_server: HttpServer, tmp_path: Path) -> None:
    redirect(http_server, "/a", "/a")
    assert "more than 5 times" in refusal(SourceHttpError, http_server.url("/a"), tmp_path)
    http_server.routes["/c"] = Route(status=302)
    assert "without a Location" in refusal(SourceHttpError, http_server.url("/c"), tmp_path)


def test_a_redirect_to_what_is_no_url_is_the_servers_error(
    http_server: HttpServer, tmp_path: Path
) -> None:
    redirect(http_server, "/a", "http://[nowhere/b")
    assert "invalid URL" in refusal(SourceHttpError, http_server.url("/a"), tmp_path)


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1:25/"]
)
def test_redirects_stay_with_http(to: str, http_server: HttpServer, tmp_path: Path) -> None:
    redirect(http_server, "/a", to)
    refusal(AddressForbidden, http_server.url("/a"), tmp_path)


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
def test_private_addresses_are_closed_by_default(
    host: str, http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    url = f"http://{host}:{http_server.server_port}/a"
    message = refusal(AddressForbidden, url, tmp_path, private_addresses=False)
    assert "VIDEOQA_PRIVATE_ADDRESSES" in message
    assert route.seen == []


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
def test_some_addresses_stay_closed_in_private_networks_too(host: str, tmp_path: Path) -> None:
    refusal(AddressForbidden, f"http://{host}/latest/meta-data/", tmp_path)


def test_each_redirect_is_checked_like_the_first_url(
    http_server: HttpServer, tmp_path: Path
) -> None:
    redirect(http_server, "/a", "http://169.254.169.254/latest/meta-data/")
    refusal(AddressForbidden, http_server.url("/a"), tmp_path)


def fetch_by_name(
    resolve: Callable[[str, int], Sequence[str]], port: int, spool: Path, *, private: bool
) -> bytes:
    config = SourceConfig(spool_dir=spool, private_addresses=private)
    with (
        Sources(config, resolve=resolve) as sources,
        sources.open(f"http://clips.example:{port}/a") as copy,
    ):
        return copy.path.read_bytes()


def test_the_address_that_was_checked_is_the_one_connected_to(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    asked: list[str] = []

    def once(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    assert fetch_by_name(once, http_server.server_port, tmp_path, private=True) == BODY
    assert asked == ["clips.example"]
    assert route.seen[0]["host"] == f"clips.example:{http_server.server_port}"


def test_one_private_address_among_public_ones_forbids_the_name(
    http_server: HttpServer, tmp_path: Path
) -> None:
    with pytest.raises(AddressForbidden):
        fetch_by_name(
            lambda host, port: ["93.184.216.34", "127.0.0.1"],
            http_server.server_port,
            tmp_path,
            private=False,
        )


def test_a_name_that_is_never_resolved_times_out(tmp_path: Path) -> None:
    released = threading.Event()

    def hang(host: str, port: int) -> Sequence[str]:
        released.wait(30)
        return []

    config = SourceConfig(spool_dir=tmp_path, connect_timeout_s=0.2)
    with (
        Sources(config, resolve=hang) as sources,
        pytest.raises(SourceTimeout, match="not resolved"),
        sources.open("http://clips.example/a"),
    ):
        pass
    released.set()


def test_many_threads_fetch_at_once(http_server: HttpServer, tmp_path: Path) -> None:
    for number in range(8):
        http_server.routes[f"/{number}"] = Route(bytes([number]) * 50_000, cuts=[10_000])
    wrong: list[int] = []

    def fetch(sources: Sources, number: int) -> None:
        with sources.open(http_server.url(f"/{number}")) as copy:
            if copy.path.read_bytes() != bytes([number]) * 50_000:
                wrong.append(number)

    with opened(tmp_path) as sources:
        threads = [threading.Thread(target=fetch, args=(sources, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert wrong == []
