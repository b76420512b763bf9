"""No message of the broker stops a worker from hearing the next bell."""

from __future__ import annotations

import json
import logging
import resource
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
from videoqa.jobs import ClaimResult, Ledger
from videoqa.settings import Settings
from videoqa_worker.embedded.redis_server import RedisServer
from videoqa_worker.job.slots import JobSlots
from videoqa_worker.service.announcement import list_queues
from videoqa_worker.service.bell_reader import BellReader
from videoqa_worker.service.consumer import hear_bells
from videoqa_worker.service.reaper import Reaper
from videoqa_worker.service.runtime import Runtime
from videoqa_worker.settings import WorkerSettings


class Hearing:
    """A worker's real consumer, on a thread; instead of a claim it notes the queue of the bell."""

    def __init__(self, settings: WorkerSettings, app: Celery) -> None:
        self.heard: list[str] = []
        self.looks = 0
        """Claims without a bell."""
        self.app = app
        self.bells = BellReader(list_queues(settings))
        self.may_claim = True
        self.slots = JobSlots(2, self._process, lambda: self.may_claim)
        self._runtime = SimpleNamespace(
            app=app, settings=settings, worker_id="w", bells=self.bells, slots=self.slots,
            drain=lambda grace_s: None, wait_for_jobs=lambda: None,
        )  # fmt: skip
        self._thread = threading.Thread(
            target=hear_bells, args=(cast(Runtime, self._runtime),), daemon=True
        )

    def _process(self, heard: str, on_answer: Callable[[ClaimResult], None]) -> bool:
        if heard:
            self.heard.append(heard)
        else:
            self.looks += 1
        on_answer(ClaimResult(reason="nothing waits"))
        return False

    def __enter__(self) -> Hearing:
        self.slots.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        state.should_stop = 0
        self._thread.join(60)
        state.should_stop = None
        self.slots.__exit__()
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


@pytest.fixture
def queue(settings: Settings) -> str:
    return f"{settings.prefix}.default.interactive"


