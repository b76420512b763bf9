"""Chat completions by OpenAI's own client: a real gateway, and a worker that is played through the ledger."""

from __future__ import annotations

import base64
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import openai
import pytest
import redis
from openai import OpenAI
from openai.resources.chat.completions import Completions
from support.chats import (
    CLIP,
    IMAGE,
    PATH,
    PICTURE,
    TEXT,
    VIDEO,
    WHY,
    ask,
    dial,
    list_jobs,
    say,
    wait_for_job,
    worker,
)
from support.processes import wait_until
from support.worker import announce, begin, finish

from videoqa.client import Client
from videoqa.contract import Failure, Job, parse_request
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.http import event_stream
from videoqa.gateway.openai import chat, chat_calls
from videoqa.gateway.openai.chat_request import parse_chat
from videoqa.jobs import Ledger
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

AS_JSON = {"content-type": "application/json"}


@pytest.fixture
def http(connect: Connect) -> httpx.Client:
    return connect("submit", "read", tenant="a")


@pytest.fixture
def ai(gateway: GatewayServer, keys: KeyStore) -> Iterator[OpenAI]:
    key = keys.create("ai", ["submit"], tenant="a").text
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=30) as found:
        yield found


def test_system_and_developer_messages_are_the_jobs_instructions(
    ai: OpenAI, client: Client, ledger: Ledger
) -> None:
    def play(job: Job) -> None:
        finish(ledger, begin(ledger), q1="un chat")

    brief = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
    french = {"role": "system", "content": "Answer in French."}
    with worker(client, play):
        body = ask()
        body["messages"][:0] = [french, {"role": "system", "content": ""}, brief]
        ai.chat.completions.create(**body, model=openai.omit)
    (job,) = list_jobs(client)
    assert job.request is not None
    assert job.request.system == "Answer in French.\n\nBe brief."
    assert job.request.questions[0].text == TEXT["text"]


def test_openais_client_gets_an_answer(ai: OpenAI, client: Client, ledger: Ledger) -> None:
    def play(job: Job) -> None:
        finish(ledger, begin(ledger), q1="a cat")

    with worker(client, play):
        raw = ai.chat.completions.with_raw_response.create(
            **ask(
                VIDEO, TEXT,
                max_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop="END", n=1, user="u",
                frequency_penalty=0.5, presence_penalty=-1,
            ),
            model=openai.omit,
            extra_body={
                "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.2, "tools": None,
                "media_io_kwargs": {"video": {"num_frames": 4}},
            },
        )  # fmt: skip
    found = raw.parse()
    (job,) = list_jobs(client)
    assert raw.headers["x-videoqa-job-id"] == job.id
    assert raw.headers["x-request-id"] == found._request_id
    assert (found.id, found.object, found.model) == (
        f"chatcmpl-{job.id}",
        "chat.completion",
        "demo",
    )
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "a cat")
    assert (choice.finish_reason, choice.index, choice.logprobs) == ("stop", 0, None)
    assert found.usage is not None
    assert found.usage.to_dict() == {
        "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2,
    }  # fmt: skip
    assert (job.tenant, job.priority, job.metadata) == ("a", "interactive", {"user": "u"})
    assert job.request is not None
    assert job.request.generation.model_dump() == {
        "max_new_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ("END",), "top_k": 40, "min_p": 0.1,
        "repetition_penalty": 1.2, "frequency_penalty": 0.5, "presence_penalty": -1.0,
    }  # fmt: skip
    assert (job.request.sampling.method, job.request.sampling.frames) == ("uniform", 4)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([VIDEO, TEXT], "What is it?"),
        ([VIDEO, IMAGE, TEXT, WHY], "What is it?\nWhy?"),
        ([TEXT, VIDEO], "What is it?<video>"),
        ([IMAGE, TEXT, WHY, VIDEO, IMAGE], "<image>What is it?\nWhy?<video><image>"),
    ],
)
def test_media_stand_where_their_parts_stood(parts: list[dict[str, Any]], expected: str) -> None:
    job = parse_request(parse_chat(ask(*parts)).job)
    assert job.questions[0].text == expected
    kinds = [part["type"].removesuffix("_url") for part in parts if part not in (TEXT, WHY)]
    assert [item.kind for item in job.inputs] == kinds


