"""BatchRunner: moves batches on in one gateway process, each for as long as its lease is held.

validating -> in_progress -> finalizing -> completed. Whatever a killed process leaves is taken over by any other one:
stored parts are not asked again, submitted lines find their jobs, and files that were begun are deleted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import IO, Any, cast

import redis

from videoqa import errors
from videoqa.bulk import REDIS_EVERY_S, RunAnnouncer, RunProgress
from videoqa.client import Client
from videoqa.contract import Job, RunReport, parse_request
from videoqa.gateway.access.caller import Caller
from videoqa.gateway.batches.batch_loop import (
    MOST_JOBS,
    SEARCHED,
    BatchLoop,
    Ending,
    LineCalls,
    Signals,
    Stopped,
    cancel_jobs,
)
from videoqa.gateway.batches.lines import InputCheck, Line, LineMistake, name_key, read_lines
from videoqa.gateway.batches.parts import OutputParts
from videoqa.gateway.batches.record import Batch, BatchRecord, BatchStatus
from videoqa.gateway.batches.store import LEASE_S, write_errors, write_tally
from videoqa.gateway.files.index import FileRecord
from videoqa.gateway.http.problems import HttpError, find_code, find_message
from videoqa.gateway.resources import Resources
from videoqa.jobs import Keys, digest_idempotency_key
from videoqa.telemetry import log_events

__all__ = ["BatchRunner"]

log = logging.getLogger(__name__)

MOST_RUNNING = 16
"""Batches that one process moves on at a time."""
TURN_S = 60.0
"""Time for which a batch is answered while others wait for a place; then it is due again, after them."""
LOOK_S = 1.0
RENEW_S = 1.0
RETRY_S = 5.0
"""Time after which a batch is taken again whose run has failed, as without a store or Redis."""
GIVE_UP_S = 86_400.0
"""Time after its end in which a batch's files can be written; a full quota may be emptied until then."""
_MEDIA_TTL_S = 90_000
"""Lifetime of the files of media in the lines: longer than a batch."""
CHECKED = 100
"""Lines that are checked in one go."""
CHECKED_BYTES = 4_000_000
"""Bytes after which a round of checks ends: a line may have 8 MB, and 16 batches may be validated at a time."""


class BatchRunner:
    """The batches that this process moves on."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._client = Client(settings=resources.settings)
        self._pool = ThreadPoolExecutor(MOST_RUNNING, thread_name_prefix="batch")
        self._running: dict[asyncio.Task[None], BatchRun] = {}
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look for batches."""
        self._looking = asyncio.ensure_future(self._look())

    async def close(self) -> None:
        """Gives all batches back."""
        if self._looking is not None:
            self._looking.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._client.close)

    async def _look(self) -> None:
        resources = self._resources
        while not resources.stop.is_set():
            found = None
            holder = secrets.token_hex(8)
            try:
                if len(self._running) < MOST_RUNNING:
                    found = await resources.run(resources.batches.take, holder)
                else:
                    self._end_turn(await resources.run(resources.batches.count_due))
            except (errors.VideoQAError, redis.RedisError) as error:
                log_events.BATCHES_NOT_FOUND.log(log, error=error)
            if found is None:
                await asyncio.sleep(LOOK_S)
                continue
            run = BatchRun(resources, self._client, self._pool, found, holder)
            task = asyncio.ensure_future(run.run())
            self._running[task] = run
            task.add_done_callback(self._running.pop)

    def _end_turn(self, due: int) -> None:
        """Has the batch given back that is answered the longest, if more wait than places become free."""
        runs = self._running.values()
        going = [run for run in runs if not run.is_stopped]
        if not going or due <= len(runs) - len(going):
            return
        longest = min(going, key=lambda run: run.answering_since_s)
        if time.monotonic() - longest.answering_since_s > TURN_S:
            longest.stop()


