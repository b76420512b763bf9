"""The board for Grafana, as data: rows of panels, each a title, a unit and its queries.

`python docs/generate.py` writes it to deploy/grafana/videoqa.json. A test runs each query against a real Prometheus.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ROWS", "Panel", "Row", "render_board"]

WIDTH, HEIGHT = 24, 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """A panel: a chart over time, or single numbers."""

    title: str
    queries: Sequence[tuple[str, str]]
    """PromQL and the legend of each."""
    unit: str = "short"
    kind: str = "timeseries"
    columns: int = 8
    help: str = ""


@dataclass(frozen=True)
class Row:
    """Panels below one title."""

    title: str
    panels: Sequence[Panel]


def quantile(q: float, metric: str, by: str) -> str:
    """Returns the query of a quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"


def rate(metric: str, by: str = "") -> str:
    """Returns the query of a counter's rate, over the processes that count."""
    return (
        f"sum by ({by}) (rate({metric}[$__rate_interval]))"
        if by
        else f"sum(rate({metric}[$__rate_interval]))"
    )


def fleet(metric: str, by: str) -> str:
    """Returns the query of what all gateways read alike."""
    return f"max by ({by}) ({metric})"


ROWS = (
    Row(
        "Now",
        (
            Panel(
                "Redis",
                [("min(videoqa_redis_up)", "readable")],
                kind="stat",
                columns=4,
                help="1: every gateway can read it",
            ),
            Panel(
                "Waiting",
                [(f"sum({fleet('videoqa_queue_waiting', 'model, priority')})", "jobs")],
                kind="stat",
                columns=4,
            ),
            Panel(
                "Longest wait",
                [("max(videoqa_queue_oldest_due_seconds)", "oldest")],
                "s",
                "stat",
                4,
            ),
            Panel(
                "Running",
                [(f"sum({fleet('videoqa_jobs_running', 'model, priority')})", "jobs")],
                kind="stat",
                columns=4,
            ),
            Panel(
                "Ready workers",
                [('sum(max by (model) (videoqa_workers{state="ready"}))', "workers")],
                kind="stat",
                columns=4,
            ),
            Panel(
                "Dead letters",
                [(f"sum({fleet('videoqa_dead_letters', 'code')})", "jobs")],
                kind="stat",
                columns=4,
            ),
        ),
    ),
    Row(
        "Queues",
        (
            Panel(
                "Waiting by model and priority",
                [(fleet("videoqa_queue_waiting", "model, priority"), "{{model}} {{priority}}")],
            ),
            Panel(
                "Longest wait by model and priority",
                [
                    (
                        fleet("videoqa_queue_oldest_due_seconds", "model, priority"),
                        "{{model}} {{priority}}",
                    )
                ],
                "s",
            ),
            Panel(
                "Running and slots",
                [
                    (
                        f"sum by (model) ({fleet('videoqa_jobs_running', 'model, priority')})",
                        "running {{model}}",
                    ),
                    (fleet("videoqa_slots", "model"), "slots {{model}}"),
                ],
            ),
            Panel(
                "Between attempts, and due",
                [
                    (
                        fleet("videoqa_queue_delayed", "model, priority"),
                        "delayed {{model}} {{priority}}",
                    ),
                    (fleet("videoqa_queue_due", "model, priority"), "due {{model}} {{priority}}"),
                ],
            ),
            Panel(
                "Paused queues",
                [(fleet("videoqa_queue_paused", "model, priority"), "{{model}} {{priority}}")],
            ),
            Panel(
                "Workers by state",
                [(fleet("videoqa_workers", "model, state"), "{{model}} {{state}}")],
            ),
        ),
    ),
    Row(
        "Jobs",
        (
            Panel(
                "Jobs ended a second",
                [("max by (state) (rate(videoqa_jobs_total[$__rate_interval]))", "{{state}}")],
                "ops",
            ),
            Panel(
                "Failures by code",
                [("max by (code) (increase(videoqa_job_failures_total[1h])) > 0", "{{code}}")],
                help="Jobs that failed for good in the last hour",
            ),
            Panel(
                "Dead letters by code",
                [("topk(10, max by (code) (videoqa_dead_letters))", "{{code}}")],
            ),
            Panel(
                "Attempts a second",
                [(rate("videoqa_attempts_total", "outcome"), "{{outcome}}")],
                "ops",
            ),
            Panel(
                "Failed attempts by code",
                [("sum by (code) (increase(videoqa_failures_total[1h])) > 0", "{{code}}")],
            ),
            Panel(
                "Wait until the claim",
                [
                    (quantile(0.5, "videoqa_job_wait_seconds", "priority"), "p50 {{priority}}"),
                    (quantile(0.95, "videoqa_job_wait_seconds", "priority"), "p95 {{priority}}"),
                ],
                "s",
            ),
            Panel(
                "Attempts",
                [
                    (quantile(0.5, "videoqa_attempt_seconds", "model"), "p50 {{model}}"),
                    (quantile(0.95, "videoqa_attempt_seconds", "model"), "p95 {{model}}"),
                ],
                "s",
            ),
            Panel(
                "Stages, p95",
                [(quantile(0.95, "videoqa_stage_seconds", "stage"), "{{stage}}")],
                "s",
            ),
            Panel(
                "Seconds a second by stage",
                [(rate("videoqa_stage_seconds_sum", "stage"), "{{stage}}")],
                help="Mean number of attempts in each stage",
            ),
        ),
    ),
    Row(
        "Model",
        (
            Panel(
                "First token",
                [
                    (
                        quantile(0.5, "videoqa_time_to_first_token_seconds", "model"),
                        "p50 {{model}}",
                    ),
                    (
                        quantile(0.95, "videoqa_time_to_first_token_seconds", "model"),
                        "p95 {{model}}",
                    ),
                ],
                "s",
            ),
            Panel(
                "Time per output token",
                [
                    (
                        quantile(0.5, "videoqa_time_per_output_token_seconds", "model"),
                        "p50 {{model}}",
                    ),
                    (
                        quantile(0.95, "videoqa_time_per_output_token_seconds", "model"),
                        "p95 {{model}}",
                    ),
                ],
                "s",
            ),
            Panel(
                "Tokens a second",
                [(rate("videoqa_tokens_total", "model, type"), "{{model}} {{type}}")],
            ),
            Panel(
                "Tokens of prompts and answers, p95",
                [
                    (quantile(0.95, "videoqa_prompt_tokens", "model"), "prompt {{model}}"),
                    (quantile(0.95, "videoqa_output_tokens", "model"), "answer {{model}}"),
                ],
            ),
            Panel(
                "Mean batch",
                [
                    (
                        "sum by (instance) (rate(videoqa_engine_rows_total[$__rate_interval])) / "
                        "sum by (instance) (rate(videoqa_engine_steps_total[$__rate_interval]))",
                        "{{instance}}",
                    ),
                    ("max(videoqa_engine_rows_most)", "most"),
                ],
                help="Sequences a step; far below `most` while jobs wait: the worker does not feed its engine",
            ),
            Panel(
                "Sequences and jobs now",
                [
                    ("sum by (instance) (videoqa_engine_rows_running)", "sequences {{instance}}"),
                    ("sum by (instance) (videoqa_slots_busy)", "jobs {{instance}}"),
                ],
            ),
            Panel(
                "KV cache",
                [
                    (
                        "sum by (instance) (videoqa_kv_tokens_used) / sum by (instance) (videoqa_kv_tokens)",
                        "{{instance}}",
                    )
                ],
                "percentunit",
            ),
            Panel(
                "Hits of the caches",
                [
                    (
                        'sum(rate(videoqa_cache_requests_total{result="hit"}[$__rate_interval])) / '
                        "sum(rate(videoqa_cache_requests_total[$__rate_interval]))",
                        "answers",
                    ),
                    (
                        'sum by (cache) (rate(videoqa_engine_cache_requests_total{result="hit"}[$__rate_interval])) / '
                        "sum by (cache) (rate(videoqa_engine_cache_requests_total[$__rate_interval]))",
                        "{{cache}}",
                    ),
                    (
                        f"{rate('videoqa_engine_shared_total')} / {rate('videoqa_output_tokens_count')}",
                        "equal questions",
                    ),
                ],
                "percentunit",
            ),
            Panel(
                "Prompt positions computed a second",
                [(rate("videoqa_engine_prompt_tokens_total"), "positions")],
            ),
            Panel(
                "Out of memory, and put back",
                [
                    ("sum(increase(videoqa_engine_out_of_memory_total[1h]))", "out of memory"),
                    ("sum(increase(videoqa_engine_preemptions_total[1h]))", "put back"),
                ],
            ),
            Panel(
                "GPU memory",
                [
                    (
                        "videoqa_gpu_memory_used_bytes / videoqa_gpu_memory_bytes",
                        "{{instance}} GPU {{gpu}}",
                    )
                ],
                "percentunit",
            ),
            Panel(
                "GPU utilisation",
                [("videoqa_gpu_utilization_ratio", "{{instance}} GPU {{gpu}}")],
                "percentunit",
            ),
        ),
    ),
    Row(
        "Inputs",
        (
            Panel("Frames a second", [(rate("videoqa_frames_total", "exact"), "exact: {{exact}}")]),
            Panel(
                "Bytes fetched a second",
                [(rate("videoqa_source_bytes_total", "scheme"), "{{scheme}}")],
                "Bps",
            ),
            Panel(
                "Requests for inputs a second",
                [(rate("videoqa_source_requests_total", "scheme"), "{{scheme}}")],
                "reqps",
            ),
        ),
    ),
    Row(
        "Gateways",
        (
            Panel(
                "Requests a second",
                [(rate("videoqa_http_requests_total", "route, method"), "{{method}} {{route}}")],
                "reqps",
            ),
            Panel(
                "Answers a second",
                [(rate("videoqa_http_requests_total", "status"), "{{status}}")],
                "reqps",
            ),
            Panel(
                "Time to the answer's head, p95",
                [(quantile(0.95, "videoqa_http_request_seconds", "route"), "{{route}}")],
                "s",
                help="With `wait` a call may take as long as it asks for",
            ),
            Panel("Open streams", [("sum(videoqa_http_streams)", "streams")]),
            Panel(
                "Uploads",
                [
                    (rate("videoqa_uploads_total", "outcome"), "{{outcome}} a second"),
                    (rate("videoqa_upload_bytes_total"), "bytes a second"),
                ],
            ),
            Panel(
                "Webhooks",
                [
                    (fleet("videoqa_webhook_deliveries", "status"), "{{status}}"),
                    (rate("videoqa_webhook_calls_total", "outcome"), "calls {{outcome}} a second"),
                ],
            ),
            Panel(
                "Time of a webhook's call, p95",
                [(quantile(0.95, "videoqa_webhook_call_seconds", ""), "p95")],
                "s",
            ),
            Panel(
                "Leases lost, bells rung again or dropped",
                [
                    ("sum(increase(videoqa_leases_lost_total[1h]))", "leases lost"),
                    ("sum(increase(videoqa_bells_rerung_total[1h]))", "bells rung again"),
                    ("sum(increase(videoqa_bells_dropped_total[1h]))", "bells dropped"),
                ],
            ),
            Panel(
                "Releases",
                [
                    ("count by (version) (videoqa_gateway_info)", "gateway {{version}}"),
                    (
                        "count by (version, model, revision) (videoqa_build_info)",
                        "worker {{version}} {{model}} {{revision}}",
                    ),
                ],
            ),
        ),
    ),
)


