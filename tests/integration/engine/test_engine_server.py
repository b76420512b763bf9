"""Answers by a server with OpenAI's protocol: a real `transformers serve`, and one that misbehaves.

The demo model must say the same there and here. What a server does wrong (refuse, break off,
fall silent) is played by a server of the standard library, since a sound one does not.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.models import DEMO, clip, picture
from support.processes import wait_until
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.contract import (
    ChoiceAnswer,
    Generation,
    JsonAnswer,
    RegexAnswer,
    Sampling,
    close_objects,
)
from videoqa.errors import (
    ConfigurationError,
    EngineStopped,
    GenerationError,
    JobCanceled,
    MarkMismatch,
    ModelServerError,
    ModelServerUnavailable,
)
from videoqa.settings import Settings
from videoqa_worker.embedded.process import ServerProcess, free_port
from videoqa_worker.engine import Engine, Generated, MediaQuestion, ServerEngine
from videoqa_worker.engine.sequence.detokenizer import StopStringBuffer
from videoqa_worker.frames import sample_frames
from videoqa_worker.prompt import FrameInput
from videoqa_worker.settings import ServerConfig

QUESTIONS = ["What is moving?", "What color is it?", "Describe the video.", "How many shapes?"]
SHORT = Generation(max_new_tokens=24)
SILENCE_S = 2.0


def ask(
    engine: Engine | ServerEngine,
    media: list[FrameInput],
    text: str,
    generation: Generation,
    **options: Any,
) -> Future[Generated]:
    return engine.ask(MediaQuestion(media, text, generation=generation, **options))


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve` with the demo model."""
    port, folder = free_port(), tmp_path_factory.mktemp("serve")
    binary = Path(sys.executable).parent / "transformers"
    options = ("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32")
    with ServerProcess(
        "transformers serve",
        [str(binary), "serve", str(DEMO), *options],
        log_path=folder / "serve.log",
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    ):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def served(server_url: str) -> Iterator[ServerEngine]:
    with ServerEngine(ServerConfig(url=server_url, model=str(DEMO), start_s=90)) as engine:
        yield engine


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[FrameInput]:
    folder = tmp_path_factory.mktemp("scenes")
    found = []
    for n, words in enumerate((("green", "triangle", "down"), ("red", "circle", "right"))):
        path = write_clip(Scene.single(*words), folder / f"{n}.mp4")
        frames = sample_frames(path, Sampling(frames=8)).frames
        found.append(FrameInput("video", tuple(frame.pixels for frame in frames)))
    return found


def test_the_model_says_there_what_it_says_here(
    served: ServerEngine, engine_of: Callable[..., Engine], scenes: list[FrameInput]
) -> None:
    here = engine_of("demo", pixels="reference")
    asked = [([media], question) for media in scenes for question in QUESTIONS]
    there = [ask(served, media, question, SHORT) for media, question in asked]
    for (media, question), future in zip(asked, there, strict=True):
        answer, expected = future.result(60), ask(here, media, question, SHORT).result(60)
        assert (answer.text, answer.finish_reason) == (expected.text, expected.finish_reason)
        assert answer.input_tokens == expected.input_tokens
        assert answer.first_token_s > 0
    assert there[0].result().text == "a green triangle"


def test_text_comes_as_it_is_written(served: ServerEngine, scenes: list[FrameInput]) -> None:
    pieces: list[str] = []
    answer = ask(served, scenes[:1], "What is moving?", SHORT, on_text=pieces.append).result(60)
    assert "".join(pieces).strip() == answer.text
    assert len(pieces) > 1


def test_an_answer_ends_at_its_limit_and_at_a_stop_string(
    served: ServerEngine, scenes: list[FrameInput]
) -> None:
    short = ask(served, scenes[:1], "What is moving?", Generation(max_new_tokens=2)).result(60)
    assert (short.finish_reason, short.output_tokens) == ("length", 2)
    stopped = ask(served, scenes[:1], "What is moving?", Generation(stop=(" tri",))).result(60)
    assert (stopped.text, stopped.finish_reason) == ("a green", "stop_string")


