"""Equal questions about equal bytes are asked once, now and later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import redis
from support.attempts import Model, Recorded, due, make_attempts, submit

from videoqa import errors
from videoqa.contract import Result
from videoqa.jobs import Ledger
from videoqa.settings import Settings
from videoqa.storage import ObjectStore, file_path
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.job.attempts import Attempts
from videoqa_worker.settings import WorkerSettings


def answer(attempts: Attempts, ledger: Ledger, made: Recorded) -> Result:
    attempts.process(made.queue)
    result = ledger.result(made.job_id)[1]
    assert result is not None
    return result


def test_the_same_question_about_the_same_bytes_is_answered_from_the_store(
    attempts: Attempts, ledger: Ledger, model: Model, tmp_path: Path
) -> None:
    first = answer(attempts, ledger, submit(ledger))
    again = answer(
        attempts, ledger, submit(ledger, custom_id="mine", metadata={"a": "b"}, priority="bulk")
    )
    assert model.asked == 1
    assert (first.cached, again.cached) == (False, True)
    assert again.answers == first.answers
    assert (again.custom_id, again.metadata, again.usage.output_tokens) == ("mine", {"a": "b"}, 0)
    assert again.job_id != first.job_id
    stored = Result.model_validate_json((tmp_path / "results" / f"{again.job_id}.json").read_text())
    assert (stored.job_id, stored.cached) == (again.job_id, True)


@pytest.mark.parametrize(
    "other",
    [
        {"questions": ["Why?"]},
        {"inputs": [{"url": "s3://b/k.mp4", "start": 1}]},
        {"sampling": {"frames": 3}},
        {"generation": {"max_new_tokens": 7}},
        {"generation": {"temperature": 1, "seed": 1}},
        {"cache": "off"},
        {"cache": "refresh"},
    ],
    ids=str,
)
def test_another_question_is_asked(
    attempts: Attempts, ledger: Ledger, model: Model, other: dict[str, object]
) -> None:
    answer(attempts, ledger, submit(ledger))
    assert not answer(attempts, ledger, submit(ledger, **other)).cached
    assert model.asked == 2


def test_other_bytes_at_the_same_place_are_asked_about(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    answer(attempts, ledger, submit(ledger))
    model.etag = "two"
    assert not answer(attempts, ledger, submit(ledger)).cached


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_bytes_without_a_name_are_asked_about_each_time(
    attempts: Attempts, ledger: Ledger, model: Model, etag: str | None
) -> None:
    model.etag = etag
    for _ in range(2):
        assert not answer(attempts, ledger, submit(ledger)).cached


def test_answers_that_are_drawn_are_kept_only_with_a_seed(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    for generation, cached in (
        ({"temperature": 1}, False),
        ({"temperature": 1}, False),
        ({"temperature": 1, "seed": 3}, False),
        ({"temperature": 1, "seed": 3}, True),
    ):
        assert answer(attempts, ledger, submit(ledger, generation=generation)).cached is cached


def test_a_refreshed_answer_is_what_later_jobs_get(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    answer(attempts, ledger, submit(ledger))
    answer(attempts, ledger, submit(ledger, cache="refresh"))
    assert answer(attempts, ledger, submit(ledger)).answers[0].text == "answer 2"


@pytest.mark.parametrize(
    "forgery", ["other words", "garbage", "endless", "the same, spelled otherwise"]
)
def test_an_object_that_a_stranger_replaced_is_no_answer(
    attempts: Attempts,
    ledger: Ledger,
    model: Model,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    forgery: str,
) -> None:
    first = answer(attempts, ledger, submit(ledger))
    path = tmp_path / "results" / f"{first.job_id}.json"
    text = path.read_text()
    path.write_text(
        {
            "other words": text.replace("answer 1", "lies lies"),
            "garbage": "[]",
            "endless": text + " " * 1_000_000,
            "the same, spelled otherwise": text.replace("\n", " "),
        }[forgery]
    )
    second = answer(attempts, ledger, submit(ledger))
    assert (second.cached, second.answers[0].text, model.asked) == (False, "answer 2", 2)
    assert f"{path.as_uri()} is no longer the answer that was stored" in caplog.text
    assert answer(attempts, ledger, submit(ledger)).answers[0].text == "answer 2"


@pytest.mark.parametrize(
    "entry", ["", "u", "file:///etc/passwd", "a b c", "a 999999999999999999 c"]
)
def test_an_entry_that_can_not_be_read_is_no_answer(
    attempts: Attempts, ledger: Ledger, redis_client: redis.Redis, entry: str
) -> None:
    first = answer(attempts, ledger, submit(ledger))
    redis_client.set(ledger.keys.answer(first.cache_key or ""), entry)
    assert not answer(attempts, ledger, submit(ledger)).cached


def test_an_object_that_is_gone_is_asked_for_again(
    attempts: Attempts, ledger: Ledger, model: Model, tmp_path: Path
) -> None:
    first = answer(attempts, ledger, submit(ledger))
    (tmp_path / "results" / f"{first.job_id}.json").unlink()
    assert not answer(attempts, ledger, submit(ledger)).cached
    assert model.asked == 2


@pytest.mark.parametrize("scope", ["tenant", "fleet"])
def test_tenants_share_answers_only_where_the_fleet_does(
    settings: Settings, ledger: Ledger, model: Model, tmp_path: Path, scope: str
) -> None:
    objects = ObjectStore(file_roots=(tmp_path,))
    attempts = make_attempts(
        WorkerSettings(output=tmp_path.as_uri() + "/{job_id}.json"),
        ledger,
        model,
        objects,
        AnswerCache(objects, model="demo", revision="1", ttl_s=60, per_tenant=scope == "tenant"),
    )
    alone = scope == "tenant"
    for tenant, is_first in (("a", True), ("a", False), ("b", alone), (None, alone), (None, False)):
        result = answer(attempts, ledger, submit(ledger, tenant=tenant))
        assert (result.cached, result.tenant) == (not is_first, tenant)
    assert model.asked == (3 if alone else 1)

    # Nor do they wait for each other while the model answers.
    leader = submit(ledger, tenant="c", questions=["Why?"])
    follower = submit(ledger, tenant="d", questions=["Why?"])
    told: list[str] = []

    def meanwhile() -> None:
        attempts.process(follower.queue)
        told.append(f"{ledger.get(follower.job_id)} {ledger.read_events(follower.job_id)}")

    model.meanwhile = meanwhile
    attempts.process(leader.queue)
    assert leader.job_id not in told[0], "an id is another tenant's"
    assert ledger.get(follower.job_id).state == ("succeeded" if alone else "queued")


def test_equal_jobs_in_flight_share_one_run(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    leader, follower = submit(ledger), submit(ledger)

    def meanwhile() -> None:
        attempts.process(follower.queue)
        job = ledger.get(follower.job_id)
        assert (job.state, job.position) == ("queued", None)
        assert job.waiting_for == f"job {leader.job_id}, which asks the same"

    model.meanwhile = meanwhile
    answer(attempts, ledger, leader)
    result = answer_when_due(attempts, ledger, follower)
    assert (result.cached, model.asked) == (True, 1)
    job = ledger.get(follower.job_id)
    assert (job.attempt, job.max_attempts) == (1, 3)  # waiting was no attempt


def answer_when_due(attempts: Attempts, ledger: Ledger, made: Recorded) -> Result:
    attempts.process(due(ledger))
    result = ledger.result(made.job_id)[1]
    assert result is not None
    return result


@pytest.mark.parametrize("end", ["fails", "is canceled"])
def test_followers_of_a_job_that_ends_without_an_answer_ask_themselves(
    attempts: Attempts, ledger: Ledger, model: Model, end: str
) -> None:
    leader, follower = submit(ledger), submit(ledger)

    def meanwhile() -> None:
        attempts.process(follower.queue)
        if end == "fails":
            raise errors.UnsupportedInput("the model is no good")
        ledger.cancel(leader.job_id)

    model.meanwhile = meanwhile
    attempts.process(leader.queue)
    assert ledger.get(leader.job_id).state == ("failed" if end == "fails" else "canceled")
    assert not answer_when_due(attempts, ledger, follower).cached
    assert model.asked == 2


def test_a_follower_can_be_canceled(
    attempts: Attempts, ledger: Ledger, model: Model, redis_client: redis.Redis
) -> None:
    leader, follower = submit(ledger), submit(ledger)

    def meanwhile() -> None:
        attempts.process(follower.queue)
        ledger.cancel(follower.job_id)
        assert ledger.get(follower.job_id).state == "canceled"

    model.meanwhile = meanwhile
    answer(attempts, ledger, leader)
    assert ledger.reap(grace_s=60).ring == []
    assert ledger.get(follower.job_id).state == "canceled"
    prefix = ledger.keys.prefix
    assert redis_client.keys(f"{prefix}:fl*") == redis_client.keys(f"{prefix}:followers*") == []


def test_a_follower_that_was_canceled_and_retried_keeps_its_place(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    leader, follower = submit(ledger), submit(ledger)
    behind: list[Recorded] = []

    def meanwhile() -> None:
        attempts.process(follower.queue)
        ledger.cancel(follower.job_id)
        ledger.retry(follower.job_id)
        behind.append(submit(ledger))

    model.meanwhile = meanwhile
    answer(attempts, ledger, leader)
    ledger.reap(grace_s=60)
    places = [ledger.get(made.job_id).position for made in (follower, *behind)]
    assert places == [0, 1]


def test_followers_do_not_wait_for_a_job_whose_next_attempt_asks_something_else(
    attempts: Attempts, ledger: Ledger, model: Model, redis_client: redis.Redis
) -> None:
    leader, follower = submit(ledger, max_attempts=5), submit(ledger)

    def meanwhile() -> None:
        attempts.process(follower.queue)
        model.etag = "two"  # the file was replaced meanwhile, or the next worker is of another kind
        raise errors.ModelError("boom")

    model.meanwhile = meanwhile
    attempts.process(leader.queue)
    attempts.process(due(ledger))
    assert ledger.get(leader.job_id).state == "succeeded"
    assert answer_when_due(attempts, ledger, follower).cached
    prefix = ledger.keys.prefix
    assert redis_client.keys(f"{prefix}:fl*") == redis_client.keys(f"{prefix}:followers*") == []


def test_followers_go_on_waiting_for_a_job_whose_worker_vanished(
    attempts: Attempts, ledger: Ledger, model: Model, redis_client: redis.Redis
) -> None:
    leader, follower = submit(ledger), submit(ledger)
    claim = ledger.claim([leader.queue], worker="dies", lease_s=0.01, token="t").claim
    assert claim is not None
    key = attempts._cache.make_key(claim.request, claim.request.sampling, []).lookup
    assert key is not None
    assert ledger.lead(leader.job_id, "t", key) == "ok"
    assert ledger.lead(leader.job_id, "t", key) == "ok"  # its reply was lost
    assert ledger.claim([follower.queue], worker="w", lease_s=30, token="u").is_claimed
    assert ledger.lead(follower.job_id, "u", key) == "follow"
    assert ledger.lead(follower.job_id, "u", key) == "lost"  # its reply was lost
    due(ledger)
    again = ledger.claim([leader.queue], worker="w", lease_s=30, token="v").claim
    assert again is not None
    assert again.job_id == leader.job_id
    assert ledger.claim([leader.queue], worker="w", lease_s=30, token="x").reason == "nothing waits"
    assert ledger.get(follower.job_id).state == "queued"


def test_a_job_that_gets_the_answers_of_an_earlier_one_has_a_sheet_of_its_own(
    attempts: Attempts, ledger: Ledger, model: Model, tmp_path: Path
) -> None:
    without = answer(attempts, ledger, submit(ledger, sheet=True, questions=["Why?"]))
    assert [(w.code, without.sheet) for w in without.warnings] == [("sheet_not_stored", None)]
    model.frames = [np.full((90, 160, 3), 99, np.uint8)] * 2
    first = answer(attempts, ledger, submit(ledger, sheet=True))
    again = answer(attempts, ledger, submit(ledger, sheet=True))
    unasked = answer(attempts, ledger, submit(ledger))
    assert (again.cached, unasked.cached) == (True, True)
    assert again.sheet == first.sheet is not None
    assert (unasked.sheet, unasked.sheet_url, unasked.warnings) == (None, None, ())
    one, other = (ObjectStore().read(str(result.sheet_url)) for result in (first, again))
    assert first.job_id.encode() in one
    assert other == one.replace(first.job_id.encode(), again.job_id.encode())
    file_path(str(again.sheet_url)).write_bytes(b"no sheet")
    file_path(str(first.sheet_url)).unlink()
    third = answer(attempts, ledger, submit(ledger, sheet=True))
    assert (third.cached, third.sheet_url) == (True, None)
    assert [warning.code for warning in third.warnings] == ["sheet_not_stored"]


def test_answers_of_a_job_without_a_sheet_say_how_to_get_one(
    attempts: Attempts, ledger: Ledger, model: Model
) -> None:
    answer(attempts, ledger, submit(ledger))
    again = answer(attempts, ledger, submit(ledger, sheet=True))
    assert again.cached
    assert [warning.code for warning in again.warnings] == ["sheet_not_kept"]
