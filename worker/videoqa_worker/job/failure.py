"""Failure of an attempt: what a job's record, or a caller who asked for values, says of an error."""

from __future__ import annotations

from videoqa import errors
from videoqa.contract import Failure
from videoqa.redaction import redact_text

__all__ = ["make_failure", "translate_error"]

_MOST_CHARACTERS = 2000
"""Longest message of a failure; a server's own may be of any length."""


def make_failure(
    error: errors.VideoQAError, attempt: int, *, retryable: bool | None = None
) -> Failure:
    """Returns the failure that an error ends an attempt with.

    Arguments:
        attempt: its number; 0: none was begun.
        retryable: in place of the error's own.
    """
    return Failure(
        code=error.code,
        message=error.message[:_MOST_CHARACTERS],
        stage=error.stage,
        retryable=error.retryable if retryable is None else retryable,
        attempt=attempt,
        param=error.param,
    )


def translate_error(error: Exception) -> errors.VideoQAError:
    """Returns the error itself, or an InternalError for one that nobody foresaw."""
    if isinstance(error, errors.VideoQAError):
        return error
    return errors.InternalError(redact_text(f"{type(error).__name__}: {error}"))