def test_what_is_no_bell_is_dropped_counted_and_told_once_a_fault(
    settings: Settings, redis_client: redis.Redis, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_celery(settings)
    with Poison(settings) as poison, hear(settings) as hearing:
        for _ in range(2):
            for kind in POISON.values():
                poison.put(kind, queue)
        ring(app, queue)
        wait_until(lambda: hearing.heard)
        assert hearing.heard == [queue]
        assert hearing.bells.dropped == 2 * len(POISON)
    app.close()
    assert redis_client.llen(queue) == 0, "none comes back"
    said = [record.getMessage() for record in caplog.records if "no bell" in record.msg]
    assert len(said) == 7
    assert all(line.isprintable() and len(line) < 400 for line in said)
    # A thread has no signals.
    others = [one for one in caplog.records if "signal" not in one.name]
    assert not [record for record in others if record.levelno > logging.WARNING]


def test_a_bell_is_heard_and_nothing_else_of_its_message_is_followed(
    settings: Settings, redis_client: redis.Redis, queue: str
) -> None:
    redis_client.delete("celery", "somewhere")  # other tests' programs may use these names
    with Poison(settings) as poison, hear(settings) as hearing:
        for kind in STILL_BELLS.values():
            poison.put(kind, queue)
        wait_until(lambda: hearing.heard == [queue] * len(STILL_BELLS))
    assert hearing.bells.dropped == 0
    assert redis_client.exists("celery", "somewhere", queue) == 0


def test_a_worker_that_may_not_claim_leaves_bells_and_returns_one_that_was_on_its_way(
    settings: Settings, redis_client: redis.Redis, queue: str
) -> None:
    app = make_celery(settings)
    with Poison(settings) as poison, hear(settings) as hearing:
        ring(app, queue)
        wait_until(lambda: hearing.heard == [queue])
        hearing.may_claim = False  # while it waits for the next one
        poison.put(STILL_BELLS["delivery info that is no object"], queue)
        ring(app, queue)
        wait_until(lambda: not hearing.slots.can_hear and redis_client.llen(queue) == 2)
        hearing.may_claim = True
        wait_until(lambda: hearing.heard == [queue] * 3)
    app.close()


def test_a_worker_that_stops_returns_a_bell_that_is_not_counted(
    settings: Settings, redis_client: redis.Redis, queue: str
) -> None:
    app = make_celery(settings)
    answer = threading.Event()
    with hear(settings) as hearing:
        ring(app, queue)
        wait_until(lambda: hearing.heard == [queue])  # and hears on
        hearing.slots._process = lambda heard, on_answer: not answer.wait(60)
        ring(app, queue)
        wait_until(lambda: not hearing.slots.can_hear and redis_client.llen(queue) == 0)
        state.should_stop = 0
        wait_until(lambda: redis_client.llen(queue) == 1)
        answer.set()
    app.close()


def test_a_queue_whose_key_holds_another_type_is_told_and_the_others_go_on(
    settings: Settings, redis_client: redis.Redis, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    bulk = f"{settings.prefix}.default.bulk"
    app = make_celery(settings)
    redis_client.set(queue, "x")
    with hear(settings) as hearing:
        ring(app, bulk)
        wait_until(lambda: hearing.heard == [bulk])
        said = [one.getMessage() for one in caplog.records if "expected a list" in one.msg]
        assert len(said) == 1
        assert f"another type of value under {queue}" in said[0]
        redis_client.delete(queue)
        ring(app, queue)
        wait_until(lambda: hearing.heard == [bulk, queue])
        redis_client.set(queue, "x")
        redis_client.set(bulk, "x")
        wait_until(lambda: f"another type of value under {bulk}" in caplog.text)
        redis_client.delete(queue, bulk)
        ring(app, bulk)
        wait_until(lambda: hearing.heard == [bulk, queue, bulk])
    app.close()
    assert "gave up" not in caplog.text


def test_a_reaper_rings_for_the_other_queues(
    settings: Settings, redis_client: redis.Redis, ledger: Ledger
) -> None:
    app = make_celery(settings)
    queues = tuple(f"{settings.prefix}.default.{name}" for name in ("interactive", "bulk"))
    for name in ("interactive", "bulk"):
        submit(ledger, priority=name)
    redis_client.delete(ledger.keys.dispatch)  # none was ever rung
    redis_client.set(queues[0], "x")
    info = SimpleNamespace(queues=queues)
    reaper = Reaper(ledger, app, lambda: cast(WorkerInfo, info), every_s=1, grace_s=60)
    with pytest.raises(errors.RedisUnavailable, match="WRONGTYPE"):
        reaper.reap()
    assert redis_client.llen(queues[1]) == 1
    app.close()


def test_other_transports_hand_over_bells_alone_too(settings: Settings, queue: str) -> None:
    sound = json.dumps([[queue], {}, {}])
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
        (sound.replace(".default", "\x1b"), {}),
    ]
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with hear(settings, "memory://") as hearing, hearing.app.connection() as connection:
        producer = connection.Producer()
        for body, options in poison:
            found = {"content_type": "application/json", "content_encoding": "utf-8"} | options
            # Without an exchange: it goes into the queue of that name, and nothing has to be bound.
            producer.publish(
                body, routing_key=queue, exchange="",
                **{"headers": headers} | found,
            )  # fmt: skip
        chained = json.dumps([[queue], {}, {"chain": [5]}])
        producer.publish(
            chained, routing_key=queue, exchange="",
            content_type="application/json", content_encoding="utf-8", timelimit=5,
            headers=headers | {"timelimit": "soon"}, reply_to="somewhere",
        )  # fmt: skip
        wait_until(lambda: hearing.heard == [queue])
        assert hearing.bells.dropped == len(poison)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib
    assert grown_kib < 100 << 10, "no body is unpacked"


def test_jobs_are_looked_for_while_a_broker_of_its_own_is_away(
    settings: Settings, queue: str, tmp_path: Path
) -> None:
    with RedisServer(tmp_path) as broker, hear(settings, broker.url) as hearing:
        ring(hearing.app, queue)
        wait_until(lambda: hearing.heard == [queue])
        assert hearing.looks == 1, "at the start"
        broker.kill()
        wait_until(lambda: hearing.looks >= 3)
        with RedisServer(tmp_path, port=broker.port, password=broker.password):
            ring(hearing.app, queue)
            wait_until(lambda: hearing.heard == [queue] * 2)
