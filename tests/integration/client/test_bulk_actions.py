"""Bulk actions: what they change and leave alone, and what is left of them when their process is killed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from support.worker import begin, fail, finish

from videoqa import Client, errors
from videoqa.jobs import BulkActions, KeyQuota, Ledger

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is a cat?"]}


def run(client: Client, action: Any, **asked: Any) -> Any:
    return list(client.follow_bulk(client.start_bulk(action, **asked).id))[-1]


def test_a_killed_process_leaves_nothing_done_and_uncounted(client: Client, ledger: Ledger) -> None:
    jobs = client.submit_many([{**ASKED, "tags": ["t"]}] * 250)
    begun, bulk = client.start_bulk("cancel", tag="t"), BulkActions(ledger)
    assert bulk.take("killed") == begun.id
    one = bulk.change(begun, bulk.look(begun), holder="killed", ring=lambda _: None)
    assert (one.status, one.changed) == ("running", 100)
    batch = bulk.look(one)  # of a process that was away for longer than its lease
    assert bulk.take("other") is None
    bulk.release(begun.id, "killed")
    assert bulk.take("other") == begun.id
    assert bulk.change(one, batch, holder="killed", ring=lambda _: None).changed == 100
    while not one.has_ended:
        one = bulk.change(one, bulk.look(one), holder="other", ring=lambda _: None)
    assert (one.status, one.changed, one.looked_at) == ("completed", 250, 250)
    assert {*client.get_states([job.id for job in jobs])} == {"canceled"}
    assert client.count(state="canceled").count == 250


def test_what_comes_to_match_after_the_cut_off_stays(client: Client, ledger: Ledger) -> None:
    for _ in range(4):
        client.submit({**ASKED, "tags": ["t"]})
    early, late = fail(ledger), None
    preview = client.preview_bulk("retry", tag="t")
    assert [job.id for job in preview.examples] == [early]
    late = fail(ledger)  # it was submitted before, and failed later
    client.retry(early)
    assert run(client, "retry", tag="t", cut_off=preview.cut_off).changed == 0
    assert client.get_states([early, late]) == ["queued", "failed"]
    cut_off = client.preview_bulk("cancel", tag="t").cut_off
    client.retry(late)
    assert run(client, "cancel", tag="t", cut_off=cut_off).changed == 3
    assert client.get_states([early, late]) == ["canceled", "queued"]


def test_a_job_that_changes_between_look_and_change_is_left_alone(
    client: Client, ledger: Ledger
) -> None:
    first, second = (client.submit({**ASKED, "tags": ["t"]}).id for _ in range(2))
    begun, bulk = client.start_bulk("cancel", tag="t"), BulkActions(ledger)
    bulk.take("me")
    batch = bulk.look(begun)
    assert batch.job_ids == [first, second]
    finish(ledger, begin(ledger), q1="a cat")
    ended = bulk.change(begun, batch, holder="me", ring=lambda _: None)
    assert (ended.status, ended.changed, ended.refused) == ("completed", 1, 0)
    assert client.get_states([first, second]) == ["succeeded", "canceled"]


def test_retries_of_a_key_stop_at_its_limit_and_refusals_are_listed(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    keyed = client._for_key(KeyQuota("k", jobs=2))
    jobs = [client.submit({**ASKED, "custom_id": "row"}).id for _ in range(4)]
    for _ in jobs:
        fail(ledger)
    redis_client.hset(ledger.keys.job(jobs[0]), "request", "[]")
    begun = keyed.start_bulk("retry", custom_id="row", text="CAT", state="failed")
    assert next(client.follow_bulk(begun.id)).status == "pending", "a gateway carries it out"
    redis_client.hset(
        ledger.keys.job(jobs[0]), "request", '{"questions":[{"text":"cat"}],"inputs":[]}'
    )
    ended = list(keyed.follow_bulk(begun.id))[-1]
    assert (ended.status, ended.changed, ended.refused) == ("stopped", 2, 1)
    assert "limit jobs" in str(ended.message)
    ((refusal,), states) = (ended.refusals, client.get_states(jobs))
    assert (refusal.job_id, refusal.reason) == (jobs[0], "record_unreadable")
    assert states == ["failed", "queued", "queued", "failed"]


def test_a_stopped_action_goes_no_further(client: Client) -> None:
    jobs = client.submit_many([{**ASKED, "tags": ["t"]}] * 150)
    begun = client.start_bulk("cancel", tag="t")
    following = client.follow_bulk(begun.id)
    assert next(following).changed == 100
    assert client.stop_bulk(begun.id).status == "stopped"
    assert [one.changed for one in following] == [100]
    assert client.get_states([job.id for job in jobs]).count("queued") == 50


def test_a_tenant_changes_its_own_jobs_only(client: Client) -> None:
    a, b = client.for_tenant("a"), client.for_tenant("b%:c")
    for of in (a, b):
        of.submit({**ASKED, "tags": ["t"]})
    assert a.preview_bulk("cancel", tag="t").count.count == 1
    with pytest.raises(errors.OperatorOnly):
        a.start_bulk("cancel", tenant="b%:c")
    ended = run(a, "cancel", tag="t")
    assert ended.changed == 1
    with pytest.raises(errors.BulkActionNotFound):
        b.get_bulk(ended.id)
    assert [one.id for one in client.list_bulk()] == [ended.id]
    assert (a.count(state="canceled").count, b.count(state="queued").count) == (1, 1)
    assert run(client, "cancel", tenant="b%:c").changed == 1


def test_a_key_of_another_action_is_refused(client: Client) -> None:
    client.start_bulk("cancel", tag="t", key="k")
    with pytest.raises(errors.IdempotencyConflict):
        client.start_bulk("cancel", tag="u", key="k")


def test_dead_letters_are_listed_by_their_failure_until_their_records_end(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    jobs = client.submit_many([ASKED] * 40)
    dead = [fail(ledger) for _ in jobs]
    key = ledger.keys.job_list("dead", of="model_error")
    for hours, job_id in ((2, dead[0]), (30, dead[1]), (200, dead[2])):
        at_s = (datetime.now(UTC) - timedelta(hours=hours)).timestamp()
        redis_client.zadd(key, {job_id: at_s})
    (count,) = client.count_dead()
    assert (count.hour, count.day, count.week, count.all) == (37, 38, 39, 40)
    since = datetime.now(UTC) - timedelta(hours=1)
    page = client.list(code="model_error", ended_since=since, limit=30)
    rest = client.list(code="model_error", ended_since=since, limit=30, cursor=page.next_cursor)
    assert [job.id for job in (*page.jobs, *rest.jobs)] == dead[:2:-1]
    assert rest.next_cursor is None
    assert client.count(code="model_error", ended_since=since).count == 37
    asked: dict[str, Any] = {"code": "model_error", "ended_since": since}
    preview = client.preview_bulk("retry", **asked)
    assert (preview.count.count, preview.count.looked_at) == (37, 0), "an index has it"
    assert [job.id for job in preview.examples] == dead[3:8]
    before = client.get(dead[10]).finished_at
    assert client.preview_bulk("retry", cut_off=before, **asked).count.count == 8
    redis_client.delete(*map(ledger.keys.job, dead[:35]))
    (count,) = client.count_dead()
    assert count.all == 5
    assert ledger.count_failures(within_s=3600) == {"model_error": 5}
