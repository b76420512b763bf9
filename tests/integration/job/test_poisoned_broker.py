"""No message of the broker stops a worker from hearing the next bell."""

from __future__ import annotations

import json
import logging
import resource
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from celery import Celery
from celery.worker import state
from support.attempts import submit
from support.poison import POISON, STILL_BELLS, Poison
from support.processes import wait_until

from videoqa import errors
from videoqa.broker import TASK, make_celery, ring
from videoqa.contract import WorkerInfo
from videoqa.jobs import Bell, Ledger
from videoqa.settings import Settings
from videoqa_worker.service.announcement import list_queues
from videoqa_worker.service.bell_reader import BellReader
from videoqa_worker.service.consumer import hear_bells
from videoqa_worker.service.reaper import Reaper
from videoqa_worker.service.runtime import Runtime
from videoqa_worker.settings import WorkerSettings


class Hearing:
    """A worker's real consumer, on a thread; instead of a claim it notes the bell."""

    def __init__(self, settings: WorkerSettings, app: Celery) -> None:
        self.heard: list[Bell] = []
        self.app = app
        self.bells = BellReader(list_queues(settings))
        self._runtime = SimpleNamespace(
            app=app, settings=settings, worker_id="w", is_closing=False, bells=self.bells,
            process=self._process, drain=lambda grace_s: None,
        )  # fmt: skip
        self._thread = threading.Thread(
            target=hear_bells, args=(cast(Runtime, self._runtime),), daemon=True
        )

    def _process(self, bell: Bell) -> bool:
        self.heard.append(bell)
        return True

    def __enter__(self) -> Hearing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        state.should_stop = 0
        self._thread.join(20)
        state.should_stop = None
        assert not self._thread.is_alive()


@contextmanager
def hear(settings: Settings, broker_url: str | None = None) -> Iterator[Hearing]:
    own = WorkerSettings(
        redis_url=settings.redis_url, broker_url=broker_url, prefix=settings.prefix, slots=2
    )
    app = make_celery(own)
    app.conf.broker_transport_options |= {"polling_interval": 0.02}
    try:
        with Hearing(own, app) as hearing:
            yield hearing
    finally:
        app.close()


def make_bell(settings: Settings, number: int = 1) -> Bell:
    return Bell("job_1", 1, number, f"{settings.prefix}.default.interactive")


