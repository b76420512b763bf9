"""Finds out if the pictures of a video are encrypted, as its container declares it.

FFmpeg opens such a file, and its decoders then read noise. Looked for are Common Encryption and FairPlay
in MP4 (ISO/IEC 23001-7), content encryption in Matroska (RFC 9559, 5.1.4.1.31.8), scrambled packets of
transport streams (ISO/IEC 13818-1, 2.4.3.3), and the encryption objects of Windows Media.
"""

from __future__ import annotations

import os
from contextlib import closing

from videoqa.errors import VideoEncrypted
from videoqa_worker.frames.container.boxes import has_protected_pictures
from videoqa_worker.frames.container.elements import has_encrypted_pictures
from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.container.sniff import (
    MATROSKA,
    MP4,
    MPEG_TS,
    WINDOWS_MEDIA,
    identify,
)
from videoqa_worker.frames.sparse_file import SparseFile

__all__ = ["refuse_encrypted"]

_ASF_ENCRYPTION = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
"""GUIDs of the content encryption object, and of the extended one."""
_HEAD_BYTES = 128 << 10
_LEAST_SCRAMBLED = 20
"""Number of scrambled packets among those at the beginning of a transport stream."""


def refuse_encrypted(file: SparseFile, pid: int | None = None) -> None:
    """Raises VideoEncrypted if the pictures are encrypted.

    Arguments:
        pid: number of the pictures' packets in a transport stream; None: of all packets.
    """
    if not _is_encrypted(file, pid):
        return
    raise VideoEncrypted(
        "got a video whose pictures are encrypted (DRM), expected one without protection; send a "
        "decrypted copy"
    )


def _is_encrypted(file: SparseFile, pid: int | None) -> bool:
    file_type = identify(file)
    if file_type == MP4:
        return has_protected_pictures(file)
    if file_type == MATROSKA:
        return has_encrypted_pictures(file)
    if file_type == MPEG_TS:
        return _is_scrambled(_read_head(file), pid)
    if file_type == WINDOWS_MEDIA:
        head = _read_head(file)
        return any(guid in head for guid in _ASF_ENCRYPTION)
    return False


def _read_head(file: SparseFile) -> bytes:
    with closing(FileCursor(file)) as cursor:
        cursor.read(1)  # fetches the beginning, if it is not here yet
    descriptor = file.open_file()
    try:
        return os.pread(descriptor, _HEAD_BYTES, 0)
    finally:
        os.close(descriptor)


def _is_scrambled(head: bytes, pid: int | None) -> bool:
    """Returns True if most packets of the pictures at the beginning are scrambled."""
    apart = 188 if head[:1] == b"\x47" else 192
    packets = [head[at : at + 4] for at in range(apart - 188, len(head) - 3, apart)]
    own = [
        p
        for p in packets
        if p[0] == 0x47 and pid in (None, int.from_bytes(p[1:3], "big") & 0x1FFF)
    ]  # fmt: skip
    scrambled = sum(p[3] & 0xC0 != 0 for p in own)
    return scrambled >= _LEAST_SCRAMBLED and 2 * scrambled > len(own)
