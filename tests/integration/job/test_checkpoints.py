"""Checkpoints of segments on a real ledger: kept for the next attempt, fenced, and gone with the job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from support.attempts import Model, OpenedInputs, Recorded, due, submit

from videoqa import errors
from videoqa.client import Client
from videoqa.contract import Answer, JobRequest, Segment
from videoqa.jobs import Claim, Ledger
from videoqa.storage import ObjectStore
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.job.attempts import Attempts
from videoqa_worker.job.checkpoints import Checkpoints
from videoqa_worker.job.draft import AttemptDraft
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import SourceVersion

IN_SEGMENTS = {"sampling": {"method": "segment", "segment_s": 10}, "cache": "off"}
FIVE = 5


def segment(number: int, text: str = "seen") -> Segment:
    answer = Answer(
        question_id="q1", question="What?", text=text, finish_reason="stop",
        input_tokens=1, output_tokens=1,
    )  # fmt: skip
    return Segment(
        number=number, start=10.0 * number, end=10.0 * number + 10, answers=(answer,), frames=()
    )


class Segmented(Model):
    """Answers five segments; `fails_at` some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.fails_at: list[int] = []
        self.asked_for: list[int] = []

    def answer(self, opened: OpenedInputs, checkpoints: Checkpoints) -> AttemptDraft:
        done = checkpoints.load()
        for number in range(len(done), FIVE):
            self.meanwhile()
            if number in self.fails_at:
                self.fails_at.remove(number)
                raise errors.ModelError("boom")
            self.asked_for.append(number)
            done.append(segment(number, f"{self.etag} {number}"))
            checkpoints.save(done[-1])
        return AttemptDraft(segments=done)


@pytest.fixture
def model() -> Segmented:
    return Segmented()


@pytest.fixture
def key(ledger: Ledger) -> Callable[[Recorded], str]:
    return lambda made: ledger.keys.segments(made.job_id)


def texts(ledger: Ledger, made: Recorded) -> list[str]:
    result = ledger.result(made.job_id)[1]
    assert result is not None
    return [part.text for part in result.segments]


def test_an_attempt_begins_behind_the_last_segment_of_those_before(
    attempts: Attempts, ledger: Ledger, model: Segmented, redis_client: redis.Redis, key: Any
) -> None:
    made = submit(ledger, **IN_SEGMENTS)
    model.fails_at = [2, 4]
    attempts.process(made.queue)
    attempts.process(due(ledger))
    assert ledger.get(made.job_id).failure is not None
    assert redis_client.ttl(key(made)) == -1
    attempts.process(due(ledger))
    assert model.asked_for == list(range(FIVE))
    assert texts(ledger, made) == [f"one {n}" for n in range(FIVE)]
    assert not redis_client.exists(key(made))


def test_a_retry_begins_behind_them_too(
    attempts: Attempts,
    ledger: Ledger,
    model: Segmented,
    client: Client,
    redis_client: redis.Redis,
    key: Any,
) -> None:
    made = submit(ledger, max_attempts=1, result_ttl_s=600, **IN_SEGMENTS)
    model.fails_at = [3]
    attempts.process(made.queue)
    assert ledger.get(made.job_id).state == "failed"
    assert 0 < redis_client.ttl(key(made)) <= 600, "they live as long as the record"
    ledger.retry(made.job_id)
    assert redis_client.ttl(key(made)) == -1
    attempts.process(made.queue)
    assert model.asked_for == list(range(FIVE))
    assert len(texts(ledger, made)) == FIVE


def test_segments_of_other_bytes_are_not_used(
    attempts: Attempts, ledger: Ledger, model: Segmented
) -> None:
    made = submit(ledger, **IN_SEGMENTS)
    model.fails_at = [3]
    attempts.process(made.queue)
    model.etag = "two"
    attempts.process(due(ledger))
    assert model.asked_for == [0, 1, 2, *range(FIVE)]
    assert texts(ledger, made) == [f"two {n}" for n in range(FIVE)]


@pytest.mark.parametrize(
    "other",
    [
        {"chat_template": "guide"},
        {"pixels": "reference"},
        {"quantization": "4bit"},
        {"server_model": "model-fp8"},
        {"server_images": "jpeg"},
    ],
    ids=str,
)
def test_segments_that_the_model_saw_in_another_form_are_not_used(
    ledger: Ledger, other: dict[str, Any]
) -> None:
    def found(**fields: Any) -> str:
        cache = AnswerCache(
            ObjectStore(), model="demo", revision="1", ttl_s=60,
            answer_settings=WorkerSettings.from_environment({}, **fields).answer_settings,
        )  # fmt: skip
        versions = [SourceVersion("s3://b/k", "1", None, 1)]
        return cache.make_key(request, request.sampling, versions).fingerprint

    request = JobRequest.model_validate(
        {"inputs": ["s3://b/k"], "questions": ["What?"], **IN_SEGMENTS}
    )
    assert found() == found(slots=3)
    assert found(**other) != found()


def test_answers_to_other_instructions_are_not_used() -> None:
    def find(**fields: Any) -> str:
        request = JobRequest.model_validate({"inputs": ["s3://b/k"], **IN_SEGMENTS, **fields})
        versions = [SourceVersion("s3://b/k", "1", None, 1)]
        cache = AnswerCache(ObjectStore(), model="demo", revision="1", ttl_s=60)
        return cache.make_key(request, request.sampling, versions).fingerprint

    own = {"id": "q1", "text": "What?", "system": "Be brief."}
    plain = find(questions=["What?"])
    assert find(questions=["What?"], system="Be brief.") != plain
    assert find(questions=["What?"], system="Be brief.") == find(questions=[own])
    refined = {**own, "refine": "Shorten it."}
    assert find(questions=[refined]) != find(questions=[own])
    assert find(questions=[refined]) == find(questions=[own], refine="Shorten it.")
    assert find(questions=[own], summary=True) != find(
        questions=[own], summary=True, system="Be kind."
    )


