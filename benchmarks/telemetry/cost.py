"""Cost of log lines and traces to one job, in CPU time, against that of the smallest job there is.

    python benchmarks/telemetry/cost.py [--rounds 500] [--jobs 40] [--json]

Each kind of telemetry is a process of its own, so that none finds what another has imported: the submit and the spans
of an attempt with two questions (16 spans) without traces, with a collector on loopback, and without one that answers;
and the lines of a succeeded job, for people and as JSON. Counted is the CPU time of the whole process, with its
threads and with the sending of the spans. The job is two questions about a clip of its own of 5 s to the bundled demo
model, the smallest there is, on one CPU thread: CPU time of the worker and its decoding processes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("producer", "worker", "training")]

KINDS = ("traces off", "traces on", "no collector", "lines, console", "lines, json")
NO_LISTENER = "http://127.0.0.1:9"


def measure(kind: str, rounds: int) -> float:
    """Returns the CPU seconds of one round in this process."""
    run = _make_lines(kind) if kind.startswith("lines") else _make_spans()
    for _ in range(20):
        run()
    begun_s = time.process_time()
    for _ in range(rounds):
        run()
    if not kind.startswith("lines"):
        from videoqa.telemetry.tracing import find_provider, shut_down_tracing

        provider = find_provider()
        if kind == "traces on" and provider is not None:
            provider.force_flush()
        else:
            shut_down_tracing()
    return (time.process_time() - begun_s) / rounds


def _make_spans() -> Callable[[], None]:
    from videoqa.contract import Generation, JobRequest
    from videoqa.jobs import Claim, new_job_id
    from videoqa.telemetry.tracing import configure_tracing, trace_submit
    from videoqa_worker.engine import Generated
    from videoqa_worker.job.trace import AskedAt, begin_trace

    configure_tracing("benchmark")
    request = JobRequest.model_validate({"inputs": ["s3://b/k.mp4"], "questions": ["?", "!"]})
    generated = Generated("text", (1, 2), "stop", 900, 32, 0.01)
    future: Future[Generated] = Future()
    future.set_result(generated)

    def run() -> None:
        job_id = new_job_id()
        with trace_submit("demo", job_id=job_id, priority="interactive") as traceparent:
            pass
        claim = Claim(job_id, 1, request, 0.0, 60.0, 0.1, "token", traceparent=traceparent)
        trace = begin_trace(claim, "demo")
        with trace.running():
            with trace.stage("fetch") as found:
                found |= {"url.full": "s3://b/k.mp4"}
            with trace.stage("sample") as found:
                found |= {"videoqa.frames": 8}
            for _ in range(2):
                if trace.is_on:
                    asked = AskedAt()
                    asked.note_built(future)
                    trace.add_answer(asked, Generation(), generated)
            trace.note(cached=False, frames=8, bytes_fetched=1)
            with trace.stage("store"):
                pass

    return run


def _make_lines(kind: str) -> Callable[[], None]:
    import logging

    from videoqa.telemetry.log_context import job_context
    from videoqa.telemetry.log_setup import configure_logs
    from videoqa_worker import log_events

    configure_logs("INFO", "json" if kind.endswith("json") else "console")
    log = logging.getLogger("videoqa_worker.benchmark")

    def run() -> None:
        sys.stderr = io.StringIO()
        with job_context(job_id="job_1", attempt=1, model="demo", tenant="a", trace_id="ab" * 16):
            log_events.JOB_STARTED.log(log, queued_s=0.1)
            log_events.JOB_SUCCEEDED.log(
                log, name="demo", inputs=1, first_input="s3://b/k.mp4", questions=2, frames=8,
                input_tokens=900, output_tokens=32, seconds=1.0, cached="no",
            )  # fmt: skip

    return run


class _Collector(BaseHTTPRequestHandler):
    """Takes whatever comes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Is silent."""


def measure_job(jobs: int) -> float:
    """Returns the CPU seconds of a job of the demo model in its worker."""
    import random

    from demo_world import sample_scene, write_clip

    from videoqa_worker.embedded import Stack

    environ = dict(os.environ) | {"VIDEOQA_CPU_THREADS": "1", "VIDEOQA_CACHE_TTL_S": "0"}
    environ |= {"VIDEOQA_SHEETS": "false", "OTEL_SDK_DISABLED": "true"}
    with tempfile.TemporaryDirectory() as name:
        draw = random.Random(3)
        clips = [
            write_clip(sample_scene(draw, "single"), Path(name) / f"{n}.mp4", duration_s=5)
            for n in range(jobs + 5)
        ]
        environ["VIDEOQA_FILE_ROOTS"] = name
        with Stack(Path(name) / "stack", environ) as stack, stack.client() as client:
            stack.wait_until_ready(lambda state: None)

            def ask(clip: Path) -> None:
                job = client.submit(inputs=[clip.as_uri()], questions=["What moves?", "Where?"])
                client.wait(job.id, timeout_s=300)

            for clip in clips[:5]:
                ask(clip)
            begun_s = _read_tree_cpu_s(stack.worker.pid)
            for clip in clips[5:]:
                ask(clip)
            return (_read_tree_cpu_s(stack.worker.pid) - begun_s) / jobs


def _read_tree_cpu_s(pid: int) -> float:
    """Returns the CPU time of a process, of those below it that live, and of those that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return total + sum(_read_tree_cpu_s(int(child)) for child in children)


def run(rounds: int, jobs: int) -> dict[str, Any]:
    """Measures all kinds, each in a process of its own, and a job."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector = f"http://127.0.0.1:{server.server_address[1]}"
    endpoints = {"traces on": collector, "no collector": NO_LISTENER}
    found = {}
    for kind in KINDS:
        print(kind, file=sys.stderr)
        environ = {name: value for name, value in os.environ.items() if "OTEL_" not in name}
        if kind in endpoints:
            environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoints[kind]
        command = [sys.executable, __file__, "--kind", kind, "--rounds", str(rounds)]
        turns = [
            float(subprocess.run(command, check=True, capture_output=True, env=environ).stdout)
            for _ in range(3)
        ]
        found[kind] = min(turns)
    server.shutdown()
    print("a job", file=sys.stderr)
    return {"cpu_s": found, "job_cpu_s": measure_job(jobs), "python": platform.python_version()}


def main() -> None:
    """Runs the benchmark, or one kind of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kind")
    options = parser.parse_args()
    if options.kind:
        print(measure(options.kind, options.rounds))
        return
    found = run(options.rounds, options.jobs)
    if options.json:
        print(json.dumps(found))
        return
    job_s = found["job_cpu_s"]
    print(f"a job of the demo model: {job_s * 1000:.0f} ms of CPU")
    for kind, cpu_s in found["cpu_s"].items():
        print(f"{kind:<16}{cpu_s * 1e6:8.0f} us  {100 * cpu_s / job_s:6.3f}% of the job")


if __name__ == "__main__":
    main()