def test_marks_place_pictures_and_typed_tokens_are_text(
    served: ServerEngine, scenes: list[FrameInput]
) -> None:
    marked = ask(served, [picture(1), picture(2)], "<image> or <image>?", SHORT).result(60)
    assert marked.output_tokens
    with pytest.raises(MarkMismatch):
        ask(served, [picture(1)], "<image> or <image>?", SHORT)
    plain = ask(served, scenes[:1], "What is moving?", SHORT).result(60)
    typed = ask(served, scenes[:1], "What is moving? <|im_end|><|image_pad|>", SHORT).result(60)
    assert typed.input_tokens > plain.input_tokens


def test_a_worker_answers_by_the_server(
    server_url: str, served: ServerEngine, stack_settings: Settings, tmp_path: Path
) -> None:
    settings = stack_settings.model_copy(update={"prefix": "served"})
    video = write_clip(Scene.single("blue", "square", "left"), tmp_path / "clip.mp4")
    worker = WorkerProcess(
        settings,
        tmp_path / "worker",
        VIDEOQA_SERVER_URL=server_url,
        VIDEOQA_SERVER_MODEL=str(DEMO),
    )
    with Client(settings=settings) as client, worker:
        worker.wait_ready(client)
        job = client.submit(inputs=[video.as_uri()], questions=["What is moving?"], stream=True)
        events = list(client.events(job.id, timeout_s=60))
        assert client.result(job.id).answers[0].text == "a blue square"
        assert "".join(event.text or "" for event in events).strip() == "a blue square"


# -- a server that misbehaves


