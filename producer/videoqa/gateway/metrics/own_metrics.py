"""OwnMetrics: what one gateway counts of its own requests, uploads and calls of webhooks' receivers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from videoqa.telemetry.metrics import gateway as declared
from videoqa.telemetry.metrics.instruments import Instruments

__all__ = ["OwnMetrics"]


class OwnMetrics:
    """Counts in a registry of its own, so that several gateways in one process do not meet. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = Instruments(self.registry)
        self._requests = make.make_counter(declared.HTTP_REQUESTS)
        self._request_seconds = make.make_histogram(declared.HTTP_REQUEST_SECONDS)
        self._webhook_calls = make.make_counter(declared.WEBHOOK_CALLS)
        self._webhook_seconds = make.make_histogram(declared.WEBHOOK_CALL_SECONDS)()
        self._uploads = make.make_counter(declared.UPLOADS)
        self._upload_bytes = make.make_counter(declared.UPLOAD_BYTES)()

    def note_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request whose answer begins."""
        self._requests(route, method, f"{status // 100}xx").inc()
        self._request_seconds(route, method).observe(seconds)

    def note_webhook_call(self, outcome: str, seconds: float) -> None:
        """Counts a call of a receiver."""
        self._webhook_calls(outcome).inc()
        self._webhook_seconds.observe(seconds)

    def note_upload(self, length: int) -> None:
        """Counts a file or part that was stored."""
        self._uploads("stored").inc()
        self._upload_bytes.inc(length)

    def note_broken_upload(self) -> None:
        """Counts a file or part that was begun and not stored."""
        self._uploads("broken").inc()
