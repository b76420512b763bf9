"""RedisBackend: the jobs in one Redis, by its ledger, and the queue messages that wake workers."""

from __future__ import annotations

import builtins
import copy
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, TypeVar, cast

from videoqa import errors
from videoqa.backends.backend import QueueId, Submitted, naming_request
from videoqa.contract import (
    SHEET_HEAD_BYTES,
    ArchiveRun,
    BulkAction,
    BulkKind,
    BulkPreview,
    DeadCount,
    DeadGroups,
    Job,
    JobCount,
    JobFilter,
    JobPage,
    JobRequest,
    JobState,
    JobTimeline,
    QueueInfo,
    Result,
    RunPage,
    RunReport,
    RunState,
    Stats,
    StatsSpan,
    UsageBy,
    UsageRow,
    WorkerInfo,
    describe_state,
    find_thumbnail,
    parse_stored,
    redact_url,
    render_output,
    to_datetime,
)
from videoqa.forks import reopen_in_children
from videoqa.jobs import (
    AnyFuture,
    BulkActions,
    EventCursor,
    JobSelection,
    KeyQuota,
    Ledger,
    LedgerReader,
    ListCursor,
    ListedJobs,
    ReplicaReader,
    RunLog,
    SharedReader,
    Submission,
    SubmitResult,
    check_job_id,
    check_permissions,
    connect,
    connect_replica,
    make_stats,
    new_bulk_id,
    new_job_id,
    queue_name,
    select_for,
    server_name,
    translate_redis_errors,
)
from videoqa.settings import Settings
from videoqa.storage import ObjectStore
from videoqa.telemetry import log_events
from videoqa.telemetry.trace_context import find_trace_id
from videoqa.telemetry.tracing import trace_submit

if TYPE_CHECKING:
    import redis

__all__ = ["RedisBackend"]

log = logging.getLogger(__name__)
F = TypeVar("F", bound=AnyFuture)

ROUND_S = 15.0
"""Time without a reaper's round after which `queues` makes one: workers make one each 2 s."""

MOST_READ = 1000
"""Most records that are read in one round trip."""

MOST_SHEET_BYTES = 8_000_000
"""Longest sheet that is read; 128 thumbnails of noise have 2 MB."""

JPEG = b"\xff\xd8\xff"
"""Beginning of a JPEG."""

MOST_LOOKED_AT = 10_000
"""Jobs after which a page, or a count, ends whose jobs no index holds by themselves."""

MOST_SEARCHED, MOST_SEARCHED_AT_ONCE = 2000, 200
"""Jobs after which a page ends where requests are read, of up to 1 MiB each, and those of one round trip."""


MOST_PREVIEWED = 20_000
"""Jobs after which the count of a preview ends, where no index has it."""

MOST_EXAMPLES = 5
"""Jobs that a preview shows."""


class _Rings(Protocol):
    """Rings for recorded jobs, without raising."""

    def ring(self, queues: Sequence[str], /) -> None: ...

    def close(self) -> None: ...


def _make_queued_job(submission: Submission, result: SubmitResult) -> Job:
    """Makes the job of a submission that was recorded just now, without reading its record."""
    request = submission.request
    return Job(
        id=submission.job_id,
        state="queued",
        max_attempts=request.max_attempts,
        created_at=to_datetime(result.created_at_s),
        model=request.model,
        priority=request.priority,
        tenant=request.tenant,
        custom_id=request.custom_id,
        tags=request.tags,
        metadata=request.metadata,
        summary=submission.summary,
        trace_id=find_trace_id(submission.job_id, submission.traceparent),
    )


def _is_still_listed(job: Job | errors.RecordUnreadable, which: JobSelection) -> bool:
    """Returns False for a job whose state has changed since it was listed, or cannot be read if one is asked for."""
    states = which.listed_states
    return not states or (isinstance(job, Job) and job.state in states)


def _make_page(
    found: Sequence[tuple[ListCursor, Job | errors.RecordUnreadable]],
    *,
    next_after: ListCursor | None,
    looked_at: int,
) -> JobPage:
    return JobPage(
        jobs=tuple(job for _, job in found if isinstance(job, Job)),
        unreadable=tuple(at.job_id for at, job in found if not isinstance(job, Job)),
        next_cursor=next_after.text if next_after else None,
        looked_at=looked_at,
    )


