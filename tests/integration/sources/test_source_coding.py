"""Content-Encoding: values that name no compression, and bodies that are compressed, over HTTP and S3."""

from __future__ import annotations

import gzip
import resource
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import brotli
import pytest
from backports import zstd
from support.servers import HttpServer, Odd, Route, S3Server
from support.sources import open_source

from videoqa.errors import (
    SourceEmpty,
    SourceError,
    SourceHttpError,
    SourceTooLarge,
    SourceUnavailable,
)
from videoqa_worker.sources.content_coding import inflate

MIB = 1 << 20
BODY = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 400 + Random(7).randbytes(200_000)
"""Begins like an MP4 file, by which a wrong Content-Encoding is known."""


def deflate_raw(content: bytes) -> bytes:
    squeezed = zlib.compressobj(wbits=-15)
    return squeezed.compress(content) + squeezed.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda content: brotli.compress(content, quality=3),
    "zstd": zstd.compress,
}


def fetch(url: str, spool: Path, endpoint_url: str | None = None) -> bytes:
    with open_source(url, spool, endpoint_url) as copy:
        assert list(copy.present) == [(0, copy.size_bytes)]
        return copy.path.read_bytes()


def refusal(kind: type[SourceError], url: str, spool: Path, **settings: object) -> str:
    with pytest.raises(kind) as caught, open_source(url, spool, **settings):
        pass
    assert type(caught.value) is kind
    return str(caught.value)


PLAIN = [
    "aws-chunked",
    "identity",
    "none",
    "None",
    "utf-8",
    "UTF8",
    "binary",
    "",
    " , ",
    "identity, aws-chunked",
]


