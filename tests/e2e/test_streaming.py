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
