"""HTTP errors of a chat whose job ended without an answer."""

from __future__ import annotations

from videoqa import errors
from videoqa.contract import Job
from videoqa.gateway.http.problems import HttpError

__all__ = ["make_job_error"]

_STATUS: tuple[tuple[type[errors.VideoQAError], int], ...] = (
    (errors.JobTimeout, 504),
    (errors.StartByPassed, 503),
    (errors.JobCanceled, 409),
    (errors.PromptTooLong, 400),
    (errors.UnsupportedInput, 400),
    (errors.ModelServerUnavailable, 503),
    (errors.RequestError, 400),
    (errors.OutputError, 502),
)
"""HTTP status of a failure; the first class that fits. What is wrong with a video is the caller's to mend."""
_STATES = {"canceled": (409, "canceled"), "expired": (503, "start_by_passed")}


def make_job_error(job: Job, error: errors.JobFailed) -> HttpError:
    """Makes the error of a job's failure, which no client should retry: the job was tried often enough."""
    failure = error.failure
    status, code = _STATES.get(job.state, (500, error.code))
    if failure is not None and job.state == "failed":
        status, code = _find_status(failure), failure.code
    return HttpError(
        status,
        code,
        error.message,
        param=failure.param if failure is not None else None,
        headers={"x-should-retry": "false"},
    )


def _find_status(failure: errors.FailureOfJob) -> int:
    kind = errors.REGISTRY.get(failure.code, errors.InternalError)
    for one, status in _STATUS:
        if issubclass(kind, one):
            return status
    if issubclass(kind, errors.SourceError):
        return 502 if failure.retryable else 400
    if issubclass(kind, errors.SamplingError) and not failure.retryable:
        return 400
    return 500
