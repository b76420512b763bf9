"""Attempts of a worker: jobs that it cannot run or store, and exclusive attempts."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import redis
from support.attempts import Bells, Model, Recorded, due, submit
from support.logs import configured_logs, parse_lines

from videoqa import errors
from videoqa.contract import Result
from videoqa.jobs import Ledger
from videoqa.storage import ObjectStore
from videoqa.telemetry.trace_context import derive_trace_id
from videoqa_worker.job.attempts import Attempts, backoff_s
from videoqa_worker.settings import WorkerSettings


def rewrite(redis_client: redis.Redis, ledger: Ledger, made: Recorded, **fields: object) -> None:
    """Writes the request as a newer release would have."""
    key = ledger.keys.job(made.job_id)
    text = cast("str", redis_client.hget(key, "request"))
    redis_client.hset(key, "request", json.dumps(json.loads(text) | fields))


def test_a_request_of_a_newer_release_is_left_to_newer_workers(
    attempts: Attempts, ledger: Ledger, redis_client: redis.Redis
) -> None:
    made = submit(ledger)
    rewrite(redis_client, ledger, made, sampling={"method": "psychic"})
    attempts.process(made.queue)
    rewrite(redis_client, ledger, made, sampling={"method": "uniform"})
    job = ledger.get(made.job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code, job.failure.retryable) == (
        "queued",
        "invalid_request",
        True,
    )
    assert "upgrade this side" in job.failure.message


def test_a_field_that_only_a_newer_release_knows_does_not_disturb(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    made = submit(ledger)
    rewrite(redis_client, ledger, made, mood="good")
    assert ledger.get(made.job_id).state == "queued"
    assert ledger.claim([made.queue], worker="w", lease_s=30, token="t").is_claimed


def test_a_bell_that_leads_nowhere_is_dropped(attempts: Attempts) -> None:
    assert not attempts.process("q")


def test_retries_wait_longer_each_time_and_never_above_the_cap() -> None:
    def longest(attempt: int) -> float:
        return max(backoff_s(attempt, base_s=2, cap_s=30) for _ in range(300))

    assert [round(longest(n)) for n in (1, 2, 3)] == pytest.approx([2, 4, 8], abs=1)
    assert longest(10) <= 30


def test_a_job_that_is_claimed_while_its_worker_shuts_down_is_given_back(
    attempts: Attempts, ledger: Ledger
) -> None:
    made = submit(ledger)
    assert attempts.process(made.queue, lambda result: attempts.close())
    job = ledger.get(made.job_id)
    assert (job.state, job.attempt, job.max_attempts) == ("queued", 1, 4)
    assert job.position == 0


def test_a_worker_that_shuts_down_claims_nothing_and_counts_no_bell(
    attempts: Attempts, ledger: Ledger
) -> None:
    made = submit(ledger)
    attempts.drain()
    answers: list[object] = []
    assert not attempts.process(made.queue, answers.append)
    assert answers == [None]
    assert ledger.get(made.job_id).attempt == 0


def test_a_second_attempt_with_nan_logits_is_the_last(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    def overflow() -> None:
        raise errors.NanLogits("NaN logits", param="questions.0.text")

    made = submit(ledger)
    for _ in range(2):
        assert ledger.get(made.job_id).state == "queued"
        model.meanwhile = overflow
        attempts.process(due(ledger) if model.asked else made.queue)
    job = ledger.get(made.job_id)
    assert job.failure is not None
    assert (job.state, job.attempt, job.max_attempts) == ("failed", 2, 3)
    assert (job.failure.code, job.failure.retryable) == ("nan_logits", False)


def block(folder: Path) -> None:
    """Nothing can be written there: a file is in the folder's place."""
    folder.write_text("")


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store does not answer, and nobody waits between the tries."""

    def write(self: ObjectStore, url: str, data: bytes, **_: object) -> bool:
        raise errors.OutputUnavailable("the store is away")

    monkeypatch.setattr(ObjectStore, "write", write)
    monkeypatch.setattr("videoqa_worker.job.result_object.time.sleep", lambda seconds: None)


def test_answers_that_could_not_be_stored_are_stored_later_and_the_model_is_not_asked_again(
    attempts: Attempts,
    ledger: Ledger,
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = submit(ledger)
    with monkeypatch.context() as patch:
        away(patch)
        attempts.process(made.queue)
        for _ in range(5):  # more often than the job has attempts
            job = ledger.get(made.job_id)
            assert (job.state, job.failure and job.failure.code) == ("queued", "output_unavailable")
            attempts.process(due(ledger))
    attempts.process(due(ledger))
    job, result = ledger.result(made.job_id)
    assert (job.state, job.attempt, job.failure, model.asked) == ("succeeded", 7, None, 1)
    stored = Result.model_validate_json((tmp_path / "results" / f"{job.id}.json").read_text())
    assert result is not None
    assert stored.answers == result.answers
    assert (stored.attempt, result.attempt, result.answers[0].text) == (7, 7, "answer 1")


def test_a_store_that_stays_away_ends_the_job_and_a_retry_needs_no_model(
    attempts: Attempts,
    ledger: Ledger,
    redis_client: redis.Redis,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = submit(ledger)
    with monkeypatch.context() as patch:
        away(patch)
        attempts.process(made.queue)
        an_hour_ago = float(cast(str, redis_client.hget(ledger.keys.job(made.job_id), "kept_at")))
        redis_client.hset(ledger.keys.job(made.job_id), "kept_at", an_hour_ago - 3601)
        attempts.process(due(ledger))
        assert ledger.get(made.job_id).state == "failed"
        ledger.retry(made.job_id)
        attempts.process(made.queue)
        assert ledger.get(made.job_id).state == "queued"  # it has an hour again
    attempts.process(due(ledger))
    assert ledger.get(made.job_id).state == "succeeded"
    assert model.asked == 1


def test_answers_for_a_place_that_is_refused_are_kept_for_a_retry(
    attempts: Attempts, ledger: Ledger, model: Model, tmp_path: Path
) -> None:
    block(tmp_path / "results")
    made = submit(ledger)
    attempts.process(made.queue)
    job = ledger.get(made.job_id)
    assert (job.state, job.failure and job.failure.code) == ("failed", "output_denied")
    (tmp_path / "results").unlink()
    ledger.retry(made.job_id)
    attempts.process(made.queue)
    assert (ledger.get(made.job_id).state, model.asked) == ("succeeded", 1)


def test_a_worker_that_stops_while_storing_gives_its_answers_back_too(
    attempts: Attempts,
    ledger: Ledger,
    model: Model,
    bells: Bells,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise errors.WorkerStopping("this worker shuts down")

    made = submit(ledger)
    with monkeypatch.context() as patch:
        patch.setattr("videoqa_worker.job.attempts.store_result", stop)
        attempts.process(made.queue)
    assert ledger.get(made.job_id).state == "queued"
    attempts.process(bells.rung[0])
    assert (ledger.get(made.job_id).state, model.asked) == ("succeeded", 1)


def test_kept_answers_of_a_newer_release_are_asked_for_again(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    made = submit(ledger)
    redis_client.hset(ledger.keys.job(made.job_id), "kept", '{"answers": "in another shape"}')
    claim = ledger.claim([made.queue], worker="w", lease_s=30, token="t").claim
    assert claim is not None
    assert claim.kept is None


def lost(ledger: Ledger) -> Recorded:
    """A job whose worker is gone, and which has one attempt left."""
    made = submit(ledger, max_attempts=2)
    ledger.claim([made.queue], worker="w", lease_s=0.01, token="lost")
    time.sleep(0.03)
    return made


@contextmanager
def running(attempts: Attempts, model: Model, made: Recorded) -> Iterator[None]:
    """An attempt that has begun, and ends with the block."""
    began, end = threading.Event(), threading.Event()

    def meanwhile() -> None:
        began.set()
        assert end.wait(60)

    model.meanwhile = meanwhile
    thread = threading.Thread(target=attempts.process, args=(made.queue,))
    thread.start()
    assert began.wait(60)
    try:
        yield
    finally:
        end.set()
        thread.join(60)


def wait_reserved(attempts: Attempts, ledger: Ledger, queue: str) -> threading.Thread:
    """A thread that has met an exclusive attempt, and waits until its worker is idle."""
    thread = threading.Thread(target=attempts.process, args=(queue,), daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not ledger._redis.exists(f"{ledger.keys.prefix}:reserved:{queue}"):
        assert time.monotonic() < until
        time.sleep(0.01)
    return thread


def test_the_last_attempt_of_a_job_that_lost_its_workers_runs_by_itself(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    suspect = lost(ledger)
    other = submit(ledger, questions=["What else?"])
    tried: list[bool] = []

    def last() -> None:
        tried.append(attempts.process(submit(ledger, questions=["And now?"]).queue))

    with running(attempts, model, other):
        model.meanwhile = last
        thread = wait_reserved(attempts, ledger, due(ledger))
        assert not attempts.process(submit(ledger, questions=["And this?"]).queue)
        time.sleep(0.7)  # it has asked again
        job = ledger.get(suspect.job_id)
        assert (job.state, job.attempt, model.asked) == ("queued", 1, 1)
    thread.join(60)
    job = ledger.get(suspect.job_id)
    assert (job.state, job.attempt, tried) == ("succeeded", 2, [False])
    assert ledger.get(other.job_id).state == "succeeded"


def test_an_idle_worker_takes_the_job_for_which_another_is_reserved(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    suspect = lost(ledger)
    with running(attempts, model, submit(ledger, questions=["What else?"])):
        queue = due(ledger)
        thread = wait_reserved(attempts, ledger, queue)
        claim = ledger.claim([queue], worker="idle", lease_s=30, token="idle").claim
        assert claim is not None
        assert claim.job_id == suspect.job_id
        thread.join(60)  # there is nothing left to claim
        behind = submit(ledger, questions=["What else?"], cache="off")
        attempts.process(behind.queue)
        assert ledger.get(behind.job_id).state == "succeeded"


def test_a_job_that_is_only_to_be_stored_is_not_exclusive(
    attempts: Attempts, ledger: Ledger, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a store is away it comes back each minute, for an hour."""
    suspect = lost(ledger)
    with monkeypatch.context() as patch:
        away(patch)
        attempts.process(due(ledger))
    stored: list[str] = []

    def store_it() -> None:
        again = due(ledger)
        waits = threading.Thread(target=attempts.process, args=(again,), daemon=True)
        waits.start()
        waits.join(60)
        stored.append(ledger.get(suspect.job_id).state)

    model.meanwhile = store_it
    attempts.process(submit(ledger, questions=["What else?"]).queue)
    assert (stored, model.asked) == (["succeeded"], 2)


