"""The outbox: each end of a job with a webhook is in it, written by the script that ended the job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import redis
from support.worker import begin, finish

from videoqa import Client, Settings
from videoqa.contract import Failure
from videoqa.jobs import Ledger

HOOK = "https://receiver.example/hook?key=7"
ASKED: dict[str, Any] = {
    "inputs": ["s3://b/clip.mp4"],
    "questions": ["What is it?"],
    "webhook": HOOK,
    "custom_id": "order 7",
    "metadata": {"a": "ü"},
}


@pytest.fixture
def client(settings: Settings) -> Any:
    with Client(settings=settings) as client:
        yield client


def read(ledger: Ledger) -> list[dict[str, str]]:
    found = cast("list[tuple[str, dict[str, str]]]", ledger._redis.xrange(ledger.keys.outbox))
    return [fields for _, fields in found]


def succeed(client: Client, ledger: Ledger) -> None:
    finish(ledger, begin(ledger), q1="a cat")


def fail_for_good(client: Client, ledger: Ledger) -> None:
    claim = begin(ledger)
    failure = Failure(code="model_error", message="boom", attempt=1)
    ledger.fail(claim.job_id, claim.token, failure, delay_s=0)


def cancel_queued(client: Client, ledger: Ledger) -> None:
    client.cancel(next(iter(client.list().jobs)).id)


def cancel_running(client: Client, ledger: Ledger) -> None:
    claim = begin(ledger)
    client.cancel(claim.job_id)
    assert read(ledger) == []
    assert ledger.finish(claim.job_id, claim.token, result=None, result_url="u") == "cancel"


def lose_worker(client: Client, ledger: Ledger) -> None:
    begin(ledger, lease_s=0.01)
    time.sleep(0.02)
    ledger.reap(grace_s=60)


def expire(client: Client, ledger: Ledger) -> None:
    time.sleep(0.3)
    ledger.reap(grace_s=60)


ENDS: dict[str, tuple[Callable[[Client, Ledger], None], dict[str, Any], str, str | None]] = {
    "finish": (succeed, {}, "succeeded", None),
    "fail": (fail_for_good, {}, "failed", "model_error"),
    "cancel a queued job": (cancel_queued, {}, "canceled", "canceled"),
    "cancel a running job": (cancel_running, {}, "canceled", "canceled"),
    "lose the last worker": (lose_worker, {"max_attempts": 1}, "failed", "worker_lost"),
    "pass start_by": (expire, {"start_by": 0.2}, "expired", "start_by_passed"),
}


@pytest.mark.parametrize("how", ENDS)
def test_each_end_is_told_once_with_all_that_a_receiver_gets(
    client: Client, ledger: Ledger, how: str
) -> None:
    end, fields, state, code = ENDS[how]
    if "start_by" in fields:
        fields = {"start_by": datetime.now(UTC) + timedelta(seconds=fields["start_by"])}
    job = client.submit({**ASKED, **fields})
    assert read(ledger) == []
    end(client, ledger)
    (told,) = read(ledger)
    assert (told["job"], told["state"], told["tenant"]) == (job.id, state, "")
    assert client.get(job.id).state == state
    assert (json.loads(told["failure"])["code"] if told["failure"] else None) == code
    webhook = json.loads(told["webhook"])
    assert (webhook["url"], webhook["receiver"]) == (HOOK, "https://receiver.example:443")
    assert webhook["job"] == {
        "custom_id": "order 7",
        "model": None,
        "tags": [],
        "metadata": {"a": "ü"},
    }


def test_an_end_that_nobody_wants_to_hear_of_is_not_told(client: Client, ledger: Ledger) -> None:
    for webhook in (None, {"url": HOOK, "events": ["job.failed"]}):
        client.submit({**ASKED, "webhook": webhook})
        succeed(client, ledger)
    assert read(ledger) == []


def test_a_retried_job_tells_its_next_end_as_well(client: Client, ledger: Ledger) -> None:
    job = client.submit(ASKED)
    fail_for_good(client, ledger)
    client.retry(job.id)
    succeed(client, ledger)
    assert [told["state"] for told in read(ledger)] == ["failed", "succeeded"]


def test_large_metadata_is_left_out(client: Client, ledger: Ledger) -> None:
    client.submit({**ASKED, "metadata": {str(n): "x" * 1024 for n in range(9)}})
    succeed(client, ledger)
    own = json.loads(read(ledger)[0]["webhook"])["job"]
    assert (own["metadata"], own["metadata_omitted"]) == (None, True)


def test_a_job_shows_its_webhook_without_the_query(client: Client) -> None:
    job = client.submit(ASKED)
    shown = client.get(job.id, include_request=True).request
    assert shown is not None
    assert shown.webhook is not None
    assert shown.webhook.url == "https://receiver.example/hook"


def test_a_job_without_a_webhook_costs_no_command_more(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    def count(webhook: str | None) -> int:
        client.submit({**ASKED, "webhook": webhook})
        claim = begin(ledger)
        redis_client.config_resetstat()
        finish(ledger, claim, q1="a cat")
        stats = cast("dict[str, Any]", redis_client.info("commandstats"))
        return sum(one["calls"] for name, one in stats.items() if "config" not in name)

    count(None)  # the day's first job, which begins its counters
    # The least of a few: other connections of this server say something now and then.
    without, with_hook = (min(count(webhook) for _ in range(4)) for webhook in (None, HOOK))
    assert without + 2 == with_hook