class Misbehaving(ThreadingHTTPServer):
    """Answers each request as `behave` says; counts who has hung up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.behave: Callable[[_Answer], None] = _Answer.sound
        self.bodies: list[dict[str, Any]] = []
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Answer(BaseHTTPRequestHandler):
    server: Misbehaving

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.behave(self)

    def log_message(self, *_: Any) -> None:
        pass

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()

    def chunk(self, text: str | None, finish: str | None = None) -> None:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
        data = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        self.wfile.write(f"data: {json.dumps(data | {'choices': [choice]})}\n\n".encode())
        self.wfile.flush()

    def sound(self) -> None:
        self.begin()
        self.chunk("fine")
        self.chunk(None, "stop")
        self.wfile.write(b"data: [DONE]\n\n")

    def broken_off(self) -> None:
        self.begin()
        self.chunk("fi")

    def given_up(self) -> None:
        self.begin()
        self.chunk("half an ans")
        self.chunk(None, "abort")
        self.wfile.write(b"data: [DONE]\n\n")

    def endless(self) -> None:
        self.begin()
        try:
            for _ in range(10_000):
                self.chunk("on and ")
                time.sleep(0.01)
        except OSError:
            self.server.hung_up.set()

    def silent(self) -> None:
        self.begin()
        self.rfile.read(1)
        self.server.hung_up.set()

    def mute(self) -> None:
        self.rfile.read(1)

    def refusing(self, status: int, message: str) -> None:
        body = json.dumps({"error": {"message": message}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def engine(server: Misbehaving) -> Iterator[ServerEngine]:
    with ServerEngine(ServerConfig(url=server.url, model="m", silence_s=SILENCE_S)) as engine:
        yield engine


def test_settings_of_a_request_reach_the_server(engine: ServerEngine, server: Misbehaving) -> None:
    generation = Generation(max_new_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=("a", "b"))
    assert ask(engine, [clip(1, 2)], "What?", generation).result(30).text == "fine"
    body = server.bodies[-1]
    sent = {name: body[name] for name in ("max_tokens", "temperature", "top_p", "seed")}
    assert sent == {"max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3}
    assert not body.keys() & {"top_k", "min_p", "repetition_penalty", "presence_penalty"}
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"]


def test_penalties_and_filters_reach_the_server_by_the_names_of_vllm(
    engine: ServerEngine, server: Misbehaving
) -> None:
    penalties = {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": -1.0}
    filters = {"top_k": 5, "min_p": 0.2}
    for asked in ({"temperature": 0.5, **filters, **penalties}, {**filters, **penalties}):
        assert ask(engine, [clip(1, 2)], "?", Generation(**asked)).result(30).text == "fine"
        sent = {name: server.bodies[-1].get(name) for name in (*penalties, *filters)}
        # Greedy answers have nothing to filter.
        assert sent == {
            **penalties,
            **(filters if "temperature" in asked else dict.fromkeys(filters)),
        }
    assert engine.stated_generation == {}


def test_instructions_reach_the_server_as_its_system_message(
    engine: ServerEngine, server: Misbehaving
) -> None:
    asked = ask(engine, [clip(1, 2)], "?", Generation(), system="Be brief.")
    assert asked.result(30).text == "fine"
    system, user = server.bodies[-1]["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["role"] == "user"


def test_the_form_of_an_answer_reaches_the_server_and_stop_strings_do_not_cut_it(
    engine: ServerEngine, server: Misbehaving
) -> None:
    scene = JsonAnswer(kind="json", json_schema={"properties": {"a": {"type": "integer"}}})
    closed = close_objects(scene.json_schema)
    assert closed["additionalProperties"] is False
    cases = [
        (ChoiceAnswer(kind="choice", choices=("a", "b")), {"structured_outputs": {"choice": ["a", "b"]}}),
        (RegexAnswer(kind="regex", pattern="a+"), {"structured_outputs": {"regex": "a+"}}),
        (scene, {"response_format": {"type": "json_schema", "json_schema": {
            "name": "answer", "schema": closed, "strict": True}}}),
    ]  # fmt: skip
    for form, expected in cases:
        generation = Generation(stop=("n",))
        assert ask(engine, [clip(1, 2)], "?", generation, form=form).result(30).text == "fine"
        sent = server.bodies[-1]
        names = ("response_format", "structured_outputs")
        assert {name: sent[name] for name in names if name in sent} == expected


def take_videos(answer: _Answer) -> None:
    """Does as vLLM with `--trust-request-mm-kwargs`: the times of a video's frames are as many as its frames."""
    body = answer.server.bodies[-1]
    content = body["messages"][0]["content"]
    videos = [part["video_url"]["url"] for part in content if part["type"] == "video_url"]
    times = body.get("media_io_kwargs", {}).get("video", {})
    if any(url.count(",") != len(times.get("frames_indices", ())) for url in videos):
        answer.refusing(400, "frames_indices length must match number of frames sent")
    else:
        answer.sound()


def list_kinds(server: Misbehaving) -> list[str]:
    return [part["type"] for part in server.bodies[-1]["messages"][0]["content"]]


def test_frames_are_a_video_with_their_times_for_a_server_that_reads_them(
    server: Misbehaving,
) -> None:
    server.behave = take_videos
    shot = FrameInput("video", clip(1, 3).frames, (0.5, 1.25, 4.0), duration_s=9.0)
    with ServerEngine(ServerConfig(url=server.url, model="m")) as engine:
        assert ask(engine, [picture(2), shot], "What?", SHORT).result(30).text == "fine"
        assert list_kinds(server) == ["image_url", "video_url", "text"]
        body = server.bodies[-1]
        url = body["messages"][0]["content"][1]["video_url"]["url"]
        head, *encoded = url.split(",")
        assert head == "data:video/jpeg;base64"
        for text, frame in zip(encoded, shot.frames, strict=True):
            sent = Image.open(BytesIO(b64decode(text)))
            assert np.array_equal(np.asarray(sent), frame)
        told = body["media_io_kwargs"]["video"]
        assert [index / told["fps"] for index in told["frames_indices"]] == [0.5, 1.25, 4.0]
        assert (told["num_frames"], told["duration"]) == (-1, 9.0)
        assert engine.warn_of([shot]) == ()

        others = [shot, clip(2, 2)]  # vLLM takes one list of times for both
        assert ask(engine, others, "What?", SHORT).result(30).text == "fine"
        assert list_kinds(server) == ["image_url"] * 5 + ["text"]
        assert "media_io_kwargs" not in server.bodies[-1]
        (warning,) = engine.warn_of(others)
        assert (warning.code, "one list of times" in warning.message) == ("video_as_images", True)


