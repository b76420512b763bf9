"""The names of all keys in Redis and of the broker's queues, each key with its type and lifetime.

| key | type | holds | lives |
|---|---|---|---|
| `P:job:ID` | hash | the record: request, state, attempt, token, failure, result | until final, then `result_ttl_s` |
| `P:events:ID` | stream | the job's events since it was queued, about 1,000 entries | as the record |
| `P:segments:ID` | hash | answered segments, for the job's next attempt | until it succeeds, or as the record |
| `P:gone:ID` | string | its final state and tenant: an expired id differs from an unknown one | record + 7 days |
| `P:idem:KEY` | hash | id and body digest of a tenant's idempotency key | as the record |
| `P:outbox` | stream | ends of jobs with a webhook | until a gateway takes them, at most 1,000,000 |
| `P:waiting:QUEUE` | zset | waiting jobs by the time when they first stood in line | ids leave when claimed |
| `P:line:QUEUE:TENANT` | zset | those of one tenant | as `P:waiting:QUEUE` |
| `P:turns:QUEUE` | zset | tenants whose jobs may begin, by the number of jobs begun | until their last job |
| `P:held:QUEUE` | zset | tenants that run as many jobs as they may, as in `P:turns:QUEUE` | until one of these ends |
| `P:holding:TENANT` | set | the queues in which the tenant is held | as `P:held:QUEUE` |
| `P:dispatch` | hash | per queue: bells on their way, time of the last one, turns, pause | for good, 4 fields a queue |
| `P:claimed:WORKER` | string | token and job of the worker's last claim | 10 minutes |
| `P:answer:KEY` | string | SHA-256, size and URL of the result with this cache key | the worker's `cache_ttl_s` |
| `P:flight:KEY` | string | the job that asks the model, of all with this cache key; ` +`: some follow | its end |
| `P:followers:KEY` | zset | jobs that wait for it, interactive ones first | as `P:flight:KEY` |
| `P:flights` | zset | flights that have followers, by a reaper's last look | a key leaves with such a look |
| `P:list:STATE:TENANT:FILTER` | zset | jobs in a state or of a filter, by submission | ids leave with state or record |
| `P:bulk:ID` | hash | a bulk action: what was asked, its holder and progress | 7 days after its end |
| `P:bulks` | zset | ids of bulk actions, by their making, 1,000 at most | ids leave behind their records |
| `P:bulks:due` | zset | bulk actions that go on, by the end of their lease | an id leaves at its end |
| `P:keys` | zset | ids of the gateway's API keys, by their making | an id leaves when revoked |
| `P:key:ID` | hash | an API key: hash of its secret, and of the one before; its rights; last use | until revoked |
| `P:limits:...` | string | requests of an API key in a window, two for each key | two windows |
| `P:submitted:DAY` | hash | jobs that API keys with such a limit submitted on a UTC day | 2 days |
| `P:audit` | stream | changes by operators, about 10,000 entries | for good |
| `P:login:HASH` | string | the key of a link that logs a browser in | 15 minutes, or until used |
| `P:session:HASH` | string | the key of a browser's session | 12 hours, or until it logs out |
| `P:run:ID` | hash | an archive's run or a batch, by its last word | 30 days after that |
| `P:runs:TENANT` | zset | a tenant's runs, or all, by last start | 30 days; at most 500 and 2,000 |
| `P:usage:DAY:TENANT` | hash | counters of jobs that ended on a UTC day: all, by tag, model, API key | 400 days |
| `P:ended` | hash | numbers of all jobs that ended: by state, and `failed CODE` | for good, a field a code |
| `P:stats:MODEL` | hash | counts of its jobs by minute and quarter, two rings | 26 hours after its last job |
| `P:stats` | zset | models that have such rings, by the minute of their last job; at most about 50 | as its members |
| `P:tenants:DAY` | set | the tenants that have such counters | 400 days |
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
| `P:served` | zset | names of the queues that workers serve, by the last word of one | a day after that |
| `P:batch:ID` | hash | a batch of OpenAI's API: what was asked, status, counts, files | 30 days after its end |
| `P:batch:parts:ID` | hash | names and counts of the stored parts of its output, 200 lines each | until its end |
| `P:batch:call:DIGEST` | string | the batch that a call has made, for its repetition | a day |
| `P:batches:due` | zset | batches by the time at which a gateway may take them on | ids leave at their end |
| `P:batches:list:TENANT` | zset | a tenant's batches, or all, by creation | ids leave with a look behind the record |
| `P:chat:callers:KEY` | set | the calls that listen to the job of this idempotency key | 15 minutes |
| `P:chat:data:DIGEST` | string | the file of a `data:` URL's bytes | as the file: an hour, or a batch's day |
| `P:chat:last:DIGEST` | string | idempotency key of the last chat with this API key and body | 5 minutes |
| `P:chat:leases` | zset | KEY/CALL of all calls, by the end of their lease | until the call ends, or its lease |
| `P:file:FILE` | hash | state, charge and record of an uploaded file | until deleted; 7 days after its end |
| `P:file:users:FILE` | zset | jobs and batches that use the file, by the longest time | 30 days after the last |
| `P:files:list:TENANT:PURPOSE` | zset | ready files, by creation; `*`: of all | ids leave when over |
| `P:files:due` | zset | files by the time at which the sweep looks at them | ids leave with the record |
| `P:files:usage` | hash | bytes that are charged to all, and to each tenant | for good, a field a tenant with files |
| `P:files:sweep:KIND` | string | a gateway sweeps | as long as the next one is to wait |
| `P:upload:UPLOAD` | hash | record, status and parts of a file that comes in parts | 7 days after its end |
| `P:upload:ending:UPLOAD` | string | a call completes or cancels the upload | until the call ends, 15 minutes |

STATE of a list is `open`, of all jobs that are not final, or a final state, and FILTER is empty; or STATE is `any`
and FILTER `tag=TAG` or `model=MODEL`; or STATE is `dead`, of jobs that failed for good by the time of that, and FILTER
empty or an error code. Its TENANT is a quoted name, or empty: the jobs of all tenants. `P` is the
prefix, "videoqa" by default. QUEUE is also the name of the broker's queue. DAY is a number of days since 1970.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from videoqa.contract import Priority

__all__ = [
    "Keys",
    "parse_queue_name",
    "queue_name",
    "quote_model",
    "quote_tenant",
    "unquote_model",
]

DEFAULT_MODEL = "default"
"""Model part of the queue name of jobs that name no model."""


def quote_model(model: str | None) -> str:
    """Spells a model, or None, in the name of a queue."""
    # Injective, or a job is answered by another model; no real name is quoted to "default".
    return quote(model, safe="").replace("default", "%64efault") if model else DEFAULT_MODEL


def unquote_model(text: str) -> str | None:
    """Returns the model that `quote_model` spelled."""
    return None if text == DEFAULT_MODEL else unquote(text)


def queue_name(prefix: str, model: str | None, priority: Priority) -> str:
    """Returns the queue of a model and priority: `videoqa.llava-hf%2Fllava-1.5-7b-hf.bulk`."""
    return f"{prefix}.{quote_model(model)}.{priority}"


def parse_queue_name(prefix: str, queue: str) -> tuple[str | None, Priority]:
    """Returns the model and priority of a queue's name."""
    slug, _, priority = queue.removeprefix(f"{prefix}.").rpartition(".")
    return unquote_model(slug), "bulk" if priority == "bulk" else "interactive"


