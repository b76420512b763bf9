"""Who may run beside whom in a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from celery import Celery

from videoqa.broker import TASK
from videoqa_worker.job import solitude
from videoqa_worker.job.solitude import Solitude
from videoqa_worker.service.consumer import register
from videoqa_worker.service.runtime import Runtime


class Loner:
    """An attempt that asks to be alone, on a thread of its own."""

    def __init__(self, room: Solitude, check: Callable[[], None] = lambda: None) -> None:
        self.began, self.end = threading.Event(), threading.Event()
        self.error: Exception | None = None
        assert room.enter()
        self._room, self._check = room, check
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Loner:
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            with self._room.alone(self._check):
                self.began.set()
                assert self.end.wait(10)
        except InterruptedError as error:
            self.error = error
        finally:
            self._room.leave()

    def finish(self) -> None:
        self.end.set()
        self._thread.join(10)


def refused(room: Solitude) -> bool:
    """Until the loner has said that it waits."""
    until = time.monotonic() + 5
    while room.enter():
        room.leave()
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


def test_who_is_alone_begins_when_the_others_have_ended_and_nobody_begins_beside_it() -> None:
    room = Solitude()
    assert room.enter()
    assert room.enter()
    loner = Loner(room).start()
    assert refused(room)
    room.leave()
    assert not loner.began.wait(0.3)
    room.leave()
    assert loner.began.wait(5)
    assert not room.enter()
    loner.finish()
    assert room.enter()


def test_one_after_the_other_is_alone() -> None:
    room = Solitude()
    loners = [Loner(room), Loner(room), Loner(room)]
    for loner in loners:
        loner.start()
    for _ in loners:
        until = time.monotonic() + 5
        while not (now := [one for one in loners if one.began.is_set() and not one.end.is_set()]):
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.05)
        assert len([one for one in loners if one.began.is_set() and not one.end.is_set()]) == 1
        now[0].finish()
    assert room.enter()


def test_a_wait_that_is_broken_off_leaves_the_room_to_others() -> None:
    def check() -> None:
        if stopped.is_set():
            raise InterruptedError

    stopped = threading.Event()
    room = Solitude()
    assert room.enter()
    loner = Loner(room, check).start()
    assert refused(room)
    stopped.set()
    loner.finish()
    assert isinstance(loner.error, InterruptedError)
    assert room.enter()


def test_what_runs_for_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solitude, "PATIENCE_S", 0.3)
    room = Solitude()
    assert room.enter()
    loner = Loner(room).start()
    assert loner.began.wait(5)
    loner.finish()


def test_who_is_alone_for_long_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solitude, "ALONE_S", 0.3)
    room = Solitude()
    first = Loner(room).start()
    assert first.began.wait(5)
    assert not room.enter()
    time.sleep(0.35)
    assert room.enter()
    room.leave()
    first.finish()
    assert room.enter()


def test_bells_that_are_left_to_other_workers_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Celery(broker="memory://") as app:
        alone = SimpleNamespace(app=app, closing=False, answer=lambda bell: False)
        register(cast(Runtime, alone))
        assert app.tasks[TASK].apply(args=("job", 1, 1, "queue")).state == "REJECTED"
    assert caplog.records == []
