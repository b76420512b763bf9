"""What can be configured on a worker: each setting with default, unit and reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from videoqa.contract import OUTPUT_FIELDS, PRIORITIES
from videoqa.jobs import queue_name
from videoqa.settings import HttpUrl, Settings

__all__ = ["DEMO_MODEL", "DEMO_MODEL_PATH", "WorkerSettings"]

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,ogg,flv,gif,asf"
)
"""Demuxers that tests cover. None of them opens a second file or URL."""
DEMO_MODEL = "demo"
"""The name under which the bundled model is loaded and announced."""
DEMO_MODEL_PATH = Path(__file__).parent / "demo" / "model"


def _split_paths(value: Any) -> Any:
    """`/data:/mnt` as two folders."""
    if isinstance(value, str):
        return tuple(part for part in value.split(os.pathsep) if part)
    return value


Folders = Annotated[tuple[Path, ...], BeforeValidator(_split_paths)]


class WorkerSettings(Settings):
    """One worker: its model, what it may read and write, and how it keeps its jobs."""

    model: str = Field(
        default="llava-hf/llava-interleave-qwen-0.5b-hf",
        description="hub id or folder of a LLaVA-family checkpoint, or `demo` for the bundled one",
    )
    server_url: HttpUrl | None = Field(
        default=None,
        description="a server with OpenAI's chat completions that has the model, such as "
        "http://127.0.0.1:8000/v1 (vLLM, SGLang); unset: the worker loads the model itself",
    )
    server_model: str | None = Field(
        default=None, description="the server's name for the model; unset: `model`"
    )
    server_api_key: SecretStr | None = Field(default=None, description="for the server")
    server_images: Literal["png", "jpeg"] = Field(
        default="png",
        description="how frames go to the server; jpeg: a tenth of the bytes, inexact",
    )
    revision: str | None = Field(
        default=None,
        description="commit of the hub's checkpoint; pin it, or answers may change unannounced",
    )
    serve_default: bool = Field(
        default=True,
        description="also answer jobs that name no model; off in fleets of several models",
    )
    device: str = Field(
        default="auto", description="cuda, cuda:1, mps or cpu; auto: the best present"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="auto: bfloat16 on a GPU that has it, float16 on older, float32 on CPU",
    )
    device_map: str | None = Field(
        default=None,
        description="`auto` spreads a model over several GPUs (accelerate), which then runs in padded batches",
    )
    quantization: Literal["4bit", "8bit"] | None = Field(
        default=None,
        description="the text model's weights in 4 or 8 bits (`pip install 'videoqa-worker[quantized]'`)",
    )
    attn_implementation: str | None = Field(
        default=None,
        description="sdpa, eager or flash_attention_2; unset: sdpa, and on CUDA for single tokens the "
        "fastest kernel that is right there; rows join and leave at every step with unset and sdpa alone",
    )
    chat_template: Literal["checkpoint", "guide"] = Field(
        default="checkpoint",
        description="guide: the newlines of the Hugging Face guide instead of the checkpoint's own",
    )
    pixels: Literal["fast", "reference"] = Field(
        default="fast",
        description="fast: resized as bytes, within 1/255 of the checkpoint's own processor; "
        "reference: by that processor itself",
    )
    cpu_threads: int | None = Field(
        default=None,
        ge=1,
        description="threads of a torch operation on CPU; unset: torch's own choice, 1 beside a GPU",
    )
    max_batch: int = Field(default=8, ge=1, le=256, description="questions generated together")
    max_batch_tokens: int = Field(
        default=65_536,
        ge=1,
        description="memory for keys and values: rows x (longest prompt + answer); 6 GiB for the 0.5B",
    )
    prefill_chunk_tokens: int = Field(
        default=8192, ge=1, description="a prompt comes in by such pieces while other rows run"
    )
    feature_cache_bytes: int | None = Field(
        default=None,
        ge=0,
        description="features of pictures kept for the next question; unset: 5% of a GPU, 256 MiB on CPU",
    )
    prefix_cache_bytes: int | None = Field(
        default=None, ge=0, description="the same for prompts up to their last picture"
    )
    cuda_graphs: bool = Field(default=True, description="launch passes as CUDA graphs on a GPU")
    batch_invariant: bool = Field(
        default=False,
        description="no answer depends on its company, in any dtype; each step costs that of max_batch rows",
    )
    batching: Literal["slots", "generate"] = Field(
        default="slots",
        description="slots: rows join and leave at every step; generate: padded batches",
    )
    batch_wait_s: float = Field(
        default=0.005, ge=0, description="how long padded batches gather questions"
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
    file_roots: Folders = Field(
        default=(), description="folders that file:// inputs may be read from; none: no file inputs"
    )
    private_addresses: bool = Field(
        default=False,
        description="fetch from loopback and private networks too; off: jobs can't reach your own services",
    )
    spool_dir: Path | None = Field(
        default=None,
        description="where downloads wait for decoding; unset: a private temporary folder",
    )
    spool_quota_bytes: int = Field(
        default=64 << 30,
        gt=0,
        description="of all workers that share the folder: 16 slots, each with the largest input",
    )
    source_read_timeout_s: float = Field(
        default=20.0,
        gt=0,
        description="a source that sends nothing for so long is given up for now",
    )
    source_deadline_s: float = Field(
        default=600.0, gt=0, description="longest fetch of one input, however steadily it drips"
    )
    max_source_bytes: int = Field(
        default=4 << 30,
        gt=0,
        description="most bytes fetched of one input; a larger one can be read in parts",
    )
    download_below_bytes: int = Field(
        default=8 << 20,
        ge=0,
        description="smaller inputs are fetched whole, larger ones by the ranges that are needed",
    )
    range_parallel: int = Field(
        default=8, ge=1, le=64, description="ranges of one input fetched at once"
    )
    max_pixels: int = Field(
        default=8192 * 4320,
        gt=0,
        description="largest picture, width x height (8K): a bomb takes 100 bytes a pixel",
    )
    max_duration_s: float = Field(default=24 * 3600.0, gt=0, description="longest video: a day")
    max_streams: int = Field(
        default=64, gt=0, description="most streams of a file; films with many languages have forty"
    )
    max_packets: int = Field(
        default=10_000_000, gt=0, description="most packets read of a file: a day at 60 a second"
    )
    max_segments: int = Field(
        default=2000,
        gt=0,
        description="most segments of a video; each takes about 2 KB of Redis until its job is done",
    )
    max_frames_bytes: int = Field(
        default=2 << 30,
        gt=0,
        description="most memory for the frames of one input, or of segments that overlap, as RGB",
    )
    formats: str = Field(
        default=FORMATS, description="FFmpeg demuxers that may open an input, comma-separated"
    )
    decode_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="longest decoding of one input, or segment, without its download",
    )
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
    def queues(self) -> tuple[str, ...]:
        """The broker queues of this worker, interactive ones first."""
        models = (self.model, None) if self.serve_default else (self.model,)
        return tuple(
            queue_name(self.prefix, model, priority) for priority in PRIORITIES for model in models
        )

    @property
    def form(self) -> tuple[str | None, ...]:
        """By what the same model says something else to the same question."""
        server = (self.server_model, self.server_images)
        return (self.chat_template, self.pixels, self.quantization, *server)

    @property
    def model_source(self) -> str:
        """What the loader opens."""
        return str(DEMO_MODEL_PATH) if self.model == DEMO_MODEL else self.model

    @property
    def job_slots(self) -> int:
        return self.slots or 2 * self.max_batch
