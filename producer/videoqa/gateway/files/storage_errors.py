"""Errors of the place of files, as answers without its address; the log has the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from videoqa.errors import OutputError, OutputNotFound
from videoqa.gateway.http.problems import HttpError
from videoqa.storage import DISK_FULL
from videoqa.telemetry import log_events

__all__ = ["translate_storage_errors"]

log = logging.getLogger(__name__)

_FULL_CODES = (
    "QuotaExceeded",
    "StorageFull",
    "InsufficientCapacity",
    "InsufficientStorage",
    "(507)",
)


@contextmanager
def translate_storage_errors() -> Iterator[None]:
    """Turns errors of the place into answers, without its address."""
    try:
        yield
    except (FileNotFoundError, OutputNotFound) as error:
        raise HttpError(
            410, "file_gone", "the bytes of this file are no longer there; upload it again"
        ) from error
    except OSError as error:
        log_events.FOLDER_FAILED.log(log, error=error)
        if error.errno in DISK_FULL:
            raise _refuse_full() from error
        raise _refuse_store() from error
    except OutputError as error:
        log_events.STORE_FAILED.log(log, error=error.message)
        if any(code in error.message for code in _FULL_CODES):
            raise _refuse_full() from error
        raise _refuse_store() from error


def _refuse_full() -> HttpError:
    return HttpError(
        507,
        "storage_full",
        "the gateway's store of files is full; tell its operator, or delete files",
        headers={"x-should-retry": "false", "connection": "close"},
    )


def _refuse_store() -> HttpError:
    return HttpError(
        503, "storage_unavailable", "the gateway's store of files does not answer; try again later"
    )