def test_values_that_are_no_compression_leave_ranges_alone(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    for value in PLAIN:
        route.headers["Content-Encoding"] = value
        with open_source(http_server.url("/a"), tmp_path) as copy:
            assert list(copy.present) == [(0, 65536)], value
            copy.ensure([(200_000, 200_100)])
            content = copy.path.read_bytes()
            assert content[200_000:200_100] == BODY[200_000:200_100]


def test_a_value_that_is_wrong_or_unknown_gives_way_to_the_first_bytes(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    for value in ("base64", "mp4", "video/mp4", "gzip", "zstd", "deflate", "br", "foo, gzip"):
        route.headers["Content-Encoding"] = value
        assert fetch(http_server.url("/a"), tmp_path) == BODY, value


def test_an_unknown_value_of_bytes_that_are_no_media_is_refused_by_name(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(b"\x1f\x9d" + BODY[100:])
    for value in ("compress", "pack200-gzip", "exi", "foo"):
        route.headers["Content-Encoding"] = value
        message = refusal(SourceHttpError, http_server.url("/a"), tmp_path)
        assert f"came with the content coding {value!r}, expected plain bytes or gzip" in message
    route.headers["Content-Encoding"] = "secret=hush, marker, of a request"
    message = refusal(SourceHttpError, http_server.url("/a"), tmp_path)
    assert "an unknown content coding" in message
    assert "marker" not in message


@pytest.mark.parametrize("coding", [*CODINGS, "raw deflate"])
def test_a_compressed_body_is_inflated(
    coding: str, http_server: HttpServer, tmp_path: Path
) -> None:
    squeeze = CODINGS.get(coding, deflate_raw)
    name = coding.removeprefix("raw ")
    route = http_server.routes["/a"] = Route(squeeze(BODY), headers={"Content-Encoding": name})
    for ranges, declares_length in ((True, True), (False, True), (False, False)):
        route.ranges, route.declares_length = ranges, declares_length
        assert fetch(http_server.url("/a"), tmp_path) == BODY
    assert route.ranges_seen == ["0-65535", None, "0-65535", "0-65535"]


def test_codings_in_a_row_are_undone_from_the_last(http_server: HttpServer, tmp_path: Path) -> None:
    route = http_server.routes["/a"] = Route()
    for value, body in {
        "gzip, identity": gzip.compress(BODY),
        "aws-chunked,gzip": gzip.compress(BODY),
        "gzip, gzip": gzip.compress(gzip.compress(BODY)),
        "gzip, br": brotli.compress(gzip.compress(BODY), quality=1),
        "GZIP;q=1, gzip": gzip.compress(BODY),  # one of them is only said
    }.items():
        route.body, route.headers["Content-Encoding"] = body, value
        assert fetch(http_server.url("/a"), tmp_path) == BODY, value
    route.headers["Content-Encoding"] = ", ".join(["gzip"] * 5)
    assert "5 content codings" in refusal(SourceHttpError, http_server.url("/a"), tmp_path)


def test_several_members_and_frames_are_one_body(http_server: HttpServer, tmp_path: Path) -> None:
    half = len(BODY) // 2
    members = gzip.compress(BODY[:half]) + gzip.compress(b"") + gzip.compress(BODY[half:])
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    frames = skipped + zstd.compress(BODY[:half]) + skipped + zstd.compress(BODY[half:])
    for name, body in (("gzip", members), ("gzip", members + bytes(512)), ("zstd", frames)):
        route = Route(body, headers={"Content-Encoding": name}, ranges=False)
        http_server.routes["/a"] = route
        assert fetch(http_server.url("/a"), tmp_path) == BODY


def test_a_compressed_body_that_breaks_off_is_fetched_anew(
    http_server: HttpServer, tmp_path: Path
) -> None:
    body = gzip.compress(BODY)
    for declares_length in (True, False):
        route = Route(body, headers={"Content-Encoding": "gzip"}, ranges=False, cuts=[50_000])
        route.declares_length = declares_length
        http_server.routes["/a"] = route
        assert fetch(http_server.url("/a"), tmp_path) == BODY
        assert len(route.seen) == 2
    route.cuts = [50_000] * 9
    refusal(SourceUnavailable, http_server.url("/a"), tmp_path)


def test_a_compressed_body_that_was_stored_broken_is_not_tried_again(
    http_server: HttpServer, tmp_path: Path
) -> None:
    whole = gzip.compress(BODY)
    flipped = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]
    for name, body, told in (
        ("gzip", whole[:50_000], "ends in the middle"),
        ("gzip", flipped, "not of that form"),
        ("br", CODINGS["br"](BODY)[:50_000], "ends in the middle"),
        ("zstd", zstd.compress(BODY)[:50_000], "ends in the middle"),
        ("zstd", zstd.compress(BODY) + b"more", "not of that form"),
    ):
        route = Route(body, headers={"Content-Encoding": name}, ranges=False)
        http_server.routes["/a"] = route
        message = refusal(SourceHttpError, http_server.url("/a"), tmp_path)
        assert told in message, name
        assert len(route.seen) == 1
    http_server.routes["/a"] = Route(b"", headers={"Content-Encoding": "gzip"})
    refusal(SourceEmpty, http_server.url("/a"), tmp_path)


def test_a_bomb_ends_at_the_limit_of_bytes(http_server: HttpServer, tmp_path: Path) -> None:
    limit = 4 * MIB
    zeros = bytes(64 * MIB)
    bombs = {
        "gzip": gzip.compress(zeros, 1),
        "br": brotli.compress(zeros, quality=1),
        "zstd": zstd.compress(zeros, 1),
        # Its outer layer is empty members without end, which make no byte of a file.
        "gzip, gzip": gzip.compress(gzip.compress(b"") * (8 * MIB // 20), 1),
    }
    del zeros
    for name, body in bombs.items():
        http_server.routes["/a"] = Route(
            body, headers={"Content-Encoding": name}, ranges=name == "br"
        )
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun_s = time.process_time()
        refusal(SourceTooLarge, http_server.url("/a"), tmp_path, max_bytes=limit)
        assert time.process_time() - begun_s < 2.0, name
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
        assert grown_kib < 64 << 10, name


def test_no_piece_of_a_bomb_is_large() -> None:
    for coding, squeeze in CODINGS.items():
        bomb = squeeze(bytes(8 * MIB))
        pieces = [len(each) for each in inflate([bomb], (coding,), "http://h", lambda made: None)]
        assert sum(pieces) == 8 * MIB
        assert max(pieces) <= 256 << 10, coding


def test_a_frame_with_a_window_beyond_the_standard_is_refused(
    http_server: HttpServer, tmp_path: Path
) -> None:
    options = {zstd.CompressionParameter.window_log: 27}
    squeezed = zstd.ZstdCompressor(options=options)
    body = squeezed.compress(Random(1).randbytes(5000)) + squeezed.flush()
    http_server.routes["/a"] = Route(body, headers={"Content-Encoding": "zstd"})
    assert "'zstd'" in refusal(SourceHttpError, http_server.url("/a"), tmp_path)


def test_a_later_range_that_comes_compressed_is_no_part_of_the_file(
    http_server: HttpServer, tmp_path: Path
) -> None:
    squeezed = gzip.compress(BODY)
    headers = {"Content-Encoding": "gzip", "ETag": '"v1"'}
    span = {"Content-Range": f"bytes 200000-200099/{len(BODY)}"}

    def odd(start: int, end: int) -> Odd | None:
        return Odd(206, squeezed[:100], headers | span) if start else None

    http_server.routes["/a"] = Route(BODY, on_range=odd)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([(200_000, 200_100)])
        assert copy.path.read_bytes() == BODY, "a whole read, which has no range, settles it"


def test_digests_of_an_object_that_google_decompressed_are_those_of_its_gzip_form(
    http_server: HttpServer, tmp_path: Path
) -> None:
    headers = {
        "x-goog-hash": "md5=AAAAAAAAAAAAAAAAAAAAAA==",
        "x-goog-stored-content-encoding": "gzip",
    }
    http_server.routes["/a"] = Route(BODY, headers=headers, ranges=False)
    assert fetch(http_server.url("/a"), tmp_path) == BODY


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.admin.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.admin.secret_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return s3_server


def test_objects_of_s3_say_the_same_by_their_metadata(s3: S3Server, tmp_path: Path) -> None:
    client = s3.client()
    for value, body in (
        ("aws-chunked", BODY),
        ("base64", BODY),
        ("gzip", gzip.compress(BODY)),
        ("gzip,aws-chunked", gzip.compress(BODY)),
        ("br", CODINGS["br"](BODY)),
        ("zstd", zstd.compress(BODY)),
        ("gzip", gzip.compress(b"\xff\xd8\xff small")),
    ):
        client.put_object(Bucket="open", Key="coded", Body=body, ContentEncoding=value)
        content = (
            b"" if value == "aws-chunked" else fetch("s3://open/coded", tmp_path, s3.endpoint_url)
        )
        with open_source("s3://open/coded", tmp_path, s3.endpoint_url) as copy:
            copy.ensure([(0, copy.size_bytes)])
            content = content or copy.path.read_bytes()
        assert content == (BODY if len(body) > 100 else b"\xff\xd8\xff small"), value
    client.put_object(
        Bucket="open", Key="coded", Body=b"\x1f\x9d" + BODY[100:], ContentEncoding="compress"
    )
    with pytest.raises(SourceHttpError, match="compress"):
        fetch("s3://open/coded", tmp_path, s3.endpoint_url)
    bomb = gzip.compress(bytes(64 * MIB), 1)
    client.put_object(Bucket="open", Key="coded", Body=bomb, ContentEncoding="gzip")
    with (
        pytest.raises(SourceTooLarge),
        open_source("s3://open/coded", tmp_path, s3.endpoint_url, max_bytes=MIB),
    ):
        pass