def render_board() -> str:
    """Returns the board as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    x = y = 0
    for row in ROWS:
        if x:
            x, y = 0, y + HEIGHT
        panels.append(
            _place({"type": "row", "title": row.title, "panels": []}, 0, y, WIDTH, 1, len(panels))
        )
        y += 1
        for panel in row.panels:
            height = HEIGHT if panel.kind == "timeseries" else 4
            if x + panel.columns > WIDTH:
                x, y = 0, y + height
            panels.append(_place(_draw(panel), x, y, panel.columns, height, len(panels)))
            x += panel.columns
        y += HEIGHT if row.panels[-1].kind == "timeseries" else 4
        x = 0
    board = {
        "title": "videoqa",
        "uid": "videoqa",
        "tags": ["videoqa"],
        "editable": True,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "type": "datasource",
                    "query": "prometheus",
                    "label": "Data source",
                }
            ]
        },
        "panels": panels,
    }
    return json.dumps(board, indent=1) + "\n"


def _place(
    panel: dict[str, Any], x: int, y: int, columns: int, height: int, number: int
) -> dict[str, Any]:
    return {"id": number + 1, "gridPos": {"x": x, "y": y, "w": columns, "h": height}, **panel}


def _draw(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
        for n, (expr, legend) in enumerate(panel.queries)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }
