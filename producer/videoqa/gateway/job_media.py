"""Media of jobs: the bytes of an input, read again for people who look at a job.

Uploaded files are read as `/v1/files` reads them. Of other inputs only those are read that lie below a URL of
VIDEOQA_GATEWAY_MEDIA, which the operator wrote, and whose names are those of videos and pictures: the gateway has
credentials and a file system of its own, and no request or record decides what of it is shown. `http(s)` inputs are
never read, so nobody has the gateway call a host.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import TYPE_CHECKING

from videoqa.contract import parse_object_url
from videoqa.errors import OutputDenied, OutputNotFound
from videoqa.gateway.access.input_scope import is_inside
from videoqa.storage import make_s3_client, translate_s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["JobMedia", "MediaVersion", "find_media_kind"]

_READ_BYTES = 1 << 20
_KINDS = {
    ".3gp": "video/3gpp",
    ".avi": "video/x-msvideo",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".ogv": "video/ogg",
    ".png": "image/png",
    ".ts": "video/mp2t",
    ".webm": "video/webm",
    ".webp": "image/webp",
}
"""Types by the suffix of a name; none of them is one that a browser runs."""
_UNKNOWN = "application/octet-stream"


def find_media_kind(name: str) -> str:
    """Returns the media type of a file or an object by its suffix."""
    return _KINDS.get(PurePosixPath(name[-300:]).suffix.lower(), _UNKNOWN)


@dataclass(frozen=True)
class MediaVersion:
    """The bytes of an input as they are now."""

    bytes: int
    etag: str
    """Version as a worker writes it into `sources` of a result, so that both may be compared."""


class JobMedia:
    """Inputs below the URLs of the setting. Calls block."""

    def __init__(self, prefixes: tuple[str, ...], s3_endpoint_url: str | None) -> None:
        self._prefixes = prefixes
        self._endpoint_url = s3_endpoint_url
        self._lock = Lock()
        self._made: S3Client | None = None

    def allows(self, url: str) -> bool:
        """Tells if the operator lets people see the bytes of this URL."""
        is_media = find_media_kind(url) != _UNKNOWN
        return url.startswith(("s3://", "file://")) and is_media and is_inside(url, self._prefixes)

    def stat(self, url: str) -> MediaVersion:
        """Returns the present version; raises OutputDenied, OutputNotFound, OutputUnavailable."""
        bucket, name = self._locate(url)
        if bucket is None:
            with closing(_File(Path(name), self._list_roots())) as file:
                return file.version
        with translate_s3_errors(url, bucket):
            found = self._s3().head_object(Bucket=bucket, Key=name)
        return MediaVersion(found["ContentLength"], found["ETag"].strip('"'))

    def read(
        self, url: str, version: MediaVersion, start: int, end: int
    ) -> Generator[bytes, None, None]:
        """Yields the bytes from `start` to `end` of this version; raises as `stat`."""
        bucket, name = self._locate(url)
        if start >= end:
            return
        if bucket is None:
            with closing(_File(Path(name), self._list_roots())) as file:
                if file.version != version:
                    raise OutputNotFound(f"{url} was replaced meanwhile; ask again")
                yield from file.read(start, end)
            return
        with translate_s3_errors(url, bucket):
            reply = self._s3().get_object(
                Bucket=bucket,
                Key=name,
                Range=f"bytes={start}-{end - 1}",
                IfMatch=f'"{version.etag}"',
            )
            with closing(reply["Body"]) as body:
                while data := body.read(_READ_BYTES):
                    yield data

    def _locate(self, url: str) -> tuple[str | None, str]:
        """Returns bucket and key, or None and a path, of a URL that is allowed; raises OutputDenied."""
        if not self.allows(url):
            raise OutputDenied(
                f"the gateway reads no input at {url!r:.300}; add a URL to VIDEOQA_GATEWAY_MEDIA"
            )
        if url.startswith(
            "s3://"
        ):  # not quoted, as a worker reads it: the key is all behind the bucket
            bucket, _, key = url.removeprefix("s3://").partition("/")
            return bucket, key
        try:
            return None, parse_object_url(url).name
        except ValueError as error:
            raise OutputDenied(f"{url!r:.300}: {error}") from error

    def _list_roots(self) -> list[Path]:
        found = [one for one in self._prefixes if one.startswith("file://")]
        return [parse_object_url(one).path.resolve() for one in found]

    def _s3(self) -> S3Client:
        with self._lock:
            if self._made is None:
                self._made = make_s3_client(self._endpoint_url)
            return self._made


class _File:
    """An open file below one of the folders; links that lead out of them are refused."""

    def __init__(self, path: Path, roots: list[Path]) -> None:
        try:
            resolved = path.resolve()
            if not any(resolved.is_relative_to(root) for root in roots):
                raise OutputDenied(f"{path} leads out of the folders of VIDEOQA_GATEWAY_MEDIA")
            # At once, since a named pipe would hold its reader; and no link that came meanwhile.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(resolved, flags)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise OutputNotFound(f"no file at {path} on the gateway's machine") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise OutputDenied(f"can't read {path}: {error}") from error
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OutputDenied(f"{path} is no regular file")
        self.version = MediaVersion(status.st_size, f"{status.st_size}-{status.st_mtime_ns}")

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Yields bytes of the file."""
        while start < end and (data := os.pread(self._fd, min(_READ_BYTES, end - start), start)):
            start += len(data)
            yield data

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)