@dataclass
class BatchRun:
    """One batch, while this process holds it."""

    resources: Resources
    client: Client
    pool: ThreadPoolExecutor
    batch_id: str
    holder: str

    def __post_init__(self) -> None:
        self._store = self.resources.batches
        self._signals = Signals()
        self._parts: OutputParts | None = None
        self._record: BatchRecord | None = None
        self._answering_since_s: float | None = None

    @property
    def is_stopped(self) -> bool:
        """True if the batch is about to be given back."""
        return self._signals.stop.is_set()

    @property
    def answering_since_s(self) -> float:
        """Time since which lines are answered; infinite while the batch is validated or ends."""
        if self._answering_since_s is None or self._signals.ending is not None:
            return math.inf
        return self._answering_since_s

    def stop(self) -> None:
        """Gives the batch back soon; its jobs run on, and whoever takes it next finds them."""
        self._signals.stop.set()

    async def run(self) -> None:
        """Moves the batch on until it has ended, or is another process's to move on."""
        keeping = asyncio.ensure_future(self._keep())
        again_s = 0.0
        try:
            await self._advance()
        except Stopped:
            pass
        except (errors.VideoQAError, OSError, redis.RedisError) as error:
            log_events.BATCH_AGAIN.log(log, batch_id=self.batch_id, error=error)
            again_s = RETRY_S
        except Exception:  # noqa: BLE001 - it is logged
            log_events.BATCH_FAILED.log(log, batch_id=self.batch_id, exc_info=True)
            again_s = RETRY_S
        finally:
            keeping.cancel()
            with suppress(errors.VideoQAError, redis.RedisError):
                await self._give_back(again_s)

    async def _give_back(self, again_s: float) -> None:
        batch = await self._run(self._store.find, self.batch_id)
        if batch is not None:
            await self._run(partial(self._store.hold, for_s=again_s), self.batch_id, self.holder)

    async def _run(self, call: Any, *args: Any) -> Any:
        return await self.resources.run(call, *args)

    async def _keep(self) -> None:
        """Renews the lease, publishes the counts, and passes on that the batch is to end."""
        held_at_s = time.monotonic()
        while not self._signals.stop.is_set():
            fields = write_tally(self._parts.tally) if self._parts is not None else None
            try:
                status = await self._run(self._store.hold, self.batch_id, self.holder, fields)
                held_at_s = time.monotonic()
                if status == "cancelling":
                    self._signals.ending = "batch_cancelled"
                if status == "in_progress" and await self._has_lost_key():
                    self._signals.ending = "batch_cancelled"
                    await self._move(("in_progress",), "cancelling")
                if status == "lost":
                    self._signals.stop.set()
            except Stopped:
                continue
            except (errors.VideoQAError, redis.RedisError) as error:
                log_events.BATCH_NOT_HELD.log(log, batch_id=self.batch_id, error=error)
            if time.monotonic() - held_at_s > LEASE_S:
                self._signals.stop.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await self.resources.stop.wait()
                self._signals.stop.set()

    async def _has_lost_key(self) -> bool:
        """Tells if the key that made the batch was revoked, or is over, since its lines are submitted."""
        return self._record is not None and await self._find_caller(self._record) is None

    def _check_held(self) -> None:
        if self._signals.stop.is_set():
            raise Stopped

    async def _advance(self) -> None:
        batch = await self._find()
        if batch.status != "finalizing" and not batch.has_ended:
            try:
                batch = await self._answer(batch)
            except (HttpError, LineMistake) as error:
                batch = await self._end_unread(error)
        if not batch.has_ended:
            await self._finalize(batch)
        await self._clean_up(batch.record)

    async def _end_unread(self, error: HttpError | LineMistake) -> Batch:
        """Returns the batch, to end with the parts that are stored, if it is to end and its input cannot be read.

        Until then it is tried again: a store may be away for a while, or a gateway of an older release.
        """
        batch = await self._find()
        if batch.status != "cancelling" and time.time() < batch.record.expires_at:
            raise error
        check = InputCheck(0)
        code = error.code if isinstance(error, LineMistake) else find_code(error)
        left = await self._cancel_lines(batch)
        check.refuse(
            None,
            code,
            f"{left:,} lines are in neither file, since the input cannot be read; their jobs were canceled: {error}",
        )
        await self._hold(write_errors(check.errors))
        return batch

    async def _cancel_lines(self, batch: Batch) -> int:
        """Cancels the jobs of all lines whose part is not stored, and returns how many lines these are."""
        record = batch.record
        parts = await self.resources.files.run_store(
            OutputParts, record, batch.total, self._store, self.resources.files
        )
        left = [index for index in range(batch.total) if not parts.has(index)]
        client = self._open_client(record)
        for start in range(0, len(left), SEARCHED):
            self._check_held()
            names = [
                name_key(record.id, index, number)
                for index in left[start : start + SEARCHED]
                for number in range(MOST_JOBS)
            ]
            found = await self._run(self._find_jobs, record, names)
            await self._run(cancel_jobs, client, [job_id for job_id in found if job_id is not None])
        return len(left)

    def _open_client(self, record: BatchRecord) -> Client:
        return self.client if record.tenant is None else self.client.for_tenant(record.tenant)

    async def _find(self) -> Batch:
        batch: Batch | None = await self._run(self._store.find, self.batch_id)
        if batch is None:
            raise Stopped
        self._record = batch.record
        return batch

    # -- lines

    async def _answer(self, batch: Batch) -> Batch:
        """Validates and answers all lines; returns the batch as it is then."""
        record = batch.record
        caller = await self._find_caller(record)
        with tempfile.TemporaryFile() as file:
            await self._copy_input(record, file)
            if batch.status == "validating":
                await self._validate(record, caller, file)
                batch = await self._find()
            if batch.has_ended or not batch.total:
                return batch
            if caller is None and batch.status == "in_progress":
                await self._move(("in_progress",), "cancelling")
                batch = await self._find()
            if batch.status == "cancelling":
                self._signals.ending = "batch_cancelled"
            ending = await self._loop(batch, caller, file)
        if ending is None and batch.status == "in_progress":
            await self._move(("in_progress",), "finalizing")
        return await self._find()

    async def _find_caller(self, record: BatchRecord) -> Caller | None:
        """Returns the caller that made the batch; None if its key is no longer valid."""
        return await Caller.find(record.key_id, self.resources)

    async def _copy_input(self, record: BatchRecord, file: IO[bytes]) -> None:
        source = FileRecord(
            id=record.input_file_id, tenant=record.tenant, filename="", purpose="batch",
            bytes=record.input_bytes, created_at=record.created_at, name=record.input_name,
        )  # fmt: skip
        async for data in self.resources.files.read(source):
            await asyncio.to_thread(file.write, data)
            self._check_held()

    async def _validate(self, record: BatchRecord, caller: Caller | None, file: IO[bytes]) -> None:
        """Checks all lines, and begins to answer them, or fails with all mistakes."""
        most_bytes = self.resources.settings.gateway_max_body_bytes
        check = InputCheck(most_bytes)
        if caller is None:
            check.total = 1
            check.refuse(None, "wrong_key", "the API key that made the batch is no longer valid")
        else:
            await self._check_lines(check, caller, file, most_bytes)
        if self._signals.ending is not None:
            return
        check.end()
        fields = {"total": str(check.total), "model": check.model or ""}
        if check.errors:
            fields = write_errors(check.errors)
            await self._move(("validating",), "failed", fields=fields)
        else:
            await self._move(("validating",), "in_progress", fields=fields)

    async def _check_lines(
        self, check: InputCheck, caller: Caller, file: IO[bytes], most_bytes: int
    ) -> None:
        file.seek(0)
        lines = read_lines(file, most_bytes)
        while found := await asyncio.to_thread(_check_some, check, lines):
            self._check_held()
            if self._signals.ending is not None:
                return
            for number, line, request in found:
                if line is None or request is None:
                    continue
                try:
                    if line.asked.data:
                        continue  # its bytes are looked at when the line is submitted
                    await caller.check(request)
                except (HttpError, errors.RequestError) as error:
                    mistake = line.asked.translate(error)
                    check.refuse(
                        number, find_code(mistake), find_message(mistake), f"body.{mistake.param}"
                    )

    async def _loop(self, batch: Batch, caller: Caller | None, file: IO[bytes]) -> str | None:
        """Answers the lines in a thread; returns why the batch ends early, or None."""
        record = batch.record
        loop = asyncio.get_running_loop()
        settings = self.resources.settings
        parts = await self.resources.files.run_store(
            OutputParts, record, batch.total, self._store, self.resources.files
        )
        self._parts = parts
        client = self._open_client(record)
        about = await self._describe(record)

        def submit(lines: Sequence[Line]) -> Sequence[Job | errors.VideoQAError]:
            call = self._submit_lines(record, caller, lines)
            return asyncio.run_coroutine_threadsafe(call, loop).result()

        def answer() -> str | None:
            file.seek(0)
            lines = (data for _, data in read_lines(file, settings.gateway_max_body_bytes))
            with _announce(client, about, batch.total) as announcer:
                jobs = BatchLoop(
                    record, lines, client=client, parts=parts, signals=self._signals,
                    calls=LineCalls(submit, partial(self._find_jobs, record)),
                    announcer=announcer, total=batch.total,
                    most_line_bytes=settings.gateway_max_body_bytes,
                )  # fmt: skip
                if caller is None:
                    jobs.begin_ending("batch_cancelled")
                jobs.run()
                _announce_end(announcer, jobs.ending)
            return jobs.ending

        expiring = asyncio.ensure_future(self._expire(record))
        self._answering_since_s = time.monotonic()
        try:
            return await loop.run_in_executor(self.pool, answer)
        finally:
            self._answering_since_s = None
            expiring.cancel()

    async def _describe(self, record: BatchRecord) -> RunReport:
        """Returns the words of the batch about itself, without its numbers."""
        try:
            source = await self.resources.files.get(record.input_file_id, record.tenant)
            name = source.filename
        except (HttpError, errors.VideoQAError):  # deleted meanwhile
            name = ""
        return RunReport(
            id=record.id,
            kind="batch",
            name=name[:200] or record.input_file_id,
            tenant=record.tenant,
            who=record.key_id,
            host=socket.gethostname()[:200],
        )

    async def _expire(self, record: BatchRecord) -> None:
        await asyncio.sleep(max(0.0, record.expires_at - time.time()))
        if self._signals.ending is None:
            self._signals.ending = "batch_expired"

    async def _submit_lines(
        self, record: BatchRecord, caller: Caller | None, lines: Sequence[Line]
    ) -> Sequence[Job | errors.VideoQAError]:
        if caller is None:
            raise Stopped
        found = await asyncio.gather(
            *(_submit(record, caller, line) for line in lines), return_exceptions=True
        )
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, errors.VideoQAError):
                raise one
        return cast("Sequence[Job | errors.VideoQAError]", found)

    def _find_jobs(self, record: BatchRecord, names: Sequence[str]) -> list[str | None]:
        return self._store.find_jobs(
            [
                Keys(self.resources.settings.prefix).idempotency(
                    digest_idempotency_key(record.tenant, name)
                )
                for name in names
            ]
        )

    # -- files

    async def _finalize(self, batch: Batch) -> None:
        """Writes the files, and ends the batch."""
        record = batch.record
        await self._drop_drafts(record)
        parts = await self.resources.files.run_store(
            OutputParts, record, batch.total, self._store, self.resources.files
        )
        self._parts = parts
        try:
            drafts: list[str] = []
            output = await self._write_file(record, parts, drafts, completed=True)
            failures = await self._write_file(record, parts, drafts, completed=False)
        except HttpError as error:
            if time.time() < record.expires_at + GIVE_UP_S:
                raise
            check = InputCheck(0)
            check.refuse(None, find_code(error), find_message(error))
            await self._move((batch.status,), "failed", fields=write_errors(check.errors))
            return
        after: BatchStatus = {
            "finalizing": "completed", "cancelling": "cancelled",
        }.get(batch.status, "expired")  # type: ignore[assignment]  # fmt: skip
        fields = write_tally(parts.tally) | {
            "output_file_id": output or "", "error_file_id": failures or "", "drafts": "",
        }  # fmt: skip
        await self._move((batch.status,), after, fields=fields)

    async def _write_file(
        self, record: BatchRecord, parts: OutputParts, drafts: list[str], *, completed: bool
    ) -> str | None:
        if not (parts.tally.completed if completed else parts.tally.failed):
            return None
        files = self.resources.files
        name = f"{record.id}_{'output' if completed else 'error'}.jsonl"
        async with files.writing(name, tenant=record.tenant) as writer:
            drafts.append(writer.id)
            await self._hold({"drafts": " ".join(drafts)})
            lines = parts.read(completed=completed)
            while data := await files.run_store(next, lines, b""):
                await writer.write(data)
                self._check_held()
            return (await writer.finish("batch_output", ttl_s=record.output_ttl_s)).id

    async def _drop_drafts(self, record: BatchRecord) -> None:
        """Deletes files that a process wrote which was killed before the batch named them."""
        for file_id in await self._run(self._store.read_drafts, record.id):
            with suppress(HttpError):
                await self.resources.files.delete(file_id, record.tenant)

    async def _clean_up(self, record: BatchRecord) -> None:
        """Deletes what an ended batch no longer needs; until it is done, the batch is due again after its lease."""
        await self.resources.files.end_use(record.input_file_id, record.id)
        await self.resources.files.run_store(self.resources.files.place.delete, record.parts_id)
        await self._run(self._store.close, record.id)

    async def _hold(self, fields: dict[str, str]) -> None:
        if await self._run(self._store.hold, self.batch_id, self.holder, fields) == "lost":
            raise Stopped

    async def _move(
        self,
        before: Sequence[BatchStatus],
        after: BatchStatus,
        fields: dict[str, str] | None = None,
    ) -> None:
        """Changes the status; raises Stopped if it is none of `before`, or the batch another process's now.

        It was canceled meanwhile, then: whoever takes it next ends it.
        """
        move = partial(self._store.move, holder=self.holder, fields=fields)
        if await self._run(move, self.batch_id, before, after) != "ok":
            raise Stopped


