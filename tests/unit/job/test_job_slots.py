"""Job slots: which of them claim when a bell is heard, and when the next one may be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.processes import wait_until

from videoqa.contract import JobRequest
from videoqa.jobs import Claim, ClaimResult
from videoqa_worker.job.slots import JobSlots

REQUEST = JobRequest.model_validate({"inputs": ["s3://b/k.mp4"], "questions": ["What?"]})
CLAIM = Claim("job", 1, REQUEST, 0.0, 600.0, 0.0, token="t")
NOTHING = ClaimResult(reason="nothing waits")
Answered = Callable[[ClaimResult | None], None]


class Queue:
    """Stands in for `Attempts.process`: so many jobs wait, and each runs until it is told to end."""

    def __init__(self, jobs: int = 0) -> None:
        self.waiting = jobs
        self.heard: list[str] = []
        self.running = 0
        self.is_reserved = False
        self.raises: Exception | None = None
        self.may_answer, self._end = threading.Event(), threading.Semaphore(0)
        self.may_answer.set()
        self._lock = threading.Lock()

    def process(self, heard: str, on_answer: Answered) -> bool:
        self.may_answer.wait(10)
        if self.raises:
            raise self.raises
        with self._lock:
            self.heard.append(heard)
            got = self.waiting > 0 and not self.is_reserved
            self.waiting -= got
            self.running += got
            job = ClaimResult(CLAIM, more_wait=self.waiting > 0)
        on_answer(None if self.is_reserved else job if got else NOTHING)
        if got:
            self._end.acquire()
            with self._lock:
                self.running -= 1
        return got

    def finish(self, count: int = 1) -> None:
        self._end.release(count)


@contextmanager
def slots_of(queue: Queue, count: int = 2) -> Iterator[JobSlots]:
    with JobSlots(count, queue.process, lambda: not queue.is_reserved) as slots:
        try:
            yield slots
        finally:
            queue.may_answer.set()
            slots.close()
            queue.finish(100)


def hear(slots: JobSlots) -> str:
    call = slots.wake("q")
    assert slots.wait_for_answers(10)
    return call.answer if call else "nobody"


def test_one_bell_fills_as_many_slots_as_jobs_wait_and_is_counted_once() -> None:
    queue = Queue(jobs=2)
    with slots_of(queue, 4) as slots:
        assert hear(slots) == "counted"
        assert queue.running == 2
        assert queue.heard.count("q") == 1
        assert len(queue.heard) == 2, "the last one knows that nothing else waits"
        assert slots.can_hear


def test_a_full_worker_hears_nothing_until_a_slot_found_no_next_job() -> None:
    queue = Queue(jobs=3)
    with slots_of(queue) as slots:
        assert hear(slots) == "counted"
        assert queue.running == 2
        assert not slots.can_hear
        assert hear(slots) == "nobody"
        queue.finish()
        wait_until(lambda: queue.waiting == 0 and queue.running == 2)
        assert not slots.can_hear, "the slot has claimed the next job by itself"
        queue.finish()
        slots.wait_until_it_can_hear(10)
        assert slots.can_hear
        assert queue.running == 1


def test_no_bell_is_heard_while_a_claim_is_on_its_way_that_may_fill_the_last_slot() -> None:
    queue = Queue(jobs=1)
    queue.may_answer.clear()
    with slots_of(queue, 8) as slots:
        call = slots.wake("q")
        assert not slots.can_hear
        assert not slots.wait_for_answers(0.02)
        queue.may_answer.set()
        assert slots.wait_for_answers(10)
        assert call is not None
        assert call.answer == "counted"
        assert slots.can_hear


def test_a_bell_that_a_reserved_worker_got_is_for_others() -> None:
    queue = Queue(jobs=1)
    queue.may_answer.clear()
    with slots_of(queue) as slots:
        call = slots.wake("q")
        queue.is_reserved = True
        queue.may_answer.set()
        assert slots.wait_for_answers(10)
        assert call is not None
        assert call.answer == "refused"
        assert not slots.can_hear
        assert queue.waiting == 1


def test_a_slot_whose_job_broke_the_engine_claims_no_next_one() -> None:
    queue = Queue(jobs=2)
    is_broken = threading.Event()
    with JobSlots(1, queue.process, lambda: not is_broken.is_set()) as slots:
        assert hear(slots) == "counted"
        is_broken.set()
        queue.finish()
        wait_until(lambda: queue.running == 0)
        assert hear(slots) in ("refused", "nobody")
        assert queue.waiting == 1


def test_a_slot_survives_a_claim_that_fails_and_the_bell_is_not_heard_for_ever() -> None:
    queue = Queue(jobs=1)
    queue.raises = ValueError("a key of another type")
    with slots_of(queue, 1) as slots:
        assert hear(slots) == "counted"
        queue.raises = None
        slots.wait_until_it_can_hear(10)
        assert hear(slots) == "counted"
        assert queue.running == 1


def test_closed_slots_end_their_jobs_and_claim_no_more() -> None:
    queue = Queue(jobs=5)
    with slots_of(queue) as slots:
        assert hear(slots) == "counted"
        slots.close()
        assert not slots.can_hear
        assert slots.wake() is None
        queue.finish(2)
        slots.join()
        assert (queue.running, queue.waiting) == (0, 3)


def test_a_bell_whose_claim_is_not_answered_when_the_worker_closes_is_for_others() -> None:
    queue = Queue(jobs=1)
    queue.may_answer.clear()
    queue.raises = ConnectionError()
    with slots_of(queue, 1) as slots:
        taken = slots.wake("q")
        wait_until(lambda: slots.wake("r") is None)
        slots.close()
        queue.may_answer.set()
        slots.join()
        assert slots.wait_for_answers(0)
        assert taken is not None
        assert taken.answer == "refused"
