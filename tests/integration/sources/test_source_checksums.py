"""Fetched bytes are checked against the checksums that a store sends, over HTTP and S3."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from awscrt import checksums
from support.servers import HttpServer, Odd, Route, S3Server

from videoqa.errors import ChecksumMismatch, JobCanceled
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import LocalCopy, Sources
from videoqa_worker.sources.checksums import (
    Digest,
    read_object_digest,
    read_whole_digest,
    verify_file,
)

MIB = 1 << 20
BODY = Random(4).randbytes(300_000)


def b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


SHA256 = b64(hashlib.sha256(BODY).digest())
SHA512 = b64(hashlib.sha512(BODY).digest())
MD5 = b64(hashlib.md5(BODY).digest())
WRONG = b64(bytes(32))


@contextmanager
def opened(
    url: str,
    spool: Path,
    check: Callable[[], None] = lambda: None,
    *,
    s3_endpoint_url: str | None = None,
    **settings: object,
) -> Iterator[LocalCopy]:
    config = SourceConfig(spool_dir=spool, **{"private_addresses": True, **settings})  # type: ignore[arg-type]
    with (
        Sources(config, s3_endpoint_url=s3_endpoint_url) as sources,
        sources.open(url, check=check) as copy,
    ):
        yield copy


@pytest.mark.parametrize("ranges", [True, False], ids=["by ranges", "in one piece"])
@pytest.mark.parametrize(
    ("name", "value", "algorithm"),
    [
        ("Repr-Digest", f"sha-256=:{SHA256}:", "sha-256"),
        ("Repr-Digest", f"sha-512=:{SHA512}:, unixsum=:AAA=:", "sha-512"),
        ("Digest", f"SHA-256={SHA256},unixsum=30637", "sha-256"),
        ("Digest", f"md5={MD5}", "md5"),
        ("X-Goog-Hash", f"crc32c=AAAAAA==,md5={MD5}", "md5"),
    ],
)
def test_a_digest_of_the_whole_is_verified(
    name: str, value: str, algorithm: str, ranges: bool, http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, ranges=ranges, headers={name: value})
    with opened(http_server.url("/a"), tmp_path) as copy:
        assert copy.checksum == algorithm
    once = len(route.seen)
    route.body = bytes([BODY[0] ^ 1]) + BODY[1:]
    with (
        pytest.raises(ChecksumMismatch, match=f"another {algorithm}"),
        opened(http_server.url("/a"), tmp_path),
    ):
        pass
    assert len(route.seen) == 3 * once, "a mismatch is fetched again once"


def test_content_md5_of_a_whole_body_is_verified(http_server: HttpServer, tmp_path: Path) -> None:
    route = http_server.routes["/a"] = Route(BODY, ranges=False, headers={"Content-MD5": MD5})
    with opened(http_server.url("/a"), tmp_path) as copy:
        assert copy.checksum == "md5"
    route.body = BODY[:-1] + b"x"
    with pytest.raises(ChecksumMismatch), opened(http_server.url("/a"), tmp_path):
        pass


def test_bytes_that_were_wrong_once_are_right_the_second_time(
    http_server: HttpServer, tmp_path: Path
) -> None:
    def heal(route: Route) -> None:
        route.body = BODY if len(route.seen) > 1 else bytes(len(BODY))

    headers = {"Repr-Digest": f"sha-256=:{SHA256}:"}
    http_server.routes["/a"] = Route(BODY, ranges=False, headers=headers, on_request=heal)
    with opened(http_server.url("/a"), tmp_path) as copy:
        assert copy.path.read_bytes() == BODY
        assert (copy.checksum, copy.fetched_bytes) == ("sha-256", 2 * len(BODY))


def test_nothing_to_verify_is_said(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a"] = Route(BODY, headers={"Digest": "nonsense", "Repr-Digest": "a=:b:"})
    with opened(http_server.url("/a"), tmp_path) as copy:
        assert copy.checksum is None


def test_the_whole_is_verified_once_its_last_hole_is_filled(
    http_server: HttpServer, tmp_path: Path
) -> None:
    headers = {"Repr-Digest": f"sha-256=:{SHA256}:"}
    route = http_server.routes["/a"] = Route(BODY, headers=headers)
    with opened(http_server.url("/a"), tmp_path, download_below_bytes=0) as copy:
        copy.ensure([(100_000, 100_010)])
        assert copy.checksum is None
        copy.ensure([(0, len(BODY))])
        assert copy.checksum == "sha-256"
    with opened(http_server.url("/a"), tmp_path, download_below_bytes=0) as copy:
        route.body = BODY[:-1] + bytes([BODY[-1] ^ 1])
        with pytest.raises(ChecksumMismatch):
            copy.ensure([(0, len(BODY))])


def test_the_digest_of_a_range_is_verified_and_the_range_fetched_again(
    http_server: HttpServer, tmp_path: Path
) -> None:
    sent: list[int] = []

    def flipped_once(start: int, end: int) -> Odd:
        right = BODY[start:end]
        sent.append(start)
        wrong = sent.count(start) <= wrong_times
        headers = {
            "Content-Range": f"bytes {start}-{end - 1}/{len(BODY)}",
            "ETag": '"v1"',
            "Content-Digest": f"sha-256=:{b64(hashlib.sha256(right).digest())}:",
        }
        return Odd(206, bytes([right[0] ^ 1]) + right[1:] if wrong else right, headers)

    http_server.routes["/a"] = Route(BODY, on_range=flipped_once)
    wrong_times = 1
    with opened(http_server.url("/a"), tmp_path, download_below_bytes=0) as copy:
        copy.ensure([(200_000, 200_100)])
        assert sent == [0, 0, 200_000, 200_000]
        content = copy.path.read_bytes()
        assert content[:65536] == BODY[:65536]
        assert content[200_000:200_100] == BODY[200_000:200_100]
        wrong_times = 99
        with pytest.raises(ChecksumMismatch):
            copy.ensure([(150_000, 150_100)])


def test_a_range_that_always_comes_wrong_is_a_mismatch(
    http_server: HttpServer, tmp_path: Path
) -> None:
    def wrong(start: int, end: int) -> Odd:
        headers = {
            "Content-Range": f"bytes {start}-{end - 1}/{len(BODY)}",
            "ETag": '"v1"',
            "Content-MD5": b64(hashlib.md5(b"other").digest()),
        }
        return Odd(206, BODY[start:end], headers)

    route = http_server.routes["/a"] = Route(BODY, on_range=wrong)
    with (
        pytest.raises(ChecksumMismatch, match="another md5"),
        opened(http_server.url("/a"), tmp_path, range_attempts=2),
    ):
        pass
    assert len(route.seen) == 3


def test_cancel_is_heard_at_every_mib_of_verifying(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(3 * MIB))
    calls = 0

    def heard() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise JobCanceled("canceled")

    with pytest.raises(JobCanceled):
        verify_file(path, Digest("sha-256", bytes(32)), "a", heard)
    assert calls == 2


# S3


@pytest.fixture
def s3_login(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.admin.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.admin.secret_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return s3_server


@pytest.mark.parametrize(
    ("wanted", "algorithm"),
    [("CRC32", "crc32"), ("SHA1", "sha-1"), ("SHA256", "sha-256")],
)
def test_s3s_own_checksum_of_an_object_is_verified(
    wanted: str, algorithm: str, s3_login: S3Server, tmp_path: Path
) -> None:
    s3_login.client().put_object(
        Bucket="open",
        Key=f"sum-{wanted}",
        Body=BODY,
        ChecksumAlgorithm=wanted,  # type: ignore[arg-type]
    )
    url = f"s3://open/sum-{wanted}"
    with opened(url, tmp_path, s3_endpoint_url=s3_login.endpoint_url) as copy:
        assert copy.checksum == algorithm
        assert copy.requests == 3, "the head, the rest, and beside it the checksum"


@contextmanager
def faked_s3(http_server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Route]:
    """An object whose checksum header the test chooses."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield http_server.routes.setdefault("/open/a", Route(BODY))


