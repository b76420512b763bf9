"""A server's headers cannot hold the worker's interpreter, nor fill its memory."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.servers import serve_raw

from videoqa.errors import SourceError
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources

BODY = b"a video" * 1000
SIZE = 98_000
"""Bytes of a header; httpcore ends the connection where one has not ended after 100 kB."""
LIMIT_S = 0.5
"""Most time of the process for a whole fetch; a quadratic pattern takes seconds."""


@contextmanager
def answering(head: bytes, body: bytes = BODY) -> Iterator[str]:
    """A server that answers all requests with these bytes."""
    content = b"HTTP/1.1 " + head + b"\r\n\r\n" + body
    with serve_raw(lambda request, number, to: to.sendall(content)) as url:
        yield f"{url}/v.mp4"


def fetch(url: str, spool: Path) -> tuple[float, str, str]:
    """Returns the process' time in seconds, the checksum that was checked, and the error."""
    config = SourceConfig(spool_dir=spool, private_addresses=True)
    checksum = problem = ""
    with Sources(config) as sources:
        begun_s = time.process_time()
        try:
            with sources.open(url) as copy:
                checksum = copy.checksum or ""
        except SourceError as error:
            problem = f"{type(error).__name__}: {error}"
        return time.process_time() - begun_s, checksum, problem


def whole(**fields: str) -> bytes:
    lines = {"Content-Length": str(len(BODY))} | {
        name.replace("_", "-"): value for name, value in fields.items()
    }
    return b"200 OK\r\n" + b"\r\n".join(f"{k}: {v}".encode() for k, v in lines.items())


@pytest.mark.parametrize("name", ["Digest", "Repr-Digest", "Content-Digest", "x-goog-hash", "ETag"])
@pytest.mark.parametrize("text", ["a", "a=:", "a=", ",", "=", " ,", "sha-256=:", '"', "W/", ":"])
def test_a_long_field_is_refused_at_once(name: str, text: str, tmp_path: Path) -> None:
    with answering(whole(**{name: (text * SIZE)[: SIZE // 2]})) as url:
        spent_s, _, problem = fetch(url, tmp_path)
    assert re.match(
        rf"SourceHttpError: .* sent \d+ bytes of the header field {name.lower()}", problem
    )
    assert spent_s < LIMIT_S


@pytest.mark.parametrize(
    "head",
    [
        b"200 OK\r\na: " + b" " * SIZE + b"\0",
        b"200 OK\r\na: b" + b" \t" * (SIZE // 2) + b"\0",
        b"200 OK\r\na: " + b"b " * (SIZE // 2) + b"\0",
        b"200 OK\r\n" + b"Digest: a=\r\n" * (SIZE // 12) + b"a: b",
        b"200 OK\r\nDigest: b\r\n" + b" c\r\n" * (SIZE // 4) + b"a: b",
        b"200 " + b" " * SIZE + b"\0",
        b"200 OK\r\nSet-Cookie: " + b"a" * 2 * SIZE,
        b"302 Found\r\nLocation: /" + b"a" * SIZE,
    ],
    ids=["blanks", "blanks behind", "words", "repeated", "folded", "reason", "endless", "location"],
)  # fmt: skip
def test_a_long_header_is_refused_at_once(head: bytes, tmp_path: Path) -> None:
    with answering(head) as url:
        spent_s, _, problem = fetch(url, tmp_path)
    assert problem.startswith("Source")
    assert spent_s < LIMIT_S


@pytest.mark.parametrize(
    "chunk",
    [
        b"5;" + b" " * SIZE + b"\nx\r\nhello\r\n0\r\n\r\n",
        b"5" + b" " * SIZE + b"\0\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\na: " + b" " * SIZE + b"\0\r\n\r\n",
    ],
    ids=["an extension", "blanks", "a trailer"],
)
def test_a_chunk_with_blanks_is_refused_at_once(chunk: bytes, tmp_path: Path) -> None:
    with answering(b"200 OK\r\nTransfer-Encoding: chunked", chunk) as url:
        spent_s, _, problem = fetch(url, tmp_path)
    assert problem.startswith("Source")
    assert spent_s < LIMIT_S


def test_a_header_that_is_too_long_is_told_as_that(tmp_path: Path) -> None:
    with answering(b"200 OK\r\n" + b"Set-Cookie: a\r\n" * 5_500 + b"a: b") as url:
        assert "a header of more than 65536 bytes" in fetch(url, tmp_path)[2]
    with answering(b"200 OK\r\nSet-Cookie: " + b"a" * 300_000) as url:
        assert "a header of more than 65536 bytes" in fetch(url, tmp_path)[2]


def test_a_long_field_of_no_use_refuses_nothing_and_chunks_are_read(tmp_path: Path) -> None:
    with answering(whole(Content_Security_Policy="a" * 50_000)) as url:
        assert fetch(url, tmp_path)[2] == ""
    chunks = (
        b"6;name=value \r\n" + BODY[:6] + b"\r\n1  \r\n" + BODY[6:7] + b"\r\n0\r\na:  b \r\n\r\n"
    )
    with answering(b"200 OK\r\nTransfer-Encoding: chunked", chunks) as url:
        assert fetch(url, tmp_path)[2] == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"Repr-Digest": "md5=:AAAA:, sha-256=:{0}: ;q=1"},
        {"Digest": "unixsum=30637 , SHA-256={0} "},
        {"x-goog-hash": "crc32c=AAAAAA==, sha256={0}"},
    ],
)
def test_digests_are_read_however_they_are_spelled(fields: dict[str, str], tmp_path: Path) -> None:
    good = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    bad = base64.b64encode(bytes(32)).decode()
    for digest, problem in ((good, ""), (bad, "ChecksumMismatch")):
        texts = {name: value.format(digest) for name, value in fields.items()}
        with answering(whole(**texts)) as url:
            found = fetch(url, tmp_path)
        assert found[2].startswith(problem)
        assert bool(found[2]) is bool(problem)


def test_a_field_may_not_grow_by_repetition(tmp_path: Path) -> None:
    with answering(b"200 OK\r\n" + b"Digest: aaaaaaaaaaaaaa\r\n" * 1_500 + b"a: b") as url:
        assert "of the header field digest" in fetch(url, tmp_path)[2]