def _check_same(found: BulkAction, action: BulkKind, which: JobFilter, key: str) -> BulkAction:
    """Returns the action that an earlier call with this key began; raises IdempotencyConflict for another one."""
    if (found.action, found.filter) != (action, which):
        raise errors.IdempotencyConflict(
            f"idempotency key {key!r:.100} already belongs to bulk action {found.id}, which is another one; use a new "
            "key for a new action",
            param="idempotency_key",
        )
    return found


class _Closed:
    """The connections of a closed client: asking for one raises ClientClosed."""

    def disconnect(self, *, inuse_connections: bool = True) -> None:
        """Does nothing: all are closed."""

    def __getattr__(self, name: str) -> NoReturn:
        raise errors.ClientClosed


class _LazyDoorbell:
    """The doorbell of a client, made when the first job is to be recorded. Thread-safe."""

    def __init__(self, make: Callable[[], _Rings]) -> None:
        self._make = make
        self._is_closed = False
        self._reopen()
        reopen_in_children(self)

    def _reopen(self) -> None:
        """Starts anew in a forked child, where another thread's lock would be held for ever."""
        self._made: _Rings | None = None
        self._lock = threading.Lock()

    def get(self) -> _Rings:
        with self._lock:
            if self._is_closed:
                raise errors.ClientClosed
            if self._made is None:
                self._made = self._make()
            return self._made

    def close(self) -> None:
        self._is_closed = True
        if self._made is not None:
            self._made.close()


