"""AsyncClient: `Client` for asyncio, with the same methods.

    async with AsyncClient("redis://127.0.0.1:6379/0") as client:
        job = await client.submit(inputs=["s3://videos/cat.mp4"], questions=["What is it doing?"])
        async for piece in client.stream(job.id):
            print(piece.text, end="")

Any number of jobs can be waited for at once: one thread reads their events for all event loops. Other
calls run in a few threads, where Celery's publishing and boto3 have to run anyway; those that read object storage
have threads of their own, so that a store that hangs holds up no other call.
"""

from __future__ import annotations

import asyncio
import builtins
import copy
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, cast

from videoqa.client import BULK_POLL_S, Client
from videoqa.contract import (
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
)
from videoqa.errors import ClientClosed
from videoqa.forks import reopen_in_children
from videoqa.jobs import EventCursor, KeyQuota
from videoqa.login import find_client_settings
from videoqa.settings import Settings

if TYPE_CHECKING:
    from videoqa.backends.redis_backend import RedisBackend

__all__ = ["AsyncClient"]

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 16
"""Most round trips at the same time, and most reads of object storage."""


class _Threads:
    """The threads of a client and of those that `for_tenant` made of it."""

    def __init__(self) -> None:
        self._is_closed = False
        self._reopen()
        reopen_in_children(self)

    def _reopen(self) -> None:
        """Starts anew in a forked child, which has no thread of its parent's but one."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="videoqa-client")
        self._storage_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="videoqa-storage")

    async def run(self, call: Callable[[], T], *, reads_storage: bool = False) -> T:
        if self._is_closed:
            raise ClientClosed
        pool = self._storage_pool if reads_storage else self._pool
        return await asyncio.get_running_loop().run_in_executor(pool, copy_context().run, call)

    def close(self) -> None:
        self._is_closed = True
        self._pool.shutdown(wait=False)
        self._storage_pool.shutdown(wait=False)


def _make_future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _end_wait(future: asyncio.Future[builtins.list[Event]]) -> None:
    if not future.done():
        future.set_result([])


class AsyncClient:
    """Submits jobs to one Redis, or to a gateway, follows them, and reads their results, on any event loop."""

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        tenant: str | None = None,
        api_key: str | None = None,
    ) -> None:
        """See `Client`."""
        self._client = self._make_client(url, settings, tenant, api_key)
        self._is_borrower = False
        self._threads = _Threads()

    def _make_client(
        self, url: str | None, settings: Settings | None, tenant: str | None, api_key: str | None
    ) -> Client:
        return Client(url, settings=settings, tenant=tenant, api_key=api_key)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """See `Client.from_environment`."""
        return cls(settings=find_client_settings(environ))

    @property
    def settings(self) -> Settings:
        """Settings of this client."""
        return self._client.settings

    def for_tenant(self, tenant: str) -> Self:
        """See `Client.for_tenant`."""
        found = copy.copy(self)
        found._client = self._client.for_tenant(tenant)
        found._is_borrower = True
        return found

    def _for_key(self, key: KeyQuota) -> Self:
        """Returns a client, for a gateway, whose jobs are counted for an API key."""
        found = copy.copy(self)
        found._client = self._client._for_key(key)
        found._is_borrower = True
        return found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Client.close`."""
        if self._is_borrower:
            return
        self._threads.close()
        await asyncio.to_thread(self._client.close)

    async def _call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(partial(method, *args, **kwargs))

    async def _run(self, call: Callable[[], T], *, reads_storage: bool = False) -> T:
        return await self._threads.run(call, reads_storage=reads_storage)

    async def submit(
        self,
        request: JobRequest | RequestFields | None = None,
        /,
        **fields: Unpack[RequestKeywords],
    ) -> Job:
        """See `Client.submit`."""
        return await self._call(lambda: self._client.submit(request, **fields))

    async def submit_many(
        self, requests: Iterable[JobRequest | RequestFields]
    ) -> builtins.list[Job]:
        """See `Client.submit_many`. The iterable is read on another thread."""
        return await self._call(self._client.submit_many, requests)

    async def get(self, job_id: str, *, include_request: bool = False) -> Job:
        """See `Client.get`."""
        return await self._call(self._client.get, job_id, include_request=include_request)

    async def get_many(
        self, job_ids: Sequence[str], *, include_request: bool = False
    ) -> builtins.list[Job | None]:
        """See `Client.get_many`."""
        return await self._call(self._client.get_many, job_ids, include_request=include_request)

    async def get_states(self, job_ids: Sequence[str]) -> builtins.list[JobState | None]:
        """See `Client.get_states`."""
        return await self._call(self._client.get_states, job_ids)

    async def list(
        self,
        *,
        cursor: str | None = None,
        limit: int = 100,
        include_request: bool = False,
        **filters: Unpack[FilterKeywords],
    ) -> JobPage:
        """See `Client.list`."""
        return await self._call(
            partial(
                self._client.list,
                cursor=cursor,
                limit=limit,
                include_request=include_request,
                **filters,
            )
        )

    async def count(self, **filters: Unpack[FilterKeywords]) -> JobCount:
        """See `Client.count`."""
        return await self._call(partial(self._client.count, **filters))

    async def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Job:
        """See `Client.wait`."""
        cursor = EventCursor(job_id, timeout_s=timeout_s, replays=on_event is not None)
        async for event in self._follow(cursor):
            if on_event is not None:
                on_event(event)
        return cursor.job

    async def events(
        self, job_id: str, *, after: str = "0", timeout_s: float | None = None
    ) -> AsyncIterator[Event]:
        """See `Client.events`."""
        async for event in self._follow(EventCursor(job_id, after=after, timeout_s=timeout_s)):
            yield event

    async def _follow(self, cursor: EventCursor) -> AsyncIterator[Event]:
        job_id = cursor.job_id
        for event in cursor.begin(await self._read_job(job_id)):
            yield event
        while cursor.is_open:
            await asyncio.sleep(cursor.pause_s)
            with cursor.reading():
                for event in cursor.receive(await self._wait_for_events(cursor)):
                    yield event
                if cursor.may_be_over or (
                    cursor.needs_state
                    and cursor.is_over(
                        await self._client._backend.ask_state(job_id, _make_future())
                    )
                ):
                    cursor.end(await self._read_job(job_id))

    async def _read_job(self, job_id: str) -> Job:
        job: Job | None = await self._client._backend.ask_job(job_id, _make_future())
        if job is None:
            return await self._call(self._client._backend.get_now, job_id)
        return job

    async def _wait_for_events(self, cursor: EventCursor) -> builtins.list[Event]:
        future: asyncio.Future[builtins.list[Event]] = _make_future()
        self._client._backend.ask_events(cursor, future)
        if not cursor.block_s:
            return await future
        timer = future.get_loop().call_later(cursor.block_s, _end_wait, future)
        try:
            return await future
        finally:
            timer.cancel()
            future.cancel()

    async def stream(
        self, job_id: str, *, timeout_s: float | None = None
    ) -> AsyncIterator[TextPiece]:
        """See `Client.stream`."""
        transcript = Transcript()
        async for event in self.events(job_id, timeout_s=timeout_s):
            for piece in transcript.add(event):
                yield piece
        for piece in transcript.complete(await self.result(job_id)):
            yield piece

    async def result(self, job_id: str) -> Result:
        """See `Client.result`."""
        return await self._run(partial(self._client.result, job_id), reads_storage=True)

    async def sheet(self, job_id: str, *, thumbnail: bool = False) -> bytes:
        """See `Client.sheet`."""
        read = partial(self._client.sheet, job_id, thumbnail=thumbnail)
        return await self._run(read, reads_storage=True)

    async def cancel(self, job_id: str) -> Job:
        """See `Client.cancel`."""
        return await self._call(self._client.cancel, job_id)

    async def retry(self, job_id: str) -> Job:
        """See `Client.retry`."""
        return await self._call(self._client.retry, job_id)

    async def dead(
        self, *, code: str | None = None, include_request: bool = False
    ) -> AsyncIterator[Job]:
        """See `Client.dead`."""
        found = partial(self._client.dead, code=code, include_request=include_request)
        for job in await self._call(lambda: builtins.list(found())):
            yield job

    async def count_dead(self, *, tenant: str | None = None) -> builtins.list[DeadCount]:
        """See `Client.count_dead`."""
        return await self._call(self._client.count_dead, tenant=tenant)

    async def group_dead(self, code: str, *, tenant: str | None = None) -> DeadGroups:
        """See `Client.group_dead`."""
        return await self._call(self._client.group_dead, code, tenant=tenant)

    async def replay(self, *, code: str | None = None) -> builtins.list[Job]:
        """See `Client.replay`."""
        return await self._call(self._client.replay, code=code)

    async def purge(self, job_id: str) -> None:
        """See `Client.purge`."""
        await self._call(self._client.purge, job_id)

    async def preview_bulk(
        self,
        action: BulkKind,
        *,
        cut_off: datetime | None = None,
        **filters: Unpack[FilterKeywords],
    ) -> BulkPreview:
        """See `Client.preview_bulk`."""
        return await self._call(
            partial(self._client.preview_bulk, action, cut_off=cut_off, **filters)
        )

    async def start_bulk(
        self,
        action: BulkKind,
        *,
        expected: int | None = None,
        cut_off: datetime | None = None,
        key: str | None = None,
        **filters: Unpack[FilterKeywords],
    ) -> BulkAction:
        """See `Client.start_bulk`."""
        return await self._call(
            partial(
                self._client.start_bulk,
                action,
                expected=expected,
                cut_off=cut_off,
                key=key,
                **filters,
            )
        )

    async def get_bulk(self, bulk_id: str) -> BulkAction:
        """See `Client.get_bulk`."""
        return await self._call(self._client.get_bulk, bulk_id)

    async def list_bulk(self, *, limit: int = 50) -> builtins.list[BulkAction]:
        """See `Client.list_bulk`."""
        return await self._call(self._client.list_bulk, limit=limit)

    async def stop_bulk(self, bulk_id: str) -> BulkAction:
        """See `Client.stop_bulk`."""
        return await self._call(self._client.stop_bulk, bulk_id)

    async def follow_bulk(self, bulk_id: str) -> AsyncIterator[BulkAction]:
        """See `Client.follow_bulk`."""
        holder, seen_at = secrets.token_hex(8), None
        while True:
            action = await self._call(self._client._backend.advance_bulk, bulk_id, holder)
            yield action
            if action.has_ended:
                return
            if action.updated_at == seen_at:
                await asyncio.sleep(BULK_POLL_S)
            seen_at = action.updated_at

    async def _advance_bulk(
        self, bulk_id: str, holder: str, before: Callable[[Sequence[str]], None]
    ) -> BulkAction:
        """Changes the next jobs of a bulk action, for a gateway; see `RedisBackend.advance_bulk`."""
        backend = cast("RedisBackend", self._client._backend)
        return await self._call(backend.advance_bulk, bulk_id, holder, before)

    async def queues(self) -> builtins.list[QueueInfo]:
        """See `Client.queues`."""
        return await self._call(self._client.queues)

    async def pause(self, model: str | None = None, *, priority: Priority | None = None) -> None:
        """See `Client.pause`."""
        await self._call(self._client.pause, model, priority=priority)

    async def resume(self, model: str | None = None, *, priority: Priority | None = None) -> None:
        """See `Client.resume`."""
        await self._call(self._client.resume, model, priority=priority)

    async def usage(
        self,
        *,
        first_day: date | None = None,
        last_day: date | None = None,
        by: UsageBy = "day",
        tenant: str | None = None,
    ) -> builtins.list[UsageRow]:
        """See `Client.usage`."""
        return await self._call(
            self._client.usage, first_day=first_day, last_day=last_day, by=by, tenant=tenant
        )

    async def workers(self) -> builtins.list[WorkerInfo]:
        """See `Client.workers`."""
        return await self._call(self._client.workers)

    async def stats(self, span: StatsSpan = "hour", *, model: str | None = None) -> Stats:
        """See `Client.stats`."""
        return await self._call(self._client.stats, span, model=model)

    async def timeline(self, job_id: str) -> JobTimeline:
        """See `Client.timeline`."""
        return await self._call(self._client.timeline, job_id)

    async def announce_run(self, report: RunReport, *, begins: bool = False) -> None:
        """See `Client.announce_run`."""
        await self._call(self._client.announce_run, report, begins=begins)

    async def runs(
        self,
        *,
        state: RunState | None = None,
        text: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> RunPage:
        """See `Client.runs`."""
        return await self._call(
            self._client.runs, state=state, text=text, cursor=cursor, limit=limit
        )

    async def get_run(self, run_id: str) -> ArchiveRun:
        """See `Client.get_run`."""
        return await self._call(self._client.get_run, run_id)

    async def ping(self) -> str:
        """See `Client.ping`."""
        return await self._call(self._client.ping)
