"""Client: submit jobs, follow them, read their results.

    with Client("redis://127.0.0.1:6379/0") as client:
        job = client.submit(inputs=["s3://videos/cat.mp4"], questions=["What is the cat doing?"])
        print(client.wait(job.id).state, client.result(job.id).answers[0].text)

Thread-safe; connects on first use, and anew in a forked child. Knows nothing of the worker's side.
"""

from __future__ import annotations

import builtins
import copy
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, TypeVar, Unpack, cast, get_args

from videoqa import errors
from videoqa.contract import (
    PRIORITIES,
    Event,
    Job,
    JobPage,
    JobRequest,
    JobState,
    Priority,
    QueueInfo,
    RequestFields,
    RequestKeywords,
    Result,
    TextPiece,
    Transcript,
    WorkerInfo,
    describe_state,
    parse_request,
    parse_stored,
    to_datetime,
)
from videoqa.forks import reopen_in_children
from videoqa.jobs import (
    AnyFuture,
    EventCursor,
    JobFilter,
    Ledger,
    LedgerReader,
    ListCursor,
    ReplicaReader,
    SharedReader,
    Submission,
    SubmitResult,
    check_job_id,
    check_permissions,
    connect,
    connect_replica,
    new_job_id,
    queue_name,
    server_name,
    translate_redis_errors,
)
from videoqa.local_stack import find_settings
from videoqa.settings import Settings
from videoqa.storage import ObjectStore

if TYPE_CHECKING:
    import redis

__all__ = ["Client"]

log = logging.getLogger(__name__)
T = TypeVar("T")
F = TypeVar("F", bound=AnyFuture)

CHUNK = 500
"""Jobs that `submit_many` records in one round trip: 1 MB of requests, 0.1 s of Redis' time."""

ROUND_S = 15.0
"""Time without a reaper's round after which `queues` makes one: workers make one each 2 s."""

MOST_LISTED = 1000
"""Most jobs of one page, and records that are read in one round trip."""

MOST_LOOKED_AT = 10_000
"""Jobs after which a page ends whose jobs no index holds by themselves."""


class _Rings(Protocol):
    """Rings for recorded jobs, without raising."""

    def ring(self, queues: Sequence[str], /) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _Submitted:
    """Outcome of one request of `submit_many`: its job, or the error that refused it."""

    job: Job | None = None
    error: errors.VideoQAError | None = None

    @property
    def job_id(self) -> str | None:
        return self.job.id if self.job else None


