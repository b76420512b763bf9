"""Several servers behind one address: copies that are named differently, and ranges that are not as they say."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from support.servers import HttpServer, Odd, Route, S3Server
from support.sources import open_source

from videoqa.errors import (
    InputChanged,
    SourceError,
    SourceHttpError,
    SourceTimeout,
    SourceUnavailable,
)

MIB = 1 << 20
BODY = Random(4).randbytes(MIB)
SPAN = (600_000, 600_100)
DATES = ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:01 GMT")


def refusal(kind: type[SourceError], url: str, spool: Path, **settings: object) -> str:
    with pytest.raises(kind) as caught, open_source(url, spool, **settings) as copy:
        copy.ensure([SPAN])
    assert type(caught.value) is kind
    return str(caught.value)


def in_turn(*states: Callable[[Route], None]) -> Callable[[Route], None]:
    """Has a route answer its requests by one copy after the other."""

    def choose(route: Route) -> None:
        states[(len(route.seen) - 1) % len(states)](route)

    return choose


def named(etag: str | None, date: str | None = None, body: bytes = BODY) -> Callable[[Route], None]:
    def apply(route: Route) -> None:
        route.etag, route.body = etag, body
        route.headers = {"Last-Modified": date} if date else {}

    return apply


ALIKE = [
    (named('"a"'), named('"b"')),
    (named('"a-1"'), named('"a-1-gzip"')),
    (named('"a"'), named('W/"a"')),
    (named('W/"a"'), named('W/"b"')),
    (named('"a"'), named(None)),
    (named('W/"a"'), named(None)),
    (named('W/"a"', DATES[0]), named(None, DATES[1])),
    (named(None, DATES[0]), named(None, DATES[1])),
    (named(None, DATES[0]), named('"b"')),
]


@pytest.mark.parametrize("number", range(len(ALIKE)))
@pytest.mark.parametrize("heeds", [True, False], ids=["If-Range", "If-Range ignored"])
def test_copies_of_the_same_bytes_are_settled_by_one_whole_read(
    number: int, heeds: bool, http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, on_request=in_turn(*ALIKE[number]))
    route.heeds_if_range = heeds
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([(300_000, 300_100)])
        copy.ensure([SPAN])
        content = copy.path.read_bytes()
        assert all(content[start:end] == BODY[start:end] for start, end in copy.present)
        assert copy.present.covers(*SPAN)
        assert route.ranges_seen.count(None) <= 1
        assert copy.requests <= 3
        descriptor = copy.open_file()
        with open(descriptor, "rb") as same:  # a decoder holds the file open meanwhile
            assert same.read()[SPAN[0] : SPAN[1]] == BODY[SPAN[0] : SPAN[1]]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_parallel_ranges_of_copies_are_settled_once(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, on_request=in_turn(named('"a"'), named('"b"')))
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([(n * 100_000, n * 100_000 + 100) for n in range(1, 9)])
        assert copy.path.read_bytes() == BODY
        assert copy.is_reread == (copy.etag != "a")
    assert route.ranges_seen.count(None) == 1


def test_a_small_file_of_two_copies_is_settled_before_it_is_read(
    http_server: HttpServer, tmp_path: Path
) -> None:
    states = in_turn(named('"a"'), named('"b"', body=BODY[::-1]))
    http_server.routes["/a"] = Route(BODY, on_request=states)
    with open_source(http_server.url("/a"), tmp_path, download_below_bytes=8 * MIB) as copy:
        assert (copy.path.read_bytes(), copy.etag) in ((BODY, "a"), (BODY[::-1], "b"))
        assert not copy.is_reread, "what is opened is this version"


@pytest.mark.parametrize("other", [BODY[::-1], BODY[:-1], BODY + b"x", b"x" + BODY[1:]])
def test_copies_of_other_bytes_are_never_mixed(
    other: bytes, http_server: HttpServer, tmp_path: Path
) -> None:
    def change(route: Route) -> None:
        if len(route.seen) > 1:
            named('"b"', body=other)(route)

    http_server.routes["/a"] = Route(BODY, etag='"a"', on_request=change)
    message = refusal(InputChanged, http_server.url("/a"), tmp_path)
    assert 'ETag "a" at first, then ETag "b"' in message
    assert "A whole read showed other bytes" in message
    assert InputChanged.retryable


def test_a_copy_whose_beginning_is_the_same_is_taken_whole(
    http_server: HttpServer, tmp_path: Path
) -> None:
    other = BODY[:100_000] + BODY[100_000:][::-1]

    def change(route: Route) -> None:
        if len(route.seen) > 1:
            named('"b"', body=other)(route)

    http_server.routes["/a"] = Route(BODY, etag='"a"', on_request=change)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([SPAN])
        assert copy.path.read_bytes() == other
        assert copy.is_reread, "its answers are not kept under the first version's name"


def test_a_file_too_large_for_a_whole_read_shows_both_names(
    http_server: HttpServer, tmp_path: Path
) -> None:
    states = in_turn(named('"a"', DATES[0]), named(None, DATES[1]))
    route = http_server.routes["/a"] = Route(BODY, on_request=states)
    message = refusal(InputChanged, http_server.url("/a"), tmp_path, whole_read_bytes=MIB - 1)
    assert f'ETag "a" at first, then date {DATES[1]}' in message
    assert "VIDEOQA_SOURCE_WHOLE_READ_BYTES is 1048575" in message
    assert None not in route.ranges_seen
    echo = named('"GET /a?sig=marker HTTP/1.1"')
    route = http_server.routes["/b"] = Route(BODY, on_request=in_turn(named('"a"'), echo))
    message = refusal(InputChanged, http_server.url("/b"), tmp_path, whole_read_bytes=0)
    assert "marker" not in message


def test_an_object_that_was_uploaded_again_unchanged_is_read_on(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.admin.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.admin.secret_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = s3_server.client()
    client.put_object(Bucket="open", Key="again", Body=BODY)
    with open_source("s3://open/again", tmp_path, s3_server.endpoint_url) as copy:
        upload = client.create_multipart_upload(Bucket="open", Key="again")
        part = client.upload_part(
            Bucket="open", Key="again", UploadId=upload["UploadId"], PartNumber=1, Body=BODY
        )
        client.complete_multipart_upload(
            Bucket="open",
            Key="again",
            UploadId=upload["UploadId"],
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )
        copy.ensure([SPAN])
        assert copy.path.read_bytes()[SPAN[0] : SPAN[1]] == BODY[SPAN[0] : SPAN[1]]


# Ranges that are not what their headers say

HEAD = BODY[:65536]


def ranged(content: bytes, field: str) -> Odd:
    return Odd(206, content, {"Content-Range": field, "ETag": '"v1"'})


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (ranged(HEAD, f"bytes 0-65535/{10**17}"), SourceHttpError),
        (ranged(HEAD, f"bytes 0-65535/{10**18 - 1}"), SourceHttpError),
        (ranged(HEAD + b"more", f"bytes 0-65535/{MIB}"), SourceHttpError),
        (ranged(HEAD[:9], f"bytes 0-65535/{MIB}"), None),
        (ranged(HEAD, f"bytes 0-65535/{MIB - 1}"), InputChanged),
        (ranged(HEAD, f"bytes 0-65535/{2 * MIB}"), InputChanged),
        (ranged(HEAD, "bytes 0-65535/10"), None),
        (ranged(HEAD, "bytes 9-5/10"), None),
        (ranged(HEAD, "bytes 0-65535"), None),
        (ranged(HEAD, "bytes */*"), None),
        (ranged(b"", f"bytes 0-65535/{MIB}"), None),
    ],
)
def test_a_first_range_that_lies_is_the_sources_fault_or_of_no_consequence(
    first: Odd, kind: type[SourceError] | None, http_server: HttpServer, tmp_path: Path
) -> None:
    asked: list[int] = []

    def odd(start: int, end: int) -> Odd | None:
        asked.append(start)
        return first if len(asked) == 1 else None

    http_server.routes["/a"] = Route(BODY, on_range=odd)
    if kind is not None:
        refusal(kind, http_server.url("/a"), tmp_path)
        return
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([SPAN])
        assert copy.path.read_bytes()[SPAN[0] : SPAN[1]] == BODY[SPAN[0] : SPAN[1]]


@pytest.mark.parametrize("field", ["bytes 0-65535/*", "", "bytes 0-65535/nine", "octets 1"])
def test_a_range_of_s3_without_a_total_is_not_the_whole_object(
    field: str, http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    http_server.routes["/open/a"] = Route(BODY, on_range=lambda start, end: ranged(HEAD, field))
    with open_source("s3://open/a", tmp_path, http_server.url("")) as copy:
        assert copy.path.read_bytes() == BODY


# A least rate


def test_a_source_that_drips_is_given_up(
    http_server: HttpServer, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    quick = {"read_timeout_s": 0.4, "least_bytes_per_s": 16 << 10}
    for path, body, headers in (
        ("/open/a", BODY, {}),
        ("/open/b", gzip.compress(BODY), {"Content-Encoding": "gzip"}),
    ):
        route = http_server.routes[path] = Route(body, drip_s=0.02, headers=headers)
        message = refusal(SourceTimeout, http_server.url(path), tmp_path, **quick)
        assert "expected at least 16384 a second" in message
        assert len(route.seen) <= 2
    message = refusal(
        SourceTimeout, "s3://open/a", tmp_path, endpoint_url=http_server.url(""), **quick
    )
    assert "VIDEOQA_SOURCE_LEAST_BYTES_PER_S" in message
    assert SourceTimeout.retryable


def test_ranges_that_drip_after_a_quick_beginning_are_given_up(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path, read_timeout_s=0.3) as copy:
        route.drip_s = 0.01
        with pytest.raises(SourceTimeout, match="expected at least 16384 a second"):
            copy.ensure([(100_000, 130_000), (300_000, 330_000), SPAN])


def test_a_source_above_the_least_rate_may_be_slow_and_pauses_of_ours_do_not_count(
    http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(BODY[:40], drip_s=0.02)
    slow = {"read_timeout_s": 0.2, "least_bytes_per_s": 5}
    with open_source(http_server.url("/a"), tmp_path, **slow) as copy:
        assert copy.path.read_bytes() == BODY[:40]
    http_server.routes["/b"] = Route(BODY)
    with open_source(http_server.url("/b"), tmp_path, read_timeout_s=0.2) as copy:
        for n in range(1, 6):
            threading.Event().wait(0.1)  # the time of a decoder
            copy.ensure([(n * 100_000, n * 100_000 + 10)])
    http_server.routes["/c"] = Route(BODY, drip_s=0.02)
    off = {"read_timeout_s": 0.2, "least_bytes_per_s": 0, "deadline_s": 0.8}
    assert "not complete after" in refusal(SourceTimeout, http_server.url("/c"), tmp_path, **off)


def test_a_server_whose_ranges_fail_for_good_is_unavailable(
    http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(BODY, on_range=lambda start, end: Odd(503) if start else None)
    refusal(SourceUnavailable, http_server.url("/a"), tmp_path, range_attempts=1)
