"""Client: submit jobs, follow them, read their results, at a Redis or at a gateway.

    with Client("redis://127.0.0.1:6379/0") as client:
        job = client.submit(inputs=["s3://videos/cat.mp4"], questions=["What is the cat doing?"])
        print(client.wait(job.id).state, client.result(job.id).answers[0].text)

Thread-safe; connects on first use, and anew in a forked child. Knows nothing of the worker's side.
"""

from __future__ import annotations

import builtins
import copy
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, date, datetime
from difflib import get_close_matches
from itertools import islice
from typing import Self, TypeVar, Unpack, cast, get_args

from pydantic import SecretStr

from videoqa import errors
from videoqa.backends.backend import Backend, QueueId, naming_request
from videoqa.backends.http.address import GatewayAddress, is_gateway_url
from videoqa.backends.redis_backend import RedisBackend
from videoqa.contract import (
    OTHER_CODE,
    PRIORITIES,
    ArchiveRun,
    BulkAction,
    BulkKind,
    BulkPreview,
    DeadCount,
    DeadGroups,
    Event,
    FilterKeywords,
    Job,
    JobCount,
    JobFilter,
    JobPage,
    JobRequest,
    JobState,
    JobTimeline,
    Priority,
    QueueInfo,
    RequestFields,
    RequestKeywords,
    Result,
    RunPage,
    RunReport,
    RunState,
    Stats,
    StatsSpan,
    TextPiece,
    Transcript,
    UsageBy,
    UsageRow,
    WorkerInfo,
    check_instant,
    parse_filter,
    parse_request,
)
from videoqa.jobs import EventCursor, KeyQuota
from videoqa.login import find_client_settings, find_key
from videoqa.settings import Settings

__all__ = ["Client"]

T = TypeVar("T")

CHUNK = 500
"""Jobs that `submit_many` records in one round trip: 1 MB of requests, 0.1 s of Redis' time."""

MOST_LISTED = 1000
"""Most jobs of one page."""

BULK_POLL_S = 0.25
"""Time between two looks at a bulk action that another process carries out."""

MOST_USAGE_DAYS = 400
"""Most days of one call of `usage`, for which the counters are kept."""


