"""Settings of sources: where inputs may be read from, how long and how much, and in which ranges."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from videoqa.settings import MAX_SOURCE_BYTES, Config

__all__ = ["Folders", "SourceConfig"]


def _split_paths(value: Any) -> Any:
    """Splits `/data:/mnt` into two folders."""
    if isinstance(value, str):
        return tuple(part for part in value.split(os.pathsep) if part)
    return value


Folders = Annotated[tuple[Path, ...], BeforeValidator(_split_paths)]


class SourceConfig(Config):
    """Settings of sources; closed by default: no local files, no private networks."""

    file_roots: Folders = Field(
        default=(),
        description="folders, with : between them, from which file:// inputs may be read; none: no file:// inputs",
    )
    # Whoever may submit a job could read the worker's network through it.
    private_addresses: bool = Field(
        default=False,
        description="also fetch from loopback and private networks; off: jobs cannot reach your own services",
    )
    spool_dir: Path | None = Field(
        default=None,
        description="folder of downloads until they are decoded; unset: a private temporary folder",
    )
    spool_quota_bytes: int = Field(
        default=64 << 30,
        gt=0,
        description="most bytes of downloads, over all workers that share the folder; 16 inputs of the largest size",
    )
    connect_timeout_s: float = Field(
        default=5.0,
        gt=0,
        alias="source_connect_timeout_s",
        description="longest wait for one TCP connection to a source, name lookup included",
    )
    # Object stores take seconds to the first byte of cold data.
    read_timeout_s: float = Field(
        default=20.0,
        gt=0,
        alias="source_read_timeout_s",
        description="a source that sends nothing for this long fails with source_timeout, and is tried again",
    )
    # A drip would hold a slot for the whole deadline. The time is that of the silence above.
    least_bytes_per_s: int = Field(
        default=16 << 10,
        ge=0,
        alias="source_least_bytes_per_s",
        description=(
            "a source that sends less than this over `VIDEOQA_SOURCE_READ_TIMEOUT_S` while more is due fails with "
            "source_timeout, and is tried again; 0: no least rate"
        ),
    )
    deadline_s: float = Field(
        default=600.0,
        gt=0,
        alias="source_deadline_s",
        description="longest fetch of one input in all, however steadily it sends",
    )
    # The worker's account would pay for whatever a job names.
    requester_pays: bool = Field(
        default=False,
        alias="source_requester_pays",
        description="read objects of S3 buckets whose requester pays, at the cost of the worker's account",
    )
    max_bytes: int = Field(
        default=MAX_SOURCE_BYTES,
        gt=0,
        alias="max_source_bytes",
        description="most bytes fetched of one input; of a larger file only the needed ranges count",
    )
    # Ten seconds at 50 MB/s. Servers behind one address often send different ETags for one file.
    whole_read_bytes: int = Field(
        default=512 << 20,
        ge=0,
        alias="source_whole_read_bytes",
        description=(
            "an input whose ETag or date changes between two requests is read whole up to this size; a larger one "
            "fails with input_changed, and is tried again"
        ),
    )
    # A second round trip costs as much as these bytes.
    download_below_bytes: int = Field(
        default=8 << 20,
        ge=0,
        description="smaller inputs are fetched whole, larger ones by the ranges that are needed",
    )
    whole_above: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="an input of which more than this share is missing is fetched whole",
    )
    range_parallel: int = Field(
        default=8, ge=1, le=64, description="ranges of one input fetched at once"
    )
    range_bytes: int = Field(
        default=8 << 20, gt=0, description="longest range of one request; longer ones are split"
    )
    # A request costs more than these bytes.
    range_gap_bytes: int = Field(
        default=64 << 10, ge=0, description="ranges closer than this are one request"
    )
    # Each attempt goes on behind the bytes that came before the connection broke.
    range_attempts: int = Field(default=3, ge=1, description="attempts at one range")
    # A whole new attempt of the job costs more.
    http_retries: int = Field(
        default=2, ge=0, description="further attempts at a download that ended early"
    )