def quote_tenant(tenant: str) -> str:
    """Spells a tenant within a key, where it ends at the next colon; `lua/common.lua` does the same."""
    return tenant.replace("%", "%25").replace(":", "%3A")


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
        self.outbox = f"{prefix}:outbox"
        self.ended = f"{prefix}:ended"
        self.stats_models = f"{prefix}:stats"

    def job(self, job_id: str) -> str:
        return f"{self.prefix}:job:{job_id}"

    def events(self, job_id: str) -> str:
        return f"{self.prefix}:events:{job_id}"

    def idempotency(self, digest: str) -> str:
        return f"{self.prefix}:idem:{digest}"

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
        return f"{self.prefix}:list:{state}:{quote_tenant(tenant or '')}:{of}"

    def usage(self, day: int, tenant: str | None) -> str:
        return f"{self.prefix}:usage:{day}:{tenant or ''}"

    def stats(self, model: str) -> str:
        """Returns the key of a model's rings; its name is quoted as in a queue's, `*` has those beyond the limit."""
        return f"{self.prefix}:stats:{model}"

    def deliveries(self, status: str) -> str:
        """Returns the key of the gateways' deliveries with a status, of all tenants, by the end of their jobs."""
        return f"{self.prefix}:hooks:list:{status}:"

    def tenants(self, day: int) -> str:
        return f"{self.prefix}:tenants:{day}"

    def run(self, run_id: str) -> str:
        return f"{self.prefix}:run:{run_id}"

    def runs(self, tenant: str | None) -> str:
        return f"{self.prefix}:runs:{quote_tenant(tenant or '')}"

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