def _split(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk


def _can_be_sent(text: str) -> bool:
    """Returns False for a text with a lone surrogate, which has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_code(code: str | None) -> errors.InvalidRequest:
    near = get_close_matches((code or "").lower(), errors.REGISTRY, cutoff=0.5) or ["worker_lost"]
    return errors.InvalidRequest(
        f"got code {code!r}, expected an error's, such as {' or '.join(near)}", param="code"
    )


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
    )


def _make_page(
    found: Sequence[tuple[ListCursor, Job | errors.RecordUnreadable]],
    *,
    next_after: ListCursor | None,
) -> JobPage:
    return JobPage(
        jobs=tuple(job for _, job in found if isinstance(job, Job)),
        unreadable=tuple(at.job_id for at, job in found if not isinstance(job, Job)),
        next_cursor=next_after.text if next_after else None,
    )


def _check_filter(name: str, text: str | None) -> None:
    if text is not None and not (text and _can_be_sent(text)):
        raise errors.InvalidRequest(
            f"got {name} {text!r}, expected text, or None for jobs with any {name}", param=name
        )


def _check_instant(name: str, at: datetime | None) -> float | None:
    """Returns the UNIX time; a time without a zone would depend on the machine's."""
    if at is None:
        return None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise errors.InvalidRequest(
            f"got {name}={at!r}, expected a datetime with a time zone, such as "
            "datetime.now(UTC) - timedelta(hours=1)",
            param=name,
        )
    return at.timestamp()


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


class Client:
    """Submits jobs to one Redis, follows them, and reads their results."""

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        tenant: str | None = None,
    ) -> None:
        """Makes a client of the Redis at `url`, or of that in `settings`; the rest comes from `settings`.

        Arguments:
            tenant: the only one whose jobs the client submits and sees; None: that of `settings`, and
                without one the client is an operator's and sees all.
        """
        base = settings or Settings()
        self.settings = base.model_copy(update={"redis_url": url}) if url else base
        self._is_borrower = False
        """True if the connections are those of another client, which closes them."""
        self._redis = self._connect()
        self._ledger = Ledger(
            self._redis,
            url=self.settings.redis_url,
            prefix=self.settings.prefix,
            wait_replicas=self.settings.wait_replicas,
        )
        self._replica = self._connect_replica()
        self._replica_reader = self._make_replica_reader()
        self._reader = self._make_reader()
        self._take_tenant(self.settings.tenant if tenant is None else tenant)
        self._objects = ObjectStore(s3_endpoint_url=self.settings.s3_endpoint_url)
        self._doorbell = _LazyDoorbell(self._make_doorbell)
        reopen_in_children(self)

    def _reopen(self) -> None:
        """Makes new connections in a forked child, for this client and those of `for_tenant`."""
        if not isinstance(self._redis.connection_pool, _Closed):
            self._redis.connection_pool = self._connect().connection_pool
            if self._replica is not None and (new := self._connect_replica()):
                self._replica.connection_pool = new.connection_pool

    def _connect(self) -> redis.Redis:
        return connect(self.settings)

    def _make_reader(self) -> SharedReader:
        return SharedReader(self._ledger, self._connect)

    def _connect_replica(self) -> redis.Redis | None:
        return connect_replica(self.settings)

    def _make_replica_reader(self) -> ReplicaReader | None:
        url = self.settings.redis_read_url
        if self._replica is None or url is None:
            return None
        return ReplicaReader(
            self._replica, url=url, prefix=self.settings.prefix, primary=self._ledger
        )

    @property
    def _reads(self) -> LedgerReader:
        """Reader of what may be some milliseconds old."""
        return self._replica_reader or self._ledger

    def _make_doorbell(self) -> _Rings:
        from videoqa.broker import Doorbell  # Celery takes 0.3 s to import

        # A script in which the ACL refuses a command ends in the middle, with half of a job recorded.
        check_permissions(self._redis, self.settings)
        return Doorbell(self.settings)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Makes a client from the VIDEOQA_* variables; without VIDEOQA_REDIS_URL it finds a running `videoqa up`."""
        return cls(settings=find_settings(environ))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def for_tenant(self, tenant: str) -> Self:
        """Returns a client of one tenant that shares this one's connections; it costs some microseconds.

        Raises:
            OperatorOnly: this client is another tenant's.
        """
        if self.settings.tenant not in (None, tenant):
            raise errors.OperatorOnly(
                f"got tenant {tenant!r}, expected {self.settings.tenant!r}, whose client this is; ask a client "
                "without a tenant"
            )
        found = copy.copy(self)
        found._is_borrower = True
        found._take_tenant(tenant)
        return found

    def _take_tenant(self, tenant: str | None) -> None:
        try:
            checked = Settings(tenant=tenant).tenant
        except errors.ConfigurationError as error:
            raise errors.ConfigurationError(
                f"got tenant {tenant!r:.150}, expected a name of 1 to 128 characters, or None",
                param="tenant",
            ) from error
        self.settings = self.settings.model_copy(update={"tenant": checked})
        self._ledger = self._ledger.for_tenant(checked)
        if self._replica_reader is not None:
            self._replica_reader = self._replica_reader.for_tenant(checked)

    def close(self) -> None:
        """Closes the connections to Redis and to the broker; calls raise ClientClosed from now on.

        A call that waits in another thread raises it as well. A client of `for_tenant` has no connections
        of its own: it is closed with the one that it comes from.
        """
        if self._is_borrower:
            return
        self._doorbell.close()
        self._reader.close()
        for connected in (self._redis, self._replica):
            if connected is not None:
                pool, connected.connection_pool = connected.connection_pool, cast("Any", _Closed())
                # One in use is closed with its call: redis-py has no lock on a connection's buffer.
                pool.disconnect(inuse_connections=False)

    def submit(
        self,
        request: JobRequest | RequestFields | None = None,
        /,
        **fields: Unpack[RequestKeywords],
    ) -> Job:
        """Records a job and rings for a worker; returns at once.

        Takes a JobRequest, a dictionary, or its fields as keywords. If its `idempotency_key` was used
        before for an equal request, returns the job that was made then.

        Raises:
            RequestError: the request is wrong, as `code` and `param` say; nothing was recorded.
            QueueFull: too many jobs wait already; nothing was recorded, a later try may succeed.
            ConfigurationError: the broker URL cannot be used; nothing was recorded.
            RedisUnavailable: the job may or may not be recorded; submit it again, with an
                `idempotency_key` to be sure that it is one job.
        """
        if request is not None and fields:
            raise errors.InvalidRequest(
                f"got a request and the keywords {sorted(fields)}, expected one or the other"
            )
        checked = self._parse(request if request is not None else fields)
        doorbell = self._doorbell.get()
        submission = Submission(new_job_id(), checked)
        result = self._ledger.submit(
            submission,
            start_by_default_s=self.settings.start_by_default_s,
            max_queued=self.settings.max_queued,
        )
        if result.known_id:
            return self._get_now(result.known_id)
        doorbell.ring([result.ring] if result.ring else [])
        return _make_queued_job(submission, result)

    def submit_many(self, requests: Iterable[JobRequest | RequestFields]) -> builtins.list[Job]:
        """Records many jobs, some hundred in a round trip, rings for workers, and returns the jobs in order.

        All requests of a round trip are checked before any of them is recorded.

        Raises:
            RequestError: a request is wrong; `param` begins with its number, as `requests.3.inputs`.
            SubmittedInPart: some were refused (a full queue, an idempotency key of another request), or a
                round trip failed; the error has the ids of the jobs that were recorded.
        """
        jobs: list[Job] = []
        for chunk in _split(requests, CHUNK):
            first = len(jobs)
            ids: list[str | None] = [job.id for job in jobs]
            try:
                submissions = [
                    self._make_submission(first + n, request) for n, request in enumerate(chunk)
                ]
                found = self._submit_chunk(submissions)
            except errors.VideoQAError as error:
                if first == 0:
                    raise
                raise errors.SubmittedInPart(ids, {first: error}) from error
            refused = {first + n: one.error for n, one in enumerate(found) if one.error}
            if refused:
                raise errors.SubmittedInPart([*ids, *(one.job_id for one in found)], refused)
            jobs += [one.job for one in found if one.job]
        return jobs

    def _parse(self, request: JobRequest | RequestFields | RequestKeywords) -> JobRequest:
        """Checks a request, and gives it this client's tenant."""
        checked, tenant = parse_request(request), self.settings.tenant
        if tenant is None or checked.tenant == tenant:
            return checked
        if checked.tenant is not None:
            raise errors.InvalidRequest(
                f"tenant: got {checked.tenant!r}, expected {tenant!r} or none, as this client is of that tenant",
                param="tenant",
            )
        return checked.model_copy(update={"tenant": tenant})

    def _make_submission(self, number: int, request: JobRequest | RequestFields) -> Submission:
        """Checks one request of `submit_many`; an error's `param` begins with its number."""
        try:
            return Submission(new_job_id(), self._parse(request))
        except errors.RequestError as error:
            where = f"requests.{number}"
            error.param = f"{where}.{error.param}" if error.param else where
            raise

    def _submit_chunk(self, submissions: Sequence[Submission]) -> builtins.list[_Submitted]:
        doorbell = self._doorbell.get()
        results = self._ledger.submit_many(
            submissions,
            start_by_default_s=self.settings.start_by_default_s,
            max_queued=self.settings.max_queued,
        )
        doorbell.ring([result.ring for result in results if result.ring])
        known = self._get_known([result.known_id for result in results if result.known_id])
        return [
            known[result.known_id]
            if result.known_id
            else _Submitted(error=result.error)
            if result.error
            else _Submitted(job=_make_queued_job(submission, result))
            for submission, result in zip(submissions, results, strict=True)
        ]

    def _get_known(self, job_ids: Sequence[str]) -> dict[str, _Submitted]:
        """Reads the jobs that idempotency keys had made before, as they are now."""
        try:
            jobs = self._ledger.get_many(job_ids) if job_ids else []
        except errors.ServiceError as error:
            return dict.fromkeys(job_ids, _Submitted(error=error))
        gone = _Submitted(
            error=errors.JobExpired(
                "the job of this idempotency key has just expired; submit the request again"
            )
        )
        return {
            job_id: _Submitted(job=job)
            if isinstance(job, Job)
            else _Submitted(error=job)
            if job
            else gone
            for job_id, job in zip(job_ids, jobs, strict=True)
        }

    def get(self, job_id: str, *, include_request: bool = False) -> Job:
        """Returns the job as it is now.

        Arguments:
            include_request: also its request: inputs (without credentials and query), questions, sampling.

        Raises:
            JobNotFound: no such job was ever recorded here.
            JobExpired: the job's `result_ttl_s` is over, or it was purged.
            RecordUnreadable: a newer release or another program wrote its record.
        """
        return self._reads.get(job_id, include_request=include_request)

    def _get_now(self, job_id: str) -> Job:
        """Returns the job as the primary has it: after a change of it, and while its events are followed."""
        self._note_change(job_id)
        return self._ledger.get(job_id)

    def _note_change(self, job_id: str) -> None:
        """Has the job read at the primary for some seconds."""
        if self._replica_reader is not None:
            self._replica_reader.note_change(job_id)

    def get_many(
        self, job_ids: Sequence[str], *, include_request: bool = False
    ) -> builtins.list[Job | None]:
        """Returns jobs in the order of their ids, in one round trip; None: unknown, expired or unreadable.

        The jobs have neither `position` nor `waiting_for`, which only `get` looks up. An unreadable record
        is logged as a warning.
        """
        found = self._reads.get_many(job_ids, include_request=include_request)
        return self._reads.skip_unreadable(job_ids, found)

    def get_states(self, job_ids: Sequence[str]) -> builtins.list[JobState | None]:
        """Returns the states of jobs in the order of their ids; None: unknown or expired."""
        return [state for ids in _split(job_ids, CHUNK) for state in self._reads.get_states(ids)]

    def list(
        self,
        *,
        state: JobState | None = None,
        tag: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int = 100,
        include_request: bool = False,
    ) -> JobPage:
        """Returns a page of the recorded jobs, newest first.

        A page costs its own jobs, however many others there are. With more than one of `state`, `tag` and
        `model`, or a state that is not final, the smallest list that has them is walked: such a page ends after
        10,000 jobs, so it may have fewer than `limit` and yet a `next_cursor`.

        Arguments:
            state: only jobs in this state.
            tag: only jobs with this tag.
            model: only jobs that name this model.
            since: only jobs submitted at this time or later.
            until: only jobs submitted before this time.
            cursor: `next_cursor` of the previous page; None: the first page.
            limit: most jobs of the page.
            include_request: also the request of each job, as in `get`.
        """
        if not 1 <= limit <= MOST_LISTED:
            raise errors.InvalidRequest(
                f"got limit={limit}, expected 1 to {MOST_LISTED}", param="limit"
            )
        if state is not None and state not in get_args(JobState):
            raise errors.InvalidRequest(
                f"got state {state!r}, expected one of {', '.join(get_args(JobState))}",
                param="state",
            )
        _check_filter("tag", tag)
        _check_filter("model", model)
        which = JobFilter(
            state=state,
            tag=tag,
            model=model,
            since_s=_check_instant("since", since),
            until_s=_check_instant("until", until),
        )
        after = ListCursor.parse(cursor) if cursor else None
        found: list[tuple[ListCursor, Job | errors.RecordUnreadable]] = []
        looked_at = 0
        while True:
            # The fewer jobs of an index are selected, the more of them are looked at in a round trip.
            most = (
                min(limit + 1 + 3 * looked_at, MOST_LISTED)
                if which.is_walked
                else limit + 1 - len(found)
            )
            listed = self._reads.list_index(which, after=after, limit=most)
            # One more than the page has, which tells that another page follows.
            cursors = listed.found[: limit + 1 - len(found)]
            ids = [at.job_id for at in cursors]
            jobs = self._reads.get_many(ids, include_request=include_request)
            self._ledger.forget(
                [job_id for job_id, job in zip(ids, jobs, strict=True) if job is None], listed.keys
            )
            for at, job in zip(cursors, jobs, strict=True):
                if job is not None and (
                    state is None or (isinstance(job, Job) and job.state == state)
                ):
                    if len(found) == limit:
                        return _make_page(found, next_after=found[-1][0])
                    found.append((at, job))
            after = cursors[-1] if len(cursors) < len(listed.found) else listed.last
            if after is None:
                return _make_page(found, next_after=None)
            looked_at += most
            if which.is_walked and looked_at >= MOST_LOOKED_AT:
                return _make_page(found, next_after=after)

    def stream(self, job_id: str, *, timeout_s: float | None = None) -> Iterator[TextPiece]:
        """Yields the answers as they are generated, for a job with `stream`; else whole, once they are there.

        Raises:
            JobFailed: the job ended without a result; the pieces that came before are void.
            WaitTimeout: `timeout_s` is over; the job goes on.
        """
        transcript = Transcript()
        for event in self.events(job_id, timeout_s=timeout_s):
            yield from transcript.add(event)
        yield from transcript.complete(self.result(job_id))

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Job:
        """Waits until the job is final, and returns it; any number of waits of a client share one blocking read.

        Arguments:
            on_event: called with each event of the job, from its beginning.

        Raises:
            WaitTimeout: `timeout_s` is over; the job goes on.
            InvalidRequest: `timeout_s` is not a number.
        """
        cursor = EventCursor(job_id, timeout_s=timeout_s, replays=on_event is not None)
        for event in self._follow(cursor):
            if on_event is not None:
                on_event(event)
        return cursor.job

    def events(
        self, job_id: str, *, after: str = "0", timeout_s: float | None = None
    ) -> Iterator[Event]:
        """Yields the job's events, from its beginning or after an event's id, until the job is final.

        Raises:
            WaitTimeout: `timeout_s` is over; the job goes on.
            RedisUnavailable: Redis does not answer the first call, or later not for 30 s.
            InvalidRequest: `after` is not an event's id, or `timeout_s` not a number.
        """
        yield from self._follow(EventCursor(job_id, after=after, timeout_s=timeout_s))

    def _follow(self, cursor: EventCursor) -> Iterator[Event]:
        job_id = cursor.job_id
        yield from cursor.begin(self._read_job(job_id))
        while cursor.is_open:
            time.sleep(cursor.pause_s)
            with cursor.reading():
                yield from cursor.receive(self._wait_for_events(cursor))
                if cursor.may_be_over or (
                    cursor.needs_state
                    and cursor.is_over(self._ask_state(job_id, Future()).result())
                ):
                    cursor.end(self._read_job(job_id))

    def _read_job(self, job_id: str) -> Job:
        job: Job | None = self._ask_job(job_id, Future()).result()
        return job or self._get_now(job_id)

    def _wait_for_events(self, cursor: EventCursor) -> builtins.list[Event]:
        future: Future[builtins.list[Event]] = self._ask_events(cursor, Future())
        try:
            return future.result(cursor.block_s or None)
        except TimeoutError:
            return []
        finally:
            future.cancel()

    def _ask_job(self, job_id: str, future: F) -> F:
        """Asks for a job; the answer is None if there is none, and `_get_now` says why."""
        check_job_id(job_id)
        self._note_change(job_id)
        return self._reader.ask(self._ledger.get_many, job_id, future)

    def _ask_state(self, job_id: str, future: F) -> F:
        self._note_change(job_id)
        return self._reader.ask(self._ledger.get_states, job_id, future)

    def _ask_events(self, cursor: EventCursor, future: F) -> F:
        """Asks for the events that the cursor reads next: those of now, or the next ones."""
        if cursor.block_s:
            return self._reader.read(cursor.job_id, after=cursor.after, future=future)
        asked = cursor.job_id, cursor.after
        return self._reader.ask(self._ledger.read_events_many, asked, future)

    def result(self, job_id: str) -> Result:
        """Returns the result of a succeeded job.

        Raises:
            JobNotFinished: the job is not final yet; `wait` for it first.
            JobFailed: the job ended without a result; `failure` has the reason, with its code.
            OutputError: the result is in object storage and could not be read.
        """
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

    def cancel(self, job_id: str) -> Job:
        """Cancels the job, unless it is final already, and returns it as it is then."""
        self._ledger.cancel(job_id)
        return self._get_now(job_id)

    def retry(self, job_id: str) -> Job:
        """Reopens a failed, canceled or expired job under the same id.

        Raises:
            NotRetryable: the job is queued, running, canceling or succeeded.
            ConfigurationError: the broker URL cannot be used; nothing was changed.
        """
        doorbell = self._doorbell.get()
        queue = self._ledger.retry(job_id)
        doorbell.ring([queue] if queue else [])
        return self._get_now(job_id)

    def dead(self, *, code: str | None = None, include_request: bool = False) -> Iterator[Job]:
        """Yields the failed jobs, each with its failure, those submitted first in front.

        `retry` replays one of them, `replay` all, and `purge` deletes one.

        Arguments:
            code: only jobs that failed with this error code.
            include_request: also the request of each job, as in `get`.

        Raises:
            InvalidRequest: no error has this code, and no job failed with it.
        """
        known = code is None or code in errors.REGISTRY
        for ids in _split(self._ledger.dead(), CHUNK):
            for job in self.get_many(ids, include_request=include_request):
                if job is None or job.state != "failed":
                    continue  # its record ended, or it was retried or purged meanwhile
                if code is None or (job.failure is not None and job.failure.code == code):
                    known = True  # a worker of a later release knows it
                    yield job
        if not known:
            raise _refuse_code(code)

    def replay(self, *, code: str | None = None) -> builtins.list[Job]:
        """Retries all failed jobs, or those that failed with this code, and returns them; raises as `dead`."""
        replayed = []
        for job in self.dead(code=code):
            with suppress(errors.NotRetryable, errors.LookupFailed):  # another caller was faster
                replayed.append(self.retry(job.id))
        return replayed

    def purge(self, job_id: str) -> None:
        """Deletes a failed job's record and events; its objects in storage stay.

        Raises:
            NotRetryable: the job has not failed.
            JobNotFound, JobExpired
        """
        self._ledger.purge(job_id)

    def queues(self) -> builtins.list[QueueInfo]:
        """Returns the queues of each model and priority, with the numbers of their jobs, workers and slots.

        If no reaper has looked for lost jobs and due retries for 15 s, since no worker lives, the client does.
        """
        found, is_round_due = self._reads.read_queues(idle_s=ROUND_S)
        return self._reads.queues() if is_round_due and self._reap() else found

    def _reap(self) -> bool:
        """Makes a reaper's round and rings for what it found; returns False if this client may not, or cannot."""
        try:
            doorbell = self._doorbell.get()
            doorbell.ring(self._ledger.reap(grace_s=ROUND_S, every_s=ROUND_S).ring)
        except (errors.RedisUnavailable, errors.ConfigurationError) as error:
            log.debug("the numbers of the queues are those before a reaper's round: %s", error)
            return False
        return True

    def pause(self, model: str | None = None, *, priority: Priority | None = None) -> None:
        """Pauses the model's queues: no job begins until `resume`; running jobs go on, and new ones wait.

        Arguments:
            model: name of the model; None: jobs that name no model.
            priority: the queue to pause; None: both.

        Raises:
            InvalidRequest: the model's name is empty.
            OperatorOnly: the client is one tenant's.
        """
        for queue in self._list_queues(model, priority):
            self._ledger.pause(queue)

    def resume(self, model: str | None = None, *, priority: Priority | None = None) -> None:
        """Resumes the model's queues; see `pause`."""
        queues = self._list_queues(model, priority)
        doorbell = self._doorbell.get()
        for queue in queues:
            _, ring = self._ledger.resume(queue)
            doorbell.ring([ring] if ring else [])

    def _list_queues(self, model: str | None, priority: Priority | None) -> builtins.list[str]:
        """Lists the queues to pause or to resume; only an operator may."""
        if self.settings.tenant is not None:
            raise errors.OperatorOnly(
                f"got a client of tenant {self.settings.tenant!r}, expected one without a tenant: a queue is "
                "paused for all of them"
            )
        if model == "":
            raise errors.InvalidRequest(
                "got an empty model, expected its name, or None for jobs that name no model",
                param="model",
            )
        return [
            queue_name(self.settings.prefix, model, each)
            for each in ((priority,) if priority else PRIORITIES)
        ]

    def workers(self) -> builtins.list[WorkerInfo]:
        """Returns the workers that announced themselves within the last minute."""
        return self._reads.workers()

    def ping(self) -> str:
        """Returns the server's name and version; raises RedisUnavailable."""
        with translate_redis_errors(self.settings.redis_url):
            return server_name(self._redis.info("server"))
