"""Claims: jobs taken from the ledger for one worker, and what is written to their records.

Every write is fenced by the claim's token, and repeated until Redis answers: an answer that took a
GPU's time is not thrown away because Redis restarts. A worker that closes no longer waits for it:
the leases end by themselves.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, TypeVar

from videoqa import errors
from videoqa.contract import Result, Segment
from videoqa.jobs import CachedObject, Claim, ClaimResult, Ledger, Progress, WriteReply
from videoqa_worker import log_events
from videoqa_worker.job.admission import Admission
from videoqa_worker.job.context import JobControl, apply_status
from videoqa_worker.job.progress import ProgressWriter
from videoqa_worker.job.tally import AttemptTally
from videoqa_worker.job.trace import NO_TRACE, AttemptTrace

__all__ = ["Claims", "HeldJob"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_BULK_EVERY = 8
"""Each eighth claim asks bulk queues first, so that their jobs go on under any load."""


class Claims:
    """Claims jobs for one worker, and gives them back. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        ring: Callable[[str], None],
        queues: Sequence[str],
        *,
        worker_id: str,
        lease_s: float,
        tenant_running: int | None = None,
    ) -> None:
        """
        Arguments:
            ring: called with a queue in which jobs wait that another worker may take.
            queues: those that this worker serves, interactive ones first.
            tenant_running: most jobs of one tenant that run at once.
        """
        self.ledger = ledger
        self._ring = ring
        self._queues = tuple(queues)
        self._bulk_first = tuple(sorted(queues, key=lambda queue: not queue.endswith(".bulk")))
        self._claims = itertools.count(1)
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._tenant_running = tenant_running
        self._admission = Admission()
        self._draining = threading.Event()
        self._closing = threading.Event()

    def drain(self) -> None:
        """Claims nothing more; what runs goes on."""
        self._draining.set()

    def close(self) -> None:
        """Ends all waiting: for Redis, and for an idle worker."""
        self._draining.set()
        self._closing.set()

    @property
    def is_closing(self) -> bool:
        return self._closing.is_set()

    @property
    def may_claim(self) -> bool:
        """This worker neither ends nor is reserved for an exclusive attempt."""
        return not self._draining.is_set() and not self._admission.is_reserved

    @contextmanager
    def claiming(
        self, heard: str, on_answer: Callable[[ClaimResult | None], None] = lambda result: None
    ) -> Iterator[ClaimResult | None]:
        """Claims the job whose turn it is; its attempt runs within the block.

        Yields None if this worker claims nothing now; see `Admission`.

        Arguments:
            heard: the queue of the bell that was heard; empty: none was.
            on_answer: called once the ledger has answered, with None if it was not asked; and again with each
                answer while this worker is reserved.
        """
        token = secrets.token_urlsafe(8)  # 11 characters: each heartbeat carries it
        is_for_bulk = next(self._claims) % _BULK_EVERY == 0
        queues = self._bulk_first if is_for_bulk else self._queues
        unheard = [heard]

        def claim(is_idle: bool) -> ClaimResult:
            result = self.repeat(
                lambda: self.ledger.claim(
                    queues,
                    heard=unheard[0],
                    worker=self._worker_id,
                    lease_s=self._lease_s,
                    token=token,
                    is_idle=is_idle,
                    tenant_running=self._tenant_running,
                ),
                until=self._draining,
            )
            unheard[0] = ""  # the bell is counted once, however often this worker asks again
            return result

        def pass_on(result: ClaimResult | None) -> None:
            on_answer(result)
            if result is not None:
                self._ring_all(result.ring)

        with self._admission.claiming(claim, self._draining.is_set, pass_on) as result:
            yield result

    def _ring_all(self, queues: Sequence[str]) -> None:
        with suppress(errors.RedisUnavailable):  # a reaper rings
            for queue in queues:
                self._ring(queue)

    def give_back(self, claim: Claim, kept: Result | None) -> None:
        """Queues the job again without counting the attempt, and rings for it.

        Arguments:
            kept: the answers, where they only could not be stored.
        """
        queue = self.repeat(lambda: self.ledger.release(claim.job_id, claim.token, kept=kept))
        self._ring_all([queue] if queue else [])

    def repeat(self, call: Callable[[], T], until: threading.Event | None = None) -> T:
        """Repeats an idempotent call until Redis answers; each call is fenced or carries a token.

        Raises:
            RedisUnavailable: Redis is away, and `until` is set; by default when this worker closes.
        """
        delay_s = 0.1
        while True:
            try:
                return call()
            except errors.RedisUnavailable as error:
                if (until or self._closing).wait(delay_s):
                    raise
                log_events.WAITING_FOR_REDIS.log(log, error=error)
                delay_s = min(2.0, delay_s * 2)


class HeldJob:
    """A claimed job: what its attempt writes to the record while it runs.

    Each write raises the reason if the attempt should end, as `JobControl.check` does.
    """

    def __init__(
        self,
        claims: Claims,
        claim: Claim,
        control: JobControl,
        writer: ProgressWriter,
        trace: AttemptTrace = NO_TRACE,
    ) -> None:
        self._claims = claims
        self._writer = writer
        self.claim = claim
        self.control = control
        self.trace = trace
        self.tally = AttemptTally(claim.request.priority, claim.queued_s)

    def report(self, *steps: Progress) -> None:
        """Records where the attempt is: text at once, and anything else within a moment."""
        self.control.check()
        if any(step.text for step in steps):
            self._writer.drop(self.control)  # the text has its stage, too
            self._report_now(steps)
        else:
            for step in steps:
                self._writer.note(self.control, step)

    def check_lease(self) -> None:
        """Raises LeaseLost if the job is another worker's by now, or JobCanceled."""
        self._report_now([Progress("storing")])

    def _report_now(self, steps: Sequence[Progress]) -> None:
        reports = [(self.claim.job_id, self.claim.token, step) for step in steps]
        statuses = self._claims.repeat(lambda: self._claims.ledger.report(reports))
        self._apply(statuses[-1])

    def save_segment(self, fingerprint: str, segment: Segment) -> None:
        """Keeps an answered segment for the job's next attempt, and tells the readers of a stream."""
        self._write(
            lambda job_id, token: self._claims.ledger.checkpoint(
                job_id, token, fingerprint, segment, is_streamed=self.claim.request.stream
            )
        )

    def load_segments(self, fingerprint: str) -> list[Segment]:
        """Returns the segments that earlier attempts answered, from the first on."""
        return self._claims.repeat(
            lambda: self._claims.ledger.segments(self.claim.job_id, fingerprint)
        )

    def lead(
        self, key: str, *, asks_anyway: bool = False
    ) -> CachedObject | Literal["ok", "follow"]:
        """Makes this job the one that asks, of all jobs whose answers have this key, unless it was asked before.

        Returns:
            The object of an earlier job's result; or `follow` if another job asks already: then this one is
            queued behind it, and the attempt is over.
        """
        ledger, job_id, token = self._claims.ledger, self.claim.job_id, self.claim.token
        found = self._claims.repeat(
            lambda: ledger.lead(job_id, token, key, asks_anyway=asks_anyway)
        )
        if isinstance(found, CachedObject) or found == "follow":
            return found
        self._apply(found)
        return "ok"

    def _write(self, call: Callable[[str, str], WriteReply]) -> None:
        self._apply(self._claims.repeat(lambda: call(self.claim.job_id, self.claim.token)))

    def _apply(self, status: WriteReply) -> None:
        apply_status(self.control, status)
        self.control.check()