def test_a_cancel_is_heard_at_the_next_checkpoint(
    attempts: Attempts, ledger: Ledger, model: Segmented, redis_client: redis.Redis, key: Any
) -> None:
    made = submit(ledger, result_ttl_s=60, **IN_SEGMENTS)

    def cancel() -> None:
        if len(model.asked_for) == 2:
            ledger.cancel(made.job_id)

    model.meanwhile = cancel
    attempts.process(made.queue)
    assert ledger.get(made.job_id).state == "canceled"
    assert model.asked_for == [0, 1, 2]
    assert 0 < redis_client.ttl(key(made)) <= 60


@pytest.fixture
def claimed(ledger: Ledger) -> Claim:
    made = submit(ledger, **IN_SEGMENTS)
    claim = ledger.claim([made.queue], worker="w", lease_s=0.0, token="mine").claim
    assert claim is not None
    return claim


def test_a_worker_that_lost_the_job_keeps_nothing(ledger: Ledger, claimed: Claim) -> None:
    of = (claimed.job_id, "fingerprint")
    assert ledger.checkpoint(claimed.job_id, "mine", "fingerprint", segment(0)) == "ok"
    assert ledger.segments(*of) == [segment(0)]
    due(ledger)  # its lease has ended
    assert ledger.checkpoint(claimed.job_id, "mine", "fingerprint", segment(1)) == "lost"
    assert ledger.segments(*of) == [segment(0)]


def test_readers_of_a_stream_are_told_each_segment_once_with_its_checkpoint(
    ledger: Ledger, client: Client, claimed: Claim
) -> None:
    """A worker that dies behind a checkpoint has told; a script that runs again, its reply lost, tells nothing."""
    for number in (0, 0, 1):
        ledger.checkpoint(
            claimed.job_id, "mine", "fingerprint", segment(number, f"s{number}"), is_streamed=True
        )
    ledger.checkpoint(claimed.job_id, "mine", "fingerprint", segment(2))
    ledger.finish(claimed.job_id, "mine", result=None, result_url="")
    told = [event for event in client.events(claimed.job_id, timeout_s=60) if event.text]
    assert [(event.text, event.start, event.question_id) for event in told] == [
        ("s0", 0.0, "q1"),
        ("s1", 10.0, "q1"),
    ]


def test_only_segments_without_a_gap_are_gone_on_from(ledger: Ledger, claimed: Claim) -> None:
    for number in (0, 1, 3):
        ledger.checkpoint(claimed.job_id, "mine", "fingerprint", segment(number))
    assert ledger.segments(claimed.job_id, "fingerprint") == [segment(0), segment(1)]
    assert ledger.segments(claimed.job_id, "another") == []


def test_segments_that_this_release_cannot_read_are_answered_again(
    attempts: Attempts, ledger: Ledger, model: Segmented, redis_client: redis.Redis, key: Any
) -> None:
    made = submit(ledger, **IN_SEGMENTS)
    model.fails_at = [4]
    attempts.process(made.queue)
    newer = segment(2).model_dump_json().replace('"stop"', '"thought_enough"')
    redis_client.hset(key(made), "2", newer)
    attempts.process(due(ledger))
    assert ledger.get(made.job_id).state == "succeeded"
    assert model.asked_for == [*range(4), *range(2, FIVE)]


def test_checkpoints_do_not_repeat_the_questions(
    attempts: Attempts, ledger: Ledger, model: Segmented, redis_client: redis.Redis, key: Any
) -> None:
    made = submit(ledger, **IN_SEGMENTS)
    model.fails_at = [3]
    attempts.process(made.queue)
    assert "What?" not in str(redis_client.hgetall(key(made)))
    attempts.process(due(ledger))
    result = ledger.result(made.job_id)[1]
    assert result is not None
    assert result.segments == tuple(segment(n, f"one {n}") for n in range(FIVE))


def test_of_very_long_answers_no_more_is_kept_than_redis_has_room_for(
    attempts: Attempts,
    ledger: Ledger,
    model: Segmented,
    redis_client: redis.Redis,
    key: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    each_bytes = len(segment(2, "one 2").model_dump_json()) - len("What?")
    monkeypatch.setattr("videoqa_worker.job.checkpoints.KEPT_BYTES", 3 * each_bytes)
    made = submit(ledger, **IN_SEGMENTS)
    model.fails_at = [4, 4]
    attempts.process(made.queue)
    attempts.process(due(ledger))
    assert sorted(redis_client.hkeys(key(made))) == ["0", "1", "2", "of"]
    attempts.process(due(ledger))
    assert model.asked_for == [*range(4), 3, 3, 4]
    assert texts(ledger, made) == [f"one {n}" for n in range(FIVE)]


def test_a_purged_job_leaves_no_segments(
    attempts: Attempts, ledger: Ledger, model: Segmented, redis_client: redis.Redis, key: Any
) -> None:
    made = submit(ledger, max_attempts=1, **IN_SEGMENTS)
    model.fails_at = [3]
    attempts.process(made.queue)
    assert redis_client.exists(key(made))
    ledger.purge(made.job_id)
    assert not redis_client.exists(key(made))


def test_the_stored_object_has_all_segments(
    attempts: Attempts, ledger: Ledger, tmp_path: Path
) -> None:
    made = submit(ledger, **IN_SEGMENTS)
    attempts.process(made.queue)
    stored = (tmp_path / "results" / f"{made.job_id}.json").read_text()
    assert stored.count('"number"') == FIVE