@pytest.mark.parametrize(
    ("fields", "method", "frames", "fps"),
    [
        ({}, "uniform", None, None),
        ({"media_io_kwargs": {"video": {"num_frames": 4}}}, "uniform", 4, None),
        ({"media_io_kwargs": {"video": {"fps": 0.5, "num_frames": None}}}, "fps", None, 0.5),
        ({"sampling": {"method": "fps", "fps": 2, "frames": 16}}, "fps", 16, 2),
        ({"sampling": {"method": "keyframe"}}, "keyframe", None, None),
    ],
)
def test_sampling_is_that_of_a_job(
    fields: dict[str, Any], method: str, frames: int | None, fps: float | None
) -> None:
    found = parse_request(parse_chat(ask(**fields)).job).sampling
    assert (found.method, found.frames, found.fps) == (method, frames, fps)


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"kind": "json", "json_schema": {"type": "object"}}),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA}}},
         {"kind": "json", "json_schema": SCHEMA}),
        ({"structured_outputs": {"choice": ["a", "b"], "regex": None}}, {"kind": "choice", "choices": ("a", "b")}),
        ({"guided_regex": "a+", "guided_json": None}, {"kind": "regex", "pattern": "a+"}),
    ],
)  # fmt: skip
def test_the_form_of_an_answer_is_asked_for_in_the_words_of_openai_or_vllm(
    fields: dict[str, Any], form: dict[str, Any] | None
) -> None:
    answer = parse_request(parse_chat(ask(**fields)).job).answer
    assert (answer and answer.model_dump()) == form


def test_it_is_streamed_as_openais_client_wants_it(
    ai: OpenAI, client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "SILENCE_S", 0.2)
    is_heard = threading.Event()

    def play(job: Job) -> None:
        time.sleep(0.7)  # comments come
        claim = begin(ledger)
        say(ledger, claim, " a black", " \u2028cat ")
        assert is_heard.wait(20)
        finish(ledger, claim, q1="a black \u2028cat sits")

    chunks = []
    with worker(client, play):
        stream = ai.chat.completions.create(
            **ask(), model=openai.omit, stream=True, stream_options={"include_usage": True}
        )
        assert stream.response.headers["x-videoqa-job-id"].startswith("job_")
        assert stream.response.headers["x-accel-buffering"] == "no"
        for chunk in stream:
            chunks.append(chunk)
            is_heard.set()
    *texts, last, usage = chunks
    deltas = [chunk.choices[0].delta for chunk in texts]
    assert "".join(delta.content or "" for delta in deltas) == "a black \u2028cat sits"
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert len(deltas) >= 2
    assert last.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens == 2
    assert {chunk.usage for chunk in chunks[:-1]} == {None}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


def test_a_stream_has_nothing_but_data_and_comments(
    http: httpx.Client, client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "SILENCE_S", 0.2)

    def play(job: Job) -> None:
        time.sleep(0.7)
        finish(ledger, begin(ledger), q1="a cat")

    with worker(client, play):
        lines = http.post(PATH, json=ask(stream=True)).text.split("\n")
    assert ": waiting" in lines
    assert all(line == "" or line.startswith(("data: ", ": ")) for line in lines)
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    assert "usage" not in json.loads(data[0])


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_job_has_its_status_and_code(
    http: httpx.Client, client: Client, ledger: Ledger, stream: bool
) -> None:
    def play(job: Job) -> None:
        claim = begin(ledger)
        failure = Failure(code="source_not_found", message="404", attempt=1, param="inputs.0.url")
        assert ledger.fail(claim.job_id, claim.token, failure, delay_s=0) == "failed"

    with worker(client, play):
        refused = http.post(PATH, json=ask(stream=stream))
    assert refused.status_code == 400
    assert refused.headers["x-videoqa-job-id"] == list_jobs(client)[0].id
    assert refused.headers["x-should-retry"] == "false"
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("source_not_found", "invalid_request_error")
    assert error["param"] == "messages.0.content.0.video_url.url"


def test_a_failure_after_the_first_chunk_is_an_error_in_the_stream(
    ai: OpenAI, client: Client, ledger: Ledger
) -> None:
    is_heard = threading.Event()

    def play(job: Job) -> None:
        claim = begin(ledger)
        say(ledger, claim, "a cat")
        assert is_heard.wait(20)
        failure = Failure(code="model_error", message="boom", attempt=1)
        ledger.fail(claim.job_id, claim.token, failure, delay_s=0)

    def read() -> None:
        for _ in ai.chat.completions.create(**ask(), model=openai.omit, stream=True):
            is_heard.set()

    with worker(client, play), pytest.raises(openai.APIError) as caught:
        read()
    assert caught.value.code == "model_error"


