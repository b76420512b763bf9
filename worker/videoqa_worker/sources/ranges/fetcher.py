"""Fetches ranges of one remote file into its spool file; runs on fetching threads.

Knows the version of the file and writes no byte of another one. Does not know which bytes are
needed: `remote_file.py` decides that.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import BinaryIO

from videoqa.errors import (
    ChecksumMismatch,
    InputChanged,
    SourceError,
    SourceHttpError,
    SourceTimeout,
    SourceUnavailable,
    SourceUnreachable,
)
from videoqa_worker.sources.checksums import Digest, check_digest, make_hasher
from videoqa_worker.sources.ranges.account import FetchAccount
from videoqa_worker.sources.ranges.range_reader import (
    ByteRange,
    EndedEarly,
    RangeReader,
    RangeRefused,
    RangeResponse,
    Version,
)
from videoqa_worker.sources.spool.quota import Reservation

__all__ = ["HEAD_BYTES", "RangeFetcher"]

HEAD_BYTES = 64 << 10
"""Size of the first request. The index of an mp4 of one minute fits in."""
_RETRY_PAUSE_S = 0.2
"""First pause between attempts, doubled each time: a restarting server is back within 1 s."""
_ABSURD_BYTES = 1 << 43
"""Sizes from 8 TiB on are a server's mistake where a disk refuses them."""
_RETRYABLE = (EndedEarly, ChecksumMismatch, SourceTimeout, SourceUnavailable, SourceUnreachable)


