"""One bad row fails alone: each kind of key is spoiled in turn, and all other jobs and calls go on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from support.worker import begin, result_of

from videoqa import Client, Settings, errors
from videoqa.contract import Failure, JobPage, RunReport, WorkerInfo, to_datetime
from videoqa.gateway.access.audit import AuditLog
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.access.rate_limits import RateLimits
from videoqa.gateway.access.sessions import SessionStore
from videoqa.jobs import (
    BulkActions,
    CachedObject,
    Claim,
    KeyQuota,
    Ledger,
    RunLog,
    keys,
    queue_name,
)

ASKED: dict[str, Any] = {
    "inputs": ["s3://b/clip.mp4"],
    "questions": ["What is it?"],
    "tags": ["t"],
    "webhook": "https://receiver.example/hook",
}
JUNK = (b"\xff\xfe", b"", b"nonsense", b"[]", b'{"a":1}', b"-1e999", b"0x10", b"900000000000")
PER_JOB = (
    "job", "events", "segments", "gone", "idem", "answer", "flight", "followers", "claimed",
    "worker", "reserved", "holding", "running", "share", "outbox",
    "run", "key", "limits", "submitted", "login", "session", "bulk", "stats",
)  # fmt: skip
"""Kinds of keys of one job, worker, claim or tenant, and those of hints; the others are about all jobs."""
OF_GATEWAYS = {"batch", "batches", "chat", "file", "files", "upload"}
"""Kinds of keys that only gateways have; they are spoiled in `gateway/test_files.py` and `test_openai_batches.py`."""
MOST = 100
"""Most jobs of a tenant that run at once, in the checks."""


class Gate:
    """API keys, sessions and the audit log of a gateway."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        at = {"url": settings.redis_url, "prefix": settings.prefix}
        self.keys = KeyStore(client, **at)
        self.limits = RateLimits(client, **at)
        self.sessions = SessionStore(client, **at)
        self.audit = AuditLog(client, **at)
        made = [self.keys.create("k", ["read"], rate="1000/m") for _ in range(2)]
        self.texts = {one.key.id: one.text for one in made}
        for one in made:
            self.limits.count_request(one.key)
            self.sessions.make_login(one.key.id)
        tokens = (self.sessions.begin(self.sessions.make_login(one.key.id)) for one in made)
        self.tokens = {hashlib.sha256(token.encode()).hexdigest(): token for token in tokens}

    def check(self, spoiled: set[str]) -> None:
        """Checks all keys and sessions; those that are not spoiled must be right."""
        for key_id, text in self.texts.items():
            if key_id in spoiled:
                with suppress(errors.VideoQAError):
                    self.keys.check(text)
            else:
                self.limits.count_request(self.keys.check(text))
        for digest, token in self.tokens.items():
            if digest not in spoiled:
                assert self.sessions.find(token).key_id in self.texts
        assert {key.id for key in self.keys.list()} >= set(self.texts) - spoiled
        assert len(self.audit.read()) >= 2


