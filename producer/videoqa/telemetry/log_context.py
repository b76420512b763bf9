"""Context of log lines: the job or the request in which a line is written, on its thread and those that it starts.

Lines of libraries get it as well. Nothing is computed before a line is written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

from structlog.contextvars import bound_contextvars

__all__ = ["find_texts", "hide_texts", "job_context", "request_context", "start_thread"]

_texts: ContextVar[list[str] | None] = ContextVar("videoqa_texts", default=None)


@contextmanager
def job_context(
    *,
    job_id: str,
    attempt: int,
    model: str,
    tenant: str | None,
    trace_id: str,
    texts: Iterable[str] = (),
) -> Iterator[None]:
    """Gives all lines of the block the fields of a job's attempt.

    Arguments:
        texts: what lines must not show with VIDEOQA_HIDE_TEXT, as the questions.
    """
    found = {"job_id": job_id, "attempt": attempt, "model": model, "trace_id": trace_id}
    if tenant is not None:
        found["tenant"] = tenant
    before = _texts.set(list(texts))
    try:
        with bound_contextvars(**found):
            yield
    finally:
        _texts.reset(before)


@contextmanager
def request_context(*, request_id: str, trace_id: str | None) -> Iterator[None]:
    """Gives all lines of the block the fields of a request to the gateway."""
    found = {"request_id": request_id}
    if trace_id is not None:
        found["trace_id"] = trace_id
    with bound_contextvars(**found):
        yield


def hide_texts(*texts: str) -> None:
    """Adds texts that the lines of this job must not show with VIDEOQA_HIDE_TEXT, as its answers."""
    found = _texts.get()
    if found is not None:
        found.extend(texts)


def find_texts() -> list[str]:
    """Returns the texts that lines written here must not show with VIDEOQA_HIDE_TEXT."""
    return _texts.get() or []


def start_thread(target: Callable[[], Any], *, name: str) -> threading.Thread:
    """Starts a daemon thread whose lines have the fields of those written here."""
    thread = threading.Thread(target=copy_context().run, args=(target,), name=name, daemon=True)
    thread.start()
    return thread
