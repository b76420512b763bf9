"""Errors of object stores: by S3's own protocol, and behind presigned URLs, each with its next step."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.servers import HttpServer, Route

from videoqa.contract import JobRequest, is_image_url, redact_url
from videoqa.errors import (
    BucketNotFound,
    InvalidRequest,
    SourceDenied,
    SourceEmpty,
    SourceError,
    SourceHttpError,
    SourceNotFound,
    SourceUnavailable,
    VideoQAError,
)
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources, remove_signature

SECRET = "marker"


def xml(code: str, message: str = "", **more: str) -> bytes:
    rest = "".join(f"<{name}>{text}</{name}>" for name, text in more.items())
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        f"{rest}<StringToSign>{SECRET}</StringToSign></Error>"
    ).encode()


CASES: list[tuple[int, bytes, type[SourceError], str]] = [
    (403, xml("InvalidObjectState", StorageClass="GLACIER"), SourceDenied, "restore it"),
    (403, xml("AccessDenied", "Request has expired", Expires="2026"), SourceDenied, "has expired"),
    (400, xml("ExpiredToken", "The provided token has expired."), SourceDenied, "has expired"),
    (403, xml("AccessDenied", "Request is not yet valid"), SourceUnavailable, "clock"),
    (403, xml("AccessDenied", "User is not authorized to perform: kms:Decrypt"), SourceDenied, "kms:Decrypt"),
    (403, xml("AccessDenied", "Access Denied"), SourceDenied, "VIDEOQA_SOURCE_REQUESTER_PAYS"),
    (403, xml("RequestTimeTooSkewed"), SourceUnavailable, "clock"),
    (400, xml("AuthorizationHeaderMalformed", "wrong; expecting 'eu-west-1'", Region="eu-west-1"),
     SourceHttpError, "the region eu-west-1"),
    (301, xml("PermanentRedirect", Endpoint="b.s3.eu-west-1.amazonaws.com"), SourceHttpError, "eu-west-1"),
    (404, xml("NoSuchBucket"), BucketNotFound, "bucket's name"),
    (404, xml("NoSuchKey"), SourceNotFound, "check the key"),
    (404, xml("NoSuchVersion"), SourceNotFound, "version"),
    (405, xml("MethodNotAllowed"), SourceNotFound, "deleted"),
    (503, xml("SlowDown"), SourceUnavailable, "try again"),
    (400, xml("RequestTimeout"), SourceUnavailable, "try again"),
    (400, xml("KMS.DisabledException"), SourceDenied, "enable the key"),
    (400, xml("KMS.ThrottlingException"), SourceUnavailable, "try again"),
    (400, xml("InvalidRequest", "The object was stored using a form of Server Side Encryption."), SourceDenied,
     "SSE-C"),
    (403, xml("InvalidAccessKeyId"), SourceDenied, "access key id is unknown"),
    (403, xml("SignatureDoesNotMatch"), SourceDenied, "secret key"),
    (400, xml("UserProjectMissing"), SourceDenied, "userProject"),
    (418, xml("NeverHeardOf"), SourceHttpError, "418"),
]  # fmt: skip
OF_AZURE: list[tuple[int, bytes, type[SourceError], str]] = [
    (409, xml("BlobArchived"), SourceDenied, "restore it"),
    (409, xml("BlobBeingRehydrated"), SourceDenied, "restore it"),
    (404, xml("BlobNotFound"), SourceNotFound, "check the key"),
    (404, xml("ContainerNotFound"), BucketNotFound, "bucket's name"),
    (403, xml("AuthenticationFailed", "x", AuthenticationErrorDetail="Signed expiry time [] must be after"),
     SourceDenied, "has expired"),
    (403, xml("AuthenticationFailed", "Server failed"), SourceDenied, "signed URL"),
    (503, xml("ServerBusy"), SourceUnavailable, "try again"),
    (403, xml("AccessDenied", "x", Details="anonymous caller"), SourceDenied, "s3:GetObject"),
]  # fmt: skip


def refusal(
    url: str, spool: Path, endpoint_url: str | None = None, **settings: object
) -> SourceError:
    config = SourceConfig(spool_dir=spool, **{"private_addresses": True, **settings})  # type: ignore[arg-type]
    with (
        Sources(config, s3_endpoint_url=endpoint_url) as sources,
        pytest.raises(VideoQAError) as caught,
        sources.open(url),
    ):
        pass
    assert isinstance(caught.value, SourceError)
    assert SECRET not in str(caught.value)
    return caught.value


def test_errors_behind_a_presigned_url_are_told_by_their_code(
    http_server: HttpServer, tmp_path: Path
) -> None:
    wrong = []
    for status, body, kind, told in CASES + OF_AZURE:
        headers = {"Content-Type": "application/xml"}
        route = Route(body, status=status, headers=headers)
        http_server.routes["/b/a.mp4?X-Amz-Signature=marker"] = route
        error = refusal(
            http_server.url("/b/a.mp4?X-Amz-Signature=marker"), tmp_path, range_attempts=1
        )
        if type(error) is not kind or told not in str(error):
            wrong.append((body[:90], error.code, str(error)))
    assert wrong == []


def test_errors_of_s3_itself_are_told_by_the_same_words(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    wrong = []
    for status, body, kind, told in CASES:
        if kind is SourceUnavailable or status == 301:  # boto3 itself tries again, or elsewhere
            continue
        http_server.routes["/open/a.mp4"] = Route(body, status=status)
        error = refusal("s3://open/a.mp4", tmp_path, http_server.url(""))
        if type(error) is not kind or (told not in str(error)):
            wrong.append((body[:90], error.code, str(error)))
    assert wrong == []


def test_a_code_in_a_header_or_in_json_is_read_too(http_server: HttpServer, tmp_path: Path) -> None:
    route = http_server.routes["/a"] = Route(
        status=409, headers={"x-ms-error-code": "BlobArchived"}
    )
    assert "restore it" in str(refusal(http_server.url("/a"), tmp_path))
    route.headers = {"Content-Type": "application/json"}
    route.body, route.status = b'{"error": {"code": "NoSuchKey", "reason": "x"}}', 400
    assert isinstance(refusal(http_server.url("/a"), tmp_path), SourceNotFound)
    route.body = b"<html>" + b"<Code>" * 50_000
    assert isinstance(refusal(http_server.url("/a"), tmp_path), SourceHttpError)
    for status in (204, 205):
        http_server.routes["/b"] = Route(status=status)
        assert isinstance(refusal(http_server.url("/b"), tmp_path), SourceEmpty)


def test_a_requester_that_pays_says_so(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    route = http_server.routes["/open/a"] = Route(b"\xff\xd8\xff" * 40)
    for pays in (False, True):
        config = SourceConfig(spool_dir=tmp_path, requester_pays=pays)
        with (
            Sources(config, s3_endpoint_url=http_server.url("")) as sources,
            sources.open("s3://open/a"),
        ):
            pass
        assert route.seen[-1].get("x-amz-request-payer") == ("requester" if pays else None)


# Names of buckets and keys


KEYS = ["a#1.mp4", "#1.mp4", "a?b.mp4", "?b.mp4", "100%.mp4", "a%20b.mp4", "a b+c.mp4", "é/日本.mp4", "/a.mp4",
        "a//b.mp4", "a..b/..c", "a;b&c=d@e:f.mp4", "...", " "]  # fmt: skip


def test_keys_with_any_characters_are_whole_everywhere() -> None:
    for key in KEYS:
        url = f"s3://open/{key}"
        request = JobRequest.model_validate({"inputs": [url], "questions": ["What?"]})
        assert request.inputs[0].url == url
        assert redact_url(url) == url
        assert remove_signature(url) == url
    assert is_image_url("s3://open/a#b.png")
    assert is_image_url("s3://open/a.png?versionId=3")
    assert not is_image_url("s3://open/a.png#b.mp4")
    for secret in ("X-Amz-Signature", "AWSAccessKeyId", "x-amz-security-token"):
        assert redact_url(f"s3://open/a.mp4?a=b&{secret}=marker") == "s3://open/a.mp4"


BUCKETS = ["..", "a..b", "-a", "a-", ".a", "a.", "10.0.0.1", "No_Bucket!", "b:80", "me:pw@b", "é", "a b", "b?x", "b#x",
           "",
           "arn:aws:s3:us-west-2:123456789012:accesspoint", "arn:aws:s3::123456789012:accesspoint"]  # fmt: skip


def test_names_of_buckets_are_refused_alike_for_inputs_and_outputs() -> None:
    for bucket in BUCKETS:
        for request in (
            {"inputs": [f"s3://{bucket}/a.mp4"]},
            {"inputs": ["s3://open/a"], "output": f"s3://{bucket}/{{job_id}}"},
        ):
            with pytest.raises((InvalidRequest, ValueError)):
                JobRequest.model_validate({"questions": ["What?"], **request})
    with pytest.raises(ValueError, match="-s3alias"):
        JobRequest.model_validate({"inputs": [f"s3://{BUCKETS[-1]}/a/b"], "questions": ["?"]})
    alias = "my-ap-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias"
    for bucket in (alias, "a", "Old_Bucket", "b.c-d", "a" * 255):
        JobRequest.model_validate(
            {
                "inputs": [f"s3://{bucket}/a"],
                "output": f"s3://{bucket}/{{job_id}}",
                "questions": ["?"],
            }
        )
    for key in ("../a", "a/./b", "a/..", ".", "a\0b", "", "/", "//"):
        with pytest.raises((InvalidRequest, ValueError)):
            JobRequest.model_validate({"inputs": [f"s3://open/{key}"], "questions": ["?"]})


def test_a_host_with_a_control_character_is_refused_at_once() -> None:
    for host in ("\0h", "h\\evil", "h\x7f", "a b"):
        with pytest.raises((InvalidRequest, ValueError), match="control character"):
            JobRequest.model_validate({"inputs": [f"http://{host}/a.mp4"], "questions": ["?"]})