def _split(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk


def _refuse_code(code: str | None) -> errors.InvalidRequest:
    near = get_close_matches((code or "").lower(), errors.REGISTRY, cutoff=0.5) or ["worker_lost"]
    return errors.InvalidRequest(
        f"got code {code!r}, expected an error's, such as {' or '.join(near)}", param="code"
    )


def _check_day(name: str, day: date | None) -> date | None:
    if day is not None and (not isinstance(day, date) or isinstance(day, datetime)):
        raise errors.InvalidRequest(
            f"got {name}={day!r:.100}, expected a datetime.date, a day of UTC", param=name
        )
    return day


def _choose_settings(url: str | None, settings: Settings | None, api_key: str | None) -> Settings:
    """Returns the settings of a client, with the one place where its jobs are."""
    found = settings or (Settings() if url else find_client_settings())
    if url is not None and not is_gateway_url(url):
        found = found.model_copy(update={"redis_url": url, "url": None})
    elif url is not None:
        found = found.model_copy(update={"url": url})
    if found.url is None:
        if api_key is not None:
            raise errors.ConfigurationError(
                "got an api_key for a Redis, expected the URL of a gateway: https://...",
                param="api_key",
            )
        return found
    key = SecretStr(api_key) if api_key is not None else found.api_key or find_key(found.url)
    return found.model_copy(update={"api_key": key})


class Client:
    """Submits jobs to one Redis, or to a gateway, follows them, and reads their results."""

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        tenant: str | None = None,
        api_key: str | None = None,
    ) -> None:
        """Makes a client of the gateway or Redis at `url`, or of that in `settings`; the rest comes from `settings`.

        With neither, the client is that of `from_environment`.

        Arguments:
            url: https:// or http:// of a gateway, or redis:// and its kin.
            settings: None: defaults, whatever the variables are.
            api_key: key for the gateway; None: that of VIDEOQA_API_KEY, or of `videoqa login`.
            tenant: the only one whose jobs the client submits and sees; None: that of `settings`, and
                without one the client is an operator's and sees all.
        """
        self.settings = _choose_settings(url, settings, api_key)
        self._is_borrower = False
        """True if the connections are those of another client, which closes them."""
        self._backend = self._make_backend()
        self._take_tenant(self.settings.tenant if tenant is None else tenant)

    def _make_backend(self) -> Backend:
        if self.settings.url is None:
            return RedisBackend(self.settings)
        from videoqa.backends.http_backend import HttpBackend

        return HttpBackend(GatewayAddress.of(self.settings))

    @property
    def sets_output(self) -> bool:
        """True if requests may name their `output`; of a gateway its keys decide where results go."""
        return self._backend.sets_output

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Makes a client from the VIDEOQA_* variables.

        The first of these that there is has the jobs: VIDEOQA_URL, VIDEOQA_REDIS_URL, the gateway of `videoqa login`,
        a running `videoqa up`.
        """
        return cls(settings=find_client_settings(environ))

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

    def _for_key(self, key: KeyQuota) -> Self:
        """Returns a client, for a gateway, whose jobs are counted for an API key; it shares this one's connections."""
        found = copy.copy(self)
        found._is_borrower = True
        found._backend = cast(RedisBackend, self._backend).for_key(key)
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
        self._backend = self._backend.for_tenant(checked)

    def close(self) -> None:
        """Closes the connections to Redis and to the broker; calls raise ClientClosed from now on.

        A call that waits in another thread raises it as well. A client of `for_tenant` has no connections
        of its own: it is closed with the one that it comes from.
        """
        if not self._is_borrower:
            self._backend.close()

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
        return self._backend.submit(checked)

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
                found = self._backend.submit_many(
                    [self._parse_one(first + n, request) for n, request in enumerate(chunk)],
                    first=first,
                )
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

    def _parse_one(self, number: int, request: JobRequest | RequestFields) -> JobRequest:
        """Checks one request of `submit_many`; an error's `param` begins with its number."""
        with naming_request(number):
            return self._parse(request)

    def get(self, job_id: str, *, include_request: bool = False) -> Job:
        """Returns the job as it is now.

        Arguments:
            include_request: also its request: inputs (without credentials and query), questions, sampling.

        Raises:
            JobNotFound: no such job was ever recorded here.
            JobExpired: the job's `result_ttl_s` is over, or it was purged.
            RecordUnreadable: a newer release or another program wrote its record.
        """
        return self._backend.get(job_id, include_request=include_request)

    def timeline(self, job_id: str) -> JobTimeline:
        """Returns the job with its attempts: worker, seconds by stage, failure and next step of each.

        Raises:
            JobNotFound, JobExpired, RecordUnreadable
        """
        return self._backend.timeline(job_id)

    def get_many(
        self, job_ids: Sequence[str], *, include_request: bool = False
    ) -> builtins.list[Job | None]:
        """Returns jobs in the order of their ids, in one round trip; None: unknown, expired or unreadable.

        The jobs have neither `position` nor `waiting_for`, which only `get` looks up. An unreadable record
        is logged as a warning.
        """
        return self._backend.get_many(job_ids, include_request=include_request)

    def get_states(self, job_ids: Sequence[str]) -> builtins.list[JobState | None]:
        """Returns the states of jobs in the order of their ids; None: unknown or expired."""
        return [state for ids in _split(job_ids, CHUNK) for state in self._backend.get_states(ids)]

    def list(
        self,
        *,
        cursor: str | None = None,
        limit: int = 100,
        include_request: bool = False,
        **filters: Unpack[FilterKeywords],
    ) -> JobPage:
        """Returns a page of the recorded jobs that a filter selects, newest first.

        A page costs its own jobs, however many others there are. Where no index has just the selected jobs, the
        smallest one that has them all is walked: such a page ends after 10,000 jobs, and with `text` after 2,000, so
        it may have fewer than `limit` and yet a `next_cursor`; `looked_at` tells how many it has seen. With a `code`,
        a `group`, or the state failed and a time of the end, the jobs come by the time of their failure.

        Arguments:
            cursor: `next_cursor` of the previous page; None: the first page.
            limit: most jobs of the page.
            include_request: also the request of each job, as in `get`; each has its `summary` anyway.
            filters: fields of a `JobFilter`, which combine: `state`, `tenant`, `model`, `tag`, `code`, `group`,
                `worker`, `custom_id`, `job_id`, `text`, `since`, `until`, `ended_since`, `ended_until`.
        """
        if not 1 <= limit <= MOST_LISTED:
            raise errors.InvalidRequest(
                f"got limit={limit}, expected 1 to {MOST_LISTED}", param="limit"
            )
        which = self._parse_filter(filters)
        return self._backend.list_page(
            which, cursor=cursor, limit=limit, include_request=include_request
        )

    def count(self, **filters: Unpack[FilterKeywords]) -> JobCount:
        """Returns the number of jobs that a filter of `list` selects.

        It is exact where an index has it: without a filter, or with a state in which jobs end, a tag, a model or a
        code alone, each with the times by which that index goes. Otherwise it is that of the newest 10,000 jobs, or
        2,000 with `text`, and `is_exact` tells if there may be more. A job whose record has just expired may be
        counted for a while.
        """
        return self._backend.count(self._parse_filter(filters))

    def _parse_filter(self, fields: FilterKeywords) -> JobFilter:
        """Checks a filter; raises OperatorOnly if it names another tenant than the client's."""
        which = parse_filter(cast("Mapping[str, object]", fields))
        if which.tenant is not None:
            self._check_tenant(which.tenant)
        if which.code is not None and which.code not in (*errors.REGISTRY, OTHER_CODE):
            raise _refuse_code(which.code)
        return which

    def _check_tenant(self, tenant: str | None) -> str | None:
        """Returns the tenant, or the client's own for None; raises OperatorOnly for another one's."""
        own = self.settings.tenant
        if tenant is not None and own not in (None, tenant):
            raise errors.OperatorOnly(
                f"got tenant {tenant!r}, expected {own!r}, whose client this is; ask a client without a tenant"
            )
        return own if tenant is None else tenant

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
                    and cursor.is_over(self._backend.ask_state(job_id, Future()).result())
                ):
                    cursor.end(self._read_job(job_id))

    def _read_job(self, job_id: str) -> Job:
        job: Job | None = self._backend.ask_job(job_id, Future()).result()
        return job or self._backend.get_now(job_id)

    def _wait_for_events(self, cursor: EventCursor) -> builtins.list[Event]:
        future: Future[builtins.list[Event]] = self._backend.ask_events(cursor, Future())
        try:
            return future.result(cursor.block_s or None)
        except TimeoutError:
            return []
        finally:
            future.cancel()

    def result(self, job_id: str) -> Result:
        """Returns the result of a succeeded job.

        Raises:
            JobNotFinished: the job is not final yet; `wait` for it first.
            JobFailed: the job ended without a result; `failure` has the reason, with its code.
            OutputError: the result is in object storage and could not be read.
        """
        return self._backend.result(job_id)

    def sheet(self, job_id: str, *, thumbnail: bool = False) -> bytes:
        """Returns the JPEG with thumbnails of the frames that the model saw; `result` has its layout.

        It is read only from the place that `sheet_output` of the settings names, whatever the result says.

        Arguments:
            thumbnail: return a small picture of one frame instead, of some 5 KB; only the sheet's head is read.

        Raises:
            JobNotFinished, JobFailed: as `result`.
            SheetNotKept: neither the request nor the worker's settings asked for a sheet, or it could not be kept.
            SheetExpired: it was deleted.
            OutputError: it could not be read.
        """
        return self._backend.sheet(job_id, thumbnail=thumbnail)

    def cancel(self, job_id: str) -> Job:
        """Cancels the job, unless it is final already, and returns it as it is then."""
        return self._backend.cancel(job_id)

    def retry(self, job_id: str) -> Job:
        """Reopens a failed, canceled or expired job under the same id.

        Raises:
            NotRetryable: the job is queued, running, canceling or succeeded.
            ConfigurationError: the broker URL cannot be used; nothing was changed.
        """
        return self._backend.retry(job_id)

    def dead(self, *, code: str | None = None, include_request: bool = False) -> Iterator[Job]:
        """Yields the failed jobs, each with its failure, those submitted first in front.

        `retry` replays one of them, `replay` all, and `purge` deletes one.

        Arguments:
            code: only jobs that failed with this error code; `other`: with one that this release does not know.
            include_request: also the request of each job, as in `get`.

        Raises:
            InvalidRequest: no error has this code, and no job failed with it.
        """
        known = code in (None, OTHER_CODE, *errors.REGISTRY)
        for ids in _split(self._backend.list_dead(), CHUNK):
            for job in self.get_many(ids, include_request=include_request):
                if job is None or job.state != "failed":
                    continue  # its record ended, or it was retried or purged meanwhile
                found = job.failure.code if job.failure else None
                is_other = code == OTHER_CODE and found not in errors.REGISTRY
                if code is None or found == code or is_other:
                    known = True  # a worker of a later release knows it
                    yield job
        if not known:
            raise _refuse_code(code)

    def count_dead(self, *, tenant: str | None = None) -> builtins.list[DeadCount]:
        """Returns the numbers of dead letters by error code: of the last hour, day and week, and of all.

        No record is read. `list(code=..., ended_since=...)` has the jobs of each number.

        Arguments:
            tenant: only this one's jobs; None: those of the client's tenant, or of all.
        """
        return self._backend.count_dead(self._check_tenant(tenant))

    def group_dead(self, code: str, *, tenant: str | None = None) -> DeadGroups:
        """Returns the newest 2,000 dead letters with this code by groups of alike messages.

        Those of a group differ in names, numbers and URLs only. `list(code=..., group=...)` has the jobs of a group.
        """
        if code not in (*errors.REGISTRY, OTHER_CODE):
            raise _refuse_code(code)
        return self._backend.group_dead(code, self._check_tenant(tenant))

    def replay(self, *, code: str | None = None) -> builtins.list[Job]:
        """Retries all failed jobs, or those that failed with this code, and returns them; raises as `dead`."""
        replayed = []
        for job in self.dead(code=code):
            with suppress(errors.NotRetryable, errors.LookupFailed):  # another caller was faster
                replayed.append(self.retry(job.id))
        return replayed

    def purge(self, job_id: str) -> None:
        """Deletes the record and events of a job that has ended; its objects in storage, and its use, stay.

        Raises:
            NotRetryable: the job is queued, running or canceling; cancel it first.
            JobNotFound, JobExpired
        """
        self._backend.purge(job_id)

    def preview_bulk(
        self,
        action: BulkKind,
        *,
        cut_off: datetime | None = None,
        **filters: Unpack[FilterKeywords],
    ) -> BulkPreview:
        """Returns the number of jobs that a bulk action would change, and some of them; changes nothing.

        The number is exact for dead letters of a code; else it is that of the oldest 20,000 jobs that are looked at, or
        2,000 with `text`.

        Arguments:
            action: `cancel` queued and running jobs; `retry` failed ones, or canceled or expired ones if `state` says
                so; `purge` the records of final ones.
            cut_off: only jobs that have been in their state since this time; None: now.
            filters: as in `list`; at least one, since an action on all jobs there are is refused.
        """
        which = self._parse_filter(filters)
        check_instant("cut_off", cut_off)
        return self._backend.preview_bulk(action, which, cut_off)

    def start_bulk(
        self,
        action: BulkKind,
        *,
        expected: int | None = None,
        cut_off: datetime | None = None,
        key: str | None = None,
        **filters: Unpack[FilterKeywords],
    ) -> BulkAction:
        """Begins to change all jobs that a filter selects, the oldest first, in batches; see `preview_bulk`.

        A gateway carries it out. Without one `follow_bulk` does.

        Arguments:
            expected: number of jobs that the preview had; a purge is refused without it, and if more match.
            cut_off: that of the preview: what comes to match later stays as it is. None: now.
            key: idempotency key, with which a repeated call returns the action of the first one.

        Raises:
            CountChanged: more jobs would be purged than expected; nothing was changed.
        """
        which = self._parse_filter(filters)
        check_instant("cut_off", cut_off)
        return self._backend.start_bulk(action, which, expected=expected, cut_off=cut_off, key=key)

    def get_bulk(self, bulk_id: str) -> BulkAction:
        """Returns a bulk action and its progress; raises BulkActionNotFound 7 days after its end."""
        return self._backend.get_bulk(bulk_id)

    def list_bulk(self, *, limit: int = 50) -> builtins.list[BulkAction]:
        """Returns the newest bulk actions, the last one first."""
        if not 1 <= limit <= MOST_LISTED:
            raise errors.InvalidRequest(
                f"got limit={limit}, expected 1 to {MOST_LISTED}", param="limit"
            )
        return self._backend.list_bulk(limit)

    def stop_bulk(self, bulk_id: str) -> BulkAction:
        """Stops a bulk action, unless it has ended; what it has changed stays changed."""
        return self._backend.stop_bulk(bulk_id)

    def follow_bulk(self, bulk_id: str) -> Iterator[BulkAction]:
        """Yields a bulk action as it goes on, until it has ended; carries it out where no gateway does."""
        holder, seen_at = secrets.token_hex(8), None
        while True:
            action = self._backend.advance_bulk(bulk_id, holder)
            yield action
            if action.has_ended:
                return
            if action.updated_at == seen_at:
                time.sleep(BULK_POLL_S)
            seen_at = action.updated_at

    def queues(self) -> builtins.list[QueueInfo]:
        """Returns the queues of each model and priority, with the numbers of their jobs, workers and slots.

        If no reaper has looked for lost jobs and due retries for 15 s, since no worker lives, the client does.
        """
        return self._backend.queues()

    def pause(self, model: str | None = None, *, priority: Priority | None = None) -> None:
        """Pauses the model's queues: no job begins until `resume`; running jobs go on, and new ones wait.

        Arguments:
            model: name of the model; None: jobs that name no model.
            priority: the queue to pause; None: both.

        Raises:
            InvalidRequest: the model's name is empty.
            OperatorOnly: the client is one tenant's.
        """
        self._backend.pause(self._list_queues(model, priority))

    def resume(self, model: str | None = None, *, priority: Priority | None = None) -> None:
        """Resumes the model's queues; see `pause`."""
        self._backend.resume(self._list_queues(model, priority))

    def _list_queues(self, model: str | None, priority: Priority | None) -> builtins.list[QueueId]:
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
        return [QueueId(model, each) for each in ((priority,) if priority else PRIORITIES)]

    def usage(
        self,
        *,
        first_day: date | None = None,
        last_day: date | None = None,
        by: UsageBy = "day",
        tenant: str | None = None,
    ) -> builtins.list[UsageRow]:
        """Returns the counted use of the jobs that ended on these UTC days; rows without any are left out.

        Counters are kept for 400 days.

        Arguments:
            first_day: None: 29 days before the last one.
            last_day: None: today.
            by: a row for each day, model, tag, API key or tenant. A job with several tags is in the row of each.
            tenant: only this one's jobs; None: those of the client's tenant, or of all.

        Raises:
            OperatorOnly: the client is another tenant's.
        """
        last = _check_day("last_day", last_day) or datetime.now(UTC).date()
        first = _check_day("first_day", first_day) or date.fromordinal(
            max(1, last.toordinal() - 29)
        )
        if not 0 <= (last - first).days < MOST_USAGE_DAYS:
            raise errors.InvalidRequest(
                f"got {first} to {last}, expected at most {MOST_USAGE_DAYS} days, the first one in front",
                param="first_day",
            )
        if by not in get_args(UsageBy):
            raise errors.InvalidRequest(
                f"got by={by!r:.100}, expected one of {', '.join(get_args(UsageBy))}", param="by"
            )
        tenant = self.settings.tenant if tenant is None else self.for_tenant(tenant).settings.tenant
        return self._backend.usage(first, last, by=by, tenant=tenant)

    def workers(self) -> builtins.list[WorkerInfo]:
        """Returns the workers that announced themselves within the last minute."""
        return self._backend.workers()

    def stats(self, span: StatsSpan = "hour", *, model: str | None = None) -> Stats:
        """Returns the figures of the fleet by model, their course in the last hour or day, and what needs attention.

        Arguments:
            span: `hour`, by minutes, or `day`, by quarters of an hour; both with the running step.
            model: only this one in `models`; None: all.

        Raises:
            OperatorOnly: the client is one tenant's, while the figures are of all.
        """
        if self.settings.tenant is not None:
            raise errors.OperatorOnly(
                f"got a client of tenant {self.settings.tenant!r}, expected one without a tenant: the figures are "
                "those of all tenants; `usage` and `queues` have its own"
            )
        if span not in get_args(StatsSpan):
            raise errors.InvalidRequest(
                f"got span={span!r:.100}, expected {' or '.join(get_args(StatsSpan))}", param="span"
            )
        if model == "":
            raise errors.InvalidRequest(
                "got an empty model, expected its name, or None for all", param="model"
            )
        return self._backend.stats(span, model=model)

    def announce_run(self, report: RunReport, *, begins: bool = False) -> None:
        """Tells the fleet about a run over an archive, as `videoqa caption` does every few seconds.

        Arguments:
            begins: the run was started just now, perhaps once more.

        Raises:
            RunNotFound: another tenant has a run with this id.
        """
        self._backend.announce_run(report, begins=begins)

    def runs(
        self,
        *,
        state: RunState | None = None,
        text: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> RunPage:
        """Returns a page of the runs of `videoqa caption` and of batches, the last start in front.

        A run is kept for 30 days after its last word, of a tenant at most 500 and of all 2,000. One without a word
        for a minute is `interrupted`. Rows that failed stand in `get_run`.

        Arguments:
            state: only runs in this state.
            text: only runs with this text in their id, name, output, tenant, user or host, in any case.
            cursor: `next_cursor` of the previous page; None: the first page.
            limit: most runs of the page, 1 to 200.
        """
        return self._backend.runs(state=state, text=text, cursor=cursor, limit=limit)

    def get_run(self, run_id: str) -> ArchiveRun:
        """Returns a run as it is now, with the first rows of each code of failure.

        Raises:
            RunNotFound: there is none, or its last word was more than 30 days ago.
        """
        return self._backend.get_run(run_id)

    def ping(self) -> str:
        """Returns the server's name and version; raises RedisUnavailable."""
        return self._backend.ping()