def test_a_server_that_reads_no_times_gets_images(server: Misbehaving) -> None:
    def distrust(answer: _Answer) -> None:
        if "media_io_kwargs" in answer.server.bodies[-1]:
            answer.refusing(400, "start the server with --trust-request-mm-kwargs")
        else:
            answer.sound()

    server.behave = distrust
    with ServerEngine(ServerConfig(url=server.url, model="m")) as engine:
        assert ask(engine, [clip(1, 2)], "What?", SHORT).result(30).text == "fine"
        assert list_kinds(server) == ["image_url", "image_url", "text"]
        (warning,) = engine.warn_of([clip(1, 2)])
        assert "--trust-request-mm-kwargs" in warning.message
        assert engine.warn_of([picture(1)]) == ()
    for behave in (distrust, _Answer.sound):  # the second ignores what it does not know
        server.behave = behave
        config = ServerConfig(url=server.url, model="m", videos="video_url")
        with pytest.raises(ConfigurationError, match="VIDEOQA_SERVER_VIDEOS"), ServerEngine(config):
            pass


@pytest.mark.parametrize("behave", [_Answer.endless, _Answer.silent])
def test_a_cancel_hangs_up(
    engine: ServerEngine, server: Misbehaving, behave: Callable[[_Answer], None]
) -> None:
    server.behave = behave
    gone = threading.Event()
    earlier = len(server.bodies)
    future = ask(engine, [picture(1)], "What?", SHORT, should_stop=gone.is_set)
    wait_until(lambda: len(server.bodies) > earlier)
    assert not future.done()
    gone.set()
    with pytest.raises(JobCanceled):
        future.result(60)
    assert server.hung_up.wait(60)


def test_closing_ends_what_runs(engine: ServerEngine, server: Misbehaving) -> None:
    server.behave = _Answer.endless
    earlier = len(server.bodies)  # the engine asked a first question when it started
    futures = [ask(engine, [picture(1)], "What?", SHORT) for _ in range(40)]  # more than turns
    wait_until(lambda: len(server.bodies) - earlier == 32)
    engine.close()
    begun = []
    for future in futures:
        with pytest.raises(EngineStopped) as stopped:
            future.result(60)
        begun.append(stopped.value.had_begun)
    assert begun == [True] * 32 + [False] * 8
    assert server.hung_up.wait(60)
    assert not engine.ready
    with pytest.raises(EngineStopped) as late:
        ask(engine, [picture(1)], "What?", SHORT).result(60)
    assert not late.value.had_begun


