"""s3:// against a real S3 server with keys, and through a proxy that breaks connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from support.servers import READER, CuttingProxy, HttpServer, Route, S3Server

from videoqa.errors import (
    BucketNotFound,
    InputChanged,
    JobCanceled,
    SourceDenied,
    SourceEmpty,
    SourceError,
    SourceNotFound,
    SourceTooLarge,
    SourceUnavailable,
    SourceUnreachable,
)
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources

BODY = Random(1).randbytes(3_000_000)
MIB = 1 << 20


@pytest.fixture(autouse=True)
def credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.admin.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.admin.secret_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def key(s3_server: S3Server) -> str:
    s3_server.client().put_object(Bucket="open", Key="a dir/clip é?#+%20.mp4", Body=BODY)
    return "a dir/clip é?#+%20.mp4"


@contextmanager
def opened(endpoint_url: str, spool: Path, **settings: object) -> Iterator[Sources]:
    config = SourceConfig(
        spool_dir=spool,
        **{"range_bytes": MIB, **settings},  # type: ignore[arg-type]
    )
    with Sources(config, s3_endpoint_url=endpoint_url) as sources:
        yield sources


def refusal(
    kind: type[SourceError], url: str, endpoint_url: str, spool: Path, **settings: object
) -> str:
    with (
        opened(endpoint_url, spool, **settings) as sources,
        pytest.raises(kind) as caught,
        sources.open(url),
    ):
        pass
    assert type(caught.value) is kind
    return str(caught.value)


def test_an_object_comes_by_ranges(s3_server: S3Server, key: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    with (
        opened(s3_server.endpoint_url, tmp_path, range_parallel=1) as sources,
        sources.open(f"s3://open/{key}", progress=lambda *step: steps.append(step)) as copy,
    ):
        assert copy.path.read_bytes() == BODY
        assert (copy.size_bytes, copy.fetched_bytes) == (len(BODY), len(BODY))
        head = s3_server.client().head_object(Bucket="open", Key=key)
        assert copy.etag == head["ETag"].strip('"')
    assert len(steps) >= 3
    assert steps[-1] == (len(BODY), len(BODY))


def test_the_endpoint_may_come_from_the_environment(
    s3_server: S3Server, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    with (
        Sources(SourceConfig(spool_dir=tmp_path)) as sources,
        sources.open(f"s3://open/{key}") as copy,
    ):
        assert copy.path.read_bytes() == BODY


def test_a_version_can_be_named(s3_server: S3Server, tmp_path: Path) -> None:
    client = s3_server.client()
    client.create_bucket(Bucket="versions")
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    first = client.put_object(Bucket="versions", Key="a", Body=b"first")["VersionId"]
    second = client.put_object(Bucket="versions", Key="a", Body=b"second")["VersionId"]
    with opened(s3_server.endpoint_url, tmp_path) as sources:
        with sources.open(f"s3://versions/a?versionId={first}") as copy:
            assert (copy.path.read_bytes(), copy.version_id) == (b"first", first)
        with sources.open("s3://versions/a") as copy:
            assert (copy.path.read_bytes(), copy.version_id) == (b"second", second)


def test_a_scheme_in_capitals_is_the_same(s3_server: S3Server, tmp_path: Path) -> None:
    s3_server.client().put_object(Bucket="open", Key="a", Body=b"first")
    with opened(s3_server.endpoint_url, tmp_path) as sources, sources.open("S3://open/a") as copy:
        assert copy.path.read_bytes() == b"first"


def test_what_is_not_there_is_told_apart(s3_server: S3Server, tmp_path: Path) -> None:
    url = s3_server.endpoint_url
    assert "NoSuchKey" in refusal(SourceNotFound, "s3://open/none.mp4", url, tmp_path)
    assert "NoSuchBucket" in refusal(BucketNotFound, "s3://none-such/a", url, tmp_path)
    refusal(BucketNotFound, "s3://No_Bucket!/a", url, tmp_path)


def test_denied_says_what_to_check(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3_server.endpoint_url
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "secret key is wrong" in refusal(SourceDenied, "s3://open/a", url, tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    assert "access key id is unknown" in refusal(SourceDenied, "s3://open/a", url, tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER.secret_key)
    assert "s3:GetObject" in refusal(SourceDenied, "s3://closed/probe", url, tmp_path)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no S3 credentials" in refusal(SourceDenied, "s3://open/a", url, tmp_path)


def test_a_role_that_may_only_get_objects_suffices(
    s3_server: S3Server, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER.secret_key)
    with (
        opened(s3_server.endpoint_url, tmp_path) as sources,
        sources.open(f"s3://open/{key}") as copy,
    ):
        assert copy.size_bytes == len(BODY)


def test_empty_and_too_large_are_refused(s3_server: S3Server, key: str, tmp_path: Path) -> None:
    s3_server.client().put_object(Bucket="open", Key="empty", Body=b"")
    url = s3_server.endpoint_url
    refusal(SourceEmpty, "s3://open/empty", url, tmp_path)
    message = refusal(SourceTooLarge, f"s3://open/{key}", url, tmp_path, max_bytes=len(BODY) - 1)
    assert str(len(BODY)) in message


def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    refusal(SourceUnreachable, "s3://open/a", url, tmp_path)


def test_a_range_that_ends_early_is_fetched_again_on_its_own(
    s3_proxy: CuttingProxy, key: str, tmp_path: Path
) -> None:
    s3_proxy.cuts = [500_000, 600_000]
    with (
        opened(s3_proxy.url, tmp_path, range_parallel=1) as sources,
        sources.open(f"s3://open/{key}") as copy,
    ):
        assert copy.path.read_bytes() == BODY
        assert copy.fetched_bytes == len(BODY), "what came before the break is kept"
        assert copy.requests == 1 + 3 + 2 + 1, "the head, three ranges, two anew, the checksum"


def test_a_range_that_always_ends_early_is_given_up(
    s3_proxy: CuttingProxy, key: str, tmp_path: Path
) -> None:
    s3_proxy.cuts = [50_000] * 50
    message = refusal(SourceUnavailable, f"s3://open/{key}", s3_proxy.url, tmp_path)
    assert "ended early 3 times" in message


def test_an_object_that_changes_between_two_ranges_is_not_glued_together(
    s3_server: S3Server, tmp_path: Path
) -> None:
    client = s3_server.client()
    client.put_object(Bucket="open", Key="changing", Body=BODY)
    with (
        opened(s3_server.endpoint_url, tmp_path, download_below_bytes=0) as sources,
        sources.open("s3://open/changing") as copy,
    ):
        client.put_object(Bucket="open", Key="changing", Body=BODY[::-1])
        with pytest.raises(InputChanged):
            copy.ensure([(2 * MIB, 2 * MIB + 10)])


def test_only_the_wanted_ranges_of_a_large_object_come(
    s3_server: S3Server, key: str, tmp_path: Path
) -> None:
    with (
        opened(s3_server.endpoint_url, tmp_path, download_below_bytes=0) as sources,
        sources.open(f"s3://open/{key}") as copy,
    ):
        assert (copy.fetched_bytes, copy.requests) == (65536, 1)
        copy.ensure([(MIB, MIB + 1000), (2 * MIB, 2 * MIB + 1000)])
        content = copy.path.read_bytes()
        assert content[MIB : MIB + 1000] == BODY[MIB : MIB + 1000]
        assert content[2 * MIB : 2 * MIB + 1000] == BODY[2 * MIB : 2 * MIB + 1000]
        assert (copy.fetched_bytes, copy.requests) == (67536, 3)
        assert list(copy.present) == [
            (0, 65536),
            (MIB, MIB + 1000),
            (2 * MIB, 2 * MIB + 1000),
        ]


def test_an_object_replaced_in_a_bucket_with_versions_is_read_to_its_end(
    s3_server: S3Server, tmp_path: Path
) -> None:
    client = s3_server.client()
    client.create_bucket(Bucket="kept")
    client.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    first = client.put_object(Bucket="kept", Key="a", Body=BODY)["VersionId"]
    with (
        opened(s3_server.endpoint_url, tmp_path, download_below_bytes=0) as sources,
        sources.open("s3://kept/a") as copy,
    ):
        client.put_object(Bucket="kept", Key="a", Body=BODY[::-1])
        copy.ensure([(MIB, MIB + 1000)])
        assert copy.path.read_bytes()[MIB : MIB + 1000] == BODY[MIB : MIB + 1000]
        assert copy.version_id == first


def test_a_role_that_may_not_read_versions_reads_by_the_etag_alone(
    http_server: HttpServer, tmp_path: Path
) -> None:
    headers = {"x-amz-version-id": "v7"}
    route = http_server.routes["/open/a"] = Route(BODY, headers=headers)
    versioned = http_server.routes["/open/a?versionId=v7"] = Route(status=403)
    with (
        opened(http_server.url(""), tmp_path, download_below_bytes=0) as sources,
        sources.open("s3://open/a") as copy,
    ):
        copy.ensure([(MIB, MIB + 10)])
        copy.ensure([(2 * MIB, 2 * MIB + 10)])
        assert copy.path.read_bytes()[MIB : MIB + 10] == BODY[MIB : MIB + 10]
        assert copy.version_id == "v7"
        assert copy.requests == 1 + 2 + 1
    assert len(versioned.seen) == 1
    assert [seen.get("if-match") for seen in route.seen] == [None, '"v1"', '"v1"']


def test_a_presigned_url_is_read_by_ranges_without_head(
    s3_server: S3Server, key: str, tmp_path: Path
) -> None:
    client = s3_server.client()
    url = client.generate_presigned_url("get_object", Params={"Bucket": "open", "Key": key})
    with (
        opened(
            s3_server.endpoint_url, tmp_path, download_below_bytes=0, private_addresses=True
        ) as sources,
        sources.open(url) as copy,
    ):
        copy.ensure([(MIB, MIB + 1000)])
        assert copy.path.read_bytes()[MIB : MIB + 1000] == BODY[MIB : MIB + 1000]
        client.put_object(Bucket="open", Key=key, Body=BODY[::-1])
        with pytest.raises(InputChanged):
            copy.ensure([(2 * MIB, 2 * MIB + 1000)])
    url = client.generate_presigned_url(
        "get_object", Params={"Bucket": "open", "Key": key}, ExpiresIn=-60
    )
    with (
        opened(s3_server.endpoint_url, tmp_path, private_addresses=True) as sources,
        pytest.raises(SourceDenied, match="has expired; submit a new one"),
        sources.open(url),
    ):
        pass


def test_cancel_is_heard_while_s3_is_silent(
    s3_proxy: CuttingProxy, key: str, tmp_path: Path
) -> None:
    def check() -> None:
        if s3_proxy.connections:
            raise JobCanceled("canceled")

    s3_proxy.silent.clear()
    with (
        opened(s3_proxy.url, tmp_path) as sources,
        pytest.raises(JobCanceled),
        sources.open(f"s3://open/{key}", check=check),
    ):
        pass
    s3_proxy.silent.set()


def test_a_reply_that_is_none_of_s3_may_come_from_something_between(
    http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/open/a"] = Route(BODY, declares_length=False, ranges=False)
    message = refusal(SourceUnavailable, "s3://open/a", http_server.url(""), tmp_path)
    assert "got a reply that is none of S3 (KeyError)" in message
    assert SourceUnavailable.retryable
