"""The provider of our spans: sent by OTLP over HTTP, with ids of our choice where a job asks for them.

Imported only where traces are wanted: it needs the extra `tracing`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from videoqa.telemetry import log_events

__all__ = ["ChosenIds", "make_provider"]

log = logging.getLogger(__name__)
_chosen: ContextVar[tuple[int, int] | None] = ContextVar("videoqa_span", default=None)


class ChosenIds(RandomIdGenerator):
    """Random ids, but for the next span where some are chosen: an attempt's, which follow from its job."""

    def generate_trace_id(self) -> int:
        """Returns the id of a new trace."""
        chosen = _chosen.get()
        return chosen[0] if chosen else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Returns the id of a new span."""
        chosen = _chosen.get()
        return chosen[1] if chosen else super().generate_span_id()

    @staticmethod
    @contextmanager
    def choose(trace_id: str, span_id: str) -> Iterator[None]:
        """Gives these ids to the span that the block starts; the trace's only to one without a parent."""
        before = _chosen.set((int(trace_id, 16), int(span_id, 16)))
        try:
            yield
        finally:
            _chosen.reset(before)


class _ToldOnce(SpanExporter):
    """An exporter whose failures are one line of the log until it works again."""

    def __init__(self, exporter: SpanExporter, address: str) -> None:
        self._exporter, self._address = exporter, address
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends the spans, or drops them."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - a collector's fault is no fault of a job
            self._note(str(error))
            return SpanExportResult.FAILURE
        self._note("" if result is SpanExportResult.SUCCESS else "it does not answer or refuses")
        return result

    def _note(self, reason: str) -> None:
        if reason and not self._is_away:
            log_events.TRACES_NOT_EXPORTED.log(log, address=self._address, reason=reason)
        elif self._is_away and not reason:
            log_events.TRACES_EXPORTED_AGAIN.log(log, address=self._address)
        self._is_away = bool(reason)

    def shutdown(self) -> None:
        """Ends; an export that waits to try again gives up."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Does nothing: nothing is held back here."""
        return True


def make_provider(service: str, environ: Mapping[str, str], *, address: str) -> TracerProvider:
    """Makes the provider that the variables describe; its sampler and limits are read by the SDK.

    Arguments:
        address: where the spans are sent, for the log.
    """
    resource = Resource.create(
        {
            "service.name": environ.get("OTEL_SERVICE_NAME") or service,
            "service.version": version("videoqa"),
        }
    )
    provider = TracerProvider(resource=resource, id_generator=ChosenIds(), shutdown_on_exit=False)
    wanted = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() or "otlp"
    for name in wanted.split(","):
        exporter = ConsoleSpanExporter() if name.strip() == "console" else OTLPSpanExporter()
        provider.add_span_processor(BatchSpanProcessor(_ToldOnce(exporter, address)))
    return provider
