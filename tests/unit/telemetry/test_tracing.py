"""Traces are off without OpenTelemetry's own variables, and never in a job's way where they are on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from support.logs import parse_lines

from videoqa.telemetry.trace_context import (
    TraceContext,
    caller_context,
    derive_trace_id,
    find_trace_id,
)
from videoqa.telemetry.tracing import is_wanted, trace_submit

CALLER = TraceContext("ab" * 16, "cd" * 8)


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, False),
        ({"OTEL_SERVICE_NAME": "mine"}, False),
    ],
)
def test_only_the_variables_turn_traces_on(environ: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environ) == wanted


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=own | environ,
        timeout=60,
    )


def test_nothing_of_opentelemetry_is_imported_while_it_is_off() -> None:
    """By ours, that is: redis-py looks for its metrics, and goes on without."""
    run("""
import sys, traceback
importers = []

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            frames = [each.filename for each in traceback.extract_stack()[:-1] if "importlib" not in each.filename]
            importers.append(frames[-1])
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
import videoqa.client, videoqa.backends.redis_backend, videoqa_worker.__main__, videoqa_worker.job.trace
from videoqa.telemetry.tracing import configure_tracing, shut_down_tracing, trace_submit
configure_tracing("test")
with trace_submit("demo", job_id="job_1") as traceparent:
    assert traceparent == ""
assert videoqa_worker.job.trace.begin_trace(None, "demo") is videoqa_worker.job.trace.NO_TRACE
shut_down_tracing()
assert all("/redis/" in importer for importer in importers), importers
""")


def test_without_a_collector_one_line_tells_it() -> None:
    """Spans are dropped; neither the jobs nor the end of the process wait for it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        address = f"http://me:hush@127.0.0.1:{taken.getsockname()[1]}?token=hush"
        begun_s = time.monotonic()
        done = run(
            """
from videoqa.telemetry.log_setup import configure_logs
from videoqa.telemetry.tracing import configure_tracing, find_provider, shut_down_tracing, trace_submit
configure_logs("INFO", "json")
configure_tracing("test")
for n in range(3):
    for _ in range(50):
        with trace_submit("demo") as traceparent:
            assert traceparent.startswith("00-")
    find_provider().force_flush()
shut_down_tracing()
""",
            OTEL_EXPORTER_OTLP_ENDPOINT=address,
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
        )
    (line,) = parse_lines(done.stderr)
    assert (line["event"], line["level"]) == ("traces_not_exported", "warning")
    assert "hush" not in done.stderr
    assert time.monotonic() - begun_s < 30


def test_a_job_lies_in_the_trace_of_the_request_that_submits_it() -> None:
    with caller_context(CALLER):
        with trace_submit("demo") as traceparent:
            assert TraceContext.parse(traceparent) == CALLER
        with trace_submit(None, count=2) as many, trace_submit("demo") as one:
            assert many == one == f"link {CALLER}"
    with trace_submit("demo") as traceparent:
        assert traceparent == ""
    job_id = "job_0123456789aaaaaaaaaaaaaaaaa"
    assert find_trace_id(job_id, str(CALLER)) == CALLER.trace_id
    for own in ("", None, f"link {CALLER}", "00-zz", f"00-{'0' * 32}-{'1' * 16}-01"):
        assert find_trace_id(job_id, own) == "00000" + job_id.removeprefix("job_")
    assert derive_trace_id("mine") == "0" * 31 + "1"


@pytest.mark.parametrize(
    ("header", "is_one"),
    [
        (str(CALLER), True),
        (f"01-{CALLER.trace_id}-{CALLER.span_id}-01-more", True),
        (f"{CALLER}-more", False),
        (f"{CALLER}-", False),
        (f"link {CALLER}", False),
        (f"{CALLER}\n", False),
        (str(CALLER).upper(), False),
        (f"{CALLER}, {CALLER}", False),
        (f"ff-{CALLER.trace_id}-{CALLER.span_id}-01", False),
        (f"00-{CALLER.trace_id}-{'0' * 16}-01", False),
    ],
)
def test_a_strangers_header_is_a_trace_or_nothing(header: str, *, is_one: bool) -> None:
    assert TraceContext.parse_header(header) == (CALLER if is_one else None)
