"""Uploads: large files in parts, each of which may be sent again, as OpenAI's API has them.

Each part is an object beside the file's, so that they may come in any order, and through any gateway. They are joined
when the upload is completed: by the store itself in a bucket. The file's record is there from the beginning, with the
whole length charged, and the sweep deletes what an upload leaves that is not completed in an hour.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

import anyio
import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from videoqa.errors import InvalidRequest
from videoqa.gateway.files.files import Files
from videoqa.gateway.files.index import FileRecord, Purpose, QuotaReached
from videoqa.gateway.files.names import draw_id, name_object
from videoqa.gateway.files.storage_errors import translate_storage_errors
from videoqa.gateway.files.writer import PieceWriter, refuse_length, refuse_quota
from videoqa.gateway.http.problems import HttpError
from videoqa.jobs import translate_redis_errors
from videoqa.telemetry import log_events

__all__ = ["MOST_PART_BYTES", "PartWriter", "Upload", "UploadPart", "Uploads"]

log = logging.getLogger(__name__)

MOST_PART_BYTES = 64 << 20
"""Longest part, which is also the one that OpenAI's client sends."""
MOST_PARTS = 10_000
LIVES_S = 3600
JOINED_S = 900
"""Longest time for joining; the sweep leaves the parts alone for so long after the upload's end."""
KEPT_S = 7 * 86400
"""Time for which an upload that has ended is told from an unknown one."""

Status = Literal["pending", "completed", "cancelled", "expired"]


class UploadInfo(BaseModel):
    """The part of an upload's record that does not change."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    file: FileRecord
    created_at: int
    expires_at: int
    ttl_s: float | None
    """Time to live of the file; None: the gateway's."""


