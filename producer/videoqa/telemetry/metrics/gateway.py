"""Metrics of a gateway: those that it reads from Redis, the same in each gateway, and those of its own calls."""

from __future__ import annotations

from videoqa.telemetry.metrics.declaration import CODE, MODEL, OTHER, PRIORITY, Label, Metric

__all__ = [
    "DEAD_LETTERS",
    "FLEET_METRICS",
    "GATEWAY_INFO",
    "GATEWAY_METRICS",
    "HTTP_REQUESTS",
    "HTTP_REQUEST_SECONDS",
    "HTTP_STREAMS",
    "JOBS",
    "JOBS_RUNNING",
    "JOB_FAILURES",
    "QUEUE_DELAYED",
    "QUEUE_DUE",
    "QUEUE_OLDEST_DUE",
    "QUEUE_PAUSED",
    "QUEUE_WAITING",
    "REDIS_UP",
    "SLOTS",
    "UPLOADS",
    "UPLOAD_BYTES",
    "WEBHOOK_CALLS",
    "WEBHOOK_CALL_SECONDS",
    "WEBHOOK_DELIVERIES",
    "WORKERS",
]

_QUEUE = (MODEL, PRIORITY)
_ROUTE = Label("route", bound="the route's template, as `/v1/jobs/{job_id}`, or `other`")
_METHOD = Label("method", ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER))
_STATUS = Label("status", ("1xx", "2xx", "3xx", "4xx", "5xx"))

REDIS_UP = Metric(
    "videoqa_redis_up",
    "gauge",
    "1 if the gateway could read the queues from Redis for this scrape; 0: it has no series of the fleet",
)
QUEUE_WAITING = Metric(
    "videoqa_queue_waiting",
    "gauge",
    "Jobs that may begin now, or once their tenant has room",
    _QUEUE,
)
QUEUE_DELAYED = Metric("videoqa_queue_delayed", "gauge", "Jobs between two attempts", _QUEUE)
QUEUE_DUE = Metric(
    "videoqa_queue_due",
    "gauge",
    "Delayed jobs whose delay is over, and that no worker has put back into line yet",
    _QUEUE,
)
QUEUE_OLDEST_DUE = Metric(
    "videoqa_queue_oldest_due_seconds",
    "gauge",
    "Longest time for which a job has been able to begin, without the delay before a retry; 0: none waits",
    _QUEUE,
)
QUEUE_PAUSED = Metric(
    "videoqa_queue_paused", "gauge", "1 if the queue is paused, so that no job of it begins", _QUEUE
)
JOBS_RUNNING = Metric("videoqa_jobs_running", "gauge", "Jobs that workers have claimed", _QUEUE)
JOBS = Metric(
    "videoqa_jobs_total",
    "counter",
    "Jobs that have ended, counted by the script that ends them, wherever that is called",
    (Label("state", ("succeeded", "failed", "canceled", "expired")),),
)
JOB_FAILURES = Metric(
    "videoqa_job_failures_total", "counter", "Jobs that failed for good, by the code", (CODE,)
)
DEAD_LETTERS = Metric(
    "videoqa_dead_letters",
    "gauge",
    "Failed jobs whose records are kept, so that they can be retried",
    (CODE,),
)
WORKERS = Metric(
    "videoqa_workers",
    "gauge",
    "Workers that were heard within the last minute",
    (MODEL, Label("state", ("loading", "ready", "draining", "broken"))),
)
SLOTS = Metric("videoqa_slots", "gauge", "Jobs that ready workers can run at a time", (MODEL,))
WEBHOOK_DELIVERIES = Metric(
    "videoqa_webhook_deliveries",
    "gauge",
    "Deliveries of webhooks whose records are kept",
    (Label("status", ("pending", "delivered", "failed")),),
)
FLEET_METRICS = (
    QUEUE_WAITING,
    QUEUE_DELAYED,
    QUEUE_DUE,
    QUEUE_OLDEST_DUE,
    QUEUE_PAUSED,
    JOBS_RUNNING,
    JOBS,
    JOB_FAILURES,
    DEAD_LETTERS,
    WORKERS,
    SLOTS,
    WEBHOOK_DELIVERIES,
)
"""Those that are read from Redis."""

GATEWAY_INFO = Metric(
    "videoqa_gateway_info",
    "gauge",
    "1, with the release of the gateway",
    (Label("version", bound="one"),),
)
HTTP_REQUESTS = Metric(
    "videoqa_http_requests_total",
    "counter",
    "Requests that this gateway has answered; a stream counts when it begins, and HEAD as GET",
    (_ROUTE, _METHOD, _STATUS),
)
HTTP_REQUEST_SECONDS = Metric(
    "videoqa_http_request_seconds",
    "histogram",
    "Time from a request's head to the head of its answer",
    (_ROUTE, _METHOD),
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
HTTP_STREAMS = Metric("videoqa_http_streams", "gauge", "Streams of events that are open")
UPLOADS = Metric(
    "videoqa_uploads_total",
    "counter",
    "Files, or parts of such, whose upload through this gateway has ended",
    (Label("outcome", ("stored", "broken")),),
)
UPLOAD_BYTES = Metric(
    "videoqa_upload_bytes_total", "counter", "Bytes of the files and parts that were stored"
)
WEBHOOK_CALLS = Metric(
    "videoqa_webhook_calls_total",
    "counter",
    "Calls of receivers that this gateway has made; `failed`: it was the last one",
    (Label("outcome", ("delivered", "retry", "failed")),),
)
WEBHOOK_CALL_SECONDS = Metric(
    "videoqa_webhook_call_seconds",
    "histogram",
    "Time of a call of a receiver",
    (),
    (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

GATEWAY_METRICS = (
    REDIS_UP,
    *FLEET_METRICS,
    GATEWAY_INFO,
    HTTP_REQUESTS,
    HTTP_REQUEST_SECONDS,
    HTTP_STREAMS,
    UPLOADS,
    UPLOAD_BYTES,
    WEBHOOK_CALLS,
    WEBHOOK_CALL_SECONDS,
)
