"""OpenAI's client against a real worker: chats are the native path's answers, token by token."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from support.gateway import serve_gateway
from support.processes import wait_until
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.gateway.access.keys import KeyStore
from videoqa.jobs import connect
from videoqa.settings import Settings

QUESTIONS = ["Describe the video.", "What color is it?", "What is moving?"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = Scene.single("green", "triangle", "down")
    return write_clip(scene, tmp_path_factory.mktemp("clips") / "clip.mp4")


def serve(settings: Settings, clip: Path, **options: Any) -> Iterator[OpenAI]:
    with serve_gateway(settings, **options) as gateway, connect(settings) as redis_client:
        store = KeyStore(redis_client, url=settings.redis_url, prefix=settings.prefix)
        inputs = ["https://", f"{clip.parent.as_uri()}/"]
        key = store.create("ai", ["submit", "read"], tenant="a", inputs=inputs).text
        with OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=60) as ai:
            yield ai


@pytest.fixture
def ai(worker: WorkerProcess, stack_settings: Settings, clip: Path) -> Iterator[OpenAI]:
    yield from serve(stack_settings, clip)


def ask(clip: Path, question: str, **fields: Any) -> dict[str, Any]:
    parts = [
        {"type": "video_url", "video_url": {"url": clip.as_uri()}},
        {"type": "text", "text": question},
    ]
    return {"messages": [{"role": "user", "content": parts}], "model": openai.omit, **fields}


def join(chunks: list[Any]) -> str:
    return "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)


def test_answers_are_those_of_the_native_path(ai: OpenAI, stack_client: Client, clip: Path) -> None:
    for n, question in enumerate(QUESTIONS):
        is_streamed = n != 1
        options = {"max_tokens": 12, "temperature": 0.7, "seed": n} if n == 2 else {}
        made: Any = ai.chat.completions.create(
            **ask(clip, question, **options, stream=is_streamed),
            **({"stream_options": {"include_usage": True}} if is_streamed else {}),
        )
        generation = {"max_new_tokens": 12, "temperature": 0.7, "seed": n} if n == 2 else {}
        native = stack_client.submit(
            inputs=[clip.as_uri()], questions=[question], cache="off", generation=generation
        )
        assert stack_client.wait(native.id, timeout_s=60).state == "succeeded"
        expected = stack_client.result(native.id).answers[0]
        if is_streamed:
            chunks = list(made)
            text, usage = join(chunks), chunks[-1].usage
            assert chunks[-2].choices[0].finish_reason == expected.finish_reason
        else:
            text, usage = made.choices[0].message.content, made.usage
            assert made.choices[0].finish_reason == expected.finish_reason
        assert text == expected.text
        assert usage.completion_tokens == expected.output_tokens
        assert usage.prompt_tokens == expected.input_tokens


def test_frames_are_those_of_the_native_path(ai: OpenAI, stack_client: Client, clip: Path) -> None:
    """Older parameters of videoqa go by `extra_body`."""
    made = ai.chat.completions.with_raw_response.create(
        **ask(clip, QUESTIONS[0]),
        extra_body={"sampling": {"method": "fps", "fps": 2, "frames": 3}},
    )
    result = stack_client.result(made.headers["x-videoqa-job-id"])
    assert (result.sampling.method, result.sampling.fps) == ("fps", 2)
    assert len(result.frames) == 3
    assert made.parse().choices[0].message.content == result.answers[0].text


def test_a_batch_is_answered_as_the_native_path_does(
    worker: WorkerProcess,
    stack_settings: Settings,
    stack_client: Client,
    clip: Path,
    tmp_path: Path,
) -> None:
    """The lines have a URL, an uploaded file, a `data:` URL, and a video that is not there."""
    for ai in serve(stack_settings, clip, gateway_files=str(tmp_path / "files")):
        video = ai.files.create(file=clip, purpose="user_data")
        inline = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
        missing = (clip.parent / "none.mp4").as_uri()
        lines = [
            {
                "custom_id": str(n),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "video_url", "video_url": {"url": url}},
                                {"type": "text", "text": QUESTIONS[0]},
                            ],
                        }
                    ],
                    "max_tokens": 50 + n,
                },
            }
            for n, url in enumerate((clip.as_uri(), video.id, inline, missing))
        ]
        content = "\n".join(json.dumps(line) for line in lines).encode()
        file = ai.files.create(file=("lines.jsonl", content), purpose="batch")
        made = ai.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        wait_until(lambda: ai.batches.retrieve(made.id).status in ("completed", "failed"))  # noqa: B023
        done = ai.batches.retrieve(made.id)
        assert done.status == "completed", done.errors
        native = stack_client.submit(
            inputs=[clip.as_uri()], questions=[QUESTIONS[0]], cache="off",
            generation={"max_new_tokens": 50},
        )  # fmt: skip
        stack_client.wait(native.id, timeout_s=60)
        expected = stack_client.result(native.id).answers[0]
        found = read_lines(ai, done.output_file_id)
        assert found.keys() == {"0", "1", "2"}
        for line in found.values():
            body = line["response"]["body"]
            assert body["choices"][0]["message"]["content"] == expected.text
            assert body["usage"]["completion_tokens"] == expected.output_tokens
        failed = read_lines(ai, done.error_file_id)["3"]["response"]
        assert (failed["status_code"], failed["body"]["error"]["code"]) == (400, "source_not_found")


def read_lines(ai: OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id is not None
    lines = [json.loads(line) for line in ai.files.content(file_id).text.splitlines()]
    return {line["custom_id"]: line for line in lines}


SLOW_STEPS = """
import time
from videoqa_worker.engine.execution.forward import ForwardPass
answered = ForwardPass.decode
def decode(forward, first, slots, **more):
    if max(one.position for slot in slots for one in slot) > 100:  # not the warm-up
        time.sleep(0.2)
    return answered(forward, first, slots, **more)
ForwardPass.decode = decode
"""
"""A worker that takes its time for each token, so that it can be killed between two of them."""


def test_a_worker_that_is_killed_in_the_middle_of_a_stream_is_replaced(
    stack_settings: Settings, clip: Path, tmp_path: Path
) -> None:
    settings = stack_settings.model_copy(update={"prefix": "openaikill"})
    with Client(settings=settings) as client:
        first = WorkerProcess(settings, tmp_path / "1", before=SLOW_STEPS)
        first.wait_ready(client)
        gateway = serve(settings, clip)
        ai = next(gateway)
        stream, begun = catch_streaming(client, first, ai, clip)
        second = WorkerProcess(settings, tmp_path / "2")
        with first, second:
            chunks = [begun, *stream]
            job = client.list().jobs[0]
            assert (job.state, job.attempt) == ("succeeded", 2)
            assert join(chunks) == client.result(job.id).answers[0].text
            assert chunks[-1].choices[0].finish_reason
            gateway.close()


def catch_streaming(
    client: Client, worker: WorkerProcess, ai: OpenAI, clip: Path
) -> tuple[Iterator[Any], Any]:
    """Kills the worker behind the first piece of an answer; returns the stream and that piece."""
    for n in range(20):
        asked = ask(clip, QUESTIONS[0], max_tokens=100 + n, stream=True)
        stream: Any = ai.chat.completions.create(**asked)
        begun = next(stream)
        os.kill(worker.pid, signal.SIGSTOP)
        job = client.list().jobs[0]
        if job.state == "running":
            worker.kill()
            return stream, begun
        os.kill(worker.pid, signal.SIGCONT)
        list(stream)
    raise AssertionError("20 answers were too quick")
