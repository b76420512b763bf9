"""Answers come to the job's events while they are generated."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.contract import Event

QUESTIONS = ["Describe the video.", "What color is it?", "What is moving?"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    scene = Scene.single("green", "triangle", "down")
    path: Path = write_clip(scene, tmp_path_factory.mktemp("clips") / "clip.mp4")
    return path.as_uri()


def told(events: list[Event], question_id: str) -> str:
    return "".join(event.text or "" for event in events if event.question_id == question_id)


def test_the_text_events_of_each_question_are_its_answer(
    worker: WorkerProcess, stack_client: Client, clip: str
) -> None:
    job = stack_client.submit(inputs=[clip], questions=QUESTIONS, stream=True)
    events = list(stack_client.events(job.id, timeout_s=60))
    result = stack_client.result(job.id)
    assert result.answers[1].text == "green"
    for answer in result.answers:
        assert told(events, answer.question_id).strip() == answer.text
        assert answer.first_token_s is not None
        assert 0 < answer.first_token_s <= result.usage.generating_s
    kinds = [event.type for event in events]
    assert kinds[-1] == "state"
    assert all(event.text for event in events if event.type == "text")
    assert {event.stage for event in events if event.type == "text"} == {"generating"}


def test_a_job_that_did_not_ask_for_it_has_no_text_events(
    worker: WorkerProcess, stack_client: Client, clip: str
) -> None:
    job = stack_client.submit(inputs=[clip], questions=QUESTIONS)
    events = list(stack_client.events(job.id, timeout_s=60))
    assert events[-1].state == "succeeded"
    assert not [event for event in events if event.type == "text"]


def test_an_answer_of_a_form_has_a_value_and_what_cannot_be_written_fails_at_once(
    worker: WorkerProcess, stack_client: Client, clip: str
) -> None:
    shapes = ["circle", "triangle", "square"]
    questions = [
        {"id": "shape", "text": "What shape is it?", "answer": shapes},
        {"id": "long", "text": "What happens?", "answer": ["a green triangle moves down", "no"]},
        {"id": "free", "text": "What color is it?"},
    ]
    generation = {"max_new_tokens": 2, "stop": ["triangle"]}
    job = stack_client.submit(
        inputs=[clip],
        questions=questions,  # type: ignore[arg-type]
        generation=generation,  # type: ignore[arg-type]
        stream=True,
        cache="refresh",
    )
    events = list(stack_client.events(job.id, timeout_s=60))
    result = stack_client.result(job.id)
    shape, long, free = result.answers
    assert (shape.text, shape.value, shape.finish_reason) == ("triangle", "triangle", "stop")
    assert result.value_as(str, "shape") == told(events, "shape").strip() == "triangle"
    assert (free.text, free.value) == ("green", None)
    if long.finish_reason == "length":
        (warning,) = result.warnings
        assert (warning.code, warning.param) == ("answer_incomplete", "questions.1")
        assert long.value is None
    question = {"id": "q1", "text": "What?", "answer": "json"}
    job = stack_client.submit(inputs=[clip], questions=[question])  # type: ignore[list-item]
    failure = stack_client.wait(job.id, timeout_s=60).failure
    assert failure is not None
    assert (failure.code, failure.param, failure.attempt) == (
        "answer_not_served",
        "questions.0.answer",
        1,
    )