class Fleet:
    """Jobs in every state, of which one of each is to be spoiled, and a worker."""

    def __init__(self, settings: Settings, raw: redis.Redis) -> None:
        self.raw = raw
        self.prefix = settings.prefix
        self.queue = queue_name(self.prefix, None, "interactive")
        self.other = queue_name(self.prefix, "m", "interactive")
        self.client = Client(settings=settings)
        self.keyed = self.client._for_key(KeyQuota("k", jobs=10**14))
        self.ledger = Ledger(self.client._backend.redis, url=settings.redis_url, prefix=self.prefix)
        self.failed = [self._fail(self._submit(tenant="a")) for _ in range(2)]
        self.succeeded = [self._finish(self._submit()) for _ in range(2)]
        self.delayed = [self._fail(self._submit(), delay_s=0.0) for _ in range(2)]
        self.leaders = [self._begin(self._submit(), f"r{n}") for n in range(2)]
        for n, claim in enumerate(self.leaders):
            self.ledger.lead(claim.job_id, claim.token, f"key{n}")
            self._save_segment(claim)
        follower = self._begin(self._submit(), "f")
        assert self.ledger.lead(follower.job_id, follower.token, "key0") == "follow"
        self.running = [claim.job_id for claim in self.leaders]
        self._fail(self._submit(), delay_s=3600)
        self.queued = [self._submit() for _ in range(2)]
        self.client.pause("other")
        for name in ("w1", "w2"):
            self._announce(name)
        raw.hset(f"{self.prefix}:reserved:{self.queue}", mapping={"worker": "w", "job": "job_1"})
        raw.set(f"{self.prefix}:claimed:c0", self.running[0])
        self.bulks = [
            self.client.start_bulk("cancel", tag="none", key=str(n), cut_off=to_datetime(9e8)).id
            for n in range(2)
        ]
        self.ledger.reap(grace_s=60)
        self.raw.zadd(f"{self.prefix}:delayed", dict.fromkeys(self.delayed, 0.0))
        self.held = [self._hold(tenant) for tenant in ("h1", "h2")]
        raw.hset(f"{self.prefix}:dispatch", "wake", f" {self.other}")
        self.runs = RunLog(self.client._backend.redis, url=settings.redis_url, prefix=self.prefix)
        for n in range(2):
            self._announce_run(f"run_{n:024}")
        self.gate = Gate(settings, self.client._backend.redis)
        self._saved = {key: (raw.dump(key), raw.pttl(key)) for key in self.list_keys()}

    def _submit(self, **fields: str) -> str:
        number = self.raw.incr("number-of-keys")
        return self.keyed.submit({**ASKED, **fields, "idempotency_key": f"k{number}"}).id

    def _hold(self, tenant: str) -> str:
        """Submits two jobs of a tenant that may run one at once; returns the one that is held."""
        running, held = (self._submit(tenant=tenant, model="m") for _ in range(2))
        for n in range(2):
            claim = self.ledger.claim(
                [self.other], worker="w0", lease_s=60, token=f"{tenant}.{n}", tenant_running=1
            ).claim
            assert (claim.job_id if claim else None) == (None if n else running)
        return held

    def _begin(self, job_id: str, token: str) -> Claim:
        claim = begin(self.ledger, token, lease_s=3600)  # longer than these tests on a busy machine
        assert claim.job_id == job_id
        return claim

    def _fail(self, job_id: str, *, delay_s: float | None = None) -> str:
        claim = self._begin(job_id, "t")
        failure = Failure(code="x", message="x", retryable=delay_s is not None, attempt=1)
        self.ledger.fail(job_id, claim.token, failure, delay_s=delay_s or 0)
        return job_id

    def _finish(self, job_id: str) -> str:
        claim = self._begin(job_id, "t")
        result = result_of(claim, q1="a cat")
        cached = CachedObject.of("u", b"{}")
        self.ledger.finish(
            job_id, "t", result=result, result_url="u", cache_key=job_id, cached=cached,
            cache_ttl_s=60,
        )  # fmt: skip
        return job_id

    def _save_segment(self, claim: Claim) -> None:
        self.raw.hset(self.ledger.keys.segments(claim.job_id), "of", "v1")

    def _announce(self, name: str) -> None:
        self.ledger.announce(
            WorkerInfo(
                id=name, model="m", queues=(self.queue,), slots=1, running=0, ready=True,
                started_at=to_datetime(0), seen_at=to_datetime(0),
            )
        )  # fmt: skip

    def _announce_run(self, run_id: str) -> None:
        self.runs.announce(RunReport(id=run_id, kind="caption", name="videos/"), begins=False)

    def list_keys(self) -> list[bytes]:
        return sorted(self.raw.scan_iter(f"{self.prefix}:*", count=1000))

    def restore(self) -> None:
        pipe = self.raw.pipeline(transaction=False)
        pipe.delete(*self.list_keys())
        for key, (value, ttl_ms) in self._saved.items():
            pipe.restore(key, max(ttl_ms, 0), value)
        pipe.execute()
        self.client._backend.ledger._unreadable._told.clear()

    def check(self, spoiled: set[str]) -> None:
        """Makes every call; jobs that are not spoiled must get through all of them."""
        client, ledger = self.client, self.ledger
        self.gate.check(spoiled)
        everything = [
            *self.failed, *self.succeeded, *self.delayed, *self.running, *self.queued, *self.held
        ]  # fmt: skip
        for job_id in (*(spoiled & set(everything)), self.failed[1], self.queued[1]):
            self._read_by_id(job_id, is_sound=job_id not in spoiled)
        new = [self.keyed.submit(ASKED).id, *(job.id for job in client.submit_many([ASKED] * 2))]
        well = {job_id for job_id in everything if job_id not in spoiled} | set(new)
        jobs = {job.id for job in client.get_many([*everything, *new]) if job}
        assert well <= jobs
        pages = list(self._list_all())
        assert well <= {job.id for page in pages for job in page.jobs}
        listed = {*(job.id for page in pages for job in page.jobs)}
        assert spoiled & set(everything) <= listed | {i for page in pages for i in page.unreadable}
        assert client.stats("day").all.totals.submitted < 1e15
        for job_id in (*(spoiled & set(everything)), self.delayed[1]):
            with suppress(errors.RecordUnreadable, errors.JobNotFound):
                assert client.timeline(job_id).attempts or job_id != self.delayed[1]
        assert len(client.workers()) >= 2 - ("w1" in spoiled)
        assert [queue.model for queue in client.queues()][:1] == [None]
        assert ledger.count_failures(within_s=60).keys() <= {"other"}
        assert {each.code for each in client.count_dead()} <= {"other"}
        for group in client.group_dead("other").groups:
            found = {job.id for job in client.list(code="other", group=group.group).jobs}
            assert {*group.job_ids} - spoiled <= found
        assert client.count(worker="w").looked_at >= len(well) - 2
        self._check_runs(spoiled)
        assert {job.id for job in client.dead()} >= set(self.failed) - spoiled
        for n, claim in enumerate(self.leaders):
            if claim.job_id not in spoiled:
                assert ledger.renew([(claim.job_id, f"r{n}")], lease_s=60) == ["ok"]
        tokens = [(claim.job_id, claim.token) for claim in self.leaders]
        assert len(ledger.renew(tokens, lease_s=60)) == 2
        self._check_bulk_actions(spoiled)
        rung: set[str] = set()
        for _ in range(4):  # a round frees one tenant of a queue, which may be junk
            found = ledger.reap(grace_s=-1, tenant_running=MOST)
            rung |= {*found.ring, *ledger.ring_again(found.doubtful)}
        assert {self.queue, self.other} <= rung
        begun = set(self.claim_all())
        assert {*self.queued, *self.delayed, *new, *self.held} - spoiled <= begun
        for claim in self.leaders:
            ledger.segments(claim.job_id, "v1")
            ledger.lead(claim.job_id, claim.token, self.succeeded[0])
            if claim.job_id not in spoiled:
                assert client.cancel(claim.job_id).state == "canceling"
                finish_or_cancel(ledger, claim)
                assert client.wait(claim.job_id, timeout_s=60).state == "canceled"
        for job_id in spoiled & set(everything):
            for change in (client.cancel, client.retry, client.purge):
                with suppress(errors.VideoQAError):
                    change(job_id)

    def _check_runs(self, spoiled: set[str]) -> None:
        """Reads both runs, of which one may be spoiled, and has both speak again."""
        runs = {f"run_{n:024}" for n in range(2)}
        listed = {run.id for run in self.client.runs().runs}
        assert listed <= runs
        for run_id in runs - spoiled:
            assert self.client.get_run(run_id).id == run_id
        for run_id in sorted(runs):
            with suppress(errors.RunNotFound):  # a tenant stands in it
                self._announce_run(run_id)
        assert {run.id for run in self.client.runs().runs} >= runs - spoiled

    def _check_bulk_actions(self, spoiled: set[str]) -> None:
        """Carries bulk actions out; those that are not spoiled must be right."""
        assert {one.id for one in self.client.list_bulk()} >= set(self.bulks) - spoiled
        for bulk_id in self.bulks:
            with suppress(errors.VideoQAError):
                actions = self.client.follow_bulk(bulk_id)
                assert next(actions).status == "completed" or bulk_id in spoiled
        bulk = BulkActions(self.ledger)
        while taken := bulk.take("someone"):
            bulk.end(taken, "someone", "failed", "")
        new = self.client.start_bulk("cancel", tag="none")
        assert [one.status for one in self.client.follow_bulk(new.id)][-1] == "completed"

    def _read_by_id(self, job_id: str, *, is_sound: bool) -> None:
        client = self.client
        calls: list[Callable[[], object]] = [
            lambda: client.get(job_id),
            lambda: list(client.events(job_id, timeout_s=0)),
        ]
        if job_id in self.succeeded:
            calls.append(lambda: client.result(job_id))
        for call in calls:
            try:
                call()
            except errors.WaitTimeout:
                # A spoiled number of attempts has the reader look for events of a later one.
                assert not is_sound or job_id not in (*self.failed, *self.succeeded)
            except errors.VideoQAError:
                assert not is_sound, job_id

    def _list_all(self) -> Iterator[JobPage]:
        cursor = None
        for tag in (None, "t"):
            while True:
                page = self.client.list(tag=tag, cursor=cursor, limit=4)
                yield page
                cursor = page.next_cursor
                if cursor is None:
                    break

    def claim_all(self) -> Iterator[str]:
        for n in range(40):
            result = self.ledger.claim(
                [self.queue, self.other],
                heard=self.queue,
                worker="w",
                lease_s=60,
                token=f"c{n}",
                tenant_running=MOST,
            )
            found = result.claim or result.unreadable
            if found is not None:
                yield found.job_id
            elif result.reason == "nothing waits":
                return