@pytest.mark.parametrize(
    ("headers", "verified"),
    [
        ({"x-amz-checksum-crc32": b64(zlib.crc32(BODY).to_bytes(4, "big"))}, "crc32"),
        ({"x-amz-checksum-sha256": SHA256 + "-3"}, None),
        ({"x-amz-checksum-sha256": SHA256, "x-amz-checksum-type": "COMPOSITE"}, None),
        ({"x-amz-checksum-crc32c": b64(checksums.crc32c(BODY).to_bytes(4, "big"))}, "crc32c"),
        (
            {"x-amz-checksum-crc64nvme": b64(checksums.crc64nvme(BODY).to_bytes(8, "big"))},
            "crc64nvme",
        ),
        ({"x-amz-checksum-xxhash3": b64(bytes(8))}, None),
        ({}, None),
    ],
    ids=[
        "crc32",
        "of parts",
        "composite",
        "crc32c",
        "crc64nvme",
        "what nothing here computes",
        "none",
    ],
)
def test_only_checksums_of_the_bytes_themselves_are_taken(
    headers: dict[str, str],
    verified: str | None,
    http_server: HttpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with faked_s3(http_server, monkeypatch) as route:
        route.headers = headers
        with opened("s3://open/a", tmp_path, s3_endpoint_url=http_server.url("")) as copy:
            assert copy.path.read_bytes() == BODY
            assert copy.checksum == verified


def test_an_object_that_comes_wrong_twice_is_a_mismatch(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faked_s3(http_server, monkeypatch) as route:
        route.headers = {"x-amz-checksum-sha256": WRONG}
        with (
            pytest.raises(ChecksumMismatch, match="another sha-256"),
            opened("s3://open/a", tmp_path, s3_endpoint_url=http_server.url("")),
        ):
            pass
        assert len(route.seen) == 2 * 2


def test_an_object_comes_though_its_checksum_may_not_be_asked_for(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faked_s3(http_server, monkeypatch) as route:
        route.head_status = 403
        with opened("s3://open/a", tmp_path, s3_endpoint_url=http_server.url("")) as copy:
            assert copy.path.read_bytes() == BODY
            assert copy.checksum is None


def test_the_strongest_digest_that_can_be_computed_is_taken() -> None:
    digest = read_whole_digest({"repr-digest": f"md5=:{MD5}:, sha-256=:{SHA256}:"}, partial=True)
    assert digest is not None
    assert digest.algorithm == "sha-256"
    fields = {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-sha256": SHA256}
    both = read_object_digest(fields)
    assert both is not None
    assert both.algorithm == "sha-256"
    assert read_whole_digest({"content-md5": MD5}, partial=True) is None, "that is the range's own"
