"""Checksums that stores send with their bytes, and the check of ours against them.

Headers read: `Repr-Digest` and `Content-Digest` (RFC 9530), `Digest` (RFC 3230), `Content-MD5`
(RFC 1864), `x-goog-hash` (md5) and `x-amz-checksum-*`. The standard library
computes them, and AWS' awscrt computes crc32c and S3's own crc64nvme: Python alone would take minutes.
"""

from __future__ import annotations

import base64
import hashlib
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
    "check_digest",
    "compute_digest",
    "make_hasher",
    "read_object_digest",
    "read_part_digest",
    "read_whole_digest",
    "verify_file",
]

_BLOCK_BYTES = 1 << 20
_NAMES = {"sha256": "sha-256", "sha512": "sha-512", "sha1": "sha-1", "sha": "sha-1"}
_MAX_CHARACTERS = 128
"""Longest digest, with blanks around it: SHA-512 has 88 characters in base64."""
_STRONGEST_FIRST = ("sha-256", "sha-512", "sha-1", "md5", "crc64nvme", "crc32c", "crc32")


@dataclass(frozen=True)
class Digest:
    """The expected checksum of some bytes."""

    algorithm: str
    value: bytes


class Hasher(Protocol):
    """The interface of hashlib's hashers."""

    def update(self, content: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A running CRC with a hasher's interface; the result is big-endian, as S3 writes it."""

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


def make_hasher(algorithm: str) -> Hasher | None:
    """Returns a new hasher; None if no library here computes the algorithm."""
    made = _HASHERS.get(algorithm)
    return made() if made is not None else None


def read_whole_digest(fields: Mapping[str, str], *, partial: bool) -> Digest | None:
    """Reads the digest of the whole file from any response's headers.

    Arguments:
        partial: the status is 206; some headers name the whole file even then.
    """
    found = _parse_structured(fields.get("repr-digest", "")) + _parse_list(fields.get("digest", ""))
    found += _parse_list(fields.get("x-goog-hash", ""))
    return _pick_strongest(found if partial else found + _read_body_digests(fields))


def read_part_digest(fields: Mapping[str, str]) -> Digest | None:
    """Reads the digest of this response's body."""
    return _pick_strongest(_read_body_digests(fields))


def read_object_digest(fields: Mapping[str, str]) -> Digest | None:
    """Reads the digest of an S3 object; None for a checksum of parts' checksums (`...-3`)."""
    if fields.get("x-amz-checksum-type", "FULL_OBJECT").upper() != "FULL_OBJECT":
        return None
    prefix = "x-amz-checksum-"
    return _pick_strongest(
        [
            pair
            for name, value in fields.items()
            if name.startswith(prefix)
            for pair in _decode_digests([(name.removeprefix(prefix), value)])
        ]
    )


def verify_file(path: Path, digest: Digest, shown_url: str, on_block: Callable[[], None]) -> None:
    """Raises ChecksumMismatch unless the file has this digest; calls `on_block` every MiB."""
    hasher = make_hasher(digest.algorithm)
    if hasher is None:
        return
    _hash_file(path, hasher, on_block)
    check_digest(hasher, digest, shown_url)


def compute_digest(path: Path, on_block: Callable[[], None]) -> str:
    """Returns the SHA-256 of the file as a name for its bytes; calls `on_block` every MiB."""
    hasher = hashlib.sha256()
    _hash_file(path, hasher, on_block)
    return f"sha256:{hasher.hexdigest()}"


def _hash_file(path: Path, hasher: Hasher, on_block: Callable[[], None]) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
            on_block()


def check_digest(hasher: Hasher, digest: Digest, shown_url: str) -> None:
    """Raises ChecksumMismatch unless the hasher's result is this digest."""
    came = hasher.digest()
    if came != digest.value:
        raise ChecksumMismatch(
            f"{shown_url} has another {digest.algorithm} than its store states: got "
            f"{came.hex()}, expected {digest.value.hex()}; try again, or upload it again"
        )


def _read_body_digests(fields: Mapping[str, str]) -> list[Digest]:
    md5 = [("md5", fields["content-md5"])] if "content-md5" in fields else []
    return _parse_structured(fields.get("content-digest", "")) + _decode_digests(md5)


def _parse_structured(text: str) -> list[Digest]:
    """Parses `sha-256=:BASE64:, ...`; parameters behind a value are left out."""
    pairs = (item.partition("=") for item in text.split(","))
    return _decode_digests(
        (name, value[1:].partition(":")[0]) for name, _, value in pairs if value.startswith(":")
    )


def _parse_list(text: str) -> list[Digest]:
    """Parses `SHA-256=BASE64,MD5=BASE64`."""
    pairs = (item.partition("=") for item in text.split(","))
    return _decode_digests((name, value) for name, _, value in pairs)


def _decode_digests(pairs: Iterable[tuple[str, str]]) -> list[Digest]:
    """Decodes the values and drops those that are not base64 of the right length."""
    found: list[Digest] = []
    for name, text in pairs:
        algorithm = name.strip().lower()
        algorithm = _NAMES.get(algorithm, algorithm)
        hasher = make_hasher(algorithm)
        if hasher is None or len(text) > _MAX_CHARACTERS:
            continue
        try:
            value = base64.b64decode(text.strip(), validate=True)
        except ValueError:  # binascii.Error is one
            continue
        if len(value) == len(hasher.digest()):
            found.append(Digest(algorithm, value))
    return found


def _pick_strongest(digests: Iterable[Digest]) -> Digest | None:
    return min(digests, key=lambda one: _STRONGEST_FIRST.index(one.algorithm), default=None)
