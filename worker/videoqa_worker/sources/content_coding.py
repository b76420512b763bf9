"""Content codings: plain bytes of a body whose header says how it was compressed.

Stores keep `Content-Encoding` as whoever uploaded the object wrote it, so that many values name no
compression, and some are wrong. Where a value is unknown, or does not fit, the first bytes decide.

Every step makes at most 128 KiB, whatever a few compressed bytes stand for, and each of several
codings in a row is counted on its own: no layer makes more than an input may have.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Protocol

import brotli

from videoqa.errors import SourceError, SourceHttpError
from videoqa_worker.frames import identify_head

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["BodyCut", "find_codings", "inflate", "make_cut_error"]

_PLAIN = frozenset(
    ("", "identity", "none", "null", "undefined", "plain", "raw", "aws-chunked", "chunked", "binary", "7bit",
     "8bit", "ascii", "us-ascii", "utf8", "utf-8", "utf-16", "iso-8859-1", "latin1", "windows-1252")
)  # fmt: skip
"""Values that are no compression: those of AWS' own clients, of e-mail, and character sets."""
_MAX_CODINGS = 4
"""Codings in a row; a body has one, and two if a server compresses what was stored compressed."""
_PIECE_BYTES = 128 << 10
_HEAD_BYTES = 1024
"""Bytes by which a body is told; a transport stream needs three packets."""
_NAME = re.compile(r"[a-z0-9_.+-]{1,20}")
_MAX_TEXT = 500
_ZSTD_WINDOW_BITS = 23
"""A window of 8 MiB, the most that the coding `zstd` may have (RFC 9659)."""


class BodyCut(Exception):
    """The body ended before its compressed data did."""


class _Inflater(Protocol):
    """Decompression of one coding."""

    def inflate(self, content: bytes) -> Iterator[bytes]:
        """Yields what the next bytes stand for, in pieces; raises one of `_BROKEN`."""
        ...

    @property
    def is_complete(self) -> bool: ...


_BROKEN = (zlib.error, brotli.error, zstd.ZstdError)


def find_codings(field: str) -> tuple[str, ...]:
    """Returns the codings of a header field, in the order in which they were applied, without those that are none."""
    if len(field) > _MAX_TEXT:
        return (field[:_MAX_TEXT],)
    names = (name.partition(";")[0].strip(" \t\"'").lower() for name in field.split(","))
    return tuple(name for name in names if name not in _PLAIN)


def inflate(
    chunks: Iterable[bytes],
    codings: tuple[str, ...],
    shown_url: str,
    count: Callable[[int], None],
) -> Iterator[bytes]:
    """Yields the plain bytes of a body.

    Arguments:
        count: called with the bytes of the compressed body so far, and with those that a coding has made so
            far, before they are used; it raises where they are too many.

    Raises:
        SourceHttpError: a coding is unknown, or the body is not what its coding says.
        BodyCut: the body ended too early. What `chunks` and `count` raise.
    """
    if len(codings) > _MAX_CODINGS:
        raise SourceHttpError(
            f"{shown_url} came with {len(codings)} content codings in a row, expected at most "
            f"{_MAX_CODINGS}; store it uncompressed"
        )
    named = _show_codings(codings)
    chunks = _count_bytes(chunks, count)
    for coding in reversed(codings):
        chunks = _undo_coding(chunks, coding, named, shown_url, count)
    yield from chunks


