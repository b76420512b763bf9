"""Bare Celery, dramatiq and rq, as peers of the queue: messages that nobody can ask about.

    python benchmarks/lib/queue_peers.py submit|consume PEER URL COUNT

`submit` sends so many small messages from one thread, `consume` handles so many with one worker of one
thread and an empty task. Prints one JSON object. Each peer has its defaults, as its own guide shows them,
without results.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

PEERS = ("celery", "dramatiq", "rq")
MESSAGE = {
    "inputs": ["s3://videos/2026/11/0000001.mp4"],
    "questions": ["What is happening in this video?"],
}


def is_installed(peer: str) -> bool:
    return importlib.util.find_spec(peer) is not None


class Counting:
    """Counts handled messages, and ends the process with the rate after the last."""

    def __init__(self) -> None:
        self.most = 0
        self._done = 0
        self._begun_s = 0.0

    def __call__(self) -> None:
        if self._done == 0:
            self._begun_s = time.perf_counter()
        self._done += 1
        if self._done == self.most:
            leave(self.most - 1, time.perf_counter() - self._begun_s)


COUNTING = Counting()


def leave(count: int, seconds: float) -> None:
    # Celery takes the place of sys.stdout.
    print(json.dumps({"count": count, "seconds": seconds}), file=sys.__stdout__, flush=True)
    os._exit(0)


def handle(message: dict[str, Any]) -> None:
    """Handles one message, which is only counted."""
    COUNTING()


def measure(send: Callable[[], object], count: int) -> None:
    send()  # connects
    begun_s = time.perf_counter()
    for _ in range(count):
        send()
    leave(count, time.perf_counter() - begun_s)


def run_celery(action: str, url: str, count: int) -> None:
    from celery import Celery

    app = Celery("bare", broker=url)
    app.conf.task_ignore_result = True
    task = app.task(name="bare")(handle)
    if action == "submit":
        measure(lambda: task.apply_async(args=(MESSAGE,)), count)
    app.Worker(pool="solo", loglevel="ERROR", quiet=True).start()


def run_dramatiq(action: str, url: str, count: int) -> None:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url)
    dramatiq.set_broker(broker)
    task = dramatiq.actor(handle)
    if action == "submit":
        measure(lambda: task.send(MESSAGE), count)
    dramatiq.Worker(broker, worker_threads=1).start()
    time.sleep(3600)


def run_rq(action: str, url: str, count: int) -> None:
    import redis
    import rq

    connection = redis.Redis.from_url(url)
    queue = rq.Queue("bare", connection=connection)
    if action == "submit":
        measure(lambda: queue.enqueue("lib.queue_peers.handle", MESSAGE, result_ttl=0), count)
    logging.disable()
    worker = rq.SimpleWorker([queue], connection=connection)
    worker.work(logging_level="ERROR")


def main(action: str, peer: str, url: str, count: str) -> None:
    # rq imports the task by its name, and is to find this very module.
    sys.modules["lib.queue_peers"] = sys.modules["__main__"]
    COUNTING.most = int(count)
    runs = {"celery": run_celery, "dramatiq": run_dramatiq, "rq": run_rq}
    runs[peer](action, url, int(count))


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main(*sys.argv[1:])
