"""A file that is uploaded to a gateway and read by a real worker, in a folder and in a real S3."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from support.gateway import serve_gateway
from support.scenes import Scene, write_clip
from support.servers import WRITER, S3Server
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.gateway.access.keys import KeyStore
from videoqa.jobs import connect
from videoqa.settings import Settings

QUESTION = "Describe the video."


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_job_about_a_file_answers_as_one_about_its_path(
    place: str,
    worker: WorkerProcess,
    stack_settings: Settings,
    stack_client: Client,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = write_clip(Scene.single("green", "triangle", "down"), tmp_path / "clip.mp4")
    native = stack_client.submit(inputs=[clip.as_uri()], questions=[QUESTION], cache="off")
    where = {"gateway_files": str(tmp_path / "files")}
    if place == "s3":
        for name, value in s3_server.environment(WRITER).items():
            monkeypatch.setenv(name, value)
        where = {
            "gateway_files": f"s3://open/{tmp_path.name}/",
            "s3_endpoint_url": s3_server.endpoint_url,
        }
    with serve_gateway(stack_settings, **where) as gateway, connect(stack_settings) as redis_client:
        store = KeyStore(redis_client, url=stack_settings.redis_url, prefix=stack_settings.prefix)
        key = store.create("files", ["submit", "read"], tenant="files").text
        with (
            httpx.Client(
                base_url=gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=60
            ) as http,
            clip.open("rb") as file,
        ):
            made = http.post(
                "/v1/files", files={"file": file}, data={"purpose": "user_data"}
            ).json()
            asked = {"inputs": [made["id"]], "questions": [QUESTION], "cache": "off"}
            found = http.post("/v1/jobs", json=asked, headers={"prefer": "wait=60"}).json()
            assert found["state"] == "succeeded", found
            result = found["result"]
            (source,) = result["sources"]
            assert (source["url"], source["kind"]) == (made["id"], "video")
            assert source["size_bytes"] == made["bytes"]
            # Bytes that are no video fail by the file's id, and by nothing of its place.
            bad = http.post(
                "/v1/files", files={"file": ("a.mp4", b"no video")}, data={"purpose": "user_data"}
            ).json()
            asked["inputs"] = [bad["id"]]
            failed = http.post("/v1/jobs", json=asked, headers={"prefer": "wait=60"})
            assert failed.json()["state"] == "failed"
            assert tmp_path.name not in failed.text
            shown = http.get(f"/v1/jobs/{failed.json()['id']}")
            assert tmp_path.name not in shown.text
            assert shown.json()["request"]["inputs"][0]["url"] == bad["id"]
    assert stack_client.wait(native.id, timeout_s=60).state == "succeeded"
    assert result["answers"][0]["text"] == stack_client.result(native.id).answers[0].text