def test_what_is_no_bell_is_dropped_counted_and_told_once_a_fault(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_celery(settings)
    with Poison(settings) as poison, hear(settings) as hearing:
        for _ in range(2):
            for number, kind in enumerate(POISON.values(), 1):
                poison.put(kind, make_bell(settings, number))
        ring(app, make_bell(settings, 99))
        wait_until(lambda: hearing.heard, within_s=20)
        assert hearing.heard == [make_bell(settings, 99)]
        assert hearing.bells.dropped == 2 * len(POISON)
    app.close()
    assert redis_client.hgetall(f"{settings.prefix}.unacked") == {}, "none comes back"
    said = [record.getMessage() for record in caplog.records if "no bell" in record.msg]
    assert len(said) == 7
    assert all(line.isprintable() and len(line) < 400 for line in said)
    # A thread has no signals.
    others = [one for one in caplog.records if "signal" not in one.name]
    assert not [record for record in others if record.levelno > logging.WARNING]


def test_a_bell_is_heard_and_nothing_else_of_its_message_is_followed(
    settings: Settings, redis_client: redis.Redis
) -> None:
    redis_client.delete("celery", "somewhere")  # other tests' programs may use these names
    with Poison(settings) as poison, hear(settings) as hearing:
        for number, kind in enumerate(STILL_BELLS.values(), 1):
            poison.put(kind, make_bell(settings, number))
        wait_until(lambda: len(hearing.heard) == len(STILL_BELLS), within_s=20)
    assert sorted(bell.bell for bell in hearing.heard) == list(range(1, len(STILL_BELLS) + 1))
    assert hearing.bells.dropped == 0
    assert redis_client.exists("celery", "somewhere", f"{settings.prefix}.unacked") == 0


def test_a_bell_that_is_left_to_other_workers_goes_back_to_its_queue_alone(
    settings: Settings, redis_client: redis.Redis
) -> None:
    bell = make_bell(settings)
    with Poison(settings) as poison, hear(settings) as hearing:
        hearing._runtime.is_closing = True
        elsewhere = STILL_BELLS["delivery info that is no object"]
        poison.put(elsewhere, bell)
        wait_until(lambda: redis_client.exists(f"{settings.prefix}.unacked"), within_s=20)
        hearing._runtime.is_closing = False
        wait_until(lambda: hearing.heard == [bell], within_s=20)


def test_broken_notes_of_unacknowledged_messages_are_dropped(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    notes = ["no JSON", "[]", "5", "null", '{"a": 1}', '["a", "b"]', '["a", "b", "c"]']
    notes += ['[{"headers": {}, "properties": {"delivery_info": {}}}, "", "unacked"]']
    notes += ["[" * 50_000, '[{}, "", ""]', '[{"headers": 5, "properties": []}, {}, []]']
    elsewhere = '[{"headers": {}, "properties": {"delivery_info": {}}, "body": ""}, "", "other"]'
    for n, note in enumerate([*notes, elsewhere]):
        redis_client.hset(f"{settings.prefix}.unacked", f"tag{n}", note)
        redis_client.zadd(f"{settings.prefix}.unacked_index", {f"tag{n}": 0})
    app = make_celery(settings)
    with hear(settings) as hearing:
        ring(app, make_bell(settings))
        wait_until(lambda: hearing.heard, within_s=20)
        assert "gave up" not in caplog.text
        tags = [f"tag{n}" for n in range(len(notes) + 1)]
        wait_until(
            lambda: not any(redis_client.hmget(f"{settings.prefix}.unacked", tags)), within_s=20
        )
        assert not any(redis_client.zmscore(f"{settings.prefix}.unacked_index", tags))
    app.close()
    assert redis_client.llen("other") == 1, "another program's message is put back"
    redis_client.delete("other", "celery")


def test_a_queue_whose_key_holds_another_type_is_told_and_the_others_go_on(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    bell = make_bell(settings)
    bulk = Bell("job_2", 1, 1, f"{settings.prefix}.default.bulk")
    app = make_celery(settings)
    redis_client.set(bell.queue, "x")
    with hear(settings) as hearing:
        ring(app, bulk)
        wait_until(lambda: hearing.heard == [bulk], within_s=20)
        said = [one.getMessage() for one in caplog.records if "expected a list" in one.msg]
        assert len(said) == 1
        assert f"another type of value under {bell.queue}" in said[0]
        redis_client.delete(bell.queue)
        ring(app, bell)
        wait_until(lambda: hearing.heard == [bulk, bell], within_s=20)
        redis_client.set(bell.queue, "x")
        redis_client.set(bulk.queue, "x")
        wait_until(lambda: f"another type of value under {bulk.queue}" in caplog.text, within_s=20)
        redis_client.delete(bell.queue, bulk.queue)
        ring(app, bulk)
        wait_until(lambda: hearing.heard == [bulk, bell, bulk], within_s=20)
    app.close()
    assert "gave up" not in caplog.text


def test_a_reaper_rings_for_the_other_queues(
    settings: Settings, redis_client: redis.Redis, ledger: Ledger
) -> None:
    app = make_celery(settings)
    queues = tuple(f"{settings.prefix}.default.{name}" for name in ("interactive", "bulk"))
    jobs = [submit(ledger, priority=name).job_id for name in ("interactive", "bulk")]
    redis_client.zadd(f"{settings.prefix}:delayed", dict.fromkeys(jobs, 0))
    redis_client.set(queues[0], "x")
    info = SimpleNamespace(queues=queues)
    reaper = Reaper(ledger, app, lambda: cast(WorkerInfo, info), every_s=1, grace_s=60)
    with pytest.raises(errors.RedisUnavailable, match="WRONGTYPE"):
        reaper.reap()
    assert redis_client.llen(queues[1]) == 1
    app.close()


def test_notes_in_keys_of_another_type_are_begun_anew(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_celery(settings)
    redis_client.set(f"{settings.prefix}.unacked", "x")
    redis_client.set(f"{settings.prefix}.unacked_index", "x")
    with hear(settings) as hearing:
        ring(app, make_bell(settings, 1))
        wait_until(lambda: len(hearing.heard) == 1, within_s=20)
        redis_client.delete(f"{settings.prefix}.unacked")
        redis_client.rpush(f"{settings.prefix}.unacked", "x")
        ring(app, make_bell(settings, 2))
        wait_until(lambda: len(hearing.heard) == 2, within_s=20)
    app.close()
    assert "gave up" not in caplog.text


def test_other_transports_hand_over_bells_alone_too(settings: Settings) -> None:
    sound = json.dumps([["job_1", 1, 1, make_bell(settings).queue], {}, {}])
    headers = {"task": TASK, "id": "1"}
    poison: list[tuple[str | bytes, dict[str, Any]]] = [
        ("[]", {}),
        ("5", {}),
        ("{}", {}),
        ("null", {}),
        ("[" * 4_000, {}),
        ("x" * 100_000, {}),
        ("\xff{", {"content_encoding": "latin-1"}),
        (b"\x80\x04.", {"content_type": "application/x-python-serialize"}),
        (sound, {"content_type": "text/plain"}),
        (sound, {"headers": {}}),
        (sound, {"headers": {"task": "celery.backend_cleanup"}}),
        (sound, {"headers": headers | {"compression": "zlib"}}),
        (zlib.compress(bytes(200 << 20)), {"headers": headers | {"compression": "zlib"}}),
        (sound.replace("job_1", "job\x1b"), {}),
    ]
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with hear(settings, "memory://") as hearing, hearing.app.connection() as connection:
        producer = connection.Producer()
        for body, options in poison:
            found = {"content_type": "application/json", "content_encoding": "utf-8"} | options
            # Without an exchange: it goes into the queue of that name, and nothing has to be bound.
            producer.publish(
                body, routing_key=make_bell(settings).queue, exchange="",
                **{"headers": headers} | found,
            )  # fmt: skip
        chained = json.dumps([["job_1", 1, 2, make_bell(settings).queue], {}, {"chain": [5]}])
        producer.publish(
            chained, routing_key=make_bell(settings).queue, exchange="",
            content_type="application/json", content_encoding="utf-8", timelimit=5,
            headers=headers | {"timelimit": "soon"}, reply_to="somewhere",
        )  # fmt: skip
        wait_until(lambda: hearing.heard == [make_bell(settings, 2)], within_s=20)
        assert hearing.bells.dropped == len(poison)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib
    assert grown_kib < 100 << 10, "no body is unpacked"


def test_a_bell_with_a_forged_number_loses_no_job(settings: Settings, ledger: Ledger) -> None:
    queue = make_bell(settings).queue
    forged = ledger.claim(make_bell(settings, 10**11), worker="w", lease_s=30, token="t")
    assert not forged.is_claimed
    ledger.reap(grace_s=0, filled_queues=[queue])
    jobs = {submit(ledger).job_id for _ in range(3)}
    ledger.reap(grace_s=0, empty_queues=[queue])
    rung = ledger.reap(grace_s=0, empty_queues=[queue])
    assert {bell.job_id for bell in rung} == jobs
    assert [bell.bell - 10**11 for bell in rung] == [4, 5, 6]
