"""The bytes of a job's input: in ranges, of the caller's jobs, and of no place that the operator did not open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway import serve_gateway
from support.servers import S3Server

from videoqa.client import Client
from videoqa.gateway import GatewaySettings

Connect = Callable[..., httpx.Client]

CLIP = bytes(range(256)) * 4


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a b.mp4").write_bytes(CLIP)
    (folder / "notes.txt").write_bytes(CLIP)
    (tmp_path / "secret.mp4").write_bytes(CLIP)
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    return folder


@pytest.fixture
def gateway_settings(gateway_settings: GatewaySettings, videos: Path) -> GatewaySettings:
    return gateway_settings.model_copy(update={"gateway_media": f"{videos.as_uri()}/"})


def submit(client: Client, *urls: str) -> str:
    inputs = [{"kind": "video", "url": url} for url in urls]
    return client.submit({"inputs": inputs, "questions": ["What?"], "tenant": "a"}).id


def media(job_id: str, number: int = 0) -> str:
    return f"/v1/jobs/{job_id}/inputs/{number}/media"


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_file_of_an_open_folder_is_played_in_ranges(
    connect: Connect, client: Client, videos: Path
) -> None:
    job_id = submit(client, "https://a.org/x.mp4", (videos / "a b.mp4").as_uri())
    http = connect("read", tenant="a")
    whole = http.get(media(job_id, 1))
    assert (whole.status_code, whole.content) == (200, CLIP)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = http.get(media(job_id, 1), headers={"range": "bytes=300-"})
    assert (part.status_code, part.content) == (206, CLIP[300:])
    assert part.headers["content-range"] == "bytes 300-1023/1024"
    beyond = http.get(media(job_id, 1), headers={"range": "bytes=1024-"})
    assert code_of(beyond) == (416, "range_not_satisfiable")
    tag = whole.headers["etag"]
    assert http.get(media(job_id, 1), headers={"if-none-match": tag}).status_code == 304
    (videos / "a b.mp4").write_bytes(b"other")
    stale = http.get(media(job_id, 1), headers={"range": "bytes=0-1", "if-range": tag})
    assert (stale.status_code, stale.content) == (200, b"other")
    assert code_of(http.get(media(job_id, 2))) == (404, "input_not_found")
    assert code_of(connect("read", tenant="b").get(media(job_id, 1))) == (404, "job_not_found")


def test_an_uploaded_file_is_played_to_its_tenant(connect: Connect) -> None:
    http = connect("submit", "read", tenant="a")
    sent: Any = {"files": {"file": ("a.webm", CLIP)}, "data": {"purpose": "user_data"}}
    file_id = http.post("/v1/files", **sent).json()["id"]
    job = http.post("/v1/jobs", json={"inputs": [file_id], "questions": ["What?"]}).json()
    part = http.get(media(job["id"]), headers={"range": "bytes=1-2"})
    assert (part.status_code, part.content) == (206, CLIP[1:3])
    assert part.headers["content-type"] == "video/webm"
    assert connect("read").get(media(job["id"])).content == CLIP
    assert code_of(connect("read", tenant="b").get(media(job["id"]))) == (404, "job_not_found")


@pytest.mark.parametrize(
    "url",
    [
        "https://a.org/x.mp4",
        "http://127.0.0.1:1/x.mp4",
        "{folder}/secret.mp4",
        "{folder}/videos-other/a.mp4",
        "{folder}/videos/../secret.mp4",
        "{folder}/videos/%2e%2e/secret.mp4",
        "{folder}/videos/link.mp4",
        "{folder}/videos/pipe.mp4",
        "{folder}/videos/folder.mp4",
        "{folder}/videos/notes.txt",
        "s3://videos/a.mp4",
    ],
)
def test_no_other_input_is_read(connect: Connect, client: Client, videos: Path, url: str) -> None:
    job_id = submit(client, url.format(folder=videos.parent.as_uri()))
    assert code_of(connect("admin").get(media(job_id))) == (403, "media_not_served")


def test_a_file_that_has_gone_is_said(connect: Connect, client: Client, videos: Path) -> None:
    job_id = submit(client, f"{videos.as_uri()}/none.mp4")
    assert code_of(connect("admin").get(media(job_id))) == (410, "file_gone")


def test_an_object_of_an_open_bucket_is_played(
    gateway_settings: GatewaySettings,
    keys: Any,
    client: Client,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.admin.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.admin.secret_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    prefix = f"s3://open/{tmp_path.name}/"
    options = {"gateway_media": prefix, "s3_endpoint_url": s3_server.endpoint_url}
    with serve_gateway(gateway_settings, **options) as server:
        objects = server._app.state.resources.client._client._backend._objects
        objects.write(f"{prefix}a%3F.mp4", CLIP)
        text = keys.create("test", ["read"]).text
        http = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {text}"})
        with http:
            job_id = submit(client, f"{prefix}a?.mp4", f"{prefix}none.mp4", "s3://open/a.mp4")
            part = http.get(media(job_id), headers={"range": "bytes=-4"})
            assert (part.status_code, part.content) == (206, CLIP[-4:])
            assert code_of(http.get(media(job_id, 1))) == (410, "file_gone")
            assert code_of(http.get(media(job_id, 2))) == (403, "media_not_served")
