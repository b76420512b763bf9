"""Settings of a worker process: its jobs, its leases, where results go, and its parts' settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from videoqa.contract import OUTPUT_FIELDS
from videoqa.settings import Settings
from videoqa_worker.settings.engine import EngineConfig, ServerConfig
from videoqa_worker.settings.frames import FrameLimits
from videoqa_worker.settings.sources import Folders, SourceConfig

__all__ = ["WorkerSettings"]


def _upper(level: Any) -> Any:
    return level.upper() if isinstance(level, str) else level


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
        description="an engine that hangs in a step for so long ends the worker; unset: 300, on the CPU 3600",
    )
    slots: int | None = Field(
        default=None,
        ge=1,
        description="jobs in flight; unset: 2 x max_batch (99% of ideal, 1 x: 67%)",
    )
    lease_s: float = Field(
        default=30.0,
        gt=0,
        description="a lost worker's jobs run elsewhere after this; long enough for a stalled process",
    )
    heartbeat_s: float = Field(
        default=1.0,
        gt=0,
        validate_default=True,
        description="renews leases and hears of cancels this often; at most a third of a lease",
    )
    reap_every_s: float = Field(default=2.0, gt=0, description="looks for lost jobs this often")
    bell_grace_s: float = Field(
        default=15.0, gt=0, description="a message that was not heard for so long may be sent again"
    )
    drain_grace_s: float = Field(
        default=60.0,
        ge=0,
        description="after SIGTERM running jobs may finish; then they are given back",
    )
    retry_base_s: float = Field(
        default=2.0, ge=0, description="first delay of a retry; doubles each time, with full jitter"
    )
    retry_cap_s: float = Field(default=120.0, ge=0, description="longest delay of a retry")
    cache_ttl_s: float = Field(
        default=7 * 86_400.0,
        ge=0,
        description="the same question about the same bytes is answered from the store for so long; 0: never",
    )
    store_patience_s: float = Field(
        default=3600.0,
        ge=0,
        description="answers wait so long in Redis for a store that is away; then `retry` stores them",
    )
    output: str = Field(
        default_factory=lambda: (
            (Path.home() / ".local/share/videoqa/results").as_uri() + "/{date}/{job_id}.json"
        ),
        description="where results lie for jobs that name no output: file:// or s3:// template",
    )
    output_roots: Folders = Field(
        default=(), description="more folders that jobs may have results written into"
    )
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)
    ] = Field(default="INFO", description="of the worker's log")
    decoders: int | None = Field(
        default=None, ge=1, description="decoding processes; unset: as many as cores"
    )
    decoder_memory_bytes: int = Field(
        default=4 << 30, gt=0, description="address space of one decoding process (Linux)"
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
        if not template.startswith(("s3://", "file:///")):
            raise ValueError("expected s3://bucket/... or file:///folder/...")
        try:
            template.format(**dict.fromkeys(OUTPUT_FIELDS, "x"))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"expected only the fields {OUTPUT_FIELDS} in braces") from error
        if "{job_id}" not in template:
            raise ValueError("expected {job_id} in it, or results overwrite each other")
        return template

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
            engine.chat_template,
            engine.pixels,
            engine.quantization,
            server.model,
            server.images,
        )

    @property
    def job_slots(self) -> int:
        """Jobs in flight."""
        return self.slots or 2 * self.engine.max_batch
