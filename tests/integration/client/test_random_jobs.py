"""Random lives of jobs: filters, counts, and the figures of the fleet against a look at each record."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

import pytest

from videoqa import Client
from videoqa.contract import Failure, Job, JobState
from videoqa.jobs import Ledger, queue_name

TENANTS = (None, "a", "b:%")
MODELS = (None, "m1", "org/m:2")
TAGS = ("x", "y", 'q"\\é')
CODES = ("model_error", "source_not_found", "made_up_code")
SEEDS = (1, 2)


class World:
    """Jobs of which random things happen, and a count of what did."""

    def __init__(self, client: Client, ledger: Ledger, seed: int) -> None:
        self.client, self.ledger, self.random = client, ledger, random.Random(seed)
        self.running: dict[str, str] = {}
        self.known: list[str] = []
        self.tags: dict[str, list[str]] = {}
        self.happened: Counter[str] = Counter()

    def submit(self) -> None:
        tags = self.random.sample(TAGS, self.random.randrange(3))
        job = self.client.for_tenant(self.random.choice(TENANTS)).submit(
            inputs=[f"s3://b/clip{len(self.known)}.mp4"], questions=[f"What is {self.random.randrange(5)}?"],
            model=self.random.choice(MODELS), tags=tags, custom_id=self.random.choice((None, "row1", "row22")),
        )  # fmt: skip
        self.known.append(job.id)
        self.tags[job.id] = tags
        self.happened["submitted"] += 1

    def claim(self) -> None:
        prefix, token = self.ledger.keys.prefix, f"t{self.random.random()}"
        queues = [queue_name(prefix, model, "interactive") for model in MODELS]
        worker = self.random.choice(("w:1", "w:2"))
        found = self.ledger.claim(queues, worker=worker, lease_s=60, token=token).claim
        if found is not None:
            self.running[found.job_id] = token

    def end(self) -> None:
        if not self.running:
            return
        job_id = self.random.choice(sorted(self.running))
        token = self.running.pop(job_id)
        how = self.random.choice(("finish", "finish", "fail", "fail", "again"))
        if how == "finish":
            said = self.ledger.finish(job_id, token, result=None, result_url="u")
            self.happened["canceled" if said == "cancel" else "succeeded"] += 1
            return
        code = self.random.choice(CODES)
        failure = Failure(
            code=code,
            message=f"boom {self.random.randrange(2)}",
            retryable=how == "again",
            attempt=1,
        )
        said = self.ledger.fail(job_id, token, failure, delay_s=0)
        self.happened[{"retry": "retried"}.get(said, said)] += 1
        self.ledger.reap(grace_s=60, every_s=0)

    def act(self) -> None:
        job_id = self.random.choice(self.known)
        state = self.client.get(job_id).state
        how = self.random.choice(("cancel", "retry", "retry"))
        if how == "cancel" and state in ("queued", "running"):
            self.client.cancel(job_id)
            self.happened["canceled"] += state == "queued"
        elif how == "retry" and state in ("failed", "canceled", "expired"):
            self.client.retry(job_id)
            self.happened["submitted"] += 1
        elif state == "succeeded" and self.random.random() < 0.2:
            self.client.purge(job_id)
            self.known.remove(job_id)


def make_filter(rng: random.Random, jobs: list[Job]) -> dict[str, Any]:
    one = rng.choice(jobs)
    times = [
        rng.choice(jobs).created_at + timedelta(microseconds=rng.choice((0, 1))) for _ in range(2)
    ]
    ended = [job.finished_at for job in jobs if job.finished_at]
    choices: dict[str, Callable[[], Any]] = {
        "state": lambda: rng.choice(get_args(JobState)), "tenant": lambda: rng.choice(TENANTS[1:]),
        "model": lambda: rng.choice(MODELS[1:]), "tag": lambda: rng.choice(TAGS),
        "code": lambda: rng.choice(("model_error", "source_not_found", "other")),
        "worker": lambda: rng.choice(("w:1", "w:2")),
        "custom_id": lambda: rng.choice(("row", "row1", "row22")), "job_id": lambda: one.id[: rng.choice((20, 28, 31))],
        "text": lambda: rng.choice(("what is 3", "CLIP1")), "since": lambda: min(times), "until": lambda: max(times),
        "ended_since": lambda: rng.choice(ended), "ended_until": lambda: rng.choice(ended),
    }  # fmt: skip
    found = {
        name: choices[name]() for name in rng.sample(sorted(choices), rng.choice((1, 1, 2, 2, 3)))
    }
    if "code" in found and "state" in found:
        found["state"] = "failed"  # any other is refused
    return found


def is_selected(job: Job, tags: list[str], which: dict[str, Any]) -> bool:
    """A filter, as its fields say."""
    failed = job.failure.code if job.failure and job.state == "failed" else None
    request = job.request
    assert request is not None
    texts = [one.text for one in request.questions] + [one.url for one in request.inputs]
    checks: dict[str, Callable[[Any], bool]] = {
        "state": lambda v: job.state == v, "tenant": lambda v: job.tenant == v, "model": lambda v: job.model == v,
        "tag": lambda v: v in tags, "worker": lambda v: job.worker == v,
        "code": lambda v: failed is not None and (failed if failed != "made_up_code" else "other") == v,
        "custom_id": (request.custom_id or "").startswith, "job_id": job.id.startswith,
        "text": lambda v: any(v.lower() in text.lower() for text in texts),
        "since": lambda v: job.created_at >= v, "until": lambda v: job.created_at < v,
        "ended_since": lambda v: job.finished_at is not None and job.finished_at >= v,
        "ended_until": lambda v: job.finished_at is not None and job.finished_at < v,
    }  # fmt: skip
    return all(checks[name](value) for name, value in which.items())


@pytest.mark.parametrize("seed", SEEDS)
def test_lists_counts_and_figures_are_those_of_the_records(
    client: Client, ledger: Ledger, seed: int
) -> None:
    world = World(client, ledger, seed)
    for _ in range(15):
        world.submit()
    for _ in range(150):
        world.random.choice(
            (world.submit, world.claim, world.claim, world.end, world.end, world.act)
        )()
    jobs = [client.get(job_id, include_request=True) for job_id in world.known]
    for _ in range(120):
        which = make_filter(world.random, jobs)
        expected = {job.id for job in jobs if is_selected(job, world.tags[job.id], which)}
        found, cursor = [], None
        while True:
            page = client.list(cursor=cursor, limit=7, **which)
            found += [job.id for job in page.jobs]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert sorted(found) == sorted(expected), which
        count = client.count(**which)
        assert (count.count, count.is_exact) == (len(expected), True), which
    totals = client.stats().all.totals
    counted = {
        name: getattr(totals, name)
        for name in ("submitted", "succeeded", "failed", "canceled", "retried")
    }
    assert counted == {name: world.happened[name] for name in counted}
    by_state = ledger.count_ended(())[0]
    assert {name: by_state[name] for name in ("succeeded", "failed", "canceled")} == {
        name: counted[name] for name in ("succeeded", "failed", "canceled")
    }
    for row in client.count_dead():
        assert row.all == row.hour == len(client.list(code=row.code, limit=1000).jobs)
        assert sum(group.count for group in client.group_dead(row.code).groups) == row.all
