"""The watchdog finds a fault, and ends the worker in a certain order."""

from __future__ import annotations

import threading

from videoqa.errors import EngineStopped
from videoqa_worker.engine import Stats
from videoqa_worker.service.watchdog import BROKEN_STATUS, Watchdog


class Looked:
    """An engine as the watchdog sees it."""

    ready = True
    stats = Stats(running=1, last_step_at=100.0)


class Worker:
    """Ends its attempts as told, some time after it was told."""

    def __init__(self) -> None:
        self.engine = Looked()
        self.story: list[str] = []
        self.left = threading.Event()
        self.attempts = 2
        self.now_s = 100.0

    def watchdog(self) -> Watchdog:
        return Watchdog(
            self.engine,
            step_timeout_s=10,
            break_off=self.break_off,
            running=self.running,
            leave=self.leave,
            clock=lambda: self.now_s,
        )

    def break_off(self, error: EngineStopped) -> None:
        assert error.retryable
        self.story.append("broken off")

    def running(self) -> int:
        self.attempts -= 1
        self.story.append(f"{self.attempts} run")
        return self.attempts

    def leave(self, status: int) -> None:
        self.story.append(f"left with {status}")
        self.left.set()


def test_a_step_may_take_its_time_and_no_more() -> None:
    worker = Worker()
    watchdog = worker.watchdog()
    worker.now_s = 109.0
    assert watchdog.inspect() is None
    worker.now_s = 111.0
    assert "in one step for 11 s" in (watchdog.inspect() or "")


def test_an_engine_that_waits_for_work_does_not_hang() -> None:
    worker = Worker()
    worker.engine.stats = Stats(running=0, last_step_at=0.0)
    assert worker.watchdog().inspect() is None


def test_attempts_end_before_the_process_does() -> None:
    worker = Worker()
    with worker.watchdog():
        worker.engine.ready = False
        assert worker.left.wait(5)
    assert worker.story == ["broken off", "1 run", "0 run", f"left with {BROKEN_STATUS}"]


def test_an_engine_that_is_closed_in_order_is_left_alone() -> None:
    worker = Worker()
    with worker.watchdog():
        pass
    worker.engine.ready = False
    assert not worker.left.wait(0.8)
