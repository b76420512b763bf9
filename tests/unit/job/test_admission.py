"""Claims of several threads of one worker: which of them may begin an attempt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support.processes import wait_until

from videoqa.contract import JobRequest
from videoqa.jobs import Claim, ClaimResult
from videoqa_worker.job import admission
from videoqa_worker.job.admission import Admission

REQUEST = JobRequest.model_validate({"inputs": ["s3://b/k.mp4"], "questions": ["What?"]})
WAIT, NOTHING = ClaimResult(must_wait=True), ClaimResult(reason="unknown")


def a_job(*, exclusive: bool = False) -> ClaimResult:
    return ClaimResult(Claim("job", 1, REQUEST, 0.0, 600.0, 0.0, token="t", is_exclusive=exclusive))


class Queue:
    """Stands in for the claim script: an exclusive job at first, then nothing but ordinary ones."""

    def __init__(self) -> None:
        self.has_exclusive = True
        self.told: list[bool] = []
        self.raises: Exception | None = None

    def claim(self, is_idle: bool) -> ClaimResult:
        self.told.append(is_idle)
        if self.raises:
            raise self.raises
        if not self.has_exclusive:
            return a_job()
        if not is_idle:
            return WAIT
        self.has_exclusive = False
        return a_job(exclusive=True)


class Attempt:
    """An attempt on a thread of its own, which runs until it is told to end."""

    def __init__(self, room: Admission, claim: Callable[[bool], ClaimResult]) -> None:
        self.decided, self.end, self.closing = (threading.Event() for _ in range(3))
        self.result: ClaimResult | None = None
        self.error: Exception | None = None
        self._room, self._claim = room, claim
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._room.claiming(self._claim, self.closing.is_set) as self.result:
                self.decided.set()
                if self.result is not None:
                    assert self.end.wait(10)
        except InterruptedError as error:
            self.error = error
            self.decided.set()

    @property
    def was_refused(self) -> bool:
        assert self.decided.wait(5)
        return self.result is None

    def finish(self) -> None:
        self.end.set()
        self._thread.join(10)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Admission]:
    monkeypatch.setattr(admission, "_ASK_EVERY_S", 0.05)
    return Admission()


def run(room: Admission) -> Attempt:
    """An ordinary attempt that has begun."""
    attempt = Attempt(room, lambda is_idle: a_job())
    assert not attempt.was_refused
    return attempt


def is_closed(room: Admission) -> bool:
    attempt = Attempt(room, lambda is_idle: NOTHING)
    refused = attempt.was_refused
    attempt.finish()
    return refused


def test_an_exclusive_attempt_begins_when_the_others_have_ended_and_none_begins_beside_it(
    room: Admission,
) -> None:
    queue, others = Queue(), [run(room), run(room)]
    exclusive = Attempt(room, queue.claim)
    wait_until(lambda: len(queue.told) > 2)  # it asks again meanwhile
    assert is_closed(room)
    others[0].finish()
    assert not exclusive.decided.wait(0.2)
    others[1].finish()
    assert not exclusive.was_refused
    assert queue.told == [False] * (len(queue.told) - 1) + [True]
    assert is_closed(room)
    exclusive.finish()
    run(room).finish()


def test_claims_are_made_one_at_a_time_so_that_idle_means_idle(room: Admission) -> None:
    told: list[bool] = []

    def claim(is_idle: bool) -> ClaimResult:
        told.append(is_idle)
        time.sleep(0.01)
        return a_job()

    attempts = [Attempt(room, claim) for _ in range(16)]
    for attempt in attempts:
        assert not attempt.was_refused
    assert sorted(told) == [False] * 15 + [True]
    for attempt in attempts:
        attempt.finish()


def test_of_threads_that_race_for_an_exclusive_attempt_one_gets_it(room: Admission) -> None:
    queue = Queue()
    attempts = [Attempt(room, queue.claim) for _ in range(16)]
    begun = [attempt for attempt in attempts if not attempt.was_refused]
    assert [attempt.result and attempt.result.is_exclusive for attempt in begun] == [True]
    for attempt in attempts:
        attempt.finish()
    assert not is_closed(room)


def test_what_runs_for_a_minute_is_not_waited_for(
    room: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MOST_WAIT_S", 0.3)
    queue, other = Queue(), run(room)
    exclusive = Attempt(room, queue.claim)
    assert not exclusive.was_refused
    assert queue.told == [False] * (len(queue.told) - 1) + [True]
    other.finish()
    assert is_closed(room)
    exclusive.finish()
    assert not is_closed(room)


def test_a_worker_is_no_longer_reserved_when_another_has_taken_the_job(room: Admission) -> None:
    queue, other = Queue(), run(room)
    waits = Attempt(room, queue.claim)
    wait_until(lambda: queue.told)
    queue.has_exclusive = False
    assert not waits.was_refused
    assert not is_closed(room)
    for attempt in (waits, other):
        attempt.finish()


def test_waiting_ends_when_the_worker_closes(room: Admission) -> None:
    queue, other = Queue(), run(room)
    waits = Attempt(room, queue.claim)
    wait_until(lambda: queue.told)
    waits.closing.set()
    assert waits.was_refused
    assert not is_closed(room)
    other.finish()


def test_a_claim_that_fails_while_the_worker_is_reserved_leaves_it_open(room: Admission) -> None:
    queue, other = Queue(), run(room)
    waits = Attempt(room, queue.claim)
    wait_until(lambda: queue.told)
    queue.raises = InterruptedError()
    assert waits.was_refused
    assert waits.error is queue.raises
    assert not is_closed(room)
    other.finish()


def test_a_bell_that_finds_nothing_does_not_count_as_running(room: Admission) -> None:
    attempt = Attempt(room, lambda is_idle: NOTHING)
    assert not attempt.was_refused
    told: list[bool] = []
    beside = Attempt(room, lambda is_idle: told.append(is_idle) or a_job())
    assert not beside.was_refused
    assert told == [True]
    for one in (attempt, beside):
        one.finish()


def test_nothing_is_claimed_by_a_worker_that_closes(room: Admission) -> None:
    def claim(is_idle: bool) -> ClaimResult:
        raise AssertionError

    with room.claiming(claim, lambda: True) as result:
        assert result is None


def test_each_answer_is_passed_on_while_the_worker_is_reserved(room: Admission) -> None:
    queue, other = Queue(), run(room)
    answers: list[ClaimResult | None] = []
    end = threading.Event()

    def process() -> None:
        with room.claiming(queue.claim, lambda: False, answers.append):
            end.wait(10)

    thread = threading.Thread(target=process)
    thread.start()
    wait_until(lambda: len(answers) > 1)
    assert room.is_reserved
    with room.claiming(queue.claim, lambda: False, answers.append) as refused:
        assert refused is None
    other.finish()
    wait_until(lambda: answers[-1] and answers[-1].is_exclusive)
    assert room.is_reserved
    end.set()
    thread.join(10)
    assert not room.is_reserved
    assert None in answers
