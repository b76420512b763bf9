"""Writers: the bytes of a file on their way to its place, in pieces, with its record and its charge."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from videoqa.gateway.files.index import FileRecord, Purpose, QuotaReached, State
from videoqa.gateway.files.names import draw_id, name_object
from videoqa.gateway.files.place import ObjectWriter
from videoqa.gateway.files.storage_errors import translate_storage_errors
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.settings import GatewaySettings
from videoqa.telemetry import log_events

if TYPE_CHECKING:
    from videoqa.gateway.files.files import Files

__all__ = ["FORM_BYTES", "STALLED_S", "FileWriter", "PieceWriter", "refuse_length", "refuse_quota"]

log = logging.getLogger(__name__)

FORM_BYTES = 16 << 10
"""Most bytes of a form around its file."""
STALLED_S = 900
"""Time after the last bytes at which the sweep deletes an upload that nobody ended: its gateway is gone."""
_CHARGED_BYTES = 64 << 20
"""Bytes that are charged at a time where the length is not known."""


class PieceWriter:
    """Writes one object of a file, in pieces of its place."""

    def __init__(self, files: Files, file_id: str, name: Callable[[bytes], str]) -> None:
        """
        Arguments:
            name: called with the first bytes; returns the object's name.
        """
        self._files = files
        self._file_id = file_id
        self._name = name
        self._held = bytearray()
        self._object: ObjectWriter | None = None
        self.length = 0

    async def write(self, data: bytes) -> None:
        """Takes the next bytes; raises HttpError if the disk is full, or the store is away."""
        self.length += len(data)
        self._held += data
        size = self._files.place.piece_bytes
        while len(self._held) >= size:
            piece = bytes(memoryview(self._held)[:size])
            del self._held[:size]
            await self._store(piece)

    async def _store(self, piece: bytes) -> None:
        with translate_storage_errors():
            if self._object is None:
                place = self._files.place
                name = self._name(piece)
                self._object = await self._files.run_store(place.open, self._file_id, name)
            await self._files.run_store(self._object.write, piece)

    async def finish(self) -> None:
        """Stores the last bytes; an object without any is stored as well."""
        if self._held or self._object is None:
            await self._store(bytes(self._held))
            self._held.clear()
        if self._object is not None:
            with translate_storage_errors():
                await self._files.run_store(self._object.finish)
            self._files.metrics.note_upload(self.length)

    async def abort(self) -> None:
        """Takes back what was stored."""
        self._files.metrics.note_broken_upload()
        if self._object is not None:
            await self._files.run_store(self._object.abort)


class FileWriter:
    """Writes one file, in pieces of its place; see `Files.writing`."""

    def __init__(
        self, files: Files, filename: str, tenant: str | None, *, most_bytes: int | None
    ) -> None:
        """
        Arguments:
            most_bytes: largest file of the API key; None: as large as workers read.
        """
        now_s = time.time()
        self._most_bytes = min(files.settings.max_source_bytes, most_bytes or sys.maxsize)
        self._files = files
        self._settings = files.settings
        self._record = FileRecord(
            id=draw_id(now_s),
            tenant=tenant,
            filename=filename,
            purpose="user_data",
            bytes=0,
            created_at=int(now_s),
            name="content",
        )
        self._pieces = PieceWriter(files, self._record.id, self._name_object)
        self._charge = 0
        self._renewed_s = now_s
        self._has_begun = self._has_ended = False

    @property
    def id(self) -> str:
        return self._record.id

    def name(self, filename: str) -> None:
        """Sets the file's name, where it comes after the writer was made, and before any bytes."""
        self._record = self._record.model_copy(update={"filename": filename})

    async def begin(self, length: int | None) -> None:
        """Charges the length, and makes the record by which the sweep finds what is left."""
        most = self._most_bytes
        if length is not None and length - FORM_BYTES > most:
            raise self._refuse_length()
        await self._change(None, "uploading", min(length or 0, most))
        self._has_begun = True

    async def _change(self, before: State | None, after: State | None, charge: int) -> None:
        settings = self._settings
        ends_at = self._record.expires_at if after == "ready" else time.time() + STALLED_S
        try:
            has_changed = await self._files.run(
                self._files.index.change,
                self._record,
                before,
                after,
                charge=charge,
                due_s=ends_at if after else None,
                most=settings.gateway_files_bytes,
                most_of_tenant=settings.gateway_files_tenant_bytes,
            )
        except QuotaReached as error:
            raise refuse_quota(settings, error) from error
        if not has_changed:
            raise HttpError(
                408,
                "upload_stalled",
                f"no bytes came for {STALLED_S:,} s, and the upload was ended; send it again",
            )
        self._charge = charge

    async def write(self, data: bytes) -> None:
        """Takes the next bytes.

        Raises:
            HttpError: the file is too large, the quotas or the disk are full, or the store is away.
        """
        length = self._pieces.length + len(data)
        if length > self._most_bytes:
            raise self._refuse_length()
        if length > self._charge:
            await self._charge_more(length)
        elif time.time() > self._renewed_s + STALLED_S / 4:
            await self._renew()
        await self._pieces.write(data)

    def _name_object(self, beginning: bytes) -> str:
        name = name_object(self._record.filename, beginning)
        self._record = self._record.model_copy(update={"name": name})
        return name

    async def _charge_more(self, length: int) -> None:
        try:
            await self._change("uploading", "uploading", length + _CHARGED_BYTES)
        except HttpError:
            await self._change("uploading", "uploading", length)

    async def _renew(self) -> None:
        self._renewed_s = time.time()
        await self._files.run(self._files.index.set_due, self.id, self._renewed_s + STALLED_S)

    async def finish(self, purpose: Purpose, *, ttl_s: float | None = None) -> FileRecord:
        """Stores the last bytes; from now on the file is there for everybody of its tenant.

        Arguments:
            ttl_s: time to live; None: the gateway's.
        """
        await self._pieces.finish()
        ttl_s = self._settings.gateway_files_ttl_s if ttl_s is None else ttl_s
        self._record = self._record.model_copy(
            update={
                "purpose": purpose,
                "bytes": self._pieces.length,
                "expires_at": int(self._record.created_at + ttl_s),
            }
        )
        await self._change("uploading", "ready", self._pieces.length)
        self._has_ended = True
        return self._record

    async def close(self) -> None:
        """Deletes what there is of a file that was not finished."""
        if self._has_ended or not self._has_begun:
            return
        try:
            await self._pieces.abort()
            await self._files.run_store(self._files.place.delete, self.id)
            await self._files.run(
                self._files.index.change, self._record, "uploading", None, charge=0, due_s=None
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller's own error is the one to be told
            log_events.FILE_LEFT.log(log, file_id=self.id, error=error)

    def _refuse_length(self) -> HttpError:
        return refuse_length(self._most_bytes)


def refuse_length(most: int, param: str = "file") -> HttpError:
    """Makes the error of a file that is too large."""
    return HttpError(
        413,
        "file_too_large",
        f"got a file of more than {most:,} bytes, which is the most that workers read (VIDEOQA_MAX_SOURCE_BYTES), or "
        "that this API key may upload",
        param=param,
        headers={"connection": "close"},
    )


def refuse_quota(settings: GatewaySettings, error: QuotaReached) -> HttpError:
    """Makes the error of a file that does not fit into the quotas."""
    most = settings.gateway_files_tenant_bytes if error.is_tenants else settings.gateway_files_bytes
    whose = "your files" if error.is_tenants else "the files of all tenants"
    return HttpError(
        507,
        "file_quota_reached",
        f"with this file {whose} would have more than {most:,} bytes; delete some, or wait until they expire",
        # A client that retries errors of a server would send the file again.
        headers={"x-should-retry": "false", "connection": "close"},
    )
