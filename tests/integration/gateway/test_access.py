"""Keys: what their jobs may read and write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from videoqa.errors import InvalidRequest
from videoqa.gateway.access.input_scope import ANY_HTTP, EVERYTHING, check_prefixes, is_inside
from videoqa.gateway.access.keys import KeyStore
from videoqa.jobs import Ledger

Connect = Callable[..., httpx.Client]

QUESTIONS = ["What is it?"]
FORBIDDEN = "file:///etc/passwd"

INSIDE = [
    ("https://a.org/x.mp4", ANY_HTTP),
    ("HTTP://A.org:8080/x.mp4?y=../z", ANY_HTTP),
    ("https://a.org/v/x.mp4", ["https://a.org/"]),
    ("HTTPS://A.ORG.:443/v/x.mp4", ["https://a.org/v/"]),
    ("https://user:word@a.org/v", ["https://a.org/v"]),
    ("https://a.org/v/x", ["https://a.org/v"]),
    ("https://a.org/%76/x", ["https://a.org/v/"]),
    ("https://a.org", ["https://a.org"]),
    ("s3://videos/a/b/x.mp4?versionId=1", ["s3://videos/a/b/"]),
    ("s3://videos/x.mp4", ["https://a.org/", "s3://videos"]),
    ("s3://videos/a b+c/x y.mp4", ["s3://videos/a b+c/"]),
    ("s3://videos/a/x#1?b\\c.mp4", ["s3://videos/a/"]),
    ("s3://videos/100%/x.mp4", ["s3://videos/100%/"]),
    ("S3://videos/#a/?/x.mp4", ["s3://videos/#a/?/"]),
    ("s3://videos/a@b//x.mp4", ["s3://videos/a@b"]),
    ("file:///data/v/x.mp4", ["file:///data/v/"]),
    ("file://localhost/data/x.mp4", ["file:///data"]),
    ("file:///data/x.mp4", EVERYTHING),
    ("s3://videos/x.mp4", EVERYTHING),
]
OUTSIDE = [
    ("file:///data/x.mp4", ANY_HTTP),
    ("FILE:///data/x.mp4", ANY_HTTP),
    ("s3://videos/x.mp4", ANY_HTTP),
    (" s3://videos/x.mp4", ANY_HTTP),
    ("ht\ttps://a.org/x", ANY_HTTP),
    ("ftp://a.org/x", ANY_HTTP),
    ("https://a.org/x", ["http://"]),
    ("http://a.org/x", ["https://a.org/"]),
    ("https://a.org:8443/x", ["https://a.org/"]),
    ("https://a.org:99999/x", ["https://a.org/"]),
    ("https://a.org.evil.org/x", ["https://a.org/"]),
    ("https://evil-a.org/x", ["https://a.org/"]),
    ("https://a.org@evil.org/x", ["https://a.org/"]),
    ("https://evil.org@x@a.org/x", ["https://a.org/"]),
    ("https://evil.org\\@a.org/x", ["https://a.org/"]),
    ("https://evil.org#@a.org/x", ["https://a.org/"]),
    ("https://evil.org?@a.org/x", ["https://a.org/"]),
    ("https://a.org../x", ["https://a.org/"]),
    ("https://a%2eorg/x", ["https://a.org/"]),
    ("https:a.org/x", ["https://a.org/"]),
    ("https:///a.org/x", ["https://a.org/"]),
    ("https://a.org/vv/x", ["https://a.org/v"]),
    ("https://a.org/v", ["https://a.org/v/"]),
    ("https://a.org//v/x", ["https://a.org/v/"]),
    ("https://a.org/V/x", ["https://a.org/v/"]),
    ("https://a.org/v%2Fx", ["https://a.org/v/"]),
    ("https://a.org/v/../x", ["https://a.org/v/"]),
    ("https://a.org/v/%2e%2E/x", ["https://a.org/v/"]),
    ("https://a.org/v/.%2e/x", ["https://a.org/v/"]),
    ("https://a.org/v/%252e%252e/x", ["https://a.org/v/"]),
    ("https://a.org/v/%25252e%25252e/x", ["https://a.org/v/"]),
    ("https://a.org/v/..%2fx", ["https://a.org/v/"]),
    ("https://a.org/v/..%5cx", ["https://a.org/v/"]),
    ("https://a.org/v/..;y/x", ["https://a.org/v/"]),
    ("https://a.org/v/.", ["https://a.org/v/"]),
    ("https://a.org/v/%" + "25" * 20 + "2e", ["https://a.org/v/"]),
    ("s3://videos-other/x", ["s3://videos"]),
    ("s3://videos-other/x", ["s3://videos/"]),
    ("s3://Videos/x", ["s3://videos/"]),
    ("s3://videos./x", ["s3://videos/"]),
    ("s3://videos:80/x", ["s3://videos/"]),
    ("s3://videos@other/x", ["s3://videos/"]),
    ("s3://vid\neos/x", ["s3://videos/"]),
    ("s3://videos/ab/x", ["s3://videos/a"]),
    ("s3://videos/ a/x", ["s3://videos/a"]),
    ("s3://videos/a\\..\\b", ["s3://videos/a"]),
    ("s3://videos/a/..;x/b", ["s3://videos/a"]),
    ("s3://a:b@videos/x", ["s3://videos"]),
    ("s3:/videos/x", ["s3://videos"]),
    ("s3://videos/a?versionId=1/../b", ["s3://videos/b"]),
    ("s3://videos/a", ["s3://videos/a/"]),
    ("s3://videos/a/../b", ["s3://videos/a/"]),
    ("s3://videos/a/?x/../../b", ["s3://videos/a/"]),
    ("s3://videos/a/%2e%2e/b", ["s3://videos/a/"]),
    ("s3://videos/%61/b", ["s3://videos/a/"]),
    ("file://host/data/x", ["file:///data/"]),
    ("file:///data/../etc/passwd", ["file:///data/"]),
    ("file:///data/%2e%2e/etc/passwd", ["file:///data/"]),
    ("file:///database/x", ["file:///data"]),
]


@pytest.mark.parametrize(("url", "prefixes"), INSIDE)
def test_a_url_below_a_prefix_may_be_read(url: str, prefixes: list[str]) -> None:
    assert is_inside(url, prefixes)


@pytest.mark.parametrize(("url", "prefixes"), OUTSIDE)
def test_a_url_beside_a_prefix_may_not_be_read(url: str, prefixes: list[str]) -> None:
    assert not is_inside(url, prefixes)


@pytest.mark.parametrize(
    "prefix",
    ["", "a.org", "s3://", "s3:///x", "file://", "file:///", "https:///", "ftp://a/", "https://a@b/",
     "s3://b/../c", "https://a/?x", "file://host/x"],
)  # fmt: skip
def test_a_prefix_of_everything_or_nothing_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidRequest, match="expected s3://bucket/prefix/"):
        check_prefixes((prefix,))


@pytest.mark.parametrize(
    "inputs",
    [FORBIDDEN, [FORBIDDEN], {"url": FORBIDDEN}, [{"kind": "image", "url": FORBIDDEN}],
     ["https://a.org/x.mp4", {"url": "s3://bucket/x.mp4"}]],
)  # fmt: skip
def test_a_job_reads_what_its_key_may(connect: Connect, inputs: Any) -> None:
    http = connect("submit", "read", tenant="a")
    body = {"inputs": inputs, "questions": QUESTIONS}
    refused = http.post("/v1/jobs", json=body)
    problem = refused.json()
    number = 1 if isinstance(inputs, list) and len(inputs) == 2 else 0
    assert (refused.status_code, problem["code"]) == (403, "input_not_allowed"), problem
    assert problem["param"] == f"inputs.{number}.url"
    good = {"inputs": ["https://a.org/x.mp4"], "questions": QUESTIONS}
    first, second = http.post("/v1/jobs:batch", json={"jobs": [body, good]}).json()["jobs"]
    assert first["error"]["code"] == "input_not_allowed"
    assert first["error"]["param"] == f"jobs.0.inputs.{number}.url"
    assert second["job"]["state"] == "queued"


def test_a_key_of_a_bucket_reads_there_only_and_writes_to_its_prefix(
    connect: Connect, keys: KeyStore, ledger: Ledger
) -> None:
    made = keys.create(
        "bucket", ["submit"], tenant="a", inputs=["s3://videos/a/"], output="s3://results/a/"
    )
    http = connect()
    http.headers["authorization"] = f"Bearer {made.text}"
    statuses = {}
    for url in ("s3://videos/a/x.mp4", "s3://videos/b/x.mp4", "https://a.org/x.mp4"):
        answer = http.post("/v1/jobs", json={"inputs": [url], "questions": QUESTIONS})
        statuses[url] = answer.status_code
        if answer.status_code == 202:
            stored = ledger.get(answer.json()["id"], include_request=True).request
            assert stored is not None
            assert stored.output == "s3://results/a/{job_id}.json"
    assert list(statuses.values()) == [202, 403, 403]


@pytest.mark.parametrize(
    "output", ["s3://b/{custom_id}", "s3://b/one.json", "https://b/", "s3://b/../{job_id}"]
)
def test_an_output_that_callers_could_bend_is_refused(keys: KeyStore, output: str) -> None:
    with pytest.raises(InvalidRequest, match="got the output"):
        keys.create("x", ["submit"], output=output)