def _count_bytes(chunks: Iterable[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    """Yields the chunks and counts them: empty members and frames make no bytes, and may come without end."""
    came_bytes = 0
    for chunk in chunks:
        came_bytes += len(chunk)
        count(came_bytes)
        yield chunk


def make_cut_error(shown_url: str) -> SourceHttpError:
    """Makes the error for a compressed body that came whole and ends too early."""
    return SourceHttpError(
        f"{shown_url} came compressed, and its compressed data ends in the middle; upload it again"
    )


def _show_codings(codings: tuple[str, ...]) -> str:
    """Names the codings in a message, unless they may be the request's own text, sent back with its password."""
    if not all(_NAME.fullmatch(coding) for coding in codings):
        return "an unknown content coding"
    return f"the content coding {', '.join(codings)!r}"


def _undo_coding(
    chunks: Iterable[bytes],
    coding: str,
    named: str,
    shown_url: str,
    count: Callable[[int], None],
) -> Iterator[bytes]:
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= _HEAD_BYTES:
            break
    if not head:
        return
    if not _fits(coding, head) and identify_head(head).kind in ("video", "image", "audio"):
        yield head
        yield from source
        return
    if coding not in _INFLATERS:
        raise SourceHttpError(
            f"{shown_url} came with {named}, expected plain bytes or gzip, deflate, br or zstd; store it "
            "uncompressed, or correct its Content-Encoding"
        )
    inflater = _INFLATERS[coding]()
    made_bytes = 0
    try:
        for chunk in chain((head,), source):
            for piece in inflater.inflate(chunk):
                made_bytes += len(piece)
                count(made_bytes)
                yield piece
    except _BROKEN as error:
        raise _make_broken_error(named, shown_url, made_bytes) from error
    if not inflater.is_complete:
        raise BodyCut


def _make_broken_error(named: str, shown_url: str, made_bytes: int) -> SourceError:
    return SourceHttpError(
        f"{shown_url} came with {named}, and its bytes are not of that form (after {made_bytes} bytes that "
        "were); upload it again, or correct its Content-Encoding"
    )


def _fits(coding: str, head: bytes) -> bool:
    """Returns True if the beginning of a body can be decompressed."""
    if coding not in _INFLATERS:
        return False
    try:
        next(_INFLATERS[coding]().inflate(head), None)
    except _BROKEN:
        return False
    return True


class _Gzip:
    """The gzip format, with any number of members; as in gzip(1), what follows the last one is left out."""

    _MAGIC = b"\x1f\x8b"

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._between = b""
        """Bytes behind a member that do not yet tell if another one follows."""
        self._members = 0
        self._is_over = False

    @property
    def is_complete(self) -> bool:
        return self._members > 0 and self._member is None

    def inflate(self, content: bytes) -> Iterator[bytes]:
        while not self._is_over:
            if self._member is None:
                content = self._between + content
                self._between = b""
                if len(content) < len(self._MAGIC):
                    self._between = content
                    return
                if self._members and not content.startswith(self._MAGIC):
                    self._is_over = True
                    return
                self._member = zlib.decompressobj(wbits=31)
            yield from _inflate_zlib(self._member, content)
            if not self._member.eof:
                return
            content, self._member = self._member.unused_data, None
            self._members += 1


class _Deflate:
    """The zlib format, or raw deflate, which some servers send by the same name."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None
        self._head = b""

    @property
    def is_complete(self) -> bool:
        return self._stream is not None and self._stream.eof

    def inflate(self, content: bytes) -> Iterator[bytes]:
        if self._stream is None:
            content = self._head = self._head + content
            if len(content) < 2:
                return
            has_header = content[0] & 15 == 8 and int.from_bytes(content[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(wbits=15 if has_header else -15)
        if not self._stream.eof:
            yield from _inflate_zlib(self._stream, content)


def _inflate_zlib(stream: zlib._Decompress, content: bytes) -> Iterator[bytes]:
    while True:
        piece = stream.decompress(content, _PIECE_BYTES)
        if piece:
            yield piece
        content = stream.unconsumed_tail
        if stream.eof or (not content and len(piece) < _PIECE_BYTES):
            return


class _Brotli:
    """Brotli, whose window has at most 16 MiB."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    @property
    def is_complete(self) -> bool:
        return bool(self._stream.is_finished())

    def inflate(self, content: bytes) -> Iterator[bytes]:
        while not self._stream.is_finished():
            piece = self._stream.process(content, output_buffer_limit=_PIECE_BYTES)
            if piece:
                yield piece
            elif self._stream.can_accept_more_data():  # true as well while more is to come
                return
            content = b""


class _Zstd:
    """Zstandard, with any number of frames."""

    def __init__(self) -> None:
        self._frame: zstd.ZstdDecompressor | None = None
        self._frames = 0

    @property
    def is_complete(self) -> bool:
        return self._frames > 0 and self._frame is None

    def inflate(self, content: bytes) -> Iterator[bytes]:
        while True:
            if self._frame is None:
                if not content:
                    return
                self._frame = zstd.ZstdDecompressor(
                    options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_BITS}
                )
            piece = self._frame.decompress(content, _PIECE_BYTES)
            if piece:
                yield piece
            if self._frame.eof:
                content, self._frame = self._frame.unused_data, None
                self._frames += 1
            elif self._frame.needs_input:
                return
            else:
                content = b""


_INFLATERS: dict[str, Callable[[], _Inflater]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
