"""What a worker's settings mean for the reading of inputs: from where, how much, how long.

Imports no model library, so that frames can be looked at without one.
"""

from __future__ import annotations

from videoqa_worker.frames import FrameLimits
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import SourceConfig

__all__ = ["frame_limits", "source_config"]


def source_config(settings: WorkerSettings) -> SourceConfig:
    return SourceConfig(
        spool_dir=settings.spool_dir,
        spool_quota_bytes=settings.spool_quota_bytes,
        max_bytes=settings.max_source_bytes,
        download_below_bytes=settings.download_below_bytes,
        range_parallel=settings.range_parallel,
        read_timeout_s=settings.source_read_timeout_s,
        deadline_s=settings.source_deadline_s,
        file_roots=settings.file_roots,
        private_addresses=settings.private_addresses,
        s3_endpoint_url=settings.s3_endpoint_url,
    )


def frame_limits(settings: WorkerSettings) -> FrameLimits:
    return FrameLimits(
        formats=settings.formats,
        max_pixels=settings.max_pixels,
        max_duration_s=settings.max_duration_s,
        max_streams=settings.max_streams,
        max_packets=settings.max_packets,
        max_segments=settings.max_segments,
        max_frames_bytes=settings.max_frames_bytes,
        decode_timeout_s=settings.decode_timeout_s,
    )