def finish_or_cancel(ledger: Ledger, claim: Claim) -> None:
    assert ledger.finish(claim.job_id, claim.token, result=None, result_url="u") == "cancel"


@pytest.fixture
def raw(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


@pytest.fixture
def fleet(settings: Settings, raw: redis.Redis) -> Iterator[Fleet]:
    fleet = Fleet(settings, raw)
    yield fleet
    fleet.client.close()


def kind_of(key: bytes) -> str:
    return key.decode().split(":")[1]


def spoilings(fleet: Fleet, key: bytes, offset: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields names and calls of what may be wrong with a key, besides its type.

    Each field of a hash gets one kind of junk, with another `offset` another one.
    """
    raw = fleet.raw
    match raw.type(key):
        case b"hash":
            for number, field in enumerate(raw.hkeys(key)):
                yield f"without {field!r}", lambda field=field: raw.hdel(key, field)
                junk = JUNK[(number + offset) % len(JUNK)]
                yield (
                    f"{field!r} = {junk!r}",
                    lambda field=field, junk=junk: raw.hset(key, field, junk),
                )
        case b"zset":
            for member, score in (
                (b"\xff\xfe", 0),
                (b"", "-inf"),
                (b"job_never", "+inf"),
                (b"job_never", 1e300),
            ):
                yield f"{member!r} at {score}", lambda m=member, s=score: raw.zadd(key, {m: s})
        case b"set":
            for member in JUNK:
                yield f"with {member!r}", lambda member=member: raw.sadd(key, member)
        case b"stream":
            for fields in (
                {b"a": b"b"},
                {b"type": b"new", b"state": b"queued", b"at": b"1"},
                {b"at": b"\xff"},
            ):
                yield f"with {fields}", lambda fields=fields: raw.xadd(key, fields)  # type: ignore[misc]
            yield "exhausted", lambda: raw.xadd(key, {"a": "b"}, id=f"{2**64 - 1}-{2**64 - 1}")
        case b"string":
            for junk in JUNK:
                yield f"= {junk!r}", lambda junk=junk: raw.set(key, junk)


def change_type(raw: redis.Redis, key: bytes) -> None:
    was = raw.type(key)
    raw.delete(key)
    raw.rpush(key, "x") if was == b"string" else raw.set(key, "x")


def test_the_fleet_of_these_tests_has_every_kind_of_key(fleet: Fleet) -> None:
    named = re.findall(r"`P:(\w+)", keys.__doc__ or "")
    assert {kind_of(key) for key in fleet.list_keys()} == set(named) - OF_GATEWAYS


def spoil_and_check(
    fleet: Fleet, key: bytes, spoiled: set[str], *, changes_type: bool, offset: int = 0
) -> int:
    """Spoils a key in every way, each in a fleet as new; returns in how many."""
    ways = list(spoilings(fleet, key, offset))
    if changes_type:
        ways.append(("of another type", lambda: change_type(fleet.raw, key)))
    for what, spoil in ways:
        spoil()
        try:
            fleet.check(spoiled)
        except BaseException as error:
            raise AssertionError(f"{key.decode()} {what}: {error!r}") from error
        fleet.restore()
    return len(ways)


VICTIMS = ("failed", "succeeded", "delayed", "running", "queued")


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_spoiled_record_costs_no_other_job_anything(
    fleet: Fleet, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = getattr(fleet, victim)[0]
    key, offset = f"{fleet.prefix}:job:{job_id}".encode(), 3 * VICTIMS.index(victim)
    assert spoil_and_check(fleet, key, {job_id}, changes_type=True, offset=offset) > 20
    assert f"key {fleet.prefix}:job:{job_id} is skipped" in caplog.text


def test_what_belongs_to_one_job_or_worker_may_be_anything(fleet: Fleet) -> None:
    seen = set()
    for key in fleet.list_keys():
        kind, last = kind_of(key), key.decode().rsplit(":", 1)[-1]
        of_jobs = {fleet.failed[0], fleet.running[0], fleet.queued[0]} & {last}
        if kind not in PER_JOB or kind == "job" or (kind in seen and not of_jobs):
            continue
        seen.add(kind)
        spoiled = {"w1"} if kind == "worker" else of_jobs if kind == "events" else set()
        spoiled |= {last} if kind in ("key", "session", "run", "bulk") else set()
        spoil_and_check(fleet, key, spoiled, changes_type=True)
    assert seen == set(PER_JOB) - {"job"}


def test_keys_of_all_jobs_may_hold_junk_beside_what_is_ours(fleet: Fleet) -> None:
    for key in fleet.list_keys():
        if kind_of(key) not in PER_JOB:
            spoil_and_check(fleet, key, set(), changes_type=False)


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_a_count_or_a_time_of_bells_that_is_junk_silences_no_queue(
    fleet: Fleet, junk: bytes
) -> None:
    for field in (fleet.queue, f"{fleet.queue}:at", f"{fleet.queue}:turn", "wake"):
        fleet.raw.hset(fleet.ledger.keys.dispatch, field, junk)
    found = fleet.ledger.reap(grace_s=0)
    assert fleet.queue in {*found.ring, *fleet.ledger.ring_again(found.doubtful)}
    assert set(fleet.queued) <= set(fleet.claim_all())


def test_a_key_of_all_jobs_that_another_program_took_is_a_wrong_prefix(fleet: Fleet) -> None:
    change_type(fleet.raw, f"{fleet.prefix}:list:open::".encode())
    with pytest.raises(errors.ConfigurationError, match="set another VIDEOQA_PREFIX"):
        fleet.client.list()
