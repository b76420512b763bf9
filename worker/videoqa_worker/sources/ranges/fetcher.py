"""How the bytes of one remote file come into its place in the spool; runs on fetching threads.

Knows which state of the file it reads, and lets no byte of another in. Knows nothing of
what is needed: `remote.py` decides that.
"""

from __future__ import annotations

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
from videoqa_worker.sources.checksums import Digest, check, hasher_for
from videoqa_worker.sources.ranges.reader import (
    Answer,
    EndedEarly,
    RangeRefused,
    Reader,
    Version,
    Wanted,
)
from videoqa_worker.sources.ranges.transfer import Transfer
from videoqa_worker.sources.spool.quota import Room

__all__ = ["HEAD_BYTES", "Fetcher"]

HEAD_BYTES = 64 << 10
"""Of the first request. The index of a minute's mp4 fits, at the cost of a few packets."""
_RETRY_PAUSE_S = 0.2
"""Doubled each time: a restarting server is back within a second."""
_AGAIN = (EndedEarly, ChecksumMismatch, SourceTimeout, SourceUnavailable, SourceUnreachable)


class Fetcher:
    """`head` once; then, where the store gives ranges, `range` from any number of threads."""

    def __init__(self, transfer: Transfer, reader: Reader, path: Path, room: Room) -> None:
        self.version = Version()
        self.digest: Digest | None = None
        self.head_bytes = 0
        """How many bytes from the beginning on are there after `head`."""
        self._transfer = transfer
        self._reader = reader
        self._path = path
        self._room = room
        self._early = True
        """The whole body is not there yet."""
        self._continuable = False

    def head(self) -> None:
        """The first 64 KiB; or all, if the store gives no ranges that can be told apart."""
        ranged, failures = self._first()
        if not ranged:
            self._rest(failures)
            return
        end = min(HEAD_BYTES, self._transfer.total_bytes or 0)
        self.range(self.head_bytes, end)
        self.head_bytes = max(self.head_bytes, end)

    def range(self, start: int, end: int) -> None:
        """[start, end), tried again on its own; what came before a break is kept."""
        attempts = self._transfer.config.range_attempts
        at = start
        for attempt in count(1):
            try:
                while at < end:
                    at, early = self._part(at, end)
                    if early:
                        raise EndedEarly
                return
            except _AGAIN as error:
                if attempt >= attempts:
                    raise self._given_up(error, start, attempt) from error
            self._transfer.pause(_RETRY_PAUSE_S * 2 ** (attempt - 1))

    def ask_digest(self) -> None:
        """Of the whole file, if its store has not told it yet."""
        self.digest = self.digest or self._reader.digest(self.version)

    def _first(self) -> tuple[bool, int]:
        """Whether ranges may follow; and if not, how often the whole was cut short so far."""
        try:
            with self._reader.get((0, HEAD_BYTES)) as answer:
                if not answer.partial:
                    self._take(answer)
                    return False, 1
                if (known := _known(answer)) is not None:
                    self._begin(answer, *known)
                    # One response alone needs no name, as long as nothing is added to it.
                    return self.version.named or not self._early, 1
        except RangeRefused:
            pass
        return False, 0

    # By ranges

    def _begin(self, answer: Answer, end: int, total_bytes: int) -> None:
        """The answer that all others must agree with."""
        self._transfer.total_bytes = total_bytes
        self._room.hold(end)
        self.version, self.digest = answer.version, answer.whole_digest
        with self._path.open("wb") as file:
            file.truncate(total_bytes)
            try:
                self.head_bytes, self._early = self._receive(answer, 0, end, file)
            except ChecksumMismatch:
                self.head_bytes = 0

    def _part(self, start: int, end: int) -> tuple[int, bool]:
        """One request. A server may send less than it was asked for.

        Returns:
            Up to where the bytes are there, and whether more were promised.
        """
        with self._reader.get((start, end), self.version) as answer:
            self._check(answer, start, end)
            with self._path.open("r+b") as file:
                return self._receive(answer, start, answer.end, file)

    def _check(self, answer: Answer, start: int, end: int | None) -> None:
        shown = self._transfer.shown
        if not self.version.agrees(answer.version):
            raise InputChanged(f"{shown} changed while it was read (ETag or date); try again")
        if answer.total_bytes not in (None, self._transfer.total_bytes):
            raise InputChanged(f"{shown} changed its size while it was read; try again")
        fits = answer.end is not None and start < answer.end <= (end or answer.end)
        if not answer.partial or answer.start != start or not fits:
            raise SourceHttpError(
                f"{shown} sent another range than bytes={start}-{end - 1 if end else ''}: "
                f"got {f'{answer.start}-{(answer.end or 0) - 1}' if answer.partial else 'all'}"
            )

    def _given_up(self, error: Exception, start: int, attempts: int) -> Exception:
        if not isinstance(error, EndedEarly):
            return error
        return SourceUnavailable(
            f"{self._transfer.shown} ended early {attempts} times in the range from byte "
            f"{start} on; try again later"
        )

    # In one piece

    def _rest(self, failures: int) -> None:
        """What is left of a whole body: continued where it can be, else fetched anew."""
        transfer = self._transfer
        while self._early:
            if failures > transfer.config.http_retries:
                raise SourceUnavailable(
                    f"{transfer.shown} ended early {failures} times, the last time after "
                    f"{self.head_bytes} of {transfer.total_bytes or '?'} bytes; try again later"
                )
            if failures:
                transfer.pause(_RETRY_PAUSE_S * 2 ** (failures - 1))
            version = self.version if self.head_bytes else None
            with self._reader.get(self._left(), version) as answer:
                self._take(answer)
            failures += 1
        transfer.expect(self.head_bytes)

    def _left(self) -> Wanted:
        pinned = self._continuable and self.version.condition is not None
        return (self.head_bytes, None) if self.head_bytes and pinned else None

    def _take(self, answer: Answer) -> None:
        """A response that is the whole file, or continues it."""
        if self.version.named and not self.version.agrees(answer.version):
            raise InputChanged(
                f"{self._transfer.shown} changed while it was read (ETag or date); try again"
            )
        if answer.partial:
            self._check(answer, self.head_bytes, None)
        else:
            self._transfer.lose(self.head_bytes)
            self.head_bytes = 0
        self.version, self.digest = answer.version, answer.whole_digest
        self._continuable = answer.continuable
        if answer.total_bytes is not None:
            self._transfer.expect(answer.total_bytes)
            self._room.hold(answer.total_bytes)
        with self._path.open("r+b") as file:
            file.truncate(self.head_bytes)
            self.head_bytes, self._early = self._receive(answer, self.head_bytes, answer.end, file)

    # Both

    def _receive(
        self, answer: Answer, at: int, end: int | None, file: BinaryIO
    ) -> tuple[int, bool]:
        """Writes the body from `at` on; see `_part` for what comes back."""
        digest, begun = answer.part_digest, at
        hasher = hasher_for(digest.algorithm) if digest else None
        file.seek(at)
        try:
            for chunk in answer.chunks:
                at += len(chunk)
                if end is None:
                    self._room.hold(at)
                elif at > end:
                    raise self._too_long(end)
                file.write(chunk)
                self._transfer.add(len(chunk))
                if hasher is not None:
                    hasher.update(chunk)
        except EndedEarly:
            return at, True
        except Exception:  # silence, say: where it is tried again, it begins where this began
            self._transfer.lose(file.tell() - begun)
            raise
        if end is not None and at < end:
            return at, True
        if hasher is not None and digest is not None:
            try:
                check(hasher, digest, self._transfer.shown)
            except ChecksumMismatch:
                self._transfer.lose(at - begun)
                raise
        return at, False

    def _too_long(self, end: int) -> SourceError:
        return SourceHttpError(f"{self._transfer.shown} sent more bytes than up to {end} as said")


def _known(answer: Answer) -> tuple[int, int] | None:
    """Where the first range ends, and the total; None if no second one could safely follow."""
    end, total_bytes = answer.end, answer.total_bytes
    if answer.start != 0 or not end or total_bytes is None or end > total_bytes:
        return None
    return (end, total_bytes) if answer.version.named or end == total_bytes else None