class RedisBackend:
    """The jobs of one Redis, or of one tenant in it."""

    sets_output = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key: KeyQuota | None = None
        """The API key for which submitted jobs are counted."""
        self.redis = self._connect()
        self.ledger = Ledger(
            self.redis,
            url=settings.redis_url,
            prefix=settings.prefix,
            wait_replicas=settings.wait_replicas,
        )
        self._runs = RunLog(self.redis, url=settings.redis_url, prefix=settings.prefix)
        self.replica = self._connect_replica()
        self._replica_reader = self._make_replica_reader()
        self.reader = self._make_reader()
        self._objects = ObjectStore(s3_endpoint_url=settings.s3_endpoint_url)
        self._doorbell = _LazyDoorbell(self._make_doorbell)
        reopen_in_children(self)

    def _reopen(self) -> None:
        """Makes new connections in a forked child, for this backend and those of `for_tenant`."""
        if not isinstance(self.redis.connection_pool, _Closed):
            self.redis.connection_pool = self._connect().connection_pool
            if self.replica is not None and (new := self._connect_replica()):
                self.replica.connection_pool = new.connection_pool

    def _connect(self) -> redis.Redis:
        return connect(self._settings)

    def _make_reader(self) -> SharedReader:
        return SharedReader(self.ledger, self._connect)

    def _connect_replica(self) -> redis.Redis | None:
        return connect_replica(self._settings)

    def _make_replica_reader(self) -> ReplicaReader | None:
        url = self._settings.redis_read_url
        if self.replica is None or url is None:
            return None
        return ReplicaReader(
            self.replica, url=url, prefix=self._settings.prefix, primary=self.ledger
        )

    @property
    def _reads(self) -> LedgerReader:
        """Reader of what may be some milliseconds old."""
        return self._replica_reader or self.ledger

    def _make_doorbell(self) -> _Rings:
        from videoqa.broker import Doorbell  # Celery takes 0.3 s to import

        # A script in which the ACL refuses a command ends in the middle, with half of a job recorded.
        check_permissions(self.redis, self._settings)
        return Doorbell(self._settings)

    def for_tenant(self, tenant: str | None) -> Self:
        found = copy.copy(self)
        found.ledger = self.ledger.for_tenant(tenant)
        found._runs = self._runs.for_tenant(tenant)
        if self._replica_reader is not None:
            found._replica_reader = self._replica_reader.for_tenant(tenant)
        return found

    def for_key(self, key: KeyQuota) -> Self:
        """Returns a backend whose jobs are counted for an API key, on the connections of this one."""
        found = copy.copy(self)
        found._key = key
        return found

    def close(self) -> None:
        self._doorbell.close()
        self.reader.close()
        for connected in (self.redis, self.replica):
            if connected is not None:
                pool, connected.connection_pool = connected.connection_pool, cast("Any", _Closed())
                # One in use is closed with its call: redis-py has no lock on a connection's buffer.
                pool.disconnect(inuse_connections=False)

    # -- submits

    def submit(self, request: JobRequest) -> Job:
        doorbell = self._doorbell.get()
        job_id = new_job_id()
        with trace_submit(request.model, job_id=job_id, priority=request.priority) as traceparent:
            submission = Submission(job_id, request, key=self._key, traceparent=traceparent)
            result = self.ledger.submit(
                submission,
                start_by_default_s=self._settings.start_by_default_s,
                max_queued=self._settings.max_queued,
            )
            if result.known_id:
                return self.get_now(result.known_id)
            doorbell.ring([result.ring] if result.ring else [])
            return _make_queued_job(submission, result)

    def submit_many(
        self, requests: Sequence[JobRequest], *, first: int
    ) -> builtins.list[Submitted]:
        doorbell = self._doorbell.get()
        with trace_submit(None, count=len(requests)) as traceparent:
            return self._submit_many(doorbell, requests, first, traceparent)

    def _submit_many(
        self, doorbell: _Rings, requests: Sequence[JobRequest], first: int, traceparent: str
    ) -> builtins.list[Submitted]:
        submissions = []
        for number, request in enumerate(requests, first):
            with naming_request(number):
                submissions.append(
                    Submission(new_job_id(), request, key=self._key, traceparent=traceparent)
                )
        results = self.ledger.submit_many(
            submissions,
            start_by_default_s=self._settings.start_by_default_s,
            max_queued=self._settings.max_queued,
        )
        doorbell.ring([result.ring for result in results if result.ring])
        known = self._get_known([result.known_id for result in results if result.known_id])
        return [
            known[result.known_id]
            if result.known_id
            else Submitted(error=result.error)
            if result.error
            else Submitted(job=_make_queued_job(submission, result))
            for submission, result in zip(submissions, results, strict=True)
        ]

    def _get_known(self, job_ids: Sequence[str]) -> dict[str, Submitted]:
        """Reads the jobs that idempotency keys had made before, as they are now."""
        try:
            jobs = self.ledger.get_many(job_ids) if job_ids else []
        except errors.ServiceError as error:
            return dict.fromkeys(job_ids, Submitted(error=error))
        gone = Submitted(
            error=errors.JobExpired(
                "the job of this idempotency key has just expired; submit the request again"
            )
        )
        return {
            job_id: Submitted(job=job)
            if isinstance(job, Job)
            else Submitted(error=job)
            if job
            else gone
            for job_id, job in zip(job_ids, jobs, strict=True)
        }

    # -- reads

    def get(self, job_id: str, *, include_request: bool = False) -> Job:
        return self._reads.get(job_id, include_request=include_request)

    def get_now(self, job_id: str) -> Job:
        """Returns the job as the primary has it: after a change of it, and while its events are followed."""
        self._note_change(job_id)
        return self.ledger.get(job_id)

    def _note_change(self, job_id: str) -> None:
        """Has the job read at the primary for some seconds."""
        if self._replica_reader is not None:
            self._replica_reader.note_change(job_id)

    def timeline(self, job_id: str) -> JobTimeline:
        return self._reads.timeline(job_id)

    def get_many(
        self, job_ids: Sequence[str], *, include_request: bool = False
    ) -> builtins.list[Job | None]:
        found = self._reads.get_many(job_ids, include_request=include_request)
        return self._reads.skip_unreadable(job_ids, found)

    def get_states(self, job_ids: Sequence[str]) -> builtins.list[JobState | None]:
        return self._reads.get_states(job_ids)

    def list_page(
        self, which: JobFilter, *, cursor: str | None, limit: int, include_request: bool
    ) -> JobPage:
        after = ListCursor.parse(cursor) if cursor else None
        selection = JobSelection(which)
        found: list[tuple[ListCursor, Job | errors.RecordUnreadable]] = []
        looked_at = 0
        most_at_once, most_looked_at = MOST_READ, MOST_LOOKED_AT
        if which.text is not None:
            most_at_once, most_looked_at = MOST_SEARCHED_AT_ONCE, MOST_SEARCHED
        while True:
            # One more than the page has, which tells that another page follows.
            wanted = limit + 1 - len(found) if which.text is None else most_at_once
            listed = self._reads.list_index(selection, after=after, limit=wanted, most=most_at_once)
            looked_at += listed.looked_at
            jobs = self._read_listed(listed, which.text, include_request=include_request)
            for at, job in jobs:
                if not _is_still_listed(job, selection):
                    continue
                if len(found) == limit:
                    return _make_page(found, next_after=found[-1][0], looked_at=looked_at)
                found.append((at, job))
            after = listed.last
            if after is None or looked_at >= most_looked_at:
                return _make_page(found, next_after=after, looked_at=looked_at)

    def _read_listed(
        self, listed: ListedJobs, text: str | None, *, include_request: bool
    ) -> builtins.list[tuple[ListCursor, Job | errors.RecordUnreadable]]:
        """Reads the jobs of an index, and removes those from it whose records are gone."""
        ids = [at.job_id for at in listed.found]
        if text is not None and ids:
            having = self._reads.filter_by_text(ids, text)
            ids = [job_id for job_id in ids if job_id in having]
        jobs = dict(
            zip(ids, self._reads.get_many(ids, include_request=include_request), strict=True)
        )
        gone = [*listed.gone, *(job_id for job_id, job in jobs.items() if job is None)]
        self.ledger.forget(gone, listed.keys)
        return [(at, job) for at in listed.found if (job := jobs.get(at.job_id)) is not None]

    def count(self, which: JobFilter) -> JobCount:
        return self._count(
            self._reads, JobSelection(which), most=MOST_LOOKED_AT, most_searched=MOST_SEARCHED
        )

    def _count(
        self, reads: LedgerReader, selection: JobSelection, *, most: int, most_searched: int
    ) -> JobCount:
        """Counts selected jobs, of the first `most`, or `most_searched` where their requests are read."""
        text = selection.filter.text
        if text is None:
            return reads.count_index(selection, most=most)
        count = looked_at = 0
        after: ListCursor | None = None
        while True:
            listed = reads.list_index(
                selection, after=after, limit=MOST_SEARCHED_AT_ONCE, most=MOST_SEARCHED_AT_ONCE
            )
            ids = [at.job_id for at in listed.found]
            count += len(reads.filter_by_text(ids, text)) if ids else 0
            looked_at += listed.looked_at
            after = listed.last
            if after is None or looked_at >= most_searched:
                return JobCount(count=count, is_exact=after is None, looked_at=looked_at)

    def count_dead(self, tenant: str | None) -> builtins.list[DeadCount]:
        with suppress(errors.ServiceError):  # numbers that are too large are better than none
            self.ledger.for_tenant(tenant).sweep_dead()
        return self._reads.for_tenant(tenant).count_dead()

    def group_dead(self, code: str, tenant: str | None) -> DeadGroups:
        return self._reads.for_tenant(tenant).group_dead(code)

    def list_dead(self) -> Iterator[str]:
        return self.ledger.dead()

    def result(self, job_id: str) -> Result:
        job, result = self._reads.result(job_id)
        if result is not None:
            return result
        if not job.final:
            raise errors.JobNotFinished(
                f"job {job_id} {describe_state(job.state)}; wait for it first"
            )
        if job.state != "succeeded" or job.result_url is None:
            why = f": {job.failure.message} ({job.failure.code})" if job.failure else ""
            raise errors.JobFailed(
                f"job {job_id} {describe_state(job.state)}{why}", failure=job.failure
            )
        try:
            found = parse_stored(Result, self._objects.read(job.result_url))
        except errors.InvalidRequest as error:
            raise errors.OutputNotFound(
                f"{job.result_url} no longer holds a result of videoqa: another program overwrote it; "
                "submit the request again"
            ) from error
        if (found.job_id, found.attempt) != (job_id, job.attempt):
            raise errors.OutputNotFound(
                f"{job.result_url} holds attempt {found.attempt} of {found.job_id}, expected "
                f"attempt {job.attempt} of {job_id}: a late writer overwrote it; submit the "
                "request again"
            )
        return found

    def sheet(self, job_id: str, *, thumbnail: bool) -> bytes:
        if thumbnail:
            return self._read_thumbnail(job_id)
        result = self.result(job_id)
        if result.sheet_url is None:
            raise errors.SheetNotKept(
                f"job {job_id} has no sheet; submit it with `sheet: true`, or set VIDEOQA_SHEETS=true on the "
                "workers; a warning in the result tells if it could not be kept"
            )
        url = self._find_sheet(job_id, result.created_at)
        if result.sheet_url != url:
            raise errors.OutputDenied(
                f"the sheet of job {job_id} lies at {redact_url(result.sheet_url)!r:.300}, expected {url!r:.300}; set "
                "VIDEOQA_SHEET_OUTPUT here as the workers have it"
            )
        try:
            data = self._objects.read(url, MOST_SHEET_BYTES)
        except errors.OutputNotFound:
            data = b""
        if not data.startswith(JPEG):
            raise errors.SheetExpired(
                f'the sheet of job {job_id} was deleted; submit the request again with `cache: "refresh"`'
            )
        return data

    def _read_thumbnail(self, job_id: str) -> bytes:
        """Reads the head of the job's sheet, where the settings say; the result, which may be large, is not read."""
        job = self._reads.get_many([job_id])[0]
        if not isinstance(job, Job):
            job = self._reads.get(job_id)  # raises the reason
        if job.state != "succeeded":
            raise errors.JobNotFinished(
                f"job {job_id} {describe_state(job.state)}; only one that has succeeded has a sheet"
            )
        url = self._find_sheet(job_id, job.created_at)
        try:
            found = find_thumbnail(self._objects.read(url, SHEET_HEAD_BYTES))
        except errors.OutputNotFound:
            found = None
        if found is None:
            raise errors.SheetNotKept(
                f"job {job_id} has no sheet with a thumbnail; `/result` says why"
            )
        return found

    def _find_sheet(self, job_id: str, created_at: datetime) -> str:
        """Returns the only URL at which this job's sheet is read."""
        return render_output(
            self._settings.sheet_output, job_id=job_id, custom_id=None, created_at=created_at
        )

    # -- changes

    def cancel(self, job_id: str) -> Job:
        self.ledger.cancel(job_id)
        return self.get_now(job_id)

    def retry(self, job_id: str) -> Job:
        doorbell = self._doorbell.get()
        queue = self.ledger.retry(job_id, key=self._key)
        doorbell.ring([queue] if queue else [])
        return self.get_now(job_id)

    def purge(self, job_id: str) -> None:
        self.ledger.purge(job_id)

    # -- bulk actions

    @property
    def _bulk(self) -> BulkActions:
        return BulkActions(self.ledger)

    def _read_clock(self) -> datetime:
        with translate_redis_errors(self._settings.redis_url):
            seconds, microseconds = self.redis.time()
        return to_datetime(seconds + microseconds / 1e6)

    def _choose_cut_off(self, given: datetime | None) -> datetime:
        """Returns a cut-off that is given, or now; no job is older than UNIX time, and some years are none in UTC."""
        return self._read_clock() if given is None else max(given, to_datetime(0.0))

    def preview_bulk(
        self, action: BulkKind, which: JobFilter, cut_off: datetime | None
    ) -> BulkPreview:
        selection = select_for(action, which, cut_off=self._choose_cut_off(cut_off))
        listed = self.ledger.list_index(selection, after=None, limit=MOST_EXAMPLES, most=MOST_READ)
        jobs = [job for _, job in self._read_listed(listed, which.text, include_request=False)]
        return BulkPreview(
            action=action,
            filter=which,
            cut_off=to_datetime(selection.cut_off_s or 0.0),
            count=self._count(
                self.ledger, selection, most=MOST_PREVIEWED, most_searched=MOST_SEARCHED
            ),
            examples=tuple(job for job in jobs if isinstance(job, Job)),
        )

    def start_bulk(
        self,
        action: BulkKind,
        which: JobFilter,
        *,
        expected: int | None,
        cut_off: datetime | None,
        key: str | None,
    ) -> BulkAction:
        at = self._choose_cut_off(cut_off)
        select_for(action, which, cut_off=at)
        key_id = self._key.key_id if self._key else ""
        bulk_id = new_bulk_id()
        if key is not None:
            text = json.dumps([self.ledger.tenant, key_id, key])
            bulk_id = f"bulk_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
            with suppress(errors.BulkActionNotFound):
                return _check_same(self._bulk.find(bulk_id), action, which, key)
        if action == "purge":
            self._confirm(which, at, expected)
        asked = BulkAction(
            id=bulk_id,
            action=action,
            filter=which,
            cut_off=at,
            status="pending",
            expected=expected,
            who=key_id or "client",
            tenant=self.ledger.tenant,
            created_at=self._read_clock(),
            updated_at=at,
        )
        return self._bulk.create(asked, key_id=key_id)

    def _confirm(self, which: JobFilter, at: datetime, expected: int | None) -> None:
        """Raises if a purge was not confirmed with the number of jobs, or would delete more."""
        if expected is None:
            raise errors.InvalidRequest(
                "expected: got none, expected the number of jobs in the preview, since a purge cannot be undone",
                param="expected",
            )
        found = self.preview_bulk("purge", which, at).count
        if found.count > expected:
            raise errors.CountChanged(
                f"got {expected:,} jobs to delete, but {found.text} match now; preview the action again, and confirm "
                "that number"
            )

    def get_bulk(self, bulk_id: str) -> BulkAction:
        return self._bulk.find(bulk_id)

    def list_bulk(self, limit: int) -> builtins.list[BulkAction]:
        return self._bulk.list_newest(limit=limit)

    def stop_bulk(self, bulk_id: str) -> BulkAction:
        return self._bulk.stop(bulk_id)

    def advance_bulk(
        self,
        bulk_id: str,
        holder: str,
        before: Callable[[Sequence[str]], None] | None = None,
    ) -> BulkAction:
        """Changes the next jobs of an action, unless another process does, and returns it as it is then.

        Arguments:
            before: called with the ids of jobs that are to be retried.
        """
        bulk = self._bulk
        action, key_id = bulk.find_with_key(bulk_id)
        own = self._key.key_id if self._key else ""
        # That of an API key is a gateway's: it knows the key's limits, and the files of its jobs.
        if action.has_ended or key_id != own or bulk.take(holder, bulk_id) is None:
            return action
        doorbell = self._doorbell.get()
        batch = bulk.look(action)
        if before is not None and action.action == "retry":
            before(batch.job_ids)
        return bulk.change(action, batch, holder=holder, ring=doorbell.ring, key=self._key)

    # -- the fleet

    def queues(self) -> builtins.list[QueueInfo]:
        found, is_round_due = self._reads.read_queues(idle_s=ROUND_S)
        return self._reads.queues() if is_round_due and self._reap() else found

    def _reap(self) -> bool:
        """Makes a reaper's round and rings for what it found; returns False if this client may not, or cannot."""
        try:
            doorbell = self._doorbell.get()
            doorbell.ring(self.ledger.reap(grace_s=ROUND_S, every_s=ROUND_S).ring)
        except (errors.RedisUnavailable, errors.ConfigurationError) as error:
            log_events.QUEUES_NOT_REAPED.log(log, error=error)
            return False
        return True

    def pause(self, queues: Sequence[QueueId]) -> None:
        for queue in queues:
            self.ledger.pause(self._name(queue))

    def resume(self, queues: Sequence[QueueId]) -> None:
        doorbell = self._doorbell.get()
        for queue in queues:
            _, ring = self.ledger.resume(self._name(queue))
            doorbell.ring([ring] if ring else [])

    def _name(self, queue: QueueId) -> str:
        return queue_name(self._settings.prefix, queue.model, queue.priority)

    def usage(
        self, first_day: date, last_day: date, *, by: UsageBy, tenant: str | None
    ) -> builtins.list[UsageRow]:
        return self.ledger.for_tenant(tenant).read_usage(first_day, last_day, by=by)

    def workers(self) -> builtins.list[WorkerInfo]:
        return self._reads.workers()

    def stats(self, span: StatsSpan, *, model: str | None) -> Stats:
        queues, workers = self.queues(), self.workers()
        read = self._reads.read_rings(all_of_them=span == "day")
        return make_stats(span, read, queues, workers, model=model)

    def announce_run(self, report: RunReport, *, begins: bool) -> None:
        self._runs.announce(report, begins=begins)

    def runs(
        self, *, state: RunState | None, text: str | None, cursor: str | None, limit: int
    ) -> RunPage:
        return self._runs.list_page(state=state, text=text, cursor=cursor, limit=limit)

    def get_run(self, run_id: str) -> ArchiveRun:
        return self._runs.find(run_id)

    def ping(self) -> str:
        with translate_redis_errors(self._settings.redis_url):
            return server_name(self.redis.info("server"))

    # -- waiting

    def ask_job(self, job_id: str, future: F) -> F:
        check_job_id(job_id)
        self._note_change(job_id)
        return self.reader.ask(self.ledger.get_many, job_id, future)

    def ask_state(self, job_id: str, future: F) -> F:
        self._note_change(job_id)
        return self.reader.ask(self.ledger.get_states, job_id, future)

    def ask_events(self, cursor: EventCursor, future: F) -> F:
        if cursor.block_s:
            return self.reader.read(cursor.job_id, after=cursor.after, future=future)
        asked = cursor.job_id, cursor.after
        return self.reader.ask(self.ledger.read_events_many, asked, future)
