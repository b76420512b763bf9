"""Files: what callers and batches store, read, list and delete, and the URLs under which workers read it.

Calls of the place block, and run in threads of their own, so that a slow store holds up nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import ParamSpec, TypeVar

import anyio
import redis
from anyio import CapacityLimiter

from videoqa.contract import Image, JobRequest, Video, guess_kind, is_file_id
from videoqa.errors import InvalidRequest, OutputError
from videoqa.gateway.files.hiding import StorageUrls
from videoqa.gateway.files.index import (
    SUBMITTING_S,
    Entry,
    FileIndex,
    FileRecord,
    Purpose,
    State,
)
from videoqa.gateway.files.place import Place, make_place
from videoqa.gateway.files.storage_errors import translate_storage_errors
from videoqa.gateway.files.writer import FileWriter
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.metrics.own_metrics import OwnMetrics
from videoqa.gateway.settings import GatewaySettings
from videoqa.telemetry import log_events

__all__ = ["Files", "find_ids", "find_place"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MOST_AT_ONCE = 32
"""Uploads at a time in one gateway; each holds two pieces."""
MOST_OF_TENANT = 8
"""Uploads at a time of one tenant, so that a slow one leaves turns to others."""
SWEPT_EVERY_S = 30
ORPHANED_S = 86_400.0
"""Age of an object without a record at which it is deleted; longer than any upload."""
_THREADS = 16
_S3_PIECE_BYTES, _S3_PIECES = 8 << 20, 9_000
_JOB_PURPOSES = ("vision", "user_data")


class Files:
    """The files of one prefix."""

    def __init__(
        self, client: redis.Redis, settings: GatewaySettings, metrics: OwnMetrics | None = None
    ) -> None:
        self.metrics = metrics or OwnMetrics()
        self.settings = settings
        self.index = FileIndex(client, url=settings.redis_url, prefix=settings.prefix)
        self._place = find_place(settings)
        self.urls = StorageUrls(self._place.base if self._place else None)
        """Hides the URLs of all files in what leaves the gateway."""
        self._limiter = CapacityLimiter(_THREADS)
        self._store_limiter = CapacityLimiter(_THREADS)
        self._writing = 0
        self._sending: Counter[str] = Counter()

    @property
    def place(self) -> Place:
        """The place of all bytes; raises HttpError if the gateway has none."""
        if self._place is None:
            raise HttpError(
                501,
                "files_not_configured",
                "this gateway stores no files; its operator sets VIDEOQA_GATEWAY_FILES to a folder or to "
                "s3://bucket/prefix/",
            )
        return self._place

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls Redis, or computes, in a thread."""
        return await anyio.to_thread.run_sync(lambda: call(*args, **kwargs), limiter=self._limiter)

    async def run_store(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls the place of the bytes, in a thread that holds up no call of Redis."""
        return await anyio.to_thread.run_sync(
            lambda: call(*args, **kwargs), limiter=self._store_limiter
        )

    # Writing

    @asynccontextmanager
    async def writing(
        self,
        filename: str,
        *,
        tenant: str | None,
        length: int | None = None,
        most_bytes: int | None = None,
    ) -> AsyncIterator[FileWriter]:
        """Yields the writer of a new file; without its `finish`, nothing of the file stays.

        Arguments:
            length: bytes that will come, or a few more; None: unknown.
            most_bytes: largest file of the API key; None: as large as workers read.

        Raises:
            HttpError: it does not fit into the quotas, or too many files are written.
        """
        with self.taking_turn():
            writer = FileWriter(self, filename, tenant, most_bytes=most_bytes)
            try:
                await writer.begin(length)
                yield writer
            finally:
                with anyio.CancelScope(shield=True):
                    await writer.close()

    @contextmanager
    def taking_turn(self) -> Iterator[None]:
        """Counts a file while it is written; raises HttpError if there are too many."""
        if self._writing >= MOST_AT_ONCE:
            raise _refuse_turn(f"{MOST_AT_ONCE} files")
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1

    @contextmanager
    def sending(self, tenant: str | None) -> Iterator[None]:
        """Counts an upload while its caller sends it; raises HttpError if the tenant has too many."""
        if tenant is None:
            yield
            return
        if self._sending[tenant] >= MOST_OF_TENANT:
            raise _refuse_turn(f"{MOST_OF_TENANT} of your files")
        self._sending[tenant] += 1
        try:
            yield
        finally:
            self._sending[tenant] -= 1
            if not self._sending[tenant]:
                del self._sending[tenant]

    async def create(
        self,
        filename: str,
        data: AsyncIterator[bytes],
        *,
        tenant: str | None,
        purpose: Purpose,
        ttl_s: float | None = None,
    ) -> FileRecord:
        """Stores a file that comes in pieces."""
        async with self.writing(filename, tenant=tenant) as writer:
            async for piece in data:
                await writer.write(piece)
            return await writer.finish(purpose, ttl_s=ttl_s)

    # Reading

    async def get(self, file_id: str, tenant: str | None) -> FileRecord:
        """Returns a file of the tenant; of any for None.

        Raises:
            HttpError: there is none, or it is another tenant's (404), or its time is over (410).
        """
        return (await self._find(file_id, tenant)).record

    async def _find(self, file_id: str, tenant: str | None, *, uses: bool = False) -> Entry:
        entry = None
        if is_file_id(file_id):
            entry = await self.run(self.index.find, file_id, uses=uses)
        if (
            entry is None
            or entry.state in ("uploading", "deleted")
            or (tenant is not None and entry.record.tenant != tenant)
        ):
            raise HttpError(
                404, "file_not_found", f"there is no file {file_id!r:.100}", param="file_id"
            )
        if entry.is_over:
            raise HttpError(
                410,
                "file_expired",
                f"the file {file_id} is over since its expires_at; upload it again",
                param="file_id",
            )
        return entry

    async def read(
        self, record: FileRecord, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yields the bytes from `start` to `end`; raises HttpError before the first if they have gone."""
        with translate_storage_errors():
            source = self.place.read(
                record.id, record.name, start, record.bytes if end is None else end
            )
            try:
                while data := await self.run_store(next, source, b""):
                    yield data
            finally:
                with anyio.CancelScope(shield=True):
                    await self.run_store(source.close)  # type: ignore[attr-defined]

    async def read_lines(
        self, record: FileRecord, most_bytes: int = 8 << 20
    ) -> AsyncIterator[bytes]:
        """Yields the lines without their ends.

        Raises:
            InvalidRequest: a line has more than `most_bytes`.
        """
        held, number = b"", 1
        async for data in self.read(record):
            *lines, held = (held + data).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r")
            number += len(lines)
            if len(held) > most_bytes:
                raise InvalidRequest(f"line {number} has more than {most_bytes:,} bytes")
        if held:
            yield held

    # Jobs

    async def resolve(self, request: JobRequest, tenant: str | None, where: str = "") -> JobRequest:
        """Returns a request with URLs in place of the ids of files.

        Arguments:
            where: place of the request in a larger body, before the `param` of an error.

        Raises:
            HttpError: there is no such file, or it is no video and no picture.
        """
        if not find_ids(request):
            return request
        inputs = []
        for n, each in enumerate(request.inputs):
            is_id = is_file_id(each.url)
            param = f"{where}inputs.{n}.url"
            inputs.append(await self._resolve_input(each, tenant, param) if is_id else each)
        return request.model_copy(update={"inputs": tuple(inputs)})

    async def _resolve_input(
        self, given: Video | Image, tenant: str | None, param: str
    ) -> Video | Image:
        try:
            # First without a mark, which is left for no file that is none of the tenant's.
            await self._find(given.url, tenant)
            record = (await self._find(given.url, tenant, uses=True)).record
        except HttpError as error:
            raise HttpError(400, error.http_code, error.message, param=param) from error
        if record.purpose not in _JOB_PURPOSES:
            raise HttpError(
                400,
                "wrong_purpose",
                f"{given.url} was uploaded with the purpose {record.purpose!r}, expected one of "
                f"{', '.join(_JOB_PURPOSES)}",
                param=param,
            )
        url = f"{self.place.base}{record.id}/{record.name}"
        if given == Video(url=given.url) and guess_kind(url) == "image":
            return Image(url=url)  # a bare id says nothing about its kind
        return given.model_copy(update={"url": url})

    async def use(self, ids: tuple[str, ...], user: str) -> None:
        """Keeps the bytes of these files for a job, until that is final, or for a batch, until `end_use`."""
        for file_id in ids:
            await self.run(self.index.use, file_id, user)

    async def end_use(self, file_id: str, user: str) -> None:
        """Ends the use of a file by a batch."""
        await self.run(self.index.end_use, file_id, user)

    # Deleting

    async def delete(self, file_id: str, tenant: str | None) -> None:
        """Deletes a file; its bytes stay until the last job and batch that use it have ended."""
        entry = await self._find(file_id, tenant)
        deleted = await self.run(self._move, entry, "deleted")
        if deleted is not None:
            await self.run_store(self.drop, deleted, time.time())

    def _move(self, entry: Entry, state: State) -> Entry | None:
        """Ends a ready file; None if another call has changed it meanwhile."""
        has_moved = self.index.change(
            entry.record, "ready", state, charge=entry.charge, due_s=time.time()
        )
        return Entry(state, entry.charge, entry.record) if has_moved else None

    def drop(self, entry: Entry, now_s: float) -> None:
        """Deletes the bytes of a file that has ended, unless they are used; then the sweep comes back to it."""
        record = entry.record
        if self.index.is_used(record.id, now_s):
            self.index.set_due(record.id, now_s + SUBMITTING_S)
            return
        self.place.delete(record.id)
        after: State | None = "expired" if entry.state == "expired" else None
        self.index.change(record, entry.state, after, charge=0, due_s=None)
        self.index.forget_uses(record.id)

    # Sweeping

    def sweep(self, now_s: float) -> int:
        """Deletes what is over, deleted or left over; returns the number of files that it looked at."""
        due = self.index.list_due(now_s)
        for file_id in due:
            try:
                self._sweep_one(file_id, now_s)
            except (HttpError, OutputError, OSError) as error:
                log_events.FILE_NOT_DELETED.log(log, file_id=file_id, error=error)
                self.index.set_due(file_id, now_s + 300)
        return len(due)

    def _sweep_one(self, file_id: str, now_s: float) -> None:
        entry = self.index.find(file_id)
        if entry is None:
            self.index.set_due(file_id, None)
        elif entry.state == "uploading":
            self.place.delete(file_id)
            self.index.change(entry.record, "uploading", None, charge=0, due_s=None)
        elif entry.state != "ready":
            self.drop(entry, now_s)
        elif entry.record.expires_at is not None and entry.record.expires_at <= now_s:
            expired = self._move(entry, "expired")
            if expired is not None:
                self.drop(expired, now_s)
        else:
            self.index.set_due(file_id, entry.record.expires_at)

    def sweep_orphans(self, now_s: float) -> int:
        """Deletes objects without a record, which a gateway left that died; returns their number."""
        if self._place is None:
            return 0
        latest: dict[str, float] = {}
        for file_id, changed_s in self._place.list_ids():
            latest[file_id] = max(changed_s, latest.get(file_id, 0.0))
        found = 0
        for file_id, changed_s in latest.items():
            is_old = changed_s < now_s - ORPHANED_S
            if is_old and is_file_id(file_id) and self.index.find(file_id) is None:
                self._place.delete(file_id)
                found += 1
        return found

    async def sweep_until(self, stop: asyncio.Event) -> None:
        """Sweeps every half minute, and for orphans every hour; one gateway at a time."""
        while not stop.is_set():
            try:
                await self.run_store(self._sweep_in_turn)
            except Exception:  # noqa: BLE001 - it is logged
                log_events.SWEEP_FAILED.log(log, exc_info=True)
            try:
                async with asyncio.timeout(SWEPT_EVERY_S):
                    await stop.wait()
            except TimeoutError:
                pass

    def _sweep_in_turn(self) -> None:
        if self._place is None:
            return
        if self.index.take_lease("due", SWEPT_EVERY_S - 1):
            while self.sweep(time.time()) == 100:
                pass
        if self.index.take_lease("orphans", 3600):
            self.sweep_orphans(time.time())


def _refuse_turn(busy: str) -> HttpError:
    return HttpError(
        503,
        "uploads_busy",
        f"{busy} are being uploaded through this gateway; try again later",
        headers={"retry-after": "5"},
    )


def find_ids(request: JobRequest) -> tuple[str, ...]:
    """Returns the ids of the files that a request names."""
    return tuple({each.url: None for each in request.inputs if is_file_id(each.url)})


def find_place(settings: GatewaySettings) -> Place | None:
    """Returns the place of the settings; None: there is none."""
    if settings.gateway_files is None:
        return None
    return make_place(
        settings.gateway_files,
        settings.prefix,
        s3_endpoint_url=settings.s3_endpoint_url,
        piece_bytes=max(_S3_PIECE_BYTES, -(-settings.max_source_bytes // _S3_PIECES)),
    )
