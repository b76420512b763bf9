"""Tracing by OpenTelemetry, where its own variables ask for it; without them it is not even imported.

A client in somebody's program takes part in that program's traces, as it has set them up: nothing is configured here.
Workers and gateways call `configure_tracing`, which reads OTEL_EXPORTER_OTLP_ENDPOINT and the other variables of
OpenTelemetry.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from videoqa.redaction import redact_url
from videoqa.telemetry import log_events
from videoqa.telemetry.genai import ERROR_TYPE, describe_job
from videoqa.telemetry.trace_context import (
    TraceContext,
    derive_span_id,
    derive_trace_id,
    find_caller,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

__all__ = [
    "configure_tracing",
    "find_provider",
    "is_wanted",
    "make_parent",
    "shut_down_tracing",
    "trace_delivery",
    "trace_submit",
]

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_batch: ContextVar[str | None] = ContextVar("videoqa_batch", default=None)


class _State:
    """The traces of this process."""

    provider: TracerProvider | None = None


_state = _State()


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Tells if the variables of OpenTelemetry ask for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporters != "none" and bool(exporters or any(environ.get(name) for name in _ENDPOINTS))


def configure_tracing(service: str, environ: Mapping[str, str] = os.environ) -> None:
    """Begins to send the spans of this process, if the variables ask for it.

    Arguments:
        service: name of the program, unless OTEL_SERVICE_NAME says another.
    """
    if not is_wanted(environ):
        return
    try:
        from videoqa.telemetry.otlp import make_provider
    except ModuleNotFoundError as error:
        log_events.TRACING_MISSING.log(log, name=error.name)
        return
    from opentelemetry import trace

    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # told once by ours
    logging.getLogger("opentelemetry.sdk").setLevel(logging.CRITICAL)
    _state.provider = make_provider(service, environ, address=_describe_endpoint(environ))
    trace.set_tracer_provider(_state.provider)


def find_provider() -> TracerProvider | None:
    """Returns the provider of this process's spans; None: it sends none."""
    return _state.provider


def shut_down_tracing(timeout_s: float = 3.0) -> None:
    """Sends the spans that wait, in this time at most, and ends."""
    provider, _state.provider = _state.provider, None
    if provider is not None:
        ending = threading.Thread(target=provider.shutdown, name="videoqa-traces", daemon=True)
        ending.start()
        ending.join(timeout_s)


@contextmanager
def trace_submit(
    model: str | None, *, job_id: str | None = None, priority: str = "", count: int | None = None
) -> Iterator[str]:
    """Traces a submit, in a process that traces; yields the `traceparent` for the job's record.

    Arguments:
        count: number of jobs, which will only link to this span, those that the block submits one by one as well;
            None: one, which becomes its child.
    """
    batch = _batch.get()
    if batch is not None:
        yield batch
    elif count is None:
        with _start_submit(model, job_id, priority, None) as traceparent:
            yield traceparent
    else:
        with _start_submit(model, job_id, priority, count) as traceparent:
            before = _batch.set(traceparent)
            try:
                yield traceparent
            finally:
                _batch.reset(before)


@contextmanager
def _start_submit(
    model: str | None, job_id: str | None, priority: str, count: int | None
) -> Iterator[str]:
    caller = find_caller()
    found = sys.modules.get("opentelemetry.trace")
    is_within = found is not None and found.get_current_span().get_span_context().is_valid
    if found is None or not (is_within or _has_provider(found)):
        yield _spell(caller, is_link=count is not None)
        return
    from opentelemetry import trace

    attributes: dict[str, Any] = {"messaging.operation.type": "send"}
    attributes |= describe_job(id=job_id, priority=priority or None)
    if count is not None:
        attributes["messaging.batch.message_count"] = count
    if model is not None:
        attributes["gen_ai.request.model"] = model
    with trace.get_tracer("videoqa").start_as_current_span(
        "submit videoqa",
        context=None if is_within or caller is None else make_parent(caller),
        kind=trace.SpanKind.PRODUCER,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        own = span.get_span_context()
        context = None
        if own.is_valid:
            context = TraceContext(
                f"{own.trace_id:032x}", f"{own.span_id:016x}", f"{own.trace_flags:02x}"
            )
        try:
            yield _spell(context, is_link=count is not None)
        except Exception as error:
            span.set_attribute(ERROR_TYPE, str(getattr(error, "code", type(error).__name__)))
            span.set_status(trace.StatusCode.ERROR)
            raise


def _has_provider(trace: Any) -> bool:
    """Tells if the program has set up its traces; redis-py imports the API by itself where it is installed."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def trace_delivery(job_id: str, traceparent: str, attempt: int) -> Iterator[Callable[[int], None]]:
    """Traces a call of a webhook in its job's trace; yields a function that takes the answer's status."""
    if _state.provider is None:
        yield lambda status: None
        return
    from opentelemetry import trace

    caller = TraceContext.parse(traceparent)
    if caller is None or caller.is_link:
        # Beside the job's attempts, which have no span above them.
        caller = TraceContext(derive_trace_id(job_id), derive_span_id(job_id, "submit"))
    with trace.get_tracer("videoqa").start_as_current_span(
        "webhook videoqa",
        context=make_parent(caller),
        kind=trace.SpanKind.CLIENT,
        attributes=describe_job(id=job_id) | {"http.request.resend_count": attempt - 1},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:

        def note(status: int) -> None:
            span.set_attribute("http.response.status_code", status)
            if not 200 <= status < 300:
                span.set_attribute(ERROR_TYPE, str(status))
                span.set_status(trace.StatusCode.ERROR)

        try:
            yield note
        except Exception as error:
            span.set_attribute(ERROR_TYPE, type(error).__name__)
            span.set_status(trace.StatusCode.ERROR)
            raise


def make_parent(caller: TraceContext) -> Context:
    """Returns the context whose spans are children of the caller's."""
    from opentelemetry import trace

    return trace.set_span_in_context(
        trace.NonRecordingSpan(
            trace.SpanContext(
                int(caller.trace_id, 16),
                int(caller.span_id, 16),
                is_remote=True,
                trace_flags=trace.TraceFlags(int(caller.flags, 16)),
            )
        )
    )


def _describe_endpoint(environ: Mapping[str, str]) -> str:
    """Returns where the spans are sent, for people."""
    found = next((environ[name] for name in _ENDPOINTS if environ.get(name)), "")
    return redact_url(found) or "http://localhost:4318"


def _spell(context: TraceContext | None, *, is_link: bool) -> str:
    if context is None:
        return ""
    return str(TraceContext(context.trace_id, context.span_id, context.flags, is_link=is_link))
