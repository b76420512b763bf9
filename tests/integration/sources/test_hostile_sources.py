"""Servers that lie, drip and flood: each ends as an error of the source, within time and memory."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.servers import HttpServer, Odd, Route, S3Server, serve_raw
from support.sources import open_source

from videoqa.contract import JobRequest
from videoqa.errors import (
    AddressForbidden,
    InputChanged,
    SourceDenied,
    SourceError,
    SourceHttpError,
    SourceNotFound,
    SourceTimeout,
    SourceTooLarge,
    SourceUnavailable,
    VideoQAError,
)
from videoqa_worker.frames.container.sniff import identify_head
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources

MIB = 1 << 20
BODY = Random(7).randbytes(MIB)
OTHER = BODY[::-1]
SPAN = (600_000, 600_100)


def refusal(url: str, spool: Path, **settings: Any) -> VideoQAError:
    with pytest.raises(VideoQAError) as caught, open_source(url, spool, **settings) as copy:
        copy.ensure([SPAN])
    return caught.value


def fixed(content: bytes) -> Callable[[str, int, socket.socket], None]:
    return lambda request, number, to: to.sendall(content)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


# Copies


def test_copies_in_turn_are_equal_or_refused_and_never_mixed(
    http_server: HttpServer, tmp_path: Path
) -> None:
    """Tries two and three copies, of equal and of other bytes, with tags, without, and with If-Range ignored."""
    date = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    wrong = []
    tags: list[tuple[tuple[str | None, dict[str, str]], ...]] = [
        (('"a"', {}), ('"b"', {})),
        (('"a"', {}), ('"b"', {}), ('"c"', {})),
        (('"a"', {}), (None, {})),
        (('"a"', date), (None, date)),
        ((None, date), ('"b"', date)),
        (('W/"a"', date), ('"a"', date)),
        ((None, {}), ('"b"', {})),
    ]
    for names in tags:
        for is_equal in (True, False):
            for heeds in (True, False):
                bodies = [BODY, BODY if is_equal else OTHER, BODY][: len(names)]

                def turn(route: Route, names: Any = names, bodies: Any = bodies) -> None:
                    number = (len(route.seen) - 1) % len(names)
                    (route.etag, route.headers), route.body = names[number], bodies[number]

                route = http_server.routes["/a"] = Route(BODY, on_request=turn)
                route.heeds_if_range = heeds
                case = (names, is_equal, heeds)
                try:
                    with open_source(http_server.url("/a"), tmp_path) as copy:
                        copy.ensure([(300_000, 300_100)])
                        copy.ensure([SPAN, (900_000, 900_100)])
                        content = copy.path.read_bytes()
                        spans = list(copy.present)
                except InputChanged as error:
                    if is_equal:
                        wrong.append((*case, str(error)))
                    continue
                if not any(
                    all(content[start:end] == body[start:end] for start, end in spans)
                    for body in (BODY, OTHER)
                ):
                    wrong.append((*case, "mixed"))
    assert wrong == []


def test_all_of_a_file_in_place_of_a_later_range_is_settled_by_a_whole_read(
    http_server: HttpServer, tmp_path: Path
) -> None:
    def forget(route: Route) -> None:
        route.ranges = len(route.seen) == 1

    http_server.routes["/a"] = Route(BODY, on_request=forget)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([SPAN])
        assert copy.path.read_bytes() == BODY
        assert not copy.is_reread
    http_server.routes["/b"] = Route(BODY, on_request=forget)
    error = refusal(http_server.url("/b"), tmp_path, whole_read_bytes=0)
    assert isinstance(error, InputChanged)
    assert "all of the file in place of the bytes from" in str(error)


def test_a_whole_read_that_breaks_begins_again_with_whichever_copy_answers(
    http_server: HttpServer, tmp_path: Path
) -> None:
    def turn(route: Route) -> None:
        route.etag = f'"{len(route.seen)}"'
        if len(route.seen) == 3:
            route.cuts = [500_000]

    http_server.routes["/a"] = Route(BODY, on_request=turn)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([SPAN])
        assert copy.path.read_bytes() == BODY


# Redirects


def test_a_redirects_target_that_expires_between_ranges_is_asked_for_again(
    http_server: HttpServer, tmp_path: Path
) -> None:
    for status in (400, 401, 403, 404, 410):
        targets = iter(range(100))

        def lead(route: Route, targets: Iterator[int] = targets, status: int = status) -> None:
            number = next(targets)
            route.headers = {"Location": f"/signed?sig=marker{number}"}
            http_server.routes[f"/signed?sig=marker{number}"] = Route(BODY)
            if number:
                old = http_server.routes[f"/signed?sig=marker{number - 1}"]
                old.status, old.ranges = status, False

        front = http_server.routes["/a"] = Route(status=302, on_request=lead)
        with open_source(http_server.url("/a"), tmp_path) as copy:
            http_server.routes["/signed?sig=marker0"] = Route(
                b"<Code>ExpiredToken</Code>", status=status
            )
            copy.ensure([SPAN])
            assert copy.path.read_bytes()[SPAN[0] : SPAN[1]] == BODY[SPAN[0] : SPAN[1]]
        assert len(front.seen) == 2, status


def test_a_signed_url_that_expires_between_ranges_is_denied_at_once(
    http_server: HttpServer, tmp_path: Path
) -> None:
    url = "/a?X-Amz-Signature=marker&sig=marker"
    denied = Odd(
        403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    )
    http_server.routes[url] = Route(BODY, on_range=lambda start, end: denied if start else None)
    error = refusal(http_server.url(url), tmp_path)
    assert isinstance(error, SourceDenied)
    assert not error.retryable
    assert "has expired" in str(error)
    assert "marker" not in str(error)
    assert len(http_server.routes[url].seen) == 2


def test_a_redirect_leads_to_no_place_that_is_forbidden(tmp_path: Path) -> None:
    names = {"start.org": ["127.0.0.1"], "rebind.org": ["127.0.0.1", "169.254.169.254"]}
    wrong = []
    for location, kind in {
        "http://169.254.169.254/latest/meta-data": AddressForbidden,
        "http://[::ffff:169.254.169.254]/": AddressForbidden,
        "http://[fe80::1]/": AddressForbidden,
        "http://[fd00:ec2::254]/": AddressForbidden,
        "http://0xa9fea9fe/": SourceError,
        "http://rebind.org/": AddressForbidden,
        "http://user:marker@169.254.169.254/": AddressForbidden,
        "file:///etc/passwd": AddressForbidden,
        "s3://open/a": AddressForbidden,
        "gopher://x/": AddressForbidden,
        "http://[::1": SourceHttpError,
        "http://a:99999/": SourceHttpError,
        "http://h/" + "a" * 9000: SourceHttpError,
        "http://h/" + "a" * 20_000: SourceHttpError,
        "http://h/ a\rb": SourceError,
        "//" + "é" * 5000 + "/": SourceHttpError,
        "http://": SourceError,
        "http:///": SourceError,
        "?" + "b" * 9000: SourceHttpError,
    }.items():
        text = location.encode()
        answer = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + text + b"\r\n\r\n"
        with serve_raw(fixed(answer)) as base:
            port = base.rpartition(":")[2]
            error = refusal(
                f"http://start.org:{port}/a?sig=marker",
                tmp_path,
                resolve=lambda host, port: names.get(host) or [host],
                range_attempts=1,
            )
        if not isinstance(error, kind) or "marker" in str(error) or len(str(error)) > 1000:
            wrong.append((location[:40], error.code, str(error)[:200]))
    assert wrong == []


# Odd HTTP


def test_odd_answers_are_read_or_refused_as_the_sources(tmp_path: Path) -> None:
    video = b"\0\0\0\x18ftypmp42" + bytes(3000)
    whole = b"Content-Length: %d\r\n\r\n" % len(video) + video
    ok = b"HTTP/1.1 200 OK\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(video) + video + b"\r\n0\r\n"
    taken = {
        "1.0": b"HTTP/1.0 200 OK\r\n\r\n" + video,
        "1xx": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        + ok
        + whole,
        "trailers": ok + chunked + b"Content-Encoding: gzip\r\nETag: x\r\n\r\n",
        "206 of all": b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-%d/%d\r\n"
        % (len(video) - 1, len(video))
        + whole,
        "repeated": ok + b"Content-Encoding: identity\r\nContent-Encoding: UTF-8\r\n" + whole,
        "quoted": ok + b'Content-Encoding: "GZIP"\r\n\r\n' + gzip.compress(video),
        "plain, said to be gzip": ok + b"Content-Encoding: gzip\r\n" + whole,
        "gzip, aws-chunked": ok
        + b"Content-Encoding: GZip\r\ncontent-encoding: AWS-Chunked\r\n\r\n"
        + gzip.compress(video),
        "trailing garbage": ok
        + b"Content-Encoding: gzip\r\n\r\n"
        + gzip.compress(video)
        + b"garbage" * 9,
    }
    wrong = []
    for name, answer in taken.items():
        with serve_raw(fixed(answer)) as base, open_source(f"{base}/a", tmp_path) as copy:
            if copy.path.read_bytes() != video:
                wrong.append(name)
    refused: dict[str, tuple[bytes, type[SourceError]]] = {
        "cut chunk": (ok + b"Transfer-Encoding: chunked\r\n\r\nfff\r\nabc", SourceUnavailable),
        "cut gzip": (
            ok
            + b"Content-Length: 900\r\nContent-Encoding: gzip\r\n\r\n"
            + gzip.compress(BODY[:2000])[:500],
            SourceUnavailable,
        ),
        "two lengths": (ok + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", SourceError),
        "no HTTP": (b"SSH-2.0-OpenSSH\r\n", SourceError),
        "101": (
            b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            SourceError,
        ),
        "status 999": (b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n", SourceError),
        "206 unasked for twice": (
            b'HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nETag: "a"\r\nContent-Length: 5\r\n\r\nabcde',
            SourceError,
        ),
    }
    for name, (answer, kind) in refused.items():
        with serve_raw(fixed(answer)) as base:
            error = refusal(f"{base}/a", tmp_path, range_attempts=1, http_retries=0)
        if not isinstance(error, kind):
            wrong.append(f"{name}: {error.code} {error}")
    assert wrong == []


def test_a_compressed_body_of_nothing_without_end_is_too_large(tmp_path: Path) -> None:
    empty = gzip.compress(b"")
    skippable = b"\x50\x2a\x4d\x18" + (1000).to_bytes(4, "little") + bytes(1000)
    for coding, unit in (("gzip", empty), ("zstd", skippable)):
        content = unit * (65536 // len(unit))

        def flood(request: str, number: int, to: socket.socket) -> None:
            to.sendall(f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n\r\n".encode())  # noqa: B023
            while True:
                to.sendall(content)  # noqa: B023

        with serve_raw(flood) as base:
            error = refusal(f"{base}/a", tmp_path, max_bytes=MIB, deadline_s=20)
        assert isinstance(error, SourceTooLarge), (coding, error)


def test_an_upload_whose_frames_were_stored_is_told(
    http_server: HttpServer, tmp_path: Path
) -> None:
    video = b"\0\0\0\x18ftypmp42" + bytes(3000)
    signed = b"10000;chunk-signature=" + b"a" * 64 + b"\r\n" + video
    for framed in (signed, b"10000\r\n" + video):
        found = identify_head(framed)
        assert "aws-chunked" in found.text
        assert "upload it again" in found.advice
    assert identify_head(b"1234\r\nhello").text == "text"
    assert identify_head(b"feed\r\n\x8f\x00").text == "an unknown format"


# Drips


def test_threads_of_drips_end_with_their_fetch(
    http_server: HttpServer, tmp_path: Path, credentials: None
) -> None:
    def fetchers() -> int:
        return sum(each.name.startswith("videoqa-fetch") for each in threading.enumerate())

    http_server.routes["/open/a"] = Route(BODY, drip_s=0.05)
    config = SourceConfig(
        spool_dir=tmp_path,
        private_addresses=True,
        download_below_bytes=0,
        **{"source_read_timeout_s": 0.3},
    )
    with Sources(config, s3_endpoint_url=http_server.url("")) as sources:
        for url in ("s3://open/a", http_server.url("/open/a")):
            for _ in range(3):
                with pytest.raises(SourceTimeout), sources.open(url):
                    pass
            until_s = time.monotonic() + 10
            while fetchers() and time.monotonic() < until_s:
                time.sleep(0.01)
            assert fetchers() == 0, url


def test_one_range_that_drips_beside_quick_ones_ends_the_fetch(
    http_server: HttpServer, tmp_path: Path
) -> None:
    def slow(route: Route) -> None:
        route.drip_s = 0.02 if "bytes=300000" in route.seen[-1].get("range", "") else 0.0

    http_server.routes["/a"] = Route(BODY, on_request=slow)
    with (
        pytest.raises(SourceTimeout, match="at least 16384 a second"),
        open_source(http_server.url("/a"), tmp_path, read_timeout_s=0.3, range_parallel=1) as copy,
    ):
        copy.ensure([(100_000, 130_000), (300_000, 330_000)])


def test_an_error_whose_body_drips_or_floods_is_told_by_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videoqa_worker.sources.http_response._ERROR_BODY_S", 0.3)

    def drip(request: str, number: int, to: socket.socket) -> None:
        to.sendall(b"HTTP/1.1 403 No\r\n\r\n")
        while True:
            to.sendall(b"<")
            time.sleep(0.02)

    def flood(request: str, number: int, to: socket.socket) -> None:
        to.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 104857600\r\n\r\n")
        for _ in range(1600):
            to.sendall(bytes(65536))

    for answer, kind in ((drip, SourceDenied), (flood, SourceNotFound)):
        begun_s = time.monotonic()
        with serve_raw(answer) as base:
            assert type(refusal(f"{base}/a", tmp_path)) is kind
        assert time.monotonic() - begun_s < 5


# Errors of stores


def test_error_bodies_of_s3_show_nothing_of_the_request_and_expand_nothing(
    tmp_path: Path, credentials: None
) -> None:
    laughs = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "' + b"l" * 1000 + b'">'
    for at in range(1, 9):
        laughs += b'<!ENTITY a%d "%s">' % (
            at,
            b"&a%s;" % (b"%d" % (at - 1) if at > 1 else b"") * 30,
        )
    laughs += b"]><Error><Code>&a8;</Code></Error>"
    secrets = (
        b"<Error><Code>Odd X-Amz-Signature=marker</Code><Message>Credential=AKIAmarker/20260101, "
        b"Signature=marker\nX-Goog-Signature=marker AWSAccessKeyId=marker</Message><Region>marker eu</Region></Error>"
    )
    bodies = (laughs, secrets, b"<html>marker</html>", b"marker", b"<" * 60_000, b"\xff\xfemarker")
    answers = {
        f"{number}-{status}": (status, body)
        for number, body in enumerate(bodies)
        for status in (400, 403, 418)
    }

    def answer(request: str, number: int, to: socket.socket) -> None:
        status, body = answers[request.partition("/open/")[2].split("?")[0].split(" ")[0]]
        head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nx-amz-bucket-region: marker 1\r\n\r\n"
        to.sendall(head.encode() + body)

    wrong = []
    config = SourceConfig(spool_dir=tmp_path, private_addresses=True)
    with serve_raw(answer) as base, Sources(config, s3_endpoint_url=base) as sources:
        for key in answers:
            for url in (f"s3://open/{key}", f"{base}/open/{key}?X-Amz-Signature=marker"):
                begun_s = time.process_time()
                with pytest.raises(SourceError) as caught, sources.open(url):
                    pass
                spent_s = time.process_time() - begun_s
                text = str(caught.value)
                if "marker" in text or not text.isprintable() or spent_s > 3:
                    wrong.append((key, url[:5], caught.value.code, text[:200], spent_s))
    assert wrong == []


# Names


def test_a_key_longer_than_any_store_takes_is_refused_with_the_request() -> None:
    for key in ("k" * 1024, "é" * 512):
        JobRequest.model_validate({"inputs": [f"s3://open/{key}"], "questions": ["What?"]})
        for place in (
            {"inputs": [f"s3://open/{key}k"]},
            {"inputs": ["s3://open/a"], "output": f"s3://open/{key}{{job_id}}"},
        ):
            with pytest.raises(ValueError, match="1024 at most"):
                JobRequest.model_validate({"questions": ["What?"], **place})


def test_s3_with_a_character_that_parsers_drop_is_no_scheme() -> None:
    for url in (
        " s3://open/a",
        "\ts3://open/a",
        "s\t3://open/a",
        "s3:\n//open/a",
        "s3:open/a",
        "s3:/open/a",
    ):
        with pytest.raises(ValueError, match="scheme"):
            JobRequest.model_validate({"inputs": [{"url": url}], "questions": ["What?"]})


def test_objects_with_odd_keys_are_read_by_a_real_store(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.admin.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.admin.secret_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = s3_server.client()
    keys = [
        "o/#a",
        "#a",
        "o/a?b",
        "o/100%",
        "o/a%20b",
        "o/a b+c",
        "o/e\u0301",
        "o/\u00e9",
        "o/a;b&c=d",
        "o/\\a",
        "o/日本 %2f",
    ]
    for key in keys:
        client.put_object(Bucket="open", Key=key, Body=key.encode() * 3)
    wrong = []
    for key in keys:
        with open_source(f"s3://open/{key}", tmp_path, s3_server.endpoint_url) as copy:
            if copy.path.read_bytes() != key.encode() * 3:
                wrong.append(key)
    assert wrong == []
