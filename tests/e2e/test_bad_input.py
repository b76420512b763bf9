"""Bad input, end to end: each kind ends in its own stable code, said in a clear message, about the right field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import pytest
from support.scenes import Scene, write_clip
from support.servers import HttpServer, Route
from support.stack import WorkerProcess

from videoqa import errors
from videoqa.client import Client
from videoqa.contract import Failure, Job
from videoqa_worker.embedded import S3Server
from videoqa_worker.embedded.process import free_port

SCENE = Scene.single("red", "circle", "right")
HTML = b"<!doctype html><html><head><title>Login</title></head><body>Please log in</body></html>"

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(SCENE, tmp_path_factory.mktemp("clips") / "clip.mp4", duration_s=4)


def ask(client: Client, url: str, **fields: Any) -> Job:
    job = client.submit(
        {"inputs": [url], "questions": ["What is moving?"], "max_attempts": 1, **fields}
    )
    return client.wait(job.id, timeout_s=60)


def failure_of(job: Job) -> Failure:
    assert job.state == "failed", job
    assert job.failure is not None
    return job.failure


def expect(job: Job, code: str, *words: str, param: str | None = "inputs.0.url") -> None:
    failure = failure_of(job)
    assert (failure.code, failure.param) == (code, param), failure
    for word in words:
        assert word in failure.message, failure.message


# What the client refuses before anything is recorded


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"questions": [" "]}, "empty_question", "questions.0.text"),
        ({"questions": ["<video>"]}, "empty_question", "questions.0.text"),
        ({"inputs": []}, "no_media", "inputs"),
        ({"questions": ["<video> or <video>?"]}, "mark_mismatch", "questions.0.text"),
        ({"inputs": ["ftp://host/clip.mp4"]}, "invalid_request", "inputs.0.url"),
    ],
)
def test_a_wrong_request_is_refused_at_once(
    stack_client: Client, fields: dict[str, Any], code: str, param: str
) -> None:
    request = {"inputs": ["s3://open/clip.mp4"], "questions": ["What?"], **fields}
    with pytest.raises(errors.RequestError) as caught:
        stack_client.submit(request)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_an_unknown_job_id_is_not_found(stack_client: Client) -> None:
    for call in (stack_client.get, stack_client.result, stack_client.cancel, stack_client.wait):
        with pytest.raises(errors.JobNotFound):
            call("job_unknown")


# Files


def test_a_missing_file(stack_client: Client, tmp_path: Path) -> None:
    expect(ask(stack_client, (tmp_path / "no.mp4").as_uri()), "source_not_found", "no.mp4")


def test_an_empty_file(stack_client: Client, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    expect(ask(stack_client, (tmp_path / "empty.mp4").as_uri()), "source_empty")


def test_a_file_with_sound_alone(stack_client: Client, tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        for n in range(20):
            samples = np.zeros((1, 1024), dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, n * 1024
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    expect(ask(stack_client, path.as_uri()), "no_video_stream")


def test_a_truncated_video(stack_client: Client, clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    expect(ask(stack_client, path.as_uri()), "video_truncated", "set end=")


def test_a_truncated_video_is_answered_up_to_where_it_goes(
    stack_client: Client, clip: Path, tmp_path: Path
) -> None:
    data = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) * 3 // 4])
    job = stack_client.submit(
        inputs=[{"url": path.as_uri(), "end": 1.5}], questions=["What color is it?"]
    )
    stack_client.wait(job.id, timeout_s=60)
    assert stack_client.result(job.id).answers[0].text == "red"


@pytest.mark.parametrize("frames", [1, 3])
def test_a_video_with_fewer_frames_than_asked_is_answered_and_says_so(
    stack_client: Client, tmp_path: Path, frames: int
) -> None:
    clip = write_clip(SCENE, tmp_path / "short.mp4", duration_s=frames / 25)
    job = ask(stack_client, clip.as_uri())
    assert job.state == "succeeded", job.failure
    result = stack_client.result(job.id)
    assert [frame.index for frame in result.frames] == list(range(frames))
    assert [warning.code for warning in result.warnings] == ["fewer_frames"]


def test_a_clip_range_outside_the_video(stack_client: Client, clip: Path) -> None:
    job = ask(stack_client, "", inputs=[{"url": clip.as_uri(), "start": 60.0}])
    expect(job, "clip_out_of_range", "60", "4")


# HTTP


def test_a_web_page_instead_of_a_video(stack_client: Client, http_server: HttpServer) -> None:
    http_server.routes["/clip.mp4"] = Route(HTML, headers={"Content-Type": "text/html"})
    expect(ask(stack_client, http_server.url("/clip.mp4")), "not_a_video", "web page")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "source_not_found"),
        (403, "source_denied"),
        (503, "source_unavailable"),
        (418, "source_http_error"),
    ],
)
def test_an_http_error(
    stack_client: Client, http_server: HttpServer, status: int, code: str
) -> None:
    http_server.routes["/clip.mp4"] = Route(HTML, status=status)
    expect(ask(stack_client, http_server.url("/clip.mp4")), code, str(status))


def test_an_http_server_that_never_answers(stack_client: Client, http_server: HttpServer) -> None:
    http_server.routes["/clip.mp4"] = Route(b"x", wait_s=60)
    expect(
        ask(stack_client, http_server.url("/clip.mp4")), "source_timeout", "sent nothing for 2 s"
    )


def test_a_job_that_takes_longer_than_its_timeout(
    stack_client: Client, http_server: HttpServer
) -> None:
    http_server.routes["/clip.mp4"] = Route(b"x", wait_s=60)
    job = ask(stack_client, http_server.url("/clip.mp4"), timeout_s=1)
    expect(job, "job_timeout", "timeout_s=1", param=None)


def test_a_refused_connection(stack_client: Client) -> None:
    expect(ask(stack_client, f"http://127.0.0.1:{free_port()}/clip.mp4"), "source_unreachable")


def test_a_server_that_comes_back_is_asked_again(
    stack_client: Client, http_server: HttpServer, clip: Path
) -> None:
    def back_up(route: Route) -> None:
        if len(route.seen) > 1:
            route.status, route.body = 200, clip.read_bytes()

    http_server.routes["/clip.mp4"] = Route(HTML, status=503, on_request=back_up)
    job = ask(stack_client, http_server.url("/clip.mp4"), max_attempts=3)
    assert (job.state, job.attempt) == ("succeeded", 2)


# S3


def test_a_missing_s3_key(stack_client: Client) -> None:
    expect(ask(stack_client, "s3://open/nothing.mp4"), "source_not_found", "nothing.mp4")


def test_a_missing_s3_bucket(stack_client: Client) -> None:
    expect(ask(stack_client, "s3://gone/clip.mp4"), "bucket_not_found")


def test_a_denied_s3_object(stack_client: Client, s3_server: S3Server, clip: Path) -> None:
    s3_server.client().put_object(Bucket="closed", Key="clip.mp4", Body=clip.read_bytes())
    expect(ask(stack_client, "s3://closed/clip.mp4"), "source_denied")


# Outputs


def test_an_output_that_the_worker_may_not_write(
    stack_client: Client, clip: Path, tmp_path: Path
) -> None:
    job = ask(stack_client, clip.as_uri(), output=(tmp_path / "x").as_uri() + "/{job_id}.json")
    expect(job, "output_denied", "VIDEOQA_OUTPUT_ROOTS", param="output")
    assert list(tmp_path.iterdir()) == []
    job = ask(stack_client, clip.as_uri(), output="s3://closed/{job_id}.json")
    expect(job, "output_denied", param="output")


def test_an_output_in_s3_holds_the_same_result_as_the_record(
    stack_client: Client, s3_server: S3Server, clip: Path
) -> None:
    job = ask(
        stack_client,
        clip.as_uri(),
        output="s3://open/answers/{date}/{custom_id}.json",
        custom_id="a/b",
    )
    assert job.state == "succeeded", job.failure
    assert job.result_url is not None
    key = unquote(job.result_url.removeprefix("s3://open/"))
    assert key.endswith("/a--b.json")  # a custom id is one name, and no way to other folders
    text = s3_server.client().get_object(Bucket="open", Key=key)["Body"].read()
    assert b'"text": "a red circle"' in text


# Models and time


def test_a_model_that_no_worker_serves_is_said_while_waiting_and_expires(
    stack_client: Client, clip: Path
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    job = stack_client.submit(
        inputs=[clip.as_uri()], questions=["What?"], model="org/nobody", start_by=soon
    )
    assert stack_client.get(job.id).waiting_for == "no running worker serves model org/nobody"
    ended = stack_client.wait(job.id, timeout_s=30)
    assert ended.state == "expired"
    assert ended.failure is not None
    assert ended.failure.code == "start_by_passed"


def test_a_running_job_is_canceled_within_seconds(
    stack_client: Client, http_server: HttpServer, worker: WorkerProcess
) -> None:
    http_server.routes["/clip.mp4"] = Route(b"x", wait_s=60)
    job = stack_client.submit(inputs=[http_server.url("/clip.mp4")], questions=["What?"])
    for event in stack_client.events(job.id, timeout_s=30):
        if event.stage == "fetching":
            break
    # Were it not heard of at once, the silent source would end the job: as failed, after 2 s.
    assert stack_client.cancel(job.id).state in ("canceling", "canceled")
    assert stack_client.wait(job.id, timeout_s=60).state == "canceled"