@pytest.mark.parametrize(("again", "is_same"), [(" a cat sits", True), (" a dog barks", False)])
def test_a_later_attempt_repeats_no_text(
    ai: OpenAI, client: Client, ledger: Ledger, again: str, is_same: bool
) -> None:
    is_heard = threading.Event()

    def play(job: Job) -> None:
        claim = begin(ledger)
        say(ledger, claim, " a cat")
        assert is_heard.wait(20)
        ledger.release(claim.job_id, claim.token)
        claim = begin(ledger, "u")
        say(ledger, claim, *again.partition("t"))
        finish(ledger, claim, q1=again.strip())

    found: list[str] = []

    def read() -> None:
        for chunk in ai.chat.completions.create(**ask(), model=openai.omit, stream=True):
            found.append(chunk.choices[0].delta.content or "")
            is_heard.set()

    with worker(client, play):
        if is_same:
            read()
        else:
            with pytest.raises(openai.APIError) as caught:
                read()
            assert caught.value.code == "answer_changed"
    assert "".join(found) == ("a cat sits" if is_same else "a cat")


def test_callers_that_hang_up_cancel_their_jobs(
    http: httpx.Client, client: Client, ledger: Ledger
) -> None:
    """Streaming or not, queued or running."""
    callers = [dial(http, ask(stream=stream)) for stream in (False, True)]
    wait_until(lambda: len(list_jobs(client)) == 2)
    for token in "ab":
        begin(ledger, token)
    callers += [dial(http, ask(stream=stream)) for stream in (False, True)]
    wait_until(lambda: len(list_jobs(client)) == 4)
    for caller in callers:
        caller.close()
    ended = ["canceled", "canceled", "canceling", "canceling"]
    wait_until(lambda: sorted(job.state for job in list_jobs(client)) == ended)


def test_a_retry_joins_the_run(
    http: httpx.Client,
    client: Client,
    ledger: Ledger,
    redis_client: redis.Redis,
    settings: Settings,
) -> None:
    caller = dial(http, ask())
    first = wait_for_job(client)
    wait_until(lambda: [*redis_client.scan_iter(f"{settings.prefix}:chat:last:*")])
    caller.close()

    def play(job: Job) -> None:
        time.sleep(chat_calls.LEAVE_S + 0.5)  # without the retry, the job would be canceled
        finish(ledger, begin(ledger), q1="a cat")

    with worker(client, play):
        joined = http.post(PATH, json=ask(), headers={"x-stainless-retry-count": "1"})
    assert joined.json()["choices"][0]["message"]["content"] == "a cat"
    assert joined.headers["x-videoqa-job-id"] == first.id
    with dial(http, ask(seed=1), x_stainless_retry_count="1"):
        wait_for_job(client, count=2)
    with dial(http, ask()):
        wait_for_job(client, count=3)


def test_openais_client_retries_into_the_same_run(
    http: httpx.Client, ai: OpenAI, client: Client, ledger: Ledger
) -> None:
    with dial(http, ask()):  # the gateway's first job takes it longer
        wait_for_job(client)
    wait_for_job(client, "canceled")

    def run() -> None:
        wait_for_job(client, count=2)
        time.sleep(1.5)
        finish(ledger, begin(ledger), q1="a cat")

    thread = threading.Thread(target=run)
    thread.start()
    patient = ai.with_options(timeout=1, max_retries=3)
    found = patient.chat.completions.create(**ask(), model=openai.omit)
    thread.join()
    assert found.choices[0].message.content == "a cat"
    assert len(list_jobs(client)) == 2