class UploadPart(BaseModel):
    """A part that was stored whole."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    bytes: int
    created_at: int


class Upload(BaseModel):
    """An upload as it is now."""

    model_config = ConfigDict(frozen=True)

    info: UploadInfo
    status: Status
    parts: tuple[UploadPart, ...]
    """In the order in which they were stored."""
    received: int
    """Bytes of all parts, also of those that came twice."""


class Uploads:
    """The uploads of one prefix."""

    def __init__(self, files: Files, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._files = files
        self._redis = client
        self._url = url
        self._prefix = prefix

    def _key(self, upload_id: str) -> str:
        return f"{self._prefix}:upload:{upload_id}"

    async def create(
        self,
        filename: str,
        *,
        tenant: str | None,
        length: int,
        purpose: Purpose,
        ttl_s: float | None,
        most_bytes: int | None = None,
    ) -> Upload:
        """Begins an upload, and charges its whole length.

        Raises:
            HttpError: it is too large, or does not fit into the quotas.
        """
        settings, now_s = self._files.settings, time.time()
        _ = self._files.place
        most = min(settings.max_source_bytes, most_bytes or settings.max_source_bytes)
        if length > most:
            raise refuse_length(most, "bytes")
        record = FileRecord(
            id=draw_id(now_s),
            tenant=tenant,
            filename=filename,
            purpose=purpose,
            bytes=length,
            created_at=int(now_s),
            name="content",
        )
        info = UploadInfo(
            id=draw_id(now_s, "upload_"),
            file=record,
            created_at=int(now_s),
            expires_at=int(now_s) + LIVES_S,
            ttl_s=ttl_s,
        )
        await self._charge(info, None, length)
        await self._files.run(self._write, info)
        return Upload(info=info, status="pending", parts=(), received=0)

    async def _charge(
        self, info: UploadInfo, before: Literal["uploading"] | None, charge: int
    ) -> None:
        settings = self._files.settings
        try:
            has_changed = await self._files.run(
                self._files.index.change,
                info.file,
                before,
                "uploading",
                charge=charge,
                due_s=info.expires_at + JOINED_S,
                most=settings.gateway_files_bytes,
                most_of_tenant=settings.gateway_files_tenant_bytes,
            )
        except QuotaReached as error:
            raise refuse_quota(settings, error) from error
        if not has_changed:
            raise refuse_ended(info.id, "expired")

    def _write(self, info: UploadInfo) -> None:
        key = self._key(info.id)
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(key, mapping={"info": info.model_dump_json(), "status": "pending"})
            pipe.expire(key, LIVES_S + KEPT_S)
            pipe.execute()

    async def get(self, upload_id: str, tenant: str | None) -> Upload:
        """Returns an upload of the tenant; raises HttpError if there is none, or it is another tenant's."""
        upload = None
        if upload_id.startswith("upload_") and len(upload_id) < 100 and upload_id.isascii():
            upload = await self._files.run(self._read, upload_id)
        if upload is None or (tenant is not None and upload.info.file.tenant != tenant):
            raise HttpError(
                404, "upload_not_found", f"there is no upload {upload_id!r:.100}", param="upload_id"
            )
        return upload

    def _read(self, upload_id: str) -> Upload | None:
        with translate_redis_errors(self._url):
            found = cast("dict[str, str]", self._redis.hgetall(self._key(upload_id)))
        try:
            info = UploadInfo.model_validate_json(found["info"])
            parts = [
                UploadPart.model_validate_json(value)
                for name, value in found.items()
                if name.startswith("part:")
            ]
            status = found["status"]
            if status == "pending" and time.time() > info.expires_at:
                status = "expired"
            return Upload(
                info=info,
                status=cast(Any, status),
                parts=tuple(sorted(parts, key=lambda part: part.id)),
                received=int(found.get("received", 0)),
            )
        except (KeyError, ValueError, ValidationError):
            return None

    # Parts

    @asynccontextmanager
    async def writing_part(self, upload: Upload) -> AsyncIterator[PartWriter]:
        """Yields the writer of a part; without its `finish`, nothing of the part stays."""
        if upload.status != "pending":
            raise refuse_ended(upload.info.id, upload.status)
        if len(upload.parts) >= MOST_PARTS:
            raise InvalidRequest(f"got more than {MOST_PARTS:,} parts, expected longer ones")
        with self._files.sending(upload.info.file.tenant), self._files.taking_turn():
            writer = PartWriter(self, self._files, upload)
            try:
                yield writer
            finally:
                with anyio.CancelScope(shield=True):
                    await writer.close()

    async def add_part(self, upload: Upload, part: UploadPart) -> None:
        """Notes a part that lies in its place.

        Raises:
            HttpError: the upload has ended meanwhile, or its parts no longer fit into the quotas.
        """
        received = await self._files.run(self._count, upload.info.id, part.bytes)
        if received > upload.info.file.bytes:
            # Parts that were sent again: they take room until the upload ends.
            try:
                await self._charge(upload.info, "uploading", received)
            except HttpError:
                await self._files.run(self._count, upload.info.id, -part.bytes)
                raise
        now = await self._files.run(self._note, upload.info.id, part)
        if now != "pending":
            raise refuse_ended(upload.info.id, now)

    def _count(self, upload_id: str, size: int) -> int:
        with translate_redis_errors(self._url):
            return self._redis.hincrby(self._key(upload_id), "received", size)

    def _note(self, upload_id: str, part: UploadPart) -> Status:
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(self._key(upload_id), f"part:{part.id}", part.model_dump_json())
            pipe.hget(self._key(upload_id), "status")
            return cast(Status, pipe.execute()[1])

    # End

    async def complete(
        self, upload: Upload, part_ids: Sequence[str], md5: str | None = None
    ) -> FileRecord:
        """Makes the file of its parts, in this order; for an upload that is completed already, returns the file.

        Raises:
            HttpError: a part is unknown, bytes are missing or too many, the digest is another one, or another call
                completes it now.
        """
        info = upload.info
        async with self._locking(info.id):
            # Another call may have ended it meanwhile.
            upload = await self.get(info.id, None)
            if upload.status == "completed":
                return await self._files.get(info.file.id, None)
            if upload.status != "pending":
                raise refuse_ended(info.id, upload.status)
            parts = _choose(upload, part_ids)
            if md5 is not None:
                await self._check_digest(info, parts, md5)
            with translate_storage_errors():
                first = b""
                async for data in self._read_parts(info, parts[:1], end=16):
                    first += data
                name = name_object(info.file.filename, first)
                await self._files.run_store(self._files.place.join, info.file.id, part_ids, name)
            settings = self._files.settings
            ttl_s = settings.gateway_files_ttl_s if info.ttl_s is None else info.ttl_s
            expires_at = int(time.time() + ttl_s)
            record = info.file.model_copy(update={"name": name, "expires_at": expires_at})
            has_changed = await self._files.run(
                self._files.index.change,
                record,
                "uploading",
                "ready",
                charge=record.bytes,
                due_s=expires_at,
            )
            if not has_changed:
                raise refuse_ended(info.id, "expired")
            await self._files.run(self._set_status, info.id, "completed")
            with translate_storage_errors():
                all_parts = [part.id for part in upload.parts]
                await self._files.run_store(self._files.place.remove, info.file.id, all_parts)
        return record

    async def _check_digest(self, info: UploadInfo, parts: Sequence[UploadPart], md5: str) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        with translate_storage_errors():
            async for data in self._read_parts(info, parts):
                digest.update(data)
        if digest.hexdigest() != md5.lower():
            raise InvalidRequest(
                f"md5: got {md5!r:.100}, and the parts in this order have {digest.hexdigest()}; send the one that "
                "differs again",
                param="md5",
            )

    async def _read_parts(
        self, info: UploadInfo, parts: Sequence[UploadPart], end: int | None = None
    ) -> AsyncIterator[bytes]:
        for part in parts:
            source = info.file.model_copy(update={"name": part.id, "bytes": part.bytes})
            async for data in self._files.read(source, 0, end):
                yield data

    async def cancel(self, upload: Upload) -> None:
        """Ends an upload without a file, and deletes its parts.

        Raises:
            HttpError: it is completed.
        """
        async with self._locking(upload.info.id):
            # Another call may have ended it meanwhile.
            upload = await self.get(upload.info.id, None)
            if upload.status == "completed":
                raise refuse_ended(upload.info.id, upload.status)
            await self._files.run(self._set_status, upload.info.id, "cancelled")
            with translate_storage_errors():
                await self._files.run_store(self._files.place.delete, upload.info.file.id)
            await self._files.run(
                self._files.index.change, upload.info.file, "uploading", None, charge=0, due_s=None
            )

    def _set_status(self, upload_id: str, status: Status) -> None:
        with translate_redis_errors(self._url):
            self._redis.hset(self._key(upload_id), "status", status)

    @asynccontextmanager
    async def _locking(self, upload_id: str) -> AsyncIterator[None]:
        """Locks the end of an upload: two calls at once would join or delete each other's parts."""
        key = f"{self._prefix}:upload:ending:{upload_id}"

        def lock() -> bool:
            with translate_redis_errors(self._url):
                return bool(self._redis.set(key, 1, nx=True, ex=JOINED_S))

        def unlock() -> None:
            with translate_redis_errors(self._url):
                self._redis.delete(key)

        if not await self._files.run(lock):
            raise HttpError(
                409,
                "upload_busy",
                f"another call completes or cancels the upload {upload_id}; try again",
            )
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._files.run(unlock)


