"""TraceContext: the trace of a job, as its record holds it, without any tracing library.

A job of a caller who traces lies in the caller's trace. Any other has a trace of its own, whose id follows from the
job's: so log lines, attempts and retries have one trace id in either case, also through a kill.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

__all__ = [
    "TraceContext",
    "caller_context",
    "derive_span_id",
    "derive_trace_id",
    "find_caller",
    "find_trace_id",
]

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?P<more>-.*)?"
)
"""A header of version 00 ends behind its flags; later ones may go on."""
_LINK = "link "
_caller: ContextVar[TraceContext | None] = ContextVar("videoqa_caller", default=None)


@dataclass(frozen=True)
class TraceContext:
    """A span of the caller, of which a job is a child, or to which it only links."""

    trace_id: str
    span_id: str
    flags: str = "01"
    is_link: bool = False
    """The job was submitted with many others, so it has a trace of its own and links to this one."""

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Parses the field `traceparent` of a record; None: it is none."""
        rest = (text or "").removeprefix(_LINK)
        found = _TRACEPARENT.fullmatch(rest)
        if text is None or found is None or not int(found[1], 16) or not int(found[2], 16):
            return None
        if found["more"] and rest.startswith("00"):
            return None
        return cls(found[1], found[2], found[3], is_link=rest != text)

    @classmethod
    def parse_header(cls, text: str | None) -> Self | None:
        """Parses the header of a request, which makes no links; None: it is none, and is ignored."""
        found = cls.parse(text)
        return None if found is None or found.is_link else found

    def __str__(self) -> str:
        link = _LINK if self.is_link else ""
        return f"{link}00-{self.trace_id}-{self.span_id}-{self.flags}"


def derive_trace_id(job_id: str) -> str:
    """Returns the trace id of a job whose caller does not trace: the id's own 108 bits."""
    digits = job_id.removeprefix("job_")
    return (
        digits.rjust(32, "0")[-32:] if re.fullmatch(r"[0-9a-f]{1,32}", digits) else "0" * 31 + "1"
    )


def find_trace_id(job_id: str, traceparent: str | None) -> str:
    """Returns the id of the trace in which a job's attempts are."""
    found = TraceContext.parse(traceparent)
    return derive_trace_id(job_id) if found is None or found.is_link else found.trace_id


def derive_span_id(job_id: str, token: str) -> str:
    """Returns the id of an attempt's span, which the next attempt finds again without any note of it.

    Arguments:
        token: the fencing token of the attempt.
    """
    found = hashlib.sha256(f"{job_id}/{token}".encode()).hexdigest()[:16]
    return found if int(found, 16) else "0" * 15 + "1"


@contextmanager
def caller_context(caller: TraceContext | None) -> Iterator[None]:
    """Makes jobs that the block submits part of a trace, as the header of a request has it."""
    before = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(before)


def find_caller() -> TraceContext | None:
    """Returns the span of the request that is being served."""
    return _caller.get()
