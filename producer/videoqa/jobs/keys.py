"""The names of all keys in Redis and of the broker's queues, each key with its type and lifetime.

| key | type | holds | lives |
|---|---|---|---|
| `P:job:ID` | hash | the record: request, state, attempt, token, failure, result | until final, then `result_ttl_s` |
| `P:events:ID` | stream | the job's events since it was queued, about 1,000 entries | as the record |
| `P:segments:ID` | hash | answered segments, for the job's next attempt | until it succeeds, or as the record |
| `P:gone:ID` | string | its final state and tenant: an expired id differs from an unknown one | record + 7 days |
| `P:idem:KEY` | hash | id and body digest of a tenant's idempotency key | as the record |
| `P:waiting:QUEUE` | zset | waiting jobs by the time when they first stood in line | ids leave when claimed |
| `P:line:QUEUE:TENANT` | zset | those of one tenant | as `P:waiting:QUEUE` |
| `P:turns:QUEUE` | zset | tenants whose jobs may begin, by the number of jobs begun | until their last job |
| `P:held:QUEUE` | zset | tenants that run as many jobs as they may, as in `P:turns:QUEUE` | until one of these ends |
| `P:holding:TENANT` | set | the queues in which the tenant is held | as `P:held:QUEUE` |
| `P:dispatch` | hash | per queue: bells on their way, time of the last one, turns, pause | for good, 4 fields a queue |
| `P:claimed:WORKER` | string | token and job of the worker's last claim | 10 minutes |
| `P:answer:KEY` | string | SHA-256, size and URL of the result with this cache key | the worker's `cache_ttl_s` |
| `P:flight:KEY` | string | the job that asks the model, of all jobs with this cache key | until that job is final |
| `P:followers:KEY` | zset | jobs that wait for it, interactive ones first | as `P:flight:KEY` |
| `P:flights` | zset | flights that have followers, by a reaper's last look | a key leaves with such a look |
| `P:list:STATE:TENANT:FILTER` | zset | jobs in a state or of a filter, by submission | ids leave with state or record |
| `P:queues` | zset | queues in which jobs wait or run, by a reaper's last look | a name leaves with such a look |
| `P:leases` | zset | running jobs by the end of their lease | ids leave when final or requeued |
| `P:running:QUEUE` | zset | the queue's running jobs, by submission | ids leave when final or requeued |
| `P:share:TENANT` | zset | the tenant's running jobs, where a limit is set | ids leave when final or requeued |
| `P:reserved:QUEUE` | hash | the worker that waits for an exclusive attempt, and the job | 10 s after its claim |
| `P:round` | string | when a reaper was last heard | for good, one number |
| `P:delayed`, with `:QUEUE` | zset | jobs waiting for their next attempt, by due time | ids leave when due |
| `P:startby` | zset | queued jobs by their `start_by` | ids leave when started or expired |
| `P:worker:ID` | hash | a worker's announcement, and the keys below that it stands in | 60 s after its last word |
| `P:workers` | zset | worker ids by their last word | 60 s after its last word |
| `P:serving:QUEUE` | zset | ids of the workers that serve the queue, by their last word | as `P:workers` |
| `P:ready:QUEUE` | zset | the ready ones: slots, running jobs allowed per tenant, id | as `P:workers` |
| `P:served` | zset | names of the queues that workers serve, by the last word of one | as `P:workers` |

STATE of a list is `open`, of all jobs that are not final, or a final state, and FILTER is empty; or STATE is `any`
and FILTER `tag=TAG` or `model=MODEL`. Its TENANT is a quoted name, or empty: the jobs of all tenants. `P` is the
prefix, "videoqa" by default. QUEUE is also the name of the broker's queue.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from videoqa.contract import Priority

__all__ = ["Keys", "parse_queue_name", "queue_name"]

DEFAULT_MODEL = "default"
"""Model part of the queue name of jobs that name no model."""


def queue_name(prefix: str, model: str | None, priority: Priority) -> str:
    """Returns the queue of a model and priority: `videoqa.llava-hf%2Fllava-1.5-7b-hf.bulk`."""
    # Injective, or a job is answered by another model; no real name is quoted to "default".
    slug = quote(model, safe="").replace("default", "%64efault") if model else DEFAULT_MODEL
    return f"{prefix}.{slug}.{priority}"


def parse_queue_name(prefix: str, queue: str) -> tuple[str | None, Priority]:
    """Returns the model and priority of a queue's name."""
    slug, _, priority = queue.removeprefix(f"{prefix}.").rpartition(".")
    model = None if slug == DEFAULT_MODEL else unquote(slug)
    return model, "bulk" if priority == "bulk" else "interactive"


class Keys:
    """The names of the keys of one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.workers = f"{prefix}:workers"
        self.queues = f"{prefix}:queues"
        self.flights = f"{prefix}:flights"
        self.leases = f"{prefix}:leases"
        self.dispatch = f"{prefix}:dispatch"
        self.round = f"{prefix}:round"

    def job(self, job_id: str) -> str:
        return f"{self.prefix}:job:{job_id}"

    def events(self, job_id: str) -> str:
        return f"{self.prefix}:events:{job_id}"

    def segments(self, job_id: str) -> str:
        return f"{self.prefix}:segments:{job_id}"

    def final_state(self, job_id: str) -> str:
        return f"{self.prefix}:gone:{job_id}"

    def waiting(self, queue: str) -> str:
        return f"{self.prefix}:waiting:{queue}"

    def line(self, queue: str, tenant: str | None = None) -> str:
        return f"{self.prefix}:line:{queue}:{tenant or ''}"

    def share(self, tenant: str | None) -> str:
        return f"{self.prefix}:share:{tenant or ''}"

    def running(self, queue: str) -> str:
        return f"{self.prefix}:running:{queue}"

    def job_list(self, state: str, tenant: str | None = None, of: str = "") -> str:
        """Returns the key of the jobs in a state, or of a filter with the state `any`; of a tenant or of all."""
        owner = (tenant or "").replace("%", "%25").replace(":", "%3A")  # it ends where `of` begins
        return f"{self.prefix}:list:{state}:{owner}:{of}"

    def turns(self, queue: str) -> str:
        return f"{self.prefix}:turns:{queue}"

    def answer(self, key: str) -> str:
        return f"{self.prefix}:answer:{key}"

    def serving(self, queue: str) -> str:
        return f"{self.prefix}:serving:{queue}"

    def ready(self, queue: str) -> str:
        return f"{self.prefix}:ready:{queue}"

    def flight(self, key: str) -> str:
        return f"{self.prefix}:flight:{key}"

    def followers(self, key: str) -> str:
        return f"{self.prefix}:followers:{key}"

    def worker(self, worker_id: str) -> str:
        return f"{self.prefix}:worker:{worker_id}"
