"""One trace a job, read from a real receiver of OTLP: over HTTP, a lost worker, a batch, and a webhook."""

from __future__ import annotations

from pathlib import Path

import httpx
from support.gateway import GatewayProcess
from support.otlp import Span, draw_tree, read_spans
from support.processes import wait_until
from support.receiver import receiving
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa.jobs import Ledger, queue_name
from videoqa.settings import Settings
from videoqa.telemetry.trace_context import derive_span_id, derive_trace_id

CALLER, SPAN = "ab" * 16, "cd" * 8


def test_a_job_is_one_trace_from_its_caller_to_its_webhook(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    """The first attempt of a job is lost with its worker; its next one is in the same trace and links to it."""
    clip = write_clip([Scene.single("red", "circle", "right")], tmp_path / "clip.mp4")
    asked = {"inputs": [clip.as_uri()], "questions": ["What is moving?", "Which colour?"]}
    queue = queue_name(settings.prefix, None, "interactive")
    with receiving() as collector, receiving() as receiver:
        collector.answer = lambda got: 200
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url.removesuffix("/hook"),
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "VIDEOQA_GATEWAY_OPEN": "true",
            "VIDEOQA_WEBHOOK_NETWORKS": "127.0.0.0/8",
        }
        with GatewayProcess(settings, tmp_path, **environ) as gateway:
            http = httpx.Client(base_url=gateway.url, timeout=30)
            traced = {"traceparent": f"00-{CALLER}-{SPAN}-01"}
            told = asked | {"webhook": {"url": receiver.url}}
            made = http.post("/v1/jobs", json=told, headers=traced).json()
            assert "id" in made, made
            lost = ledger.claim([queue], worker="killed", lease_s=0.5, token="first")
            assert lost.claim is not None
            assert lost.claim.job_id == made["id"]
            items = {"jobs": [asked | {"cache": "off"}]}
            batch = http.post("/v1/jobs:batch", json=items, headers=traced).json()
            many = batch["jobs"][0]["job"]["id"]
            with WorkerProcess(settings, tmp_path / "worker", **environ) as worker:
                for job_id in (made["id"], many):

                    def is_done(job_id: str = job_id) -> bool:
                        return bool(http.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded")

                    wait_until(is_done, process=worker)
                wait_until(lambda: receiver.got)
                job = http.get(f"/v1/jobs/{made['id']}").json()
                log = worker.log_path.read_text()
        spans = read_spans(collector.got)
    own = [span for span in spans if span.trace_id == CALLER]
    tree = draw_tree(own, SPAN)
    assert tree, spans
    assert tree == [
        "submit videoqa",
        "  process videoqa",
        "    queued",
        "    claim",
        "    fetch",
        "    sample",
        *(["    chat demo", "      prompt", "      prefill", "      decode"] * 2),
        "    store",
        "  webhook videoqa",
        "submit videoqa",
    ]
    _check_attempt(own, made["id"], clip)
    assert job["trace_id"] == made["trace_id"] == CALLER
    assert CALLER in log
    hook = next(span for span in own if span.name == "webhook videoqa")
    assert hook.attributes["http.response.status_code"] == 204
    # A job of many has a trace of its own, and links to the call that submitted it.
    process = [span for span in spans if span.attributes.get("videoqa.job.id") == many][-1]
    assert process.name == "process videoqa"
    assert (process.trace_id, process.parent_id) == (derive_trace_id(many), "")
    assert process.links == ((CALLER, own_submit(own, count=1).span_id),)


def own_submit(spans: list[Span], *, count: int) -> Span:
    (found,) = [
        span for span in spans if span.attributes.get("messaging.batch.message_count") == count
    ]
    return found


def _check_attempt(spans: list[Span], job_id: str, clip: Path) -> None:
    (submit,) = [
        span
        for span in spans
        if span.name == "submit videoqa" and span.attributes.get("videoqa.job.id") == job_id
    ]
    (process,) = [span for span in spans if span.name == "process videoqa"]
    assert (submit.service, process.service) == ("videoqa-gateway", "videoqa-worker")
    assert (submit.kind, process.kind) == (4, 5)
    assert process.links == (
        (CALLER, submit.span_id),
        (CALLER, derive_span_id(job_id, "first")),
    )
    expected = {"id": job_id, "attempt": 2, "priority": "interactive"}
    found = {name: process.attributes[f"videoqa.job.{name}"] for name in expected}
    assert found == expected
    assert process.attributes["videoqa.job.cached"] is False
    assert process.attributes["videoqa.job.frames"] > 0
    chat = next(span for span in spans if span.name.startswith("chat "))
    assert chat.attributes["gen_ai.operation.name"] == "chat"
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0
    assert chat.attributes["gen_ai.response.finish_reasons"] in (["stop"], ["length"])
    assert chat.attributes["gen_ai.response.time_to_first_chunk"] > 0
    fetch = next(span for span in spans if span.name == "fetch")
    assert fetch.attributes["url.full"] == clip.as_uri()
    stages = ("claim", "fetch", "sample", "store")
    for span in spans:
        assert not span.is_error
        assert span.begun <= span.ended
        assert not {"What is moving?", "Which colour?"} & set(map(str, span.attributes.values()))
        if span.name in stages or span.name.startswith("chat"):
            assert process.begun <= span.begun
            assert span.ended <= process.ended
    covered = sum(
        span.ended - span.begun
        for span in spans
        if span.name in (*stages, "prefill", "decode", "prompt")
    )
    assert covered > 0, "the spans tell where the time went"
