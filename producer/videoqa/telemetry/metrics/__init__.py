"""Metrics for Prometheus: each is declared once, with its name, type, labels, buckets and meaning.

The declarations need no library. `instruments` makes what counts of them, by prometheus-client, which comes with the
gateway and the worker; it is imported by itself.
"""

from videoqa.telemetry.metrics.declaration import Label, Metric
from videoqa.telemetry.metrics.gateway import GATEWAY_METRICS
from videoqa.telemetry.metrics.worker import WORKER_METRICS

__all__ = ["ALL_METRICS", "GATEWAY_METRICS", "WORKER_METRICS", "Label", "Metric"]

ALL_METRICS = (*GATEWAY_METRICS, *WORKER_METRICS)
