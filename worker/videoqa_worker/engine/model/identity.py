"""A name for the exact files of a local checkpoint, as a commit is for one on the hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["folder_digest"]

SUFFIXES = frozenset({".json", ".jinja", ".model", ".safetensors"})
WHOLE_BYTES = 64 * 2**20
SAMPLES = 64
SAMPLE_BYTES = 64 * 2**10


def folder_digest(folder: Path) -> str:
    """`sha256:...` over everything that decides an answer: configuration, tokenizer, weights.

    Files above 64 MiB count by size, first bytes (a safetensors header) and 64 samples: a
    digest of 14 GB would hold up the start, and a fine-tune changes all of a weight file.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            _add(digest, path)
    return f"sha256:{digest.hexdigest()}"


def _add(digest: hashlib._Hash, path: Path) -> None:
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        if size_bytes <= WHOLE_BYTES:
            digest.update(file.read())
            return
        for n in range(SAMPLES):
            file.seek(n * (size_bytes - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