def test_a_worker_that_closes_while_it_is_reserved_leaves_the_job_queued(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    suspect = lost(ledger)
    with running(attempts, model, submit(ledger, questions=["What else?"])):
        thread = wait_reserved(attempts, ledger, due(ledger))
        attempts.break_off(errors.EngineStopped("the engine hangs"))
        thread.join(60)
        job = ledger.get(suspect.job_id)
        assert (job.state, job.attempt, job.max_attempts) == ("queued", 1, 2)


def test_a_question_that_only_waited_as_the_engine_broke_is_not_held_against_its_job(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    def broken(*, had_begun: bool) -> None:
        error = errors.EngineStopped("the engine stopped")
        error.had_begun = had_begun
        raise error

    made = submit(ledger)
    model.meanwhile = partial(broken, had_begun=False)
    attempts.process(made.queue)
    job = ledger.get(made.job_id)
    assert (job.state, job.failure, job.attempt, job.max_attempts) == ("queued", None, 1, 4)
    model.meanwhile = partial(broken, had_begun=True)
    attempts.process(made.queue)
    job = ledger.get(made.job_id)
    assert (job.state, job.attempt, job.max_attempts) == ("queued", 2, 4)
    assert job.failure is not None


def test_the_line_of_a_success_tells_what_was_asked_and_what_it_cost(
    attempts: Attempts, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    url = "https://user:secret@h/my film\u202e.mp4?X-Amz-Signature=abc#t=1"
    made = submit(ledger, inputs=[url, "s3://b/k.mp4"], questions=["What?", "Where?"])
    with caplog.at_level(logging.INFO):
        attempts.process(made.queue)
    (line,) = [text for text in caplog.messages if text.startswith("job has succeeded ")]
    found = dict(word.split("=", 1) for word in line.removeprefix("job has succeeded ").split(" "))
    assert float(found.pop("seconds")) >= 0
    assert found == {
        "model": "demo",
        "inputs": "2",
        "first_input": "https://h/my%20film%E2%80%AE.mp4",
        "questions": "2",
        "frames": "0",
        "input_tokens": "1",
        "output_tokens": "1",
        "cached": "no",
    }


def test_no_job_replaces_the_object_of_another_by_its_custom_id(
    attempts: Attempts, ledger: Ledger, model: Model, tmp_path: Path
) -> None:
    first = submit(ledger)
    attempts.process(first.queue)
    url = ledger.get(first.job_id).result_url
    assert url is not None
    before = ObjectStore().read(url)
    template = (tmp_path / "results").as_uri() + "/{custom_id}.json"
    made = submit(ledger, output=template, custom_id=first.job_id, cache="off", max_attempts=3)
    attempts.process(made.queue)
    job = ledger.get(made.job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code, job.failure.param, job.attempt) == (
        "failed", "output_conflict", "output", 1,
    )  # fmt: skip
    assert first.job_id not in job.failure.message.removeprefix(url), "whose it is, is not told"
    assert model.asked == 1, "the model is not asked for an answer that has no place"
    assert ObjectStore().read(url) == before


def test_a_job_whose_place_was_taken_meanwhile_keeps_its_answer_for_retry(
    attempts: Attempts, ledger: Ledger, model: Model, tmp_path: Path
) -> None:
    template = (tmp_path / "results").as_uri() + "/{custom_id}.json"
    path = tmp_path / "results" / "c.json"

    def take_the_place() -> None:
        path.parent.mkdir()
        path.write_text("a stranger's")

    model.meanwhile = take_the_place
    made = submit(ledger, output=template, custom_id="c", max_attempts=3)
    attempts.process(made.queue)
    job = ledger.get(made.job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code, job.attempt) == ("failed", "output_conflict", 1)
    assert path.read_text() == "a stranger's"
    path.unlink()
    ledger.retry(made.job_id)
    attempts.process(made.queue)
    assert ledger.get(made.job_id).state == "succeeded"
    assert Result.model_validate_json(path.read_text()).answers[0].text == "answer 1"
    assert model.asked == 1


def test_a_forged_later_attempt_fails_the_job_and_blames_no_worker(
    attempts: Attempts, ledger: Ledger, model: Model, tmp_path: Path
) -> None:
    """The lease is not left to end: that would look like a worker's death, and have the next attempt run alone."""
    path = tmp_path / "results" / "c.json"

    def forge() -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'{{"job_id": "{made.job_id}", "attempt": 99}}')

    template = path.parent.as_uri() + "/{custom_id}.json"
    made = submit(ledger, output=template, custom_id="c", max_attempts=3)
    model.meanwhile = forge
    attempts.process(made.queue)
    job = ledger.get(made.job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code) == ("failed", "output_conflict")
    path.unlink()
    ledger.retry(made.job_id)
    attempts.process(made.queue)
    assert ledger.get(made.job_id).state == "succeeded"
    assert model.asked == 1


def test_each_line_of_an_attempt_names_its_job_and_a_cancel_is_no_warning(
    attempts: Attempts, ledger: Ledger, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines of libraries on the job's thread as well."""
    made = submit(ledger, tenant="acme", timeout_s=60)

    def cancel() -> None:
        logging.getLogger("boto3").warning("a library's line")
        ledger.cancel(made.job_id)

    model.meanwhile = cancel
    with configured_logs("json"):
        attempts.process(made.queue)
        logging.getLogger("boto3").warning("behind the job")
    *lines, behind = parse_lines(capsys.readouterr().err)
    assert ledger.get(made.job_id).state == "canceled"
    assert [(line["level"], line["event"]) for line in lines] == [
        ("info", "job_started"),
        ("warning", "library_line"),
        ("info", "job_canceled"),
    ]
    for line in lines:
        found = {name: line[name] for name in ("job_id", "attempt", "model", "tenant", "trace_id")}
        assert found == {
            "job_id": made.job_id,
            "attempt": 1,
            "model": WorkerSettings().model,
            "tenant": "acme",
            "trace_id": derive_trace_id(made.job_id),
        }
    assert "job_id" not in behind