class RangeFetcher:
    """Call `fetch_head` once; then, if the store serves ranges, `fetch_range` from any thread."""

    def __init__(
        self,
        account: FetchAccount,
        reader: RangeReader,
        path: Path,
        reservation: Reservation,
        *,
        whole: bool = False,
    ) -> None:
        """
        Arguments:
            whole: fetch the file by one response without ranges, all of one version.
        """
        self.version = Version()
        self.digest: Digest | None = None
        self.head_bytes = 0
        """Bytes present from the beginning on after `fetch_head`."""
        self._account = account
        self._reader = reader
        self._path = path
        self._reservation = reservation
        self._is_incomplete = True
        """True until the body has come completely."""
        self._continuable = False
        self._is_coded = False
        self._whole = whole

    def fetch_head(self) -> None:
        """Fetches the first 64 KiB; or all, if the store serves no ranges or names no version."""
        if self._whole:
            self._fetch_rest(0)
            return
        ranged, failures = self._fetch_first()
        if not ranged:
            self._fetch_rest(failures)
            return
        end = min(HEAD_BYTES, self._account.total_bytes or 0)
        self.fetch_range(self.head_bytes, end)
        self.head_bytes = max(self.head_bytes, end)

    def fetch_range(self, start: int, end: int) -> None:
        """Fetches [start, end); a retry continues behind the bytes that have come."""
        attempts = self._account.config.range_attempts
        at = start
        for attempt in count(1):
            try:
                while at < end:
                    at, incomplete = self._fetch_part(at, end)
                    if incomplete:
                        raise EndedEarly
                return
            except _RETRYABLE as error:
                if attempt >= attempts:
                    raise self._explain_giving_up(error, start, attempt) from error
            self._account.pause(_RETRY_PAUSE_S * 2 ** (attempt - 1))

    def fetch_digest(self) -> None:
        """Fetches the whole file's digest, if the store has not sent it yet."""
        if self.digest is None and not self._is_coded:
            self.digest = self._reader.fetch_digest(self.version)

    def _fetch_first(self) -> tuple[bool, int]:
        """Sends the first request.

        Returns:
            Whether ranges may follow; if not, how often the whole body was cut short so far.
        """
        try:
            with self._reader.get((0, HEAD_BYTES)) as response:
                if not response.partial:
                    self._take_whole(response)
                    return False, 1
                if (known := _find_extent(response)) is not None:
                    self._begin_ranges(response, *known)
                    # A single response needs no version, as long as no other is added to it.
                    return self.version.is_named or not self._is_incomplete, 1
        except RangeRefused:
            pass
        return False, 0

    # Ranges

    def _begin_ranges(self, response: RangeResponse, end: int, total_bytes: int) -> None:
        """Takes the first response, whose version and size all others must match."""
        self._account.total_bytes = total_bytes
        self._reservation.grow_to(end)
        self.version, self.digest = response.version, response.whole_digest
        with self._path.open("wb") as file:
            self._set_size(file, total_bytes)
            try:
                self.head_bytes, self._is_incomplete = self._receive(response, 0, end, file)
            except ChecksumMismatch:
                self.head_bytes = 0

    def _set_size(self, file: BinaryIO, total_bytes: int) -> None:
        try:
            file.truncate(total_bytes)
        except (OSError, OverflowError) as error:
            if total_bytes < _ABSURD_BYTES:
                raise
            raise SourceHttpError(
                f"{self._account.shown_url} states a size of {total_bytes} bytes in its Content-Range, expected "
                "that of a file; check the server"
            ) from error

    def _fetch_part(self, start: int, end: int) -> tuple[int, bool]:
        """Sends one request. A server may send fewer bytes than requested.

        Returns:
            The end of the bytes that came, and whether the server announced more.
        """
        try:
            with self._reader.get((start, end), self.version) as response:
                self._check_response(response, start, end)
                with self._path.open("r+b") as file:
                    return self._receive(response, start, response.end, file)
        except RangeRefused as error:
            raise InputChanged(
                f"{self._account.shown_url} sent a range of compressed bytes, and plain ones before; try again"
            ) from error

    def _check_response(self, response: RangeResponse, start: int, end: int | None) -> None:
        shown = self._account.shown_url
        # All of a file in place of a range: the condition of the request does not hold there.
        ours = self.version if response.partial else replace(self.version, condition=None)
        if not ours.agrees_with(response.version):
            raise InputChanged(
                f"{shown} changed while it was read, or its copies differ: {self.version.describe()} at first, "
                f"then {response.version.describe()}; try again"
            )
        if response.total_bytes not in (None, self._account.total_bytes):
            raise InputChanged(f"{shown} changed its size while it was read; try again")
        if not response.partial:
            raise InputChanged(
                f"{shown} sent all of the file in place of the bytes from {start} on, and ranges before; try again"
            )
        fits = response.end is not None and start < response.end <= (end or response.end)
        if response.start != start or not fits:
            raise SourceHttpError(
                f"{shown} sent another range than bytes={start}-{end - 1 if end else ''}: "
                f"got {response.start}-{(response.end or 0) - 1}"
            )

    def _explain_giving_up(self, error: Exception, start: int, attempts: int) -> Exception:
        if not isinstance(error, EndedEarly):
            return error
        return SourceUnavailable(
            f"{self._account.shown_url} ended early {attempts} times in the range from byte "
            f"{start} on; try again later"
        )

    # The whole file

    def _fetch_rest(self, failures: int) -> None:
        """Fetches the rest of the body: continues it where possible, else starts over."""
        account = self._account
        while self._is_incomplete:
            if failures > account.config.http_retries:
                raise SourceUnavailable(
                    f"{account.shown_url} ended early {failures} times, the last time after "
                    f"{self.head_bytes} of {account.total_bytes or '?'} bytes; try again later"
                )
            if failures:
                account.pause(_RETRY_PAUSE_S * 2 ** (failures - 1))
            version = self.version if self.head_bytes else None
            with self._reader.get(self._choose_remainder(), version) as response:
                self._take_whole(response)
            failures += 1
        account.expect_total(self.head_bytes)

    def _choose_remainder(self) -> ByteRange:
        pinned = self._continuable and self.version.condition is not None
        return (self.head_bytes, None) if self.head_bytes and pinned else None

    def _take_whole(self, response: RangeResponse) -> None:
        """Takes a response that is the whole file, or that continues it."""
        if response.partial:
            self._check_response(response, self.head_bytes, None)
        else:
            self._account.discard_bytes(self.head_bytes)
            self.head_bytes = 0
        self.version, self.digest = response.version, response.whole_digest
        self._continuable = response.continuable and not self._whole
        self._is_coded = response.is_coded
        if response.total_bytes is not None:
            self._account.expect_total(response.total_bytes)
            self._reservation.grow_to(response.total_bytes)
        with self._path.open("r+b") as file:
            file.truncate(self.head_bytes)
            self.head_bytes, self._is_incomplete = self._receive(
                response, self.head_bytes, response.end, file
            )

    # Ranges and the whole file

    def _receive(
        self, response: RangeResponse, at: int, end: int | None, file: BinaryIO
    ) -> tuple[int, bool]:
        """Writes the body from `at` on; returns as `_fetch_part` does."""
        digest, begun = response.part_digest, at
        hasher = make_hasher(digest.algorithm) if digest else None
        file.seek(at)
        try:
            for chunk in response.chunks:
                at += len(chunk)
                if end is None:
                    self._reservation.grow_to(at)
                elif at > end:
                    raise self._make_too_long(end)
                file.write(chunk)
                self._account.add_bytes(len(chunk))
                if hasher is not None:
                    hasher.update(chunk)
        except EndedEarly:
            return at, True
        except Exception:  # a time-out, for example: the retry begins where this request began
            self._account.discard_bytes(file.tell() - begun)
            raise
        if end is not None and at < end:
            return at, True
        if hasher is not None and digest is not None:
            try:
                check_digest(hasher, digest, self._account.shown_url)
            except ChecksumMismatch:
                self._account.discard_bytes(at - begun)
                raise
        return at, False

    def _make_too_long(self, end: int) -> SourceError:
        return SourceHttpError(
            f"{self._account.shown_url} sent more bytes than announced, expected them to end at {end}; "
            "try again"
        )


def _find_extent(response: RangeResponse) -> tuple[int, int] | None:
    """Returns the first range's end and the total; None if no second range could safely follow."""
    end, total_bytes = response.end, response.total_bytes
    if response.start != 0 or not end or total_bytes is None or end > total_bytes:
        return None
    return (end, total_bytes) if response.version.is_named or end == total_bytes else None