@contextmanager
def _announce(client: Client, about: RunReport, total: int) -> Iterator[RunAnnouncer]:
    """Announces a batch to the fleet while the block lasts; a block that fails leaves it to another gateway."""
    announcer = RunAnnouncer(client, about, every_s=REDIS_EVERY_S)
    announcer.update(RunProgress(total=total))
    try:
        yield announcer
    except BaseException:
        announcer.close("interrupted", "it waits for a gateway that goes on with it")
        raise


def _announce_end(announcer: RunAnnouncer, ending: Ending | None) -> None:
    match ending:
        case None:
            announcer.close("finished")
        case "batch_cancelled":
            announcer.close("cancelled")
        case "batch_expired":
            announcer.close("failed", "its 24 hours were over before all lines were answered")


async def _submit(record: BatchRecord, caller: Caller, line: Line) -> Job:
    media = caller.resources.inline_media
    await media.settle(line.asked, record.tenant, of=record.id, ttl_s=_MEDIA_TTL_S)
    return await caller.submit(line.make_request(record, parse_request(line.asked.job)))


def _check_some(check: InputCheck, lines: Any) -> list[tuple[int, Any, Any]]:
    found = []
    size = 0
    for number, data in islice(lines, CHECKED):
        found.append((number, *(check.add(number, data) or (None, None))))
        size += len(data)
        if size >= CHECKED_BYTES:
            break
    return found
