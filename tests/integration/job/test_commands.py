"""The Redis commands that one job costs, and the bytes of a heartbeat."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

import redis
from support.redis import read_commands

from videoqa.contract import EngineInfo, JobRequest, WorkerInfo
from videoqa.jobs import Ledger, Progress, Submission, new_job_id, queue_name

NOT_COUNTED = ("script|load", "eval")

MOST = {
    "submit": 15,
    "claim": 19,
    "stage": 4,
    "progress": 3,
    "finish": 17,
    "claim of nothing": 4,
}
"""Most commands of each step; a change that needs more is to be weighed."""


def count_commands(client: redis.Redis, call: Callable[[], object]) -> int:
    """Returns how many commands a call leads to, with those that scripts call."""
    client.config_resetstat()
    call()
    found = read_commands(client)
    return sum(calls for name, calls in found.items() if name not in NOT_COUNTED)


def run_job(ledger: Ledger, client: redis.Redis) -> dict[str, int]:
    """Runs one job as a worker does; returns the commands of each step."""
    prefix = ledger.keys.prefix
    queues = [
        queue_name(prefix, model, priority)
        for priority in ("interactive", "bulk")
        for model in ("demo", None)
    ]
    job_id, token = new_job_id(), secrets.token_urlsafe(8)
    request = JobRequest.model_validate({"inputs": ["s3://b/k.mp4"], "questions": ["What?"]})
    found: dict[str, int] = {}

    def step(name: str, call: Callable[[], object]) -> None:
        found[name] = count_commands(client, call)

    def claim(heard: str, token: str) -> object:
        return ledger.claim(queues, heard=heard, worker="w", lease_s=30, token=token)

    step("submit", lambda: ledger.submit(Submission(job_id, request), start_by_default_s=3600))
    step("claim", lambda: claim(queues[1], token))
    assert ledger.get(job_id).state == "running"
    step("stage", lambda: ledger.progress(job_id, token, Progress("generating", total=1)))
    step(
        "progress", lambda: ledger.progress(job_id, token, Progress("generating", done=1, total=1))
    )
    step("finish", lambda: ledger.finish(job_id, token, result=None, result_url="s3://b/r"))
    step("claim of nothing", lambda: claim("", secrets.token_urlsafe(8)))
    assert ledger.get(job_id).state == "succeeded"
    return found


def test_a_job_costs_few_commands(ledger: Ledger, redis_client: redis.Redis) -> None:
    run_job(ledger, redis_client)  # loads the scripts
    # The least of a few: other connections of this server say something now and then.
    runs = [run_job(ledger, redis_client) for _ in range(4)]
    found = {name: min(run[name] for run in runs) for name in runs[0]}
    assert found.keys() == MOST.keys()
    assert {name: count for name, count in found.items() if count > MOST[name]} == {}


def test_a_heartbeat_of_16_jobs_is_under_1_kb(ledger: Ledger, redis_client: redis.Redis) -> None:
    held = [(new_job_id(), secrets.token_urlsafe(8)) for _ in range(16)]
    ledger.renew(held, lease_s=30)  # loads the script

    def read_bytes() -> int:
        stats = cast("dict[str, int]", redis_client.info("stats"))
        return stats["total_net_input_bytes"] + stats["total_net_output_bytes"]

    def measure(call: Callable[[], object]) -> int:
        before = read_bytes()
        call()
        return read_bytes() - before

    less = measure(lambda: None)
    assert 0 < measure(lambda: ledger.renew(held, lease_s=30)) - less < 1_000


def test_the_word_of_a_worker_with_16_jobs_is_under_3_kb(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    engine = EngineInfo(
        running=16, steps=10**9, rows=10**10, prompt_tokens=10**12, shared=10**6, feature_hits=10**6,
        feature_misses=10**6, prefix_hits=10**6, prefix_misses=10**6, kept_bytes=10**10, batch=12.345, max_batch=32,
        kv_used=10**6, kv_positions=10**6,
    )  # fmt: skip
    now = datetime.now(UTC)
    info = WorkerInfo(
        id="gpu-node-17.example.org:123456", model="llava-hf/llava-onevision-qwen2-7b-ov-hf",
        model_revision="0" * 40, queues=tuple(f"videoqa.llava-onevision.{n}" for n in range(4)), slots=64, running=16,
        ready=True, state="ready", job_ids=tuple(new_job_id() for _ in range(16)), tokens_s=1234.567,
        engine=engine, tenant_running=100, started_at=now, seen_at=now, host="gpu-node-17.example.org",
        device="cuda:0", device_name="NVIDIA H200", device_used_bytes=10**11, device_bytes=10**11, version="0.1.0",
        spool="/var/tmp/videoqa", max_source_bytes=10**10, output="s3://results/{date}/{job_id}.json",
    )  # fmt: skip
    ledger.announce(info)
    assert len(redis_client.hget(ledger.keys.worker(info.id), "info") or "") < 2_600
    (found,) = ledger.workers()
    assert found.model_copy(update={"heard_s": None}) == info
    assert 0 <= (found.heard_s or 0) < 60
