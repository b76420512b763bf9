"""Checksums that stores give of their bytes, and whether ours are the same.

Read: `Repr-Digest` and `Content-Digest` (RFC 9530), `Digest` (RFC 3230), `Content-MD5`
(RFC 1864), `x-goog-hash` (md5) and `x-amz-checksum-*`. Computed by the standard library and,
for crc32c and S3's own crc64nvme, by AWS' awscrt: Python alone would take minutes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from awscrt import checksums

from videoqa.errors import ChecksumMismatch

__all__ = [
    "Digest",
    "Hasher",
    "check",
    "digest_of",
    "hasher_for",
    "of_object",
    "of_part",
    "of_whole",
    "verify",
]

_BLOCK_BYTES = 1 << 20
_NAMES = {"sha256": "sha-256", "sha512": "sha-512", "sha1": "sha-1", "sha": "sha-1"}
_STRONGEST_FIRST = ("sha-256", "sha-512", "sha-1", "md5", "crc64nvme", "crc32c", "crc32")


@dataclass(frozen=True)
class Digest:
    """What some bytes should come to."""

    algorithm: str
    value: bytes


class Hasher(Protocol):
    """As in hashlib."""

    def update(self, content: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A running CRC as a hasher; the result is big-endian, as S3 writes it."""

    def __init__(self, step: Callable[[bytes, int], int], size_bytes: int) -> None:
        self._step = step
        self._size_bytes = size_bytes
        self._value = 0

    def update(self, content: bytes, /) -> None:
        self._value = self._step(content, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size_bytes, "big")


_HASHERS: dict[str, Callable[[], Hasher]] = {
    "sha-256": hashlib.sha256,
    "sha-512": hashlib.sha512,
    "sha-1": lambda: hashlib.sha1(usedforsecurity=False),
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "crc32": lambda: _Crc(zlib.crc32, 4),
    "crc32c": lambda: _Crc(checksums.crc32c, 4),
    "crc64nvme": lambda: _Crc(checksums.crc64nvme, 8),
}


def hasher_for(algorithm: str) -> Hasher | None:
    """None: nothing here computes it."""
    made = _HASHERS.get(algorithm)
    return made() if made is not None else None


def of_whole(fields: Mapping[str, str], *, partial: bool) -> Digest | None:
    """Of the whole file, from any response's headers.

    `partial`: it answers 206; these headers name the whole file even then.
    """
    found = _structured(fields.get("repr-digest", "")) + _listed(fields.get("digest", ""))
    found += _listed(fields.get("x-goog-hash", ""))
    return _best(found if partial else found + _of_body(fields))


def of_part(fields: Mapping[str, str]) -> Digest | None:
    """Of this very response's body."""
    return _best(_of_body(fields))


def of_object(fields: Mapping[str, str]) -> Digest | None:
    """Of an S3 object. A checksum of its parts' checksums (`...-3`) says nothing about bytes."""
    if fields.get("x-amz-checksum-type", "FULL_OBJECT").upper() != "FULL_OBJECT":
        return None
    prefix = "x-amz-checksum-"
    return _best(
        [
            pair
            for name, value in fields.items()
            if name.startswith(prefix)
            for pair in _pairs([(name.removeprefix(prefix), value)])
        ]
    )


def verify(path: Path, digest: Digest, shown: str, heard: Callable[[], None]) -> None:
    """Raises ChecksumMismatch unless the file comes to this. `heard` is called every MiB."""
    hasher = hasher_for(digest.algorithm)
    if hasher is None:
        return
    _read(path, hasher, heard)
    check(hasher, digest, shown)


def digest_of(path: Path, heard: Callable[[], None]) -> str:
    """A name for the bytes of this file. `heard` is called every MiB."""
    hasher = hashlib.sha256()
    _read(path, hasher, heard)
    return f"sha256:{hasher.hexdigest()}"


def _read(path: Path, hasher: Hasher, heard: Callable[[], None]) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
            heard()


def check(hasher: Hasher, digest: Digest, shown: str) -> None:
    """Raises ChecksumMismatch unless the hasher's bytes come to this."""
    came = hasher.digest()
    if came != digest.value:
        raise ChecksumMismatch(
            f"{shown} came with another {digest.algorithm} than its store names: got "
            f"{came.hex()}, expected {digest.value.hex()}; try again, or store it anew"
        )


def _of_body(fields: Mapping[str, str]) -> list[Digest]:
    md5 = [("md5", fields["content-md5"])] if "content-md5" in fields else []
    return _structured(fields.get("content-digest", "")) + _pairs(md5)


def _structured(text: str) -> list[Digest]:
    """Parses the structured form, `sha-256=:BASE64:, ...`."""
    return _pairs(re.findall(r"([\w*-]+)=:([\w+/=]*):", text))


def _listed(text: str) -> list[Digest]:
    """Parses the older form, `SHA-256=BASE64,MD5=BASE64`."""
    return _pairs(re.findall(r"([\w-]+)=([\w+/]+=*)(?:,|\s|$)", text))


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[Digest]:
    """What is no base64 of the right length is no checksum."""
    found: list[Digest] = []
    for name, text in pairs:
        algorithm = _NAMES.get(name.lower(), name.lower())
        hasher = hasher_for(algorithm)
        try:
            value = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            continue
        if hasher is not None and len(value) == len(hasher.digest()):
            found.append(Digest(algorithm, value))
    return found


def _best(digests: Iterable[Digest]) -> Digest | None:
    return min(digests, key=lambda one: _STRONGEST_FIRST.index(one.algorithm), default=None)
