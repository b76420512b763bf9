"""The Redis commands that one job costs, and the bytes of a heartbeat."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import cast

import redis
from support.redis import read_commands

from videoqa.contract import JobRequest
from videoqa.jobs import Ledger, Progress, Submission, new_job_id, queue_name

NOT_COUNTED = ("script|load", "eval")

MOST = {
    "submit": 13,
    "claim": 19,
    "stage": 4,
    "progress": 3,
    "finish": 12,
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
    found = run_job(ledger, redis_client)
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
