"""S3Place: files as objects of a bucket, written by multipart uploads and joined by the store itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from videoqa.errors import OutputNotFound
from videoqa.storage import make_s3_client, translate_s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Place"]

_READ_BYTES = 1 << 20
_LEAST_PART_BYTES = 5 << 20
"""Shortest part that S3 takes, but for the last one."""


class S3Place:
    """A place below `s3://bucket/prefix/`."""

    def __init__(self, base: str, endpoint_url: str | None, piece_bytes: int) -> None:
        self.base = base
        self.piece_bytes = piece_bytes
        self._bucket, _, self._prefix = base.removeprefix("s3://").partition("/")
        self._endpoint_url = endpoint_url
        self._lock = threading.Lock()
        self._made: S3Client | None = None

    def _client(self) -> S3Client:
        with self._lock:
            if self._made is None:
                self._made = make_s3_client(self._endpoint_url)
            return self._made

    @contextmanager
    def _translate(self, file_id: str = "") -> Iterator[None]:
        with translate_s3_errors(self.base + file_id, self._bucket):
            yield

    def _key(self, file_id: str, name: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{file_id}/{name}"}

    def open(self, file_id: str, name: str) -> _PartWriter:
        """Begins an object; a multipart upload begins with its second piece."""
        return _PartWriter(self, file_id, self._client(), self._key(file_id, name))

    def read(self, file_id: str, name: str, start: int, end: int) -> Iterator[bytes]:
        """Yields the bytes from `start` to `end`; raises FileNotFoundError."""
        if start >= end:
            return
        with self._translate(file_id):
            try:
                with self._translate(file_id):
                    reply = self._client().get_object(
                        **self._key(file_id, name), Range=f"bytes={start}-{end - 1}"
                    )
            except OutputNotFound as error:
                raise FileNotFoundError(file_id) from error
            with closing(reply["Body"]) as body:
                while data := body.read(_READ_BYTES):
                    yield data

    def join(self, file_id: str, parts: Sequence[str], name: str) -> None:
        """Has the store make one object of several, which stay; parts that are too short for it pass through here."""
        client = self._client()
        sizes = []
        with self._translate(file_id):
            for part in parts:
                sizes.append(client.head_object(**self._key(file_id, part))["ContentLength"])
        if any(size < _LEAST_PART_BYTES for size in sizes[:-1]):
            self._join_here(file_id, parts, sizes, name)
        else:
            writer = _PartWriter(self, file_id, client, self._key(file_id, name))
            try:
                for part in parts:
                    writer.copy(self._key(file_id, part))
                writer.finish()
            except BaseException:
                writer.abort()
                raise

    def remove(self, file_id: str, names: Sequence[str]) -> None:
        """Deletes some objects of a file; those that have gone are no error."""
        with self._translate(file_id):
            for name in names:
                self._client().delete_object(**self._key(file_id, name))

    def _join_here(
        self, file_id: str, parts: Sequence[str], sizes: Sequence[int], name: str
    ) -> None:
        writer, held = self.open(file_id, name), bytearray()
        try:
            for part, size in zip(parts, sizes, strict=True):
                for data in self.read(file_id, part, 0, size):
                    held += data
                    while len(held) >= self.piece_bytes:
                        writer.write(bytes(held[: self.piece_bytes]))
                        del held[: self.piece_bytes]
            writer.write(bytes(held))
            writer.finish()
        except BaseException:
            writer.abort()
            raise

    def delete(self, file_id: str) -> None:
        """Deletes all objects of a file, and its multipart uploads that are not finished."""
        client, prefix = self._client(), f"{self._prefix}{file_id}/"
        with self._translate(file_id):
            pages = client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for found in page.get("Contents", ()):
                    client.delete_object(Bucket=self._bucket, Key=found["Key"])
            uploads = client.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix)
            for upload in uploads.get("Uploads", ()):
                with suppress(OutputNotFound), self._translate(file_id):
                    client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def list_ids(self) -> Iterator[tuple[str, float]]:
        """Yields the id of each file that has objects or unfinished uploads, and the time of each one's change."""
        client = self._client()
        with self._translate():
            pages = client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for found in page.get("Contents", ()):
                    yield self._read_id(found["Key"]), found["LastModified"].timestamp()
            uploads = client.get_paginator("list_multipart_uploads")
            for listing in uploads.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for upload in listing.get("Uploads", ()):
                    yield self._read_id(upload["Key"]), upload["Initiated"].timestamp()

    def _read_id(self, key: str) -> str:
        return key.removeprefix(self._prefix).partition("/")[0]


class _PartWriter:
    """Writes one object: at once if it is one piece, else as a multipart upload."""

    def __init__(self, place: S3Place, file_id: str, client: S3Client, key: dict[str, Any]) -> None:
        self._place = place
        self._file_id = file_id
        self._client: Any = client
        self._key = key
        self._first: bytes | None = None
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        if not data:
            return
        if self._first is None and not self._parts:
            self._first = data
            return
        self._send_first()
        self._send(data)

    def _send_first(self) -> None:
        first, self._first = self._first, None
        if first:
            self._send(first)

    def _begin(self) -> dict[str, Any]:
        if self._upload_id is None:
            self._upload_id = self._client.create_multipart_upload(**self._key)["UploadId"]
        return {**self._key, "UploadId": self._upload_id, "PartNumber": len(self._parts) + 1}

    def _send(self, data: bytes) -> None:
        with self._place._translate(self._file_id):
            number = self._begin()
            reply = self._client.upload_part(**number, Body=data)
            self._parts.append({"PartNumber": number["PartNumber"], "ETag": reply["ETag"]})

    def copy(self, source: dict[str, Any]) -> None:
        """Appends another object, which the store copies."""
        with self._place._translate(self._file_id):
            number = self._begin()
            reply = self._client.upload_part_copy(**number, CopySource=source)
            etag = reply["CopyPartResult"]["ETag"]
            self._parts.append({"PartNumber": number["PartNumber"], "ETag": etag})

    def finish(self) -> None:
        with self._place._translate(self._file_id):
            if self._upload_id is None:  # it is one piece, or empty
                self._client.put_object(**self._key, Body=self._first or b"")
                return
            self._client.complete_multipart_upload(
                **self._key, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
            )
            self._upload_id = None

    def abort(self) -> None:
        if self._upload_id is not None:
            with suppress(OutputNotFound), self._place._translate(self._file_id):
                self._client.abort_multipart_upload(**self._key, UploadId=self._upload_id)
