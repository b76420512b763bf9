"""Settings of a worker process: its jobs, its leases, where results go, and its parts' settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from videoqa.contract import check_output
from videoqa.errors import ConfigurationError
from videoqa.settings import Settings
from videoqa_worker.settings.engine import EngineConfig, ServerConfig
from videoqa_worker.settings.frames import FrameLimits
from videoqa_worker.settings.sources import Folders, SourceConfig

__all__ = ["WorkerSettings"]


class WorkerSettings(Settings):
    """One worker: its model, what it may read and write, and how it keeps its jobs."""

    engine: EngineConfig = EngineConfig()
    server: ServerConfig = ServerConfig()
    sources: SourceConfig = SourceConfig()
    frames: FrameLimits = FrameLimits()
    serve_default: bool = Field(
        default=True,
        description="also answer jobs that name no model; off in fleets of several models",
    )
    step_timeout_s: float | None = Field(
        default=None,
        gt=0,
        description="a worker whose engine hangs in one step for this long ends; unset: 300, on the CPU 3600",
    )
    slots: int | None = Field(
        default=None,
        ge=1,
        description="jobs that run at a time; unset: 2 x max_batch (99% of the ideal throughput; 1 x: 67%)",
    )
    tenant_running: int | None = Field(
        default=None,
        ge=1,
        description="most jobs of one tenant that run at once, in all workers of the fleet; unset: any number",
    )
    lease_s: float = Field(
        default=30.0,
        gt=0,
        description="a lost worker's jobs run elsewhere after this time; longer than a busy process stalls",
    )
    heartbeat_s: float = Field(
        default=1.0,
        gt=0,
        validate_default=True,
        description="leases are renewed and cancels noticed this often; at most a third of a lease",
    )
    progress_every_s: float = Field(
        default=0.1,
        ge=0,
        le=10,
        description="a report of progress waits so long for the attempt's next one, which takes its place",
    )
    reap_every_s: float = Field(
        default=2.0, gt=0, description="lost jobs are looked for this often"
    )
    bell_grace_s: float = Field(
        default=15.0,
        gt=0,
        description="a queue message that no worker got for this long may be sent again",
    )
    drain_grace_s: float = Field(
        default=25.0,
        ge=0,
        description="after SIGTERM running jobs may finish for this long; then they are given back",
    )
    retry_base_s: float = Field(
        default=2.0,
        ge=0,
        description="delay before the first retry; doubles each time, with full jitter",
    )
    retry_cap_s: float = Field(default=120.0, ge=0, description="longest delay before a retry")
    cache_ttl_s: float = Field(
        default=7 * 86_400.0,
        ge=0,
        description="an answer is reused for the same question about the same bytes for this long; 0: never",
    )
    cache_scope: Literal["tenant", "fleet"] = Field(
        default="tenant",
        description="tenant: an answer is reused for jobs of the same tenant (those without one are one); "
        "fleet: for all",
    )
    store_patience_s: float = Field(
        default=3600.0,
        ge=0,
        description="an answer is kept in Redis for this long while object storage is away; then `retry` stores it",
    )
    output: str = Field(
        default_factory=lambda: (
            (Path.home() / ".local/share/videoqa/results").as_uri() + "/{date}/{job_id}.json"
        ),
        description="URL template of the results of jobs without output: file:// or s3://",
    )
    output_roots: Folders = Field(
        default=(), description="further folders into which the results of jobs may be written"
    )
    sheets: bool = Field(
        default=False,
        description="keep a sheet with thumbnails of the frames of each job whose request does not say otherwise",
    )
    metrics_address: str | None = Field(
        default=None,
        pattern=r"^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$",
        description="HOST:PORT at which the worker serves its metrics to Prometheus, without a key; each worker of a "
        "machine needs a port of its own; unset: none",
    )
    decoders: int | None = Field(
        default=None,
        ge=1,
        description="decoding processes; unset: as many as cores, or slots if those are fewer",
    )
    decoder_memory_bytes: int = Field(
        default=4 << 30, gt=0, description="address space of one decoding process (Linux)"
    )
    decoder_inputs: int = Field(
        default=1000,
        ge=1,
        description="inputs after which a decoding process is replaced; 1: none sees two jobs' videos",
    )
    share_frames: bool = Field(
        default=True,
        description="jobs of one tenant (or of all, by cache_scope) that need the same frames of the same version of a "
        "file at the same time have them decoded once; off: each job decodes for itself",
    )
    # Eight frames of 1080p are 50 MB.
    frame_cache_bytes: int = Field(
        default=256 << 20,
        ge=0,
        description="decoded frames kept for jobs that come a little later; 0: none; only with share_frames",
    )
    frame_cache_s: float = Field(
        default=30.0, gt=0, le=3600, description="decoded frames are kept for this long"
    )
    decoder_uid: int = Field(
        default=65534,
        gt=0,
        lt=2**32 - 1,
        description="user and group that decoding processes become where the worker runs as root; "
        "65534: nobody",
    )

    @field_validator("heartbeat_s")
    @classmethod
    def _in_time(cls, heartbeat_s: float, info: ValidationInfo) -> float:
        lease_s = info.data.get("lease_s")
        if lease_s is not None and heartbeat_s > lease_s / 3:
            raise ValueError(
                f"expected a third of lease_s={lease_s:g} at most: a lease must outlive a beat that fails"
            )
        return heartbeat_s

    @field_validator("output")
    @classmethod
    def _usable(cls, template: str) -> str:
        if "job_id" not in check_output(template):
            raise ValueError("expected {job_id} in it: not every job has a custom_id of its own")
        return template

    @field_validator("sheet_output")
    @classmethod
    def _name_sheets(cls, template: str) -> str:
        check_output(template)
        return template

    @model_validator(mode="after")
    def _refuse_unused_adapter(self) -> Self:
        if self.engine.adapter is not None and self.server.url is not None:
            raise ConfigurationError(
                f"got VIDEOQA_ADAPTER={self.engine.adapter!r} with VIDEOQA_SERVER_URL, expected one of them: the "
                "server has the model; have it load the adapter, and leave VIDEOQA_ADAPTER out",
                param="adapter",
            )
        return self

    @property
    def model(self) -> str:
        """The model's name, as jobs ask for it and the worker announces it."""
        return self.engine.model

    @property
    def revision(self) -> str | None:
        """The commit of the checkpoint that was asked for."""
        return self.engine.revision

    @property
    def answer_settings(self) -> tuple[str | None, ...]:
        """The settings with which the same model answers the same question differently."""
        engine, server = self.engine, self.server
        return (
            engine.kind,
            engine.chat_template,
            engine.pixels,
            engine.quantization,
            server.model,
            server.images,
            server.videos,
            self.frames.hdr,
        )

    @property
    def job_slots(self) -> int:
        """Jobs in flight, as far as it is known before the model is loaded."""
        return self.count_job_slots(self.engine.max_batch)

    def count_job_slots(self, max_batch: int) -> int:
        """Returns the jobs in flight of an engine that generates so many sequences together."""
        return self.slots or 2 * max_batch
