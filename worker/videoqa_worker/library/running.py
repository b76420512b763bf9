"""RunningEngine: the resident parts of a `VideoQA`, in the process where it was first used, and what runs on them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from videoqa import errors
from videoqa.contract import JobRequest, Result
from videoqa.jobs import new_job_id
from videoqa_worker.job.context import AttemptContext, JobControl, Progress
from videoqa_worker.job.parts import AnsweringParts
from videoqa_worker.job.result_object import build_result
from videoqa_worker.job.sheet import KeptSheet
from videoqa_worker.machine import keep_threads_from_spinning
from videoqa_worker.settings import WorkerSettings

__all__ = ["DirectJob", "OnProgress", "RunningEngine"]

OnProgress = Callable[[Progress], None]
"""Called with each step of a request, on the thread that asked; what it raises ends the request."""


@dataclass(frozen=True)
class DirectJob:
    """A request that came by no queue: one attempt, which began when it came."""

    request: JobRequest
    job_id: str = field(default_factory=new_job_id)
    attempt: int = 1
    created_at_s: float = field(default_factory=time.time)
    queued_s: float = 0.0


class RunningEngine:
    """A loaded model with its decoders. Thread-safe: each thread carries one request."""

    def __init__(self, settings: WorkerSettings, on_state: Callable[[str], None]) -> None:
        """Loads the model and starts the decoding processes.

        Raises:
            ConfigurationError: as `AnsweringParts`.
        """
        self.pid = os.getpid()
        self._settings = settings
        self._lock = threading.Lock()
        self._controls: dict[str, JobControl] = {}
        if "torch" not in sys.modules:  # which reads it once, when it is imported
            keep_threads_from_spinning()
        self._stack = ExitStack()
        self._parts = self._stack.enter_context(AnsweringParts(settings, on_state=on_state))

    @property
    def revision(self) -> str | None:
        return self._parts.engine.revision

    @property
    def job_slots(self) -> int:
        """Requests that may run at a time without waiting for each other's frames."""
        return self._parts.job_slots

    def answer(
        self,
        job: DirectJob,
        on_progress: OnProgress | None = None,
        ended: threading.Event | None = None,
    ) -> Result:
        """Answers a request, by the steps of a worker's attempt (`job/attempts.py`).

        Arguments:
            ended: set once nobody wants the answer any more, before `stop` is called.

        Raises:
            JobError: as an attempt's.
        """
        control = JobControl(job.job_id, job.attempt, job.request.timeout_s)

        def report(*steps: Progress) -> None:
            control.check()
            if on_progress is not None:
                for step in steps:
                    on_progress(step)

        with self._lock:
            self._controls[job.job_id] = control
        try:
            if ended is not None and ended.is_set():
                control.stop(_make_end())
            control.check()
            context = AttemptContext(job.request, control, report)
            with self._parts.pipeline.open(context, own_batch=False) as opened:
                draft = self._parts.pipeline.answer(opened)
        finally:
            with self._lock:
                del self._controls[job.job_id]
        return build_result(
            job, draft, KeptSheet(), model=self._settings.model, revision=self.revision
        )

    def stop(self, job: DirectJob) -> None:
        """Ends a request that runs, whose answer nobody wants any more."""
        with self._lock:
            control = self._controls.get(job.job_id)
        if control is not None:
            control.stop(_make_end())

    def close(self) -> None:
        """Stops the requests that run, and ends the engine and the decoding processes; in a forked child, nothing."""
        if self.pid != os.getpid():
            return
        with self._lock:
            controls = list(self._controls.values())
        for control in controls:
            control.stop(errors.WorkerStopping("this VideoQA was closed while it answered"))
        self._stack.close()


def _make_end() -> errors.JobCanceled:
    return errors.JobCanceled("the iterator of `ask_many` was closed")
