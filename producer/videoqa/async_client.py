"""AsyncClient: `Client` for asyncio, with the same methods.

    async with AsyncClient("redis://127.0.0.1:6379/0") as client:
        job = await client.submit(inputs=["s3://videos/cat.mp4"], questions=["What is it doing?"])
        async for piece in client.stream(job.id):
            print(piece.text, end="")

Any number of jobs can be waited for at once: one thread reads their events for all event loops. Other
calls run in a few threads, where Celery's publishing and boto3 have to run anyway.
"""

from __future__ import annotations

import asyncio
import builtins
import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from videoqa.client import Client
from videoqa.contract import (
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
)
from videoqa.errors import ClientClosed
from videoqa.forks import reopen_in_children
from videoqa.jobs import EventCursor
from videoqa.local_stack import find_settings
from videoqa.settings import Settings

__all__ = ["AsyncClient"]

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 16
"""Most round trips at the same time."""


class _Threads:
    """The threads of a client and of those that `for_tenant` made of it."""

    def __init__(self) -> None:
        self._is_closed = False
        self._reopen()
        reopen_in_children(self)

    def _reopen(self) -> None:
        """Starts anew in a forked child, which has no thread of its parent's but one."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="videoqa-client")

    async def run(self, call: Callable[[], T]) -> T:
        if self._is_closed:
            raise ClientClosed
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        self._is_closed = True
        self._pool.shutdown(wait=False)


def _make_future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _end_wait(future: asyncio.Future[builtins.list[Event]]) -> None:
    if not future.done():
        future.set_result([])


class AsyncClient:
    """Submits jobs to one Redis, follows them, and reads their results, on any event loop."""

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        tenant: str | None = None,
    ) -> None:
        """See `Client`."""
        self._client = Client(url, settings=settings, tenant=tenant)
        self._is_borrower = False
        self._threads = _Threads()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Makes a client from the VIDEOQA_* variables; without VIDEOQA_REDIS_URL it finds a running `videoqa up`."""
        return cls(settings=find_settings(environ))

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
        return await self._threads.run(partial(method, *args, **kwargs))

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
        state: JobState | None = None,
        tag: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int = 100,
        include_request: bool = False,
    ) -> JobPage:
        """See `Client.list`."""
        return await self._call(
            self._client.list,
            state=state,
            tag=tag,
            model=model,
            since=since,
            until=until,
            cursor=cursor,
            limit=limit,
            include_request=include_request,
        )

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
                    and cursor.is_over(await self._client._ask_state(job_id, _make_future()))
                ):
                    cursor.end(await self._read_job(job_id))

    async def _read_job(self, job_id: str) -> Job:
        job: Job | None = await self._client._ask_job(job_id, _make_future())
        if job is None:
            return await self._call(self._client._get_now, job_id)
        return job

    async def _wait_for_events(self, cursor: EventCursor) -> builtins.list[Event]:
        future: asyncio.Future[builtins.list[Event]] = _make_future()
        self._client._ask_events(cursor, future)
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
        return await self._call(self._client.result, job_id)

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

    async def replay(self, *, code: str | None = None) -> builtins.list[Job]:
        """See `Client.replay`."""
        return await self._call(self._client.replay, code=code)

    async def purge(self, job_id: str) -> None:
        """See `Client.purge`."""
        await self._call(self._client.purge, job_id)

    async def queues(self) -> builtins.list[QueueInfo]:
        """See `Client.queues`."""
        return await self._call(self._client.queues)

    async def pause(self, model: str | None = None, *, priority: Priority | None = None) -> None:
        """See `Client.pause`."""
        await self._call(self._client.pause, model, priority=priority)

    async def resume(self, model: str | None = None, *, priority: Priority | None = None) -> None:
        """See `Client.resume`."""
        await self._call(self._client.resume, model, priority=priority)

    async def workers(self) -> builtins.list[WorkerInfo]:
        """See `Client.workers`."""
        return await self._call(self._client.workers)

    async def ping(self) -> str:
        """See `Client.ping`."""
        return await self._call(self._client.ping)
