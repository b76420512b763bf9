"""A receiver of OpenTelemetry's spans: a real HTTP server on loopback that reads OTLP's protobuf."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.receiver import Got

__all__ = ["Span", "draw_tree", "read_spans"]


@dataclass(frozen=True)
class Span:
    """A span as it was received."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    begun: int
    ended: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    is_error: bool


def read_spans(calls: Iterable[Got]) -> list[Span]:
    """Returns all spans that were sent."""
    found = []
    for call in calls:
        assert call.path == "/v1/traces", call.path
        body = (
            gzip.decompress(call.body)
            if call.headers.get("content-encoding") == "gzip"
            else call.body
        )
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _read(part.resource.attributes)["service.name"]
            for scope in part.scope_spans:
                found += [_parse(service, span) for span in scope.spans]
    return found


def _parse(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        begun=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes=_read(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        is_error=span.status.code == 2,
    )


def _read(attributes: Any) -> dict[str, Any]:
    return {each.key: _read_value(each.value) for each in attributes}


def _read_value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_read_value(each) for each in value.array_value.values]
    return getattr(value, kind)


def draw_tree(spans: Sequence[Span], parent_id: str, depth: int = 0) -> list[str]:
    """Returns the names of the spans below one, each behind as many spaces as it is deep, in their order."""
    lines = []
    children = [span for span in spans if span.parent_id == parent_id]
    for span in sorted(children, key=lambda span: (span.begun, span.ended)):
        lines.append("  " * depth + span.name)
        lines += draw_tree(spans, span.span_id, depth + 1)
    return lines