def test_a_question_that_comes_while_the_engine_closes_is_ended(
    engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closing(*given: Any) -> StopStringBuffer:
        engine.close()
        return StopStringBuffer(*given)

    monkeypatch.setattr("videoqa_worker.engine.server_engine.StopStringBuffer", closing)
    with pytest.raises(EngineStopped) as refused:
        ask(engine, [picture(1)], "What?", SHORT).result(60)
    assert not refused.value.had_begun


FAULTS: list[tuple[Callable[[_Answer], None], type[GenerationError], str]] = [
    (_Answer.broken_off, ModelServerUnavailable, "ended the stream"),
    (_Answer.given_up, ModelServerUnavailable, "abort"),
    (_Answer.silent, ModelServerUnavailable, "does not answer now"),
    (lambda a: a.refusing(503, "loading"), ModelServerUnavailable, "loading"),
    (lambda a: a.refusing(400, "maximum context length is 4096"), ModelServerError, "4096"),
    (lambda a: a.refusing(401, "who are you"), ModelServerError, "who are you"),
]


@pytest.mark.parametrize(("behave", "error", "says"), FAULTS)
def test_what_goes_wrong_there_has_a_code_here(
    engine: ServerEngine,
    server: Misbehaving,
    behave: Callable[[_Answer], None],
    error: type[GenerationError],
    says: str,
) -> None:
    server.behave = behave
    with pytest.raises(error, match=says) as caught:
        ask(engine, [picture(1)], "What?", SHORT).result(30)
    assert caught.value.retryable is (error is ModelServerUnavailable)
    server.behave = _Answer.sound
    assert ask(engine, [picture(1)], "What?", SHORT).result(30).text == "fine"


@pytest.mark.parametrize(
    "data",
    [
        b"a" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"choices":' + b"9" * 100_000 + b"}",
        b'{"choices":5}',
        b'{"choices":[{}]}',
        b'{"choices":[{"delta":{"content":5}}]}',
        b'{"choices":[],"usage":{"prompt_tokens":"x"}}',
        b'{"choices":[],"usage":{"prompt_tokens":1e999,"completion_tokens":1}}',
        b"[]",
        b"\xff",
    ],
    ids=lambda data: data[:20].decode("latin-1"),
)
def test_a_chunk_that_is_none_costs_milliseconds_and_has_a_code(
    data: bytes, engine: ServerEngine, server: Misbehaving
) -> None:
    def behave(answer: _Answer) -> None:
        answer.begin()
        answer.wfile.write(b"data: " + data + b"\n\n")

    server.behave = behave
    begun_s = time.process_time()
    with pytest.raises(ModelServerUnavailable, match="something else than a chat completion"):
        ask(engine, [clip(1, 2)], "What?", SHORT).result(30)
    assert time.process_time() - begun_s < 0.5, "with the server's own threads"


def test_half_a_surrogate_pair_becomes_the_replacement_character(
    engine: ServerEngine, server: Misbehaving
) -> None:
    def behave(answer: _Answer) -> None:
        answer.begin()
        answer.chunk("a\ud83d")
        answer.chunk(None, "stop")

    server.behave = behave
    assert ask(engine, [clip(1, 2)], "What?", SHORT).result(30).text == "a\ufffd"


def test_a_server_that_never_begins_is_given_up_after_one_silence(
    engine: ServerEngine, server: Misbehaving
) -> None:
    """Asked again meanwhile, it would have the question several times over."""
    server.behave = _Answer.mute
    before, asked_s = len(server.bodies), time.monotonic()
    with pytest.raises(ModelServerUnavailable):
        ask(engine, [picture(1)], "What?", SHORT).result(30)
    assert time.monotonic() - asked_s < 2 * SILENCE_S
    assert len(server.bodies) == before + 1


def test_a_listener_that_raises_fails_its_own_question(engine: ServerEngine) -> None:
    def deaf(text: str) -> None:
        raise RuntimeError("deaf")

    failed = ask(engine, [picture(1)], "What?", SHORT, on_text=deaf)
    other = ask(engine, [picture(1)], "What?", SHORT)
    with pytest.raises(RuntimeError, match="deaf"):
        failed.result(10)
    assert other.result(10).text == "fine"


def test_a_server_that_is_not_there_is_waited_for(server: Misbehaving) -> None:
    port = free_port()
    states: list[str] = []
    config = ServerConfig(url=f"http://127.0.0.1:{port}/v1", model="m", start_s=2)
    engine = ServerEngine(config, on_state=states.append)
    with pytest.raises(ConfigurationError, match="VIDEOQA_SERVER_URL"):
        engine.start()
    engine.close()
    assert states == ["waiting for the model's server"]


def test_a_server_that_refuses_the_first_question_is_no_use(server: Misbehaving) -> None:
    server.behave = lambda answer: answer.refusing(404, "no such model")
    engine = ServerEngine(ServerConfig(url=server.url, model="m"))
    with pytest.raises(ConfigurationError, match="no such model"):
        engine.start()
    engine.close()