class PartWriter:
    """Writes one part of an upload."""

    def __init__(self, uploads: Uploads, files: Files, upload: Upload) -> None:
        now_s = time.time()
        self.id = draw_id(now_s, "part_")
        self._uploads = uploads
        self._files = files
        self._upload = upload
        self._created_at = int(now_s)
        self._pieces = PieceWriter(files, upload.info.file.id, lambda beginning: self.id)
        self._has_ended = False

    async def write(self, data: bytes) -> None:
        """Takes the next bytes; raises HttpError if the part is too large."""
        if self._pieces.length + len(data) > MOST_PART_BYTES:
            raise HttpError(
                413,
                "part_too_large",
                f"got a part of more than {MOST_PART_BYTES:,} bytes; send several",
                param="data",
                headers={"connection": "close"},
            )
        await self._pieces.write(data)

    async def finish(self) -> UploadPart:
        """Stores the last bytes; the part is there then."""
        await self._pieces.finish()
        part = UploadPart(id=self.id, bytes=self._pieces.length, created_at=self._created_at)
        await self._uploads.add_part(self._upload, part)
        self._has_ended = True
        return part

    async def close(self) -> None:
        """Takes back a part that was not finished."""
        if self._has_ended:
            return
        try:
            await self._pieces.abort()
            await self._files.run_store(
                self._files.place.remove, self._upload.info.file.id, [self.id]
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller's own error is the one to be told
            log_events.PART_LEFT.log(log, part_id=self.id, error=error)


def _choose(upload: Upload, part_ids: Sequence[str]) -> list[UploadPart]:
    by_id = {part.id: part for part in upload.parts}
    if len(set(part_ids)) < len(part_ids):
        raise InvalidRequest("part_ids: got a part twice, expected each once", param="part_ids")
    for n, part_id in enumerate(part_ids):
        if part_id not in by_id:
            raise HttpError(
                400,
                "part_not_found",
                f"part_ids.{n}: there is no part {part_id!r:.100} of this upload; send it, or take it out",
                param=f"part_ids.{n}",
            )
    parts = [by_id[part_id] for part_id in part_ids]
    found, expected = sum(part.bytes for part in parts), upload.info.file.bytes
    if found != expected:
        raise InvalidRequest(
            f"got parts of {found:,} bytes, expected the {expected:,} bytes of the upload; send what is missing",
            param="part_ids",
        )
    return parts


def refuse_ended(upload_id: str, status: Status) -> HttpError:
    """Makes the error of an upload that has ended."""
    if status == "expired":
        return HttpError(
            410,
            "upload_expired",
            f"the upload {upload_id} was not completed in {LIVES_S:,} s; begin another one",
            param="upload_id",
        )
    return HttpError(
        400,
        "upload_ended",
        f"the upload {upload_id} is {status}; begin another one",
        param="upload_id",
    )