def test_an_idempotency_key_makes_one_job(
    http: httpx.Client, client: Client, ledger: Ledger
) -> None:
    with dial(http, ask(), idempotency_key="k"):
        wait_for_job(client)
    wait_for_job(client, "canceled")

    def play(job: Job) -> None:
        finish(ledger, begin(ledger), q1="a cat")

    with worker(client, play):
        first = http.post(PATH, json=ask(), headers={"idempotency-key": "k"})
    again = http.post(PATH, json=ask(), headers={"idempotency-key": '"k"'})
    assert first.json()["choices"][0]["message"]["content"] == "a cat"
    assert first.json() == again.json()
    other = http.post(PATH, json=ask(seed=1), headers={"idempotency-key": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_conflict")


def test_a_caller_that_leaves_takes_no_answer_from_another(
    http: httpx.Client, client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    def play(job: Job) -> None:
        with dial(http, ask(), idempotency_key="k"):
            callers = redis_client.scan_iter(f"{ledger.keys.prefix}:chat:callers:*")
            (of,) = list(callers)
            wait_until(lambda: redis_client.scard(of) == 2)
        time.sleep(chat_calls.LEAVE_S + 0.5)
        finish(ledger, begin(ledger), q1="a cat")

    with worker(client, play):
        found = http.post(PATH, json=ask(), headers={"idempotency-key": "k"})
    assert found.json()["choices"][0]["message"]["content"] == "a cat"
    assert len(list_jobs(client)) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_ends_in_time_and_its_job_goes_on(
    http: httpx.Client, client: Client, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(chat, "LIMIT_S", 0.3)
    late = http.post(PATH, json=ask(stream=stream))
    assert (late.status_code, late.json()["error"]["code"]) == (504, "wait_timeout")
    assert late.headers["x-should-retry"] == "false"
    job = wait_for_job(client)
    assert late.headers["x-videoqa-job-id"] == job.id
    assert job.id in late.json()["error"]["message"]


def test_a_gateway_that_stops_cancels_no_job(
    http: httpx.Client, gateway: GatewayServer, client: Client
) -> None:
    found: list[httpx.Response] = []
    callers = [
        threading.Thread(target=lambda body=body: found.append(http.post(PATH, json=body)))
        for body in (ask(), ask(stream=True))
    ]
    for caller in callers:
        caller.start()
    wait_until(lambda: len(list_jobs(client)) == 2)
    gateway.handle_exit(15, None)
    for caller in callers:
        caller.join(10)
    assert [one.status_code for one in found] == [503, 503]
    assert {one.json()["error"]["code"] for one in found} == {"gateway_stopping"}
    assert {job.state for job in list_jobs(client)} == {"queued"}


def test_a_model_without_workers_is_told_from_an_unknown_one(
    ai: OpenAI, client: Client, ledger: Ledger
) -> None:
    announce(ledger, "llava")
    with pytest.raises(openai.NotFoundError) as caught:
        ai.chat.completions.create(**ask(), model="gpt-4o")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"n": True}, "n"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"functions": [{}]}, "functions"),
    ({"response_format": {"type": "grammar"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}}},
     "response_format.json_schema.schema.not"),
    ({"logprobs": True}, "logprobs"),
    ({"guided_json": {"type": "strin"}}, "guided_json.type"),
    ({"guided_choice": ["a"]}, "guided_choice"),
    ({"guided_grammar": "a"}, "guided_grammar"),
    ({"structured_outputs": {"regex": r"(a)\1"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "a", "choice": ["a", "b"]}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a"}, "guided_regex": "a"}, "guided_regex"),
    ({"mm_processor_kwargs": {"fps": 1}}, "mm_processor_kwargs"),
    ({"fps": 1}, "fps"),
    ({"stream": "true"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    ({"max_tokens": "8"}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 10**9}, "max_completion_tokens"),
    ({"max_tokens": 8, "max_completion_tokens": 9}, "max_completion_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"frequency_penalty": "1"}, "frequency_penalty"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"seed": -1}, "seed"),
    ({"stop": ["a"] * 9}, "stop"),
    ({"stop": [1]}, "stop.0"),
    ({"media_io_kwargs": {"video": {"num_frames": 1e9}}}, "media_io_kwargs.video.num_frames"),
    ({"media_io_kwargs": {"video": {"num_frames": 10**9}}}, "media_io_kwargs.video.num_frames"),
    ({"media_io_kwargs": {"video": {"num_frames": -1}}}, "media_io_kwargs.video.num_frames"),
    ({"media_io_kwargs": {"video": {"num_frames": "8"}}}, "media_io_kwargs.video.num_frames"),
    ({"media_io_kwargs": {"video": {"fps": -1}}}, "media_io_kwargs.video.fps"),
    ({"media_io_kwargs": {"video": {"fps": 1, "num_frames": 8}}}, "media_io_kwargs.video"),
    ({"media_io_kwargs": {"image": {}}}, "media_io_kwargs.image"),
    ({"sampling": {"frames": 4}, "media_io_kwargs": {}}, "media_io_kwargs"),
    ({"sampling": {"method": "segment", "segment_s": 9}}, "sampling.method"),
    ({"sampling": {"frame": 4}}, "sampling.frame"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"user": "u" * 2000}, "user"),
    ({"moderation": {}}, "moderation"),
    ({"messages": []}, "messages"),
    ({"messages": "x"}, "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
    (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        "messages.1.role",
    ),
    ({"messages": [{"role": "user", "content": "x"}] * 2}, "messages"),
    (
        {"messages": [{"role": "system", "content": [VIDEO]}, *ask()["messages"]]},
        "messages.0.content.0.type",
    ),
    (
        {"messages": [{"role": "system", "content": "<video>"}, *ask()["messages"]]},
        "messages.0.content.0.text",
    ),
    ({"messages": [*ask()["messages"], {"role": "system", "content": "x"}]}, "messages.1.role"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages.0.tool_calls"),
    ({"messages": [{"role": "user", "content": "no video"}]}, "messages.0.content"),
    (ask(VIDEO), "messages.0.content"),
    (ask(VIDEO, {"type": "text", "text": "<video>?"}), "messages.0.content.1.text"),
    (ask(VIDEO, {"type": "text", "text": "\ud800"}), "messages.0.content.1.text"),
    (ask(TEXT, {"type": "input_audio"}), "messages.0.content.1.type"),
    (ask(TEXT, {"type": "file", "file": {"file_id": "x"}}), "messages.0.content.1.file.file_id"),
    (ask(TEXT, {"type": "file", "file": {"file_data": "x"}}), "messages.0.content.1.file.file_data"),
    (ask(TEXT, {"type": "file", "file_id": "x"}), "messages.0.content.1.file_id"),
    (ask(TEXT, {"type": "image_url", "image_url": PICTURE}), "messages.0.content.1.image_url"),
    (
        ask(TEXT, {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}),
        "messages.0.content.1.image_url.detail",
    ),
    (
        ask(TEXT, {"type": "video_url", "video_url": {"url": CLIP, "start": 5, "end": 4}}),
        "messages.0.content.1.video_url",
    ),
    *(
        (
            ask(TEXT, {"type": "video_url", "video_url": {"url": url}}),
            "messages.0.content.1.video_url.url",
        )
        for url in ("ftp://a.org/x", "s3://b", "file:x", "", "http://", "//[", None, 5)
    ),
]  # fmt: skip
"""Fields of a body, and the one that the refusal names."""


def test_what_is_not_supported_is_refused_by_name(http: httpx.Client, client: Client) -> None:
    for fields, param in REFUSED:
        body = json.dumps(ask() | fields)
        refused = http.post(PATH, content=body, headers={"content-type": "application/json"})
        error = refused.json()["error"]
        assert (refused.status_code, error["type"]) == (400, "invalid_request_error"), fields
        assert error["param"] == param, (fields, error)
        assert param in error["message"] or "question" in error["message"], error
    assert list_jobs(client) == []


def test_no_parameter_of_openais_client_is_ignored(http: httpx.Client, client: Client) -> None:
    """A parameter that a newer client has is refused or read: it fails here until it is one of the two."""
    of_client = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
    names = inspect.signature(Completions.create).parameters.keys() - of_client
    without_effect = {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
    assert without_effect < names
    for name in sorted(names - without_effect):
        refused = http.post(PATH, json=ask() | {name: [0]})
        error = refused.json()["error"]
        assert refused.status_code == 400, name
        assert error["param"].partition(".")[0] == name, error
        assert "unknown" not in error["message"], error
    assert list_jobs(client) == []
    with dial(http, ask(prompt_cache_key="k", prompt_cache_retention="24h", safety_identifier="s")):
        assert wait_for_job(client).metadata == {"safety_identifier": "s"}


def test_media_outside_of_the_keys_scope_are_refused_by_their_place(http: httpx.Client) -> None:
    for url in ("s3://bucket/x.mp4", "file:///etc/passwd"):
        parts = [TEXT, IMAGE, {"type": "video_url", "video_url": {"url": url}}]
        refused = http.post(PATH, json=ask(*parts))
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (403, "input_not_allowed"), error
        assert error["param"] == "messages.0.content.2.video_url.url"
        assert error["message"].startswith("messages.0.content.2.video_url.url: ")


def test_files_and_data_urls_are_inputs(
    http: httpx.Client, client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    """An uploaded file is an image or a video by its bytes, and equal bytes are one file."""
    png = b"\x89PNG\r\n\x1a\n" + b"x" * 100
    ids = [
        http.post("/v1/files", files={"file": (name, data)}, data={"purpose": "user_data"}).json()[
            "id"
        ]
        for name, data in (("a.mp4", b"a video"), ("b.png", png))
    ]
    parts: list[dict[str, Any]] = [
        {"type": "file", "file": {"file_id": ids[0]}},
        {"type": "video_url", "video_url": {"url": ids[0], "end": 2}},
        TEXT,
        {"type": "file", "file": {"file_id": ids[1]}},
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{b64(b'inline')}"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(png)}"}},
    ]
    for count in (1, 2):
        with dial(http, ask(*parts), idempotency_key="k" * count):
            wait_for_job(client, count=count)
    jobs = [ledger.get(job.id, include_request=True).request for job in list_jobs(client)]
    assert jobs[0] is not None
    assert jobs[1] is not None
    assert [one.kind for one in jobs[0].inputs] == ["video", "video", "image", "video", "image"]
    assert jobs[0].questions[0].text == "<video><video>What is it?<image><video><image>"
    urls = [one.url for one in jobs[0].inputs]
    assert urls == [one.url for one in jobs[1].inputs]
    assert urls[0] == urls[1]
    assert all(url.startswith("file:///") for url in urls)
    stored = [Path(unquote(urlsplit(url).path)).read_bytes() for url in urls]
    assert stored == [b"a video", b"a video", png, b"inline", png]
    assert len(http.get("/v1/files").json()["data"]) == 4


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("kind", "url", "code"),
    [
        ("video", "data:video/mp4;base64,AAA", "invalid_request"),
        ("video", "data:video/mp4;base64,A A=", "invalid_request"),
        ("video", "data:video/mp4;base64,", "invalid_request"),
        ("video", "data:video/mp4,AAAA", "invalid_request"),
        ("video", "data:image/png;base64,AAAA", "invalid_request"),
        ("image", "data:text/html;base64,AAAA", "invalid_request"),
        ("video", "file-" + "9" * 24, "file_not_found"),
    ],
)
def test_media_that_are_none_are_refused_by_their_place(
    http: httpx.Client, client: Client, kind: str, url: str, code: str
) -> None:
    name = f"{kind}_url"
    refused = http.post(PATH, json=ask(TEXT, {"type": name, name: {"url": url}}))
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, code), error
    assert error["param"] == f"messages.0.content.1.{name}.url"
    assert list_jobs(client) == []


def test_a_body_of_200_megabytes_holds_up_nobody(
    http: httpx.Client, gateway: GatewayServer
) -> None:
    url = f"data:video/mp4;base64,{'A' * 200_000_000}"
    body = json.dumps(ask({"type": "video_url", "video_url": {"url": url}}, TEXT)).encode()
    found: list[Any] = []

    def post() -> None:
        try:
            sent = {"content-type": "application/json"}
            found.append(http.post(PATH, content=body, headers=sent).status_code)
        except httpx.TransportError as error:
            found.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    answered = 0
    while thread.is_alive():
        assert httpx.get(f"{gateway.url}/livez").is_success
        answered += thread.is_alive()
    assert found[0] == 413 or isinstance(found[0], httpx.TransportError)
    assert answered


def test_errors_have_openais_form(ai: OpenAI, gateway: GatewayServer, http: httpx.Client) -> None:
    stranger = ai.with_options(api_key="vqa_wrong")
    with pytest.raises(openai.AuthenticationError) as caught:
        stranger.chat.completions.create(**ask(), model="x")
    assert caught.value.code == "wrong_key"
    with pytest.raises(openai.BadRequestError) as refused:
        ai.chat.completions.create(**ask(), model="x", n=2)
    assert (refused.value.param, refused.value.code) == ("n", "invalid_request")
    for response, status, code in (
        (http.get(PATH), 405, "method_not_allowed"),
        (http.post("/v1/chat/other"), 404, "route_not_found"),
        (http.post(PATH, content=b"{", headers=AS_JSON), 400, "invalid_request"),
        (http.post(PATH, content=b" " * 9_000_000, headers=AS_JSON), 413, "body_too_large"),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert response.headers["x-request-id"]
